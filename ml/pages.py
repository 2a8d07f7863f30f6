"""What a parquet file claims, held against its own pages before anything is decompressed.

Belongs here: walking over page headers, limits on what a file may expand to, how many rows fit in memory. Does not
belong here: decoding values (`ml.readers.files` of source logs, `ml.parquet` of the lake).

A footer is a claim. Readers trust its row counts, so one that claims too few rows loses the others without a word, and
one that claims too many, or too large pages, asks for memory that no honest file needs. Format: Apache Parquet, with
page headers in Thrift's compact protocol.
"""

from collections.abc import Collection
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

PAGE_BYTES = 256 << 20
"""Largest page (uncompressed) that is read; writers cut pages at about 1 MiB, a cell of 100 MB makes one of 100 MB."""

EXPANSION = 8
"""Values that a column of a file may hold for each byte of the file, beyond the first million. Ids in lists take about
a byte each, rows of a log ten and more."""

BATCH_BYTES = 64 << 20
"""Decoded bytes that one batch of rows may take by the measure of its pages."""

_FLOOR = 1_000_000
_HEADER = 1 << 16
_DICTIONARY, _DATA, _DATA_V2 = 2, 0, 3
_COUNTS = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}
_WIDTH = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "FIXED_LEN_BYTE_ARRAY": 16}


@dataclass(frozen=True, slots=True)
class Page:
    """What a page header says: its kind, values, rows (-1: not said), and bytes."""

    kind: int
    values: int
    rows: int
    uncompressed: int
    compressed: int
    header: int


def checked_rows(file: pq.ParquetFile, path: Path, most: int, values: int | None = None) -> int:
    """Rows, at most `most`, of which a batch takes about `BATCH_BYTES`. Raises ValueError, with the breach in one
    line, when footer and pages disagree or a column holds more than `values` (default: by EXPANSION)."""
    size = path.stat().st_size
    values = _FLOOR + EXPANSION * size if values is None else values
    widest = 1.0
    with path.open("rb") as stream:
        for group in _groups(file):
            width, unpacked = 0.0, 0
            for i in range(group.num_columns):
                repetition = file.metadata.schema.column(i).max_repetition_level
                column, page = _chunk_width(stream, group, i, repetition, size, values)
                width, unpacked = width + column, unpacked + page
            if unpacked > 2 * PAGE_BYTES:
                raise ValueError(f"its columns have pages of {unpacked >> 20} MiB side by side")
            widest = max(widest, width)
    return max(1, min(most, int(BATCH_BYTES / widest)))


def decoded_bytes(file: pq.ParquetFile, path: Path, columns: Collection[str] | None, most: int) -> int:
    """Bytes that `columns` (all: None) take in memory, each text counted as the code of a dictionary and every page of
    texts once. Raises ValueError, in one line, when footer and pages disagree or they take more than `most`."""
    size, total = path.stat().st_size, 0
    with path.open("rb") as stream:
        for group in _groups(file):
            for i in range(group.num_columns):
                chunk, leaf = group.column(i), file.metadata.schema.column(i)
                if columns is not None and leaf.path.split(".")[0] not in columns:
                    continue
                pages = _sound_pages(stream, chunk, group.num_rows, leaf.max_repetition_level, size, most)
                width = _WIDTH.get(chunk.physical_type)
                unpacked = sum(p.uncompressed for p in pages)
                total += chunk.num_values * 4 + unpacked if width is None else max(chunk.num_values * width, unpacked)
                total += group.num_rows * 8 * (leaf.max_repetition_level > 0)
                if total > most:
                    raise ValueError(f"it expands to more than {most >> 20} MiB")
    return total


def _groups(file: pq.ParquetFile) -> list[Any]:
    """The row groups, whose rows are those of the file."""
    metadata = file.metadata
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    if metadata.num_rows < 0 or metadata.num_rows != sum(g.num_rows for g in groups):
        raise ValueError(f"its footer claims {metadata.num_rows} rows, its row groups hold another number")
    return groups


def _chunk_width(
    stream: BufferedReader, group: Any, index: int, repetition: int, size: int, most: int
) -> tuple[float, int]:
    """Decoded bytes a row of one column chunk, and bytes of its largest page, from its checked pages."""
    chunk, rows = group.column(index), group.num_rows
    pages = _sound_pages(stream, chunk, rows, repetition, size, most)
    data = [p for p in pages if p.kind in (_DATA, _DATA_V2)]
    values, largest = chunk.num_values, max((p.uncompressed for p in pages), default=0)
    if not rows:
        return 0.0, 0
    fixed = _WIDTH.get(chunk.physical_type)
    if fixed is not None:
        return values * (fixed + 2) / rows, largest
    dense = max((p.uncompressed / p.values for p in data if p.values), default=0.0)
    return (dense + 8) * values / rows, largest


def _sound_pages(stream: BufferedReader, chunk: Any, rows: int, repetition: int, size: int, most: int) -> list[Page]:
    """The page headers of a column chunk of `rows` rows: they hold what the footer claims, at most `most` values."""
    name = chunk.path_in_schema
    for what, number in (("rows", rows), ("values", chunk.num_values)):
        if number < 0 or number > most:
            raise ValueError(f"column {name} claims {number} {what} in a file of {size} bytes")
    pages = _pages(stream, chunk, size)
    data = [p for p in pages if p.kind in (_DATA, _DATA_V2)]
    values = sum(p.values for p in data)
    if values != chunk.num_values or (repetition == 0 and values != rows):
        raise ValueError(f"column {name} claims {rows} rows and {chunk.num_values} values, its pages hold {values}")
    said = [p.rows for p in data if p.rows >= 0]
    if len(said) == len(data) and sum(said) != rows and repetition > 0 and data:
        raise ValueError(f"column {name} claims {rows} rows, its pages hold {sum(said)}")
    for page in data:
        if page.values > most:
            raise ValueError(f"column {name} claims a page of {page.values} values in a file of {size} bytes")
    return pages


def _pages(stream: BufferedReader, chunk: Any, size: int) -> list[Page]:
    """The page headers of a column chunk, in order."""
    name = chunk.path_in_schema
    if not chunk.num_values and not chunk.total_compressed_size:
        return []
    starts = [chunk.data_page_offset, chunk.dictionary_page_offset if chunk.has_dictionary_page else None]
    at = min([s for s in starts if s], default=0)  # a chunk without values may have a dictionary alone
    end = at + chunk.total_compressed_size
    if at < 4 or chunk.total_compressed_size < 0 or end > size - 8:
        raise ValueError(f"column {name} claims bytes {at} to {end} of a file of {size}")
    found = []
    while at < end:
        stream.seek(at)
        page = _page(stream.read(min(_HEADER, end - at)), name)
        if not 0 <= page.uncompressed <= PAGE_BYTES:
            raise ValueError(
                f"column {name} has a page of {page.uncompressed} bytes: more than {PAGE_BYTES >> 20} MiB are not read"
            )
        if page.compressed < 0 or at + page.header + page.compressed > end:
            raise ValueError(f"column {name} has a page that reaches beyond its end")
        at += page.header + page.compressed
        found.append(page)
    return found


def _page(head: bytes, name: str) -> Page:
    """A page header from the bytes that start with it."""
    try:
        fields, used = _struct(head, 0)
    except (IndexError, RecursionError) as error:
        raise ValueError(f"column {name} has a page without a header") from error
    kind = _number(fields, 1)
    counts = fields.get(_COUNTS.get(kind, -1))
    counts = counts if isinstance(counts, dict) else {}
    values = _number(counts, 1) if kind in _COUNTS else 0
    uncompressed, compressed = _number(fields, 2), _number(fields, 3)
    if min(kind, values) < 0:
        raise ValueError(f"column {name} has a page header that says nothing of its values")
    return Page(kind, values, _number(counts, 3) if kind == _DATA_V2 else -1, uncompressed, compressed, used)


def _number(fields: dict[int, Any], field: int) -> int:
    """A field that is a number; -1 where it is missing or none."""
    value = fields.get(field)
    return value if isinstance(value, int) else -1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number of 7-bit groups, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 or shift > 63:
            return value, at


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A Thrift struct as field numbers and values, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while data[at] != 0:
        delta, kind = data[at] >> 4, data[at] & 0x0F
        at += 1
        if delta:
            number += delta
        else:
            number, at = _zigzag(data, at)
        fields[number], at = _value(data, at, kind)
    return fields, at + 1


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    """One value of a Thrift type, and where it ends."""
    if kind in (1, 2):
        return kind == 1, at
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _zigzag(data, at)
    if kind == 7:
        return None, at + 8
    if kind == 8:
        length, at = _varint(data, at)
        return None, at + length
    if kind in (9, 10):
        head = data[at]
        at += 1
        length = head >> 4
        if length == 15:
            length, at = _varint(data, at)
        if length > len(data):
            raise IndexError(f"{length} items")
        for _ in range(length):
            _, at = _value(data, at, head & 0x0F)
        return None, at
    if kind == 12:
        return _struct(data, at)
    raise IndexError(f"type {kind}")
