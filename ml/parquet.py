"""Parquet files of the lake as tables, opened without trust: footer and pages are held against each other and against a
limit before anything is decoded.

Belongs here: reading a whole file, its schema or its batches, and checking one that another engine opens itself. Does
not belong here: what a file's pages may claim (`ml.pages`), source logs (`ml.readers.files`), writing
(`resources.parquet`)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml.errors import DataError
from ml.pages import checked_rows, decoded_bytes
from ml.strangers import MIB, one_line, printable, regular

DECODED_FLOOR, DECODED = 256 * MIB, 64
"""A table may take the first of these in memory, and as many bytes for each byte of its file as the second says. Tables
of the lake take 2 to 20; lists that many test cases share take the most."""

FOOTER_BYTES = 16 * MIB
REMEDY = "make it anew, or get it again from where it was made"


def read_table(path: Path, columns: Sequence[str] | pa.Schema | None = None, remedy: str = REMEDY) -> pa.Table:
    """A whole file, or the named columns in their order; of a schema also cast to its types. Raises DataError naming
    the file where it is missing, no regular file, damaged, lies, expands beyond the limit, lacks a column, or has a
    null or a type that the schema does not allow."""
    names = None if columns is None else list(columns.names if isinstance(columns, pa.Schema) else columns)
    with _refusing(path, remedy), _opened(path, remedy) as (file, found):
        _require(path, found, names, remedy)
        if isinstance(columns, pa.Schema):
            _require_types(path, found, columns, remedy)
        most = DECODED_FLOOR + DECODED * path.stat().st_size
        left = most - decoded_bytes(file, path, names, most)
        table = _plain(file.read(columns=names), found, left)
        table = table if names is None else table.select(names)
        if not isinstance(columns, pa.Schema):
            return table
        return table.cast(columns.with_metadata(found.metadata))


def read_batches(
    path: Path, rows: int, columns: Sequence[str] | None = None, remedy: str = REMEDY
) -> Iterator[pa.Table]:
    """The same in tables of at most `rows` rows, fewer where they are wide; only one is in memory."""
    names = None if columns is None else list(columns)
    with _refusing(path, remedy), _opened(path, remedy) as (file, found):
        _require(path, found, names, remedy)
        for batch in file.iter_batches(batch_size=checked_rows(file, path, rows, _values(path)), columns=names):
            yield _plain(pa.Table.from_batches([batch]), found, DECODED_FLOOR)


def read_schema(path: Path, remedy: str = REMEDY) -> pa.Schema:
    """Columns and metadata. Raises DataError where the file is no parquet."""
    with _refusing(path, remedy), _opened(path, remedy) as (_, found):
        return found


def require_columns(path: Path, wanted: pa.Schema, remedy: str = REMEDY) -> None:
    """Hold footer and pages against each other, for an engine that reads `wanted` columns itself. Raises DataError,
    also for a column that is missing or of another type."""
    with _refusing(path, remedy), _opened(path, remedy) as (file, found):
        _require(path, found, wanted.names, remedy)
        _require_types(path, found, wanted, remedy)
        checked_rows(file, path, 1, _values(path))


def check(path: Path, remedy: str = REMEDY) -> int:
    """Hold footer and pages against each other, also for an engine that opens the file itself; the rows that it has.
    Raises DataError."""
    with _refusing(path, remedy), _opened(path, remedy) as (file, found):
        _require(path, found, None, remedy)
        checked_rows(file, path, 1, _values(path))
        return int(file.metadata.num_rows)


@contextmanager
def _opened(path: Path, remedy: str) -> Iterator[tuple[pq.ParquetFile, pa.Schema]]:
    """The file and its schema. Checksums are verified, texts come as codes into a dictionary, so that one that is
    repeated a million times is decoded once."""
    size = regular(path, remedy)
    with path.open("rb") as stream:
        stream.seek(max(size - 8, 0))
        tail = stream.read(8)
    footer = int.from_bytes(tail[:4], "little")
    if size < 12 or tail[4:] != b"PAR1" or footer > min(FOOTER_BYTES, size - 12):
        raise ValueError("its end is not that of a parquet file" if size else "it is empty")
    metadata = pq.read_metadata(path)
    found = metadata.schema.to_arrow_schema()
    texts = [f.name for f in found if _is_text(f.type)]
    with pq.ParquetFile(path, metadata=metadata, read_dictionary=texts, page_checksum_verification=True) as file:
        yield file, found


@contextmanager
def _refusing(path: Path, remedy: str) -> Iterator[None]:
    """Errors over damaged or lying files become one line; those of the disk stay what they are."""
    try:
        yield
    except (ValueError, TypeError, OverflowError, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{printable(path)} cannot be read as parquet ({one_line(error)}): {remedy}") from error


def _require(path: Path, found: pa.Schema, names: Sequence[str] | None, remedy: str) -> None:
    """Raises DataError for a column that is missing, there twice, or of a type that no table of the lake has."""
    for name in found.names if names is None else names:
        if found.names.count(name) != 1:
            said = f"no column {name!r}" if name not in found.names else f"column {one_line(name, 60)!r} twice"
            have = ", ".join(one_line(n, 60) for n in found.names[:20])
            raise DataError(f"{printable(path)}: {said} (it has {have}): {remedy}")
        if not _is_known(found.field(name).type):
            said = f"column {one_line(name, 60)} has type {one_line(found.field(name).type, 60)}"
            raise DataError(f"{printable(path)}: {said}, which no table here has: {remedy}")


def _require_types(path: Path, found: pa.Schema, wanted: pa.Schema, remedy: str) -> None:
    """Raises DataError for a column of another type than wanted; one without any value may have the null type."""
    for field in wanted:
        kind = found.field(field.name).type
        if not (pa.types.is_null(kind) or _alike(kind, field.type)):
            said = f"column {field.name} has type {one_line(kind, 60)}, not {field.type}"
            raise DataError(f"{printable(path)}: {said}: {remedy}")


def _alike(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Equal but for the names of a list's items."""
    if pa.types.is_list(kind) and pa.types.is_list(wanted):
        return kind.value_type == wanted.value_type
    return kind == wanted


def _is_known(kind: pa.DataType) -> bool:
    """Numbers, truth values, texts, times, and lists of all of these but texts."""
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    inner = kind.value_type if listed else kind
    plain = pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_boolean(inner)
    plain = plain or pa.types.is_temporal(inner) or pa.types.is_null(inner)
    return plain or (not listed and _is_text(kind))


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _values(path: Path) -> int:
    """Values that a column may hold."""
    return (DECODED_FLOOR + DECODED * path.stat().st_size) // 4


def _plain(table: pa.Table, found: pa.Schema, left: int) -> pa.Table:
    """The table with its texts in full, in the types of `found`. Raises ValueError where they take more than `left`
    bytes, or are no UTF-8."""
    coded = [f.name for f in table.schema if pa.types.is_dictionary(f.type) and _is_text(found.field(f.name).type)]
    for name in coded:
        for chunk in table[name].chunks:
            left -= pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)).as_py() or 0
    if left < 0:
        raise ValueError("its texts expand beyond all measure")
    for number, name in enumerate(table.column_names):
        field = found.field(name)
        if name in coded:
            table = table.set_column(number, field, table[name].cast(field.type))
        if _is_text(field.type) or pa.types.is_nested(field.type):
            table.column(number).validate(full=True)
    return table
