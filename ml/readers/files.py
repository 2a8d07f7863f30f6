"""Opening source files: found below a root, checked before they are read.

Belongs here: paths, formats, column types, and the one-line errors about them. Does not belong here: what the rows
mean; what a parquet file may claim (`ml.pages`); cells that no table can take (`ml.readers.cells`).
"""

import os
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.exceptions import PanicException, PolarsError

from ml.errors import DataError
from ml.pages import checked_rows
from ml.readers.cells import decoded_slices, is_ordinary, sound, text_leaves


@dataclass(frozen=True, slots=True)
class Kind:
    """What a column may be: its `name` in words, and which Arrow types fit."""

    name: str
    fits: Callable[[pa.DataType], bool]

    def __call__(self, kind: pa.DataType) -> bool:
        """Whether an Arrow type is of this kind."""
        return self.fits(kind)

    def unlike(self, found: pa.DataType) -> str:
        """In words, which type was found and which it should be."""
        return f"type {one_line(found)}, it should be {self.name}"


DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    MemoryError,
    zlib.error,
    pa.ArrowException,
    PolarsError,
    PanicException,
)
"""What libraries raise over damaged files; PanicException is no Exception."""

_DAMAGED = "it is damaged or incomplete, fetch it again"
_ENCRYPTED = ("it is encrypted", "write it without encryption")
_LOOKED_AT = 1_024
GZIP = b"\x1f\x8b"
"""How gzipped bytes begin."""
_BUFFER = 1 << 20
_ROWS = 65_536
_DECODED_FLOOR = 256 << 20
_DECODED = 100


class Expands(ValueError):
    """A file holds more than its size allows."""

    def __init__(self, most: int) -> None:
        super().__init__(f"it expands to more than {most >> 20} MiB, the most that is read of a file of its size")


def _integer(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_null(kind)


def is_list(kind: pa.DataType) -> bool:
    """A list of any length or of a fixed one."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


is_integer = Kind("integer", _integer)
is_number = Kind("number", lambda kind: _integer(kind) or pa.types.is_floating(kind))
is_time = Kind("timestamp", lambda kind: pa.types.is_timestamp(kind) or pa.types.is_null(kind))
is_flag = Kind("boolean", lambda kind: pa.types.is_boolean(kind) or pa.types.is_null(kind))
is_text = Kind(
    "string", lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
)
"""The kinds of columns. Each takes the null type of a column without a value, too."""


def list_of(inner: Kind) -> Kind:
    """A list whose items are `inner`."""
    return Kind(f"list of {inner.name}s", lambda kind: is_list(kind) and inner(kind.value_type))


def inside(root: Path, path: Path) -> Path:
    """`path` itself. Raises DataError when it lies, through a link or "..", outside `root`."""
    try:
        within = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:
        raise DataError(f"{printable(path)} leads nowhere ({one_line(error)}): put the file itself there") from error
    if not within:
        raise DataError(f"{printable(path)} leads outside the data root {printable(root)}: copy the file into the root")
    return path


def regular(root: Path, path: Path) -> bool:
    """Whether there is a regular file at `path`, inside `root`; False where there is nothing. Raises DataError for what
    is there but can never be read as a file (dangling or outward link, folder, pipe, device, forbidden folder)."""
    try:
        if not path.exists() and not path.is_symlink():
            return False
        inside(root, path)
        if path.is_file():
            return True
    except OSError as error:
        raise DataError(f"{printable(path)} cannot be reached ({one_line(error)}): make it readable") from error
    raise DataError(f"{printable(path)} is no regular file: put the file itself there")


def beside(path: Path, other: str) -> DataError:
    """The error about a file that excludes another one."""
    return DataError(f"{printable(path)} lies beside {other}: remove one of them")


def lies_at(path: Path) -> bool:
    """Whether there is anything at all, a link that leads nowhere, too. Raises DataError where that cannot be known."""
    try:
        return os.path.lexists(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{printable(path)} cannot be reached ({one_line(error)}): make it readable") from error


def files_below(root: Path, patterns: Sequence[str], besides: Collection[str] = ()) -> list[Path]:
    """What lies anywhere below `root`, outside its folders `besides`, under a name that fits one of `patterns`, sorted.
    Raises DataError for a link to a folder outside: what lies there would be passed over."""
    found: list[Path] = []
    for place, folders, names in os.walk(root, onerror=_unlistable):
        if Path(place) == root:
            folders[:] = [folder for folder in folders if folder not in besides]
        for folder in folders:
            if (Path(place) / folder).is_symlink():
                inside(root, Path(place) / folder)
        found += [Path(place) / n for n in (*names, *folders) if any(fnmatchcase(n, p) for p in patterns)]
    return sorted(found)


def _unlistable(error: OSError) -> None:
    raise DataError(f"{one_line(error.filename)} cannot be listed ({one_line(error)}): make it readable") from error


def parquet_schema(path: Path, columns: Mapping[str, Kind], remedy: str) -> pa.Schema:
    """The schema of a parquet file. Raises DataError when the file cannot be read, lacks one of `columns`, or has it
    twice or in another type; `remedy` ends the message."""
    try:
        found = pq.read_schema(path)
        names = found.names
    except DAMAGE as error:
        raise unreadable(path, error) from error
    missing = [name for name in columns if name not in names]
    if missing:
        raise DataError(f"{printable(path)} has no column {listed(missing)} (it has {listed(names)}): {remedy}")
    for name, fits in columns.items():
        if names.count(name) > 1:
            raise DataError(f"{printable(path)}: column {name} is there {names.count(name)} times: {remedy}")
        if not fits(found.field(name).type):
            raise DataError(f"{printable(path)}: column {name} has {fits.unlike(found.field(name).type)}: {remedy}")
    return found


def parquet_batches(path: Path, rows: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The file as tables of at most `rows` rows, in order; see `parquet_pieces`. Raises DataError when the file is
    damaged or holds a cell that no table can take."""
    for table, damage in parquet_pieces(path, rows, columns):
        _refuse_damage(path, damage)
        yield table


def parquet_pieces(
    path: Path, rows: int, columns: list[str] | None = None
) -> Iterator[tuple[pa.Table, pa.Array | None]]:
    """The file as tables of at most `rows` rows, in order, each with a reason (string [rows], null: sound; None: all
    are sound) for rows with a cell that no table can take: see `ml.readers.cells.sound`.

    Memory is bounded by what the pages hold, not by what the file claims. Raises DataError when it is damaged, or
    expands to more than a hundred times its size.
    """
    try:
        most = _DECODED_FLOOR + _DECODED * path.stat().st_size
        with _opened(path) as file:
            decoded = 0
            for batch in file.iter_batches(batch_size=checked_rows(file, path, rows), columns=columns):
                for part in decoded_slices(pa.Table.from_batches([batch])):
                    table, damage = sound(part)
                    decoded += table.nbytes
                    if decoded > most:
                        raise Expands(most)
                    yield table, damage
    except DAMAGE as error:
        raise unreadable(path, error) from error


def read_to_end(path: Path, columns: list[str]) -> None:
    """Reads these columns of a parquet file. Raises DataError as whoever reads them would."""
    for table, _ in parquet_pieces(path, _ROWS, columns):
        as_frame(table)


def frame(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """A whole parquet file. Raises DataError when it is damaged or holds a cell that no table can take."""
    try:
        with _opened(path) as file:
            checked_rows(file, path, 1)
            table, damage = sound(file.read(columns=columns))
            _refuse_damage(path, damage)
            return as_frame(table)
    except DAMAGE as error:
        raise unreadable(path, error) from error


def row_count(path: Path) -> int:
    """Rows that a parquet file claims. Raises DataError when it cannot be read."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except DAMAGE as error:
        raise unreadable(path, error) from error


def _opened(path: Path) -> pq.ParquetFile:
    """The file, read through a small buffer, its page checksums verified, its texts by dictionary (a cell that is
    repeated a million times is decoded once)."""
    texts = text_leaves(pq.read_schema(path))
    return pq.ParquetFile(path, buffer_size=_BUFFER, read_dictionary=texts, page_checksum_verification=True)


def _refuse_damage(path: Path, damage: pa.Array | None) -> None:
    """Raises DataError about the first row that has a reason."""
    if damage is not None and damage.null_count < len(damage):
        reason, count = damage.drop_null()[0].as_py(), len(damage) - damage.null_count
        raise DataError(f"{printable(path)} has {count} rows with cells like {reason}: mend or remove them")


def as_frame(table: pa.Table) -> pl.DataFrame:
    """An Arrow table as a Polars frame (without copying where types allow). Raises DataError for columns that Polars
    has no type for."""
    try:
        result = pl.from_arrow(table)
    except (*DAMAGE, TypeError, NotImplementedError) as error:
        names = listed(table.column_names)
        raise DataError(f"columns {names} have a type that cannot be read: {one_line(error)}") from error
    assert isinstance(result, pl.DataFrame)
    return result


_OWN = ("source", "reused")
"""Columns that readers add to raw days."""


def ordinary_columns(found: pa.Schema, taken: Iterable[str]) -> tuple[list[str], list[str]]:
    """Columns beyond `taken` that can be carried along, and those that cannot: nested or exotic types, names that are
    there twice or collide with a reader's own ("source", "reused", "__...")."""
    others = [n for n in dict.fromkeys(found.names) if n not in set(taken)]
    fits = [
        n for n in others
        if found.names.count(n) == 1 and n not in _OWN and not n.startswith("__") and is_ordinary(found.field(n).type)
    ]  # fmt: skip
    return fits, [n for n in others if n not in set(fits)]


def carried_type(kind: pa.DataType) -> pa.DataType:
    """The type in which `parquet_pieces` gives a column of type `kind`."""
    if pa.types.is_timestamp(kind):
        return pa.timestamp("ms" if kind.unit == "s" else kind.unit, "UTC" if kind.tz is not None else None)
    return kind


def unreadable(path: Path, error: BaseException) -> DataError:
    """The error about a file that cannot be read: why, and what to do. Only what cannot be told is called damaged."""
    reason, remedy = _diagnosis(path, error)
    return DataError(f"{printable(path)} cannot be read ({reason}): {remedy}")


def _diagnosis(path: Path, error: BaseException) -> tuple[str, str]:
    """Why a file cannot be read, and what to do."""
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is", "fetch it again"
    if isinstance(error, UnicodeEncodeError):
        return "its path is not UTF-8", "rename the file or its folder"
    if isinstance(error, Expands):
        way_out = "unpack it" if path.suffix == ".gz" else "write it without compression and dictionaries"
        return one_line(error), way_out
    if isinstance(error, OSError) and error.errno is not None:
        return one_line(error.strerror or error), "make it readable, or fetch it again"
    if path.suffix == ".parquet" and "decrypt" in str(error):
        return _ENCRYPTED
    if path.is_file() and path.stat().st_size == 0:
        return "it is empty", _DAMAGED
    return (_other_kind(path) if path.is_file() else None) or (one_line(error), _DAMAGED)


def _other_kind(path: Path) -> tuple[str, str] | None:
    """What a file is in truth, and what to do; None where its bytes do not contradict its name."""
    with path.open("rb") as stream:
        start = stream.read(_LOOKED_AT)
    if path.suffix == ".gz":
        return None if start.startswith(GZIP) else ("it is not packed by gzip", "leave .gz out of its name, or pack it")
    if path.suffix != ".parquet":
        if start.startswith(GZIP):
            return "it is packed by gzip", "end its name in .gz, or unpack it"
        return ("it is UTF-16", "save it as UTF-8") if start.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else None
    if start.startswith(b"PARE"):
        return _ENCRYPTED
    for magic, what in ((GZIP, "gzip"), (b"PK\3\4", "zip")):
        if start.startswith(magic):
            return f"it is packed by {what}", "unpack it"
    if _is_text(start) and not start.startswith(b"PAR1"):
        return "it is text, no parquet", "convert it to parquet, as the README does with a CSV file"
    return None


def _is_text(start: bytes) -> bool:
    """Whether bytes look like text: nothing but what can be printed, in UTF-8 or nearly so."""
    return all(c.isprintable() or c in "\t\r\n\ufeff" for c in start.decode("utf-8", "replace"))


def one_line(said: object, most: int = 300) -> str:
    """The first line of what an error, type or name says, printable, at most `most` characters."""
    lines = str(said).strip().splitlines()
    text = escaped(lines[0] if lines else type(said).__name__)
    return text if len(text) <= most else f"{text[:most]}..."


def escaped(text: str) -> str:
    """Text in which only printable characters stand for themselves."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def listed(names: Iterable[str]) -> str:
    """Column names in one printable line; of more than twenty the first ones."""
    known = list(names)
    text = ", ".join(escaped(n[:60]) for n in known[:20])
    return text if len(known) <= 20 else f"{text} and {len(known) - 20} more"


def printable(path: Path) -> str:
    """A path as one printable line: a name may hold any byte."""
    return escaped(str(path))
