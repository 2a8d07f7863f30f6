"""Opening source files: found below a root, checked before they are read.

Belongs here: paths, formats, column types, and the one-line errors about them. Does not belong here: what the rows
mean.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml.errors import DataError

Kind = Callable[[pa.DataType], bool]


def is_integer(kind: pa.DataType) -> bool:
    """An integer, or the null type of a column without a value."""
    return pa.types.is_integer(kind) or pa.types.is_null(kind)


def is_number(kind: pa.DataType) -> bool:
    """An integer or floating-point number."""
    return is_integer(kind) or pa.types.is_floating(kind)


def is_time(kind: pa.DataType) -> bool:
    """A timestamp, with or without a zone."""
    return pa.types.is_timestamp(kind) or pa.types.is_null(kind)


def is_flag(kind: pa.DataType) -> bool:
    """A truth value."""
    return pa.types.is_boolean(kind) or pa.types.is_null(kind)


def is_text(kind: pa.DataType) -> bool:
    """A string."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)


def is_list(kind: pa.DataType) -> bool:
    """A list of any length or of a fixed one."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def list_of(inner: Kind) -> Kind:
    """A list whose items are `inner`."""

    def check(kind: pa.DataType) -> bool:
        return is_list(kind) and inner(kind.value_type)

    return check


def inside(root: Path, path: Path) -> Path:
    """`path` itself. Raises DataError when it lies, through a link or "..", outside `root`."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{path} leads outside the data root {root}: copy the file into the root")
    return path


def parquet_schema(path: Path, columns: Mapping[str, Kind], remedy: str) -> pa.Schema:
    """The schema of a parquet file. Raises DataError when the file cannot be read, lacks one of `columns`, or has it
    in another type; `remedy` ends the message."""
    try:
        found = pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from error
    missing = [name for name in columns if name not in found.names]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)} (it has {', '.join(found.names)}): {remedy}")
    for name, fits in columns.items():
        if not fits(found.field(name).type):
            raise DataError(f"{path}: column {name} has type {found.field(name).type}: {remedy}")
    return found


def parquet_batches(path: Path, rows: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The file as tables of at most `rows` rows, in order. Raises DataError when it turns out to be damaged."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=rows, columns=columns):
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from error


def frame(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """A whole parquet file. Raises DataError when it is damaged."""
    try:
        with pq.ParquetFile(path) as file:
            return as_frame(file.read(columns=columns))
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from error


def as_frame(table: pa.Table) -> pl.DataFrame:
    """An Arrow table as a Polars frame (without copying where types allow)."""
    result = pl.from_arrow(table)
    assert isinstance(result, pl.DataFrame)
    return result


def unreadable(path: Path, error: Exception) -> DataError:
    """The error about a damaged file."""
    reason = "it is empty" if path.is_file() and path.stat().st_size == 0 else str(error).splitlines()[0]
    return DataError(f"{path} cannot be read ({reason}): it is damaged or incomplete, fetch it again")
