"""Parquet files whose metadata lies while their pages stay as they were.

Belongs here: rewriting footers and page headers. Does not belong here: damage to rows (`tests.fuzz.tables`).
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.thrift import I64, Field, Items, field, read_struct, write_struct

HUGE = 2**40
_ROWS, _GROUPS = 3, 4  # of FileMetaData
_COLUMNS, _GROUP_BYTES, _GROUP_ROWS = 1, 2, 3  # of RowGroup
_VALUES, _UNCOMPRESSED, _COMPRESSED, _DATA_OFFSET, _STATISTICS = 5, 6, 7, 9, 12  # of ColumnMetaData
_NULLS, _MAX, _MIN = 3, 5, 6  # of Statistics

Footer = list[Field]


def relied(data: bytes, change: Callable[[Footer], None]) -> bytes:
    """The file with its footer changed."""
    length = struct.unpack("<I", data[-8:-4])[0]
    footer, _ = read_struct(data[-8 - length : -8])
    change(footer)
    written = write_struct(footer)
    return data[: -8 - length] + written + struct.pack("<I", len(written)) + b"PAR1"


def groups(footer: Footer) -> list[Footer]:
    """The row groups."""
    found = field(footer, _GROUPS)
    return found.value.values if found is not None else []


def chunks(footer: Footer) -> list[Footer]:
    """The metadata of all column chunks."""
    found = []
    for group in groups(footer):
        columns = field(group, _COLUMNS)
        assert columns is not None and isinstance(columns.value, Items)
        found += [inner.value for c in columns.value.values if (inner := field(c, 3)) is not None]
    return found


def put(fields: Footer, number: int, value: Any) -> None:
    """Changes a field, if it is there."""
    found = field(fields, number)
    if found is not None:
        found.value = value


def rows(data: bytes, rng: np.random.Generator) -> bytes:
    """Another number of rows in the footer, in its row groups, or in both."""
    number = int(rng.choice([0, 1, 2, 1_000, HUGE, -5]))
    which = rng.integers(3)

    def change(footer: Footer) -> None:
        if which != 0:
            put(footer, _ROWS, number * (len(groups(footer)) if which == 2 else 1))
        if which != 1:
            for group in groups(footer):
                put(group, _GROUP_ROWS, number)

    return relied(data, change)


def everything_fewer(data: bytes, rng: np.random.Generator) -> bytes:
    """Footer, row groups and flat columns agree on too few rows: only the pages know better."""

    def change(footer: Footer) -> None:
        for group in groups(footer):
            found = field(group, _GROUP_ROWS)
            before = found.value if found is not None else 0
            fewer = max(0, before - 1)
            put(group, _GROUP_ROWS, fewer)
            for chunk in chunks([Field(_GROUPS, 9, Items(12, [group]))]):
                values = field(chunk, _VALUES)
                if values is not None and values.value == before:
                    values.value = fewer
        kept = [field(g, _GROUP_ROWS) for g in groups(footer)]
        put(footer, _ROWS, sum(f.value for f in kept if f is not None))

    return relied(data, change)


def sizes(data: bytes, rng: np.random.Generator) -> bytes:
    """Another number of values, of bytes, or another place of a column chunk."""
    number = int(rng.choice([0, 1, -1, 10_000, 2**31, HUGE, 2**63 - 1]))
    where = int(rng.choice([_VALUES, _UNCOMPRESSED, _COMPRESSED, _DATA_OFFSET]))

    def change(footer: Footer) -> None:
        found = chunks(footer)
        if found:
            put(found[int(rng.integers(len(found)))], where, number)

    return relied(data, change)


def statistics(data: bytes, rng: np.random.Generator) -> bytes:
    """Null counts, minima and maxima that are not those of the column."""

    def change(footer: Footer) -> None:
        for chunk in chunks(footer):
            found = field(chunk, _STATISTICS)
            if found is None:
                chunk.append(Field(_STATISTICS, 12, [Field(_NULLS, I64, 10**9)]))
                chunk.sort(key=lambda f: f.number)
                continue
            put(found.value, _NULLS, int(rng.choice([0, 10**9, -1])))
            for bound in (_MAX, _MIN):
                put(found.value, bound, b"\xff" * 8)

    return relied(data, change)


def page_sizes(data: bytes, rng: np.random.Generator, size: int = 2**31 - 1) -> bytes:
    """The first page of a column claims `size` bytes. Its header grows: what follows is moved."""
    length = struct.unpack("<I", data[-8:-4])[0]
    footer, _ = read_struct(data[-8 - length : -8])
    found = chunks(footer)
    places = [[f.value for n in (9, 11) if (f := field(c, n)) is not None and f.value >= 4] for c in found]
    with_pages = [i for i, starts in enumerate(places) if starts and (field(found[i], _VALUES) or Field(0, 0, 0)).value]
    if not with_pages:
        return data
    chosen = with_pages[int(rng.integers(len(with_pages)))]
    chunk, at = found[chosen], min(places[chosen])
    header, end = read_struct(data, at)
    put(header, 2, size)
    written = write_struct(header)
    grown = len(written) - (end - at)
    for other in found:
        for n in (9, 10, 11):
            place = field(other, n)
            if place is not None and place.value > at:
                place.value += grown
    put(chunk, _COMPRESSED, (field(chunk, _COMPRESSED) or Field(0, 0, 0)).value + grown)
    tail = write_struct(footer)
    body = data[:at] + written + data[end : -8 - length]
    return body + tail + struct.pack("<I", len(tail)) + b"PAR1"
