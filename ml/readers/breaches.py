"""Breaches of a layout's contract, as findings, and those that a file's columns show.

Belongs here: the form of a finding, and the checks of files, columns and types that collect all of them where a reader
stops at the first. Does not belong here: findings about rows (`ml.log_check`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ml.errors import DataError
from ml.readers.files import Kind, escaped, listed, parquet_schema, printable
from ml.readers.strays import Stray
from ml.readers.text import column_names

Severity = Literal["error", "warning"]
MORE = "; `newsrec validate` names every breach"
"""What the remedy of a refusal may end with; not in what `newsrec validate` itself reports."""
NAIVE = "time_without_zone"
"""Kind of the finding that a log's times do not say which moment they are."""


@dataclass(frozen=True, slots=True)
class Breach:
    """One finding: `count` rows (or files, columns) of one `kind`; `examples` are a few, `row` from 1 where known (of
    text files the line), with its `value`. `file` is relative to the root, `table` the table that its rows belong to;
    empty where the finding is about the whole log."""

    severity: Severity
    kind: str
    file: str
    column: str
    count: int
    remedy: str
    examples: Sequence[Mapping[str, Any]] = field(default=())
    table: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return plain | {"examples": [dict(e) for e in self.examples]}


def parquet_breaches(
    path: Path, root: Path, required: Mapping[str, Kind], optional: Mapping[str, Kind], remedy: str
) -> tuple[list[Breach], pa.Schema | None]:
    """Everything that is wrong with a parquet file's columns, and its schema (None when it cannot be read): missing,
    doubled, of another type (errors); unknown to both mappings (a warning, where `optional` names the rest)."""
    name = relative(path, root)
    try:
        found = parquet_schema(path, {}, remedy)
    except DataError as error:
        return [unreadable_file(error, root, path)], None
    breaches = []
    for column, fits in {**required, **optional}.items():
        times = found.names.count(column)
        if times == 0 and column in required:
            has = {"value": f"it has {listed(found.names)}"}
            breaches.append(Breach("error", "missing_column", name, column, 1, remedy, [has]))
        elif times > 1:
            breaches.append(Breach("error", "doubled_column", name, column, times, "keep one of them"))
        elif times == 1 and not fits(found.field(column).type):
            is_now = {"value": f"it has {fits.unlike(found.field(column).type)}"}
            breaches.append(Breach("error", "wrong_type", name, column, 1, remedy, [is_now]))
    return breaches, found


def csv_breaches(path: Path, root: Path, required: Sequence[str], remedy: str) -> list[Breach]:
    """The required columns that the first line of a CSV file, plain or gzipped, does not name, or names twice; one
    finding where it names none."""
    name = relative(path, root)
    try:
        header = column_names(path)
    except DataError as error:
        return [unreadable_file(error, root, path)]
    if not set(header) & set(required):
        return [Breach("error", "missing_header", name, "", 1, remedy, [{"value": _other_header(header, required)}])]
    has = {"value": f"it has {listed(header)}"}
    missing = [Breach("error", "missing_column", name, c, 1, remedy, [has]) for c in required if c not in header]
    twice = {c: header.count(c) for c in required if header.count(c) > 1}
    return missing + [Breach("error", "doubled_column", name, c, n, "keep one of them") for c, n in twice.items()]


def _other_header(found: Sequence[str], required: Sequence[str]) -> str:
    said = f"is {listed(found)}" if any(found) else "is blank"
    return f"its first line {said}; it should name {listed(required)}"


def unknown_columns(path: Path, root: Path, found: pa.Schema, known: Sequence[str]) -> list[Breach]:
    """Columns that the contract does not know, as one warning."""
    names = sorted(set(found.names) - set(known))
    if not names:
        return []
    remedy = "they are not used; check their spelling against the contract"
    examples = [{"value": listed([n])} for n in names[:5]]
    return [Breach("warning", "unknown_column", relative(path, root), listed(names), len(names), remedy, examples)]


def first_error(check: Callable[[], object], root: Path, path: Path | None = None) -> list[Breach]:
    """The DataError of `check`, if it raises one, as a finding about the file `path` or, without one, the log."""
    try:
        check()
    except DataError as error:
        return [refusal(error, root, path)]
    return []


def refusal(error: DataError, root: Path, path: Path | None = None, remedy: str = "") -> Breach:
    """What a reader stops at; without a `remedy` the error's own last words are it."""
    line = _told(error, root)
    file = "" if path is None else relative(path, root)
    return Breach("error", "refused", file, "", 1, remedy or line.rsplit(": ", 1)[-1], [{"value": line}])


def unreadable_file(error: DataError, root: Path, path: Path) -> Breach:
    """A file whose bytes cannot be read, for the reason `error`."""
    line = _told(error, root)
    return Breach("error", "unreadable_file", relative(path, root), "", 1, line.rsplit(": ", 1)[-1], [{"value": line}])


def misnamed(stray: Stray) -> Breach:
    """An entry that bears almost a name of the layout: an error where nothing bears that name."""
    severity: Severity = "error" if stray.vacant else "warning"
    return Breach(severity, "misnamed", stray.name, "", 1, f"it is not read: {stray.remedy}")


def relative(path: Path, root: Path) -> str:
    """The path below the root in one printable line."""
    return escaped(path.relative_to(root).as_posix())


def _told(error: DataError, root: Path) -> str:
    return str(error).replace(MORE, "").replace(f"{printable(root)}/", "").replace(f"{root}/", "")
