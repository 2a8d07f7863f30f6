"""Breaches of a layout's contract, as findings, and those that a file's columns show.

Belongs here: the form of a finding, and the checks of files, columns and types that collect all of them where a reader
stops at the first. Does not belong here: findings about rows (`ml.log_check`).
"""

import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ml.errors import DataError
from ml.readers.files import Kind, parquet_schema

_HEADER, _HEADER_SHOWN = 1 << 16, 300
Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Breach:
    """One finding: `count` rows (or files, columns) of one `kind`; `examples` are a few, `row` from 1 where known, with
    its `value`. `file` is relative to the root; empty where the finding is about the whole log."""

    severity: Severity
    kind: str
    file: str
    column: str
    count: int
    remedy: str
    examples: Sequence[Mapping[str, Any]] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return plain | {"examples": [dict(e) for e in self.examples]}


def parquet_breaches(
    path: Path, root: Path, required: Mapping[str, Kind], optional: Mapping[str, Kind], remedy: str
) -> tuple[list[Breach], pa.Schema | None]:
    """Everything that is wrong with a parquet file's columns, and its schema (None when it cannot be read): missing,
    doubled, of another type (errors); unknown to both mappings (a warning, where `optional` names the rest)."""
    name = path.relative_to(root).as_posix()
    try:
        found = parquet_schema(path, {}, remedy)
    except DataError as error:
        return [Breach("error", "unreadable_file", name, "", 1, remedy, [{"value": str(error)}])], None
    breaches = []
    for column, fits in {**required, **optional}.items():
        times = found.names.count(column)
        if times == 0 and column in required:
            has = {"value": f"it has {', '.join(found.names)}"}
            breaches.append(Breach("error", "missing_column", name, column, 1, remedy, [has]))
        elif times > 1:
            breaches.append(Breach("error", "doubled_column", name, column, times, "keep one of them"))
        elif times == 1 and not fits(found.field(column).type):
            is_now = {"value": f"its type is {found.field(column).type}"}
            breaches.append(Breach("error", "wrong_type", name, column, 1, remedy, [is_now]))
    return breaches, found


def csv_breaches(path: Path, root: Path, required: Sequence[str], remedy: str) -> list[Breach]:
    """The required columns that the first line of a CSV file, plain or gzipped, does not name."""
    name = path.relative_to(root).as_posix()
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            header = stream.readline(_HEADER).decode("utf-8", "replace").strip().split(",")
    except (OSError, EOFError, zlib.error) as error:
        return [Breach("error", "unreadable_file", name, "", 1, "fetch it again", [{"value": str(error)}])]
    has = {"value": f"it has {', '.join(header)}"[:_HEADER_SHOWN]}
    missing = [c for c in required if c not in header]
    return [Breach("error", "missing_column", name, column, 1, remedy, [has]) for column in missing]


def unknown_columns(path: Path, root: Path, found: pa.Schema, known: Sequence[str]) -> list[Breach]:
    """Columns that the contract does not know, as one warning."""
    names = sorted(set(found.names) - set(known))
    if not names:
        return []
    remedy = "they are not used; check their spelling against the contract"
    examples = [{"value": n} for n in names[:5]]
    file = path.relative_to(root).as_posix()
    return [Breach("warning", "unknown_column", file, ", ".join(names), len(names), remedy, examples)]


def first_error(check: Callable[[], object], root: Path) -> list[Breach]:
    """The DataError of `check`, if it raises one, as a finding."""
    try:
        check()
    except DataError as error:
        return [refusal(error, root)]
    return []


def refusal(error: DataError, root: Path) -> Breach:
    """What a reader stops at."""
    line = str(error).replace(f"{root}/", "")
    return Breach("error", "refused", "", "", 1, line.rsplit(": ", 1)[-1], [{"value": line}])
