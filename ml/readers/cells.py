"""Cells that no table can take: text that is not UTF-8, cells of many megabytes, times that overflow.

Belongs here: finding them in Arrow tables, and the form in which a quarantined row shows them. Does not belong here:
opening files (`ml.readers.files`), rules about values (`ml.readers.rules`).
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

TEXT_BYTES = 1 << 20
"""Longest text of a cell; the longest body of EB-NeRD has some 50 kB."""

LIST_ITEMS = 100_000
"""Longest list of a cell; the longest histories of EB-NeRD have some thousand entries."""

PLAUSIBLE_MS = (-2_208_988_800_000, 4_102_444_800_000)
"""Times (ms) of an article's publication and modification that are taken for such: the years 1900 to 2099."""

SHOWN_CHARACTERS = 2_000
SHOWN_ITEMS = 500
"""How much of a long text or list a quarantined row shows."""

_SLICE = 64 << 20
_SAMPLE = 200
_MS_SECONDS = (2**63 - 1) // 1000
_YEAR_1, _YEAR_10000 = -62_135_596_800, 253_402_300_800


def is_string(kind: pa.DataType) -> bool:
    """A string of either width, or of views."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_ordinary(kind: pa.DataType) -> bool:
    """Numbers, truth values, texts, times, and lists of numbers: what a raw day can carry."""
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if plain or is_string(kind) or pa.types.is_timestamp(kind) or pa.types.is_null(kind):
        return not pa.types.is_float16(kind)
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return listed and (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type))


def text_leaves(found: pa.Schema) -> list[str]:
    """Names of the text columns (those in lists are left out)."""
    return [f.name for f in found if is_string(f.type)]


def decoded_slices(table: pa.Table) -> Iterator[pa.Table]:
    """The table in pieces whose texts, decoded from their dictionaries, take a bounded number of bytes. Texts longer
    than `TEXT_BYTES` are never decoded and do not count."""
    columns = [c for c in table.columns if pa.types.is_dictionary(c.type)]
    if not columns or not len(table):
        yield table
        return
    size = np.zeros(len(table), dtype=np.int64)
    for column in columns:
        lengths = [pc.binary_length(c.dictionary).take(c.indices).fill_null(0) for c in column.chunks]
        flat = np.concatenate([length.to_numpy(zero_copy_only=False) for length in lengths]).astype(np.int64)
        size += np.where(flat > TEXT_BYTES, 0, flat)
    piece = np.cumsum(size) // _SLICE
    cuts = [0, *(np.flatnonzero(np.diff(piece)) + 1).tolist(), len(table)]
    for first, end in pairwise(cuts):
        yield table.slice(first, end - first)


def sound(table: pa.Table) -> tuple[pa.Table, pa.Array | None]:
    """The table in types that every later step can take, and a reason (string [rows], null: none) for each row with a
    cell that had to be changed; None when no row has one.

    - `not_utf8`: a text with bytes that are not UTF-8, which then stand as backslash escapes
    - `oversized_text`: a text of more than `TEXT_BYTES`, cut
    - `time_out_of_range`: whole seconds that overflow as milliseconds, null

    Times in seconds become milliseconds, zones UTC, lists of fixed length lists. Raises ArrowInvalid for such texts
    within lists.
    """
    columns, damage = [], None
    for field, column in zip(table.schema, table.columns, strict=True):
        made, reasons = _sound_column(column, field.type)
        columns.append(made)
        if reasons is not None:
            damage = reasons if damage is None else pc.coalesce(damage, reasons)
    return pa.table(columns, names=table.column_names), damage


def _sound_column(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.ChunkedArray, pa.Array | None]:
    """One column, and its rows' reasons."""
    if pa.types.is_dictionary(kind) and is_string(kind.value_type):
        made, reasons = [], []
        for chunk in column.chunks:
            texts, damage = _sound_texts(chunk.dictionary)
            made.append(texts.take(chunk.indices))
            reasons.append(None if damage is None else damage.take(chunk.indices))
        return pa.chunked_array(made, kind.value_type), _all(reasons, column)
    if is_string(kind):
        parts = [_sound_texts(c) for c in column.chunks]
        return pa.chunked_array([c for c, _ in parts], kind), _all([r for _, r in parts], column)
    if pa.types.is_timestamp(kind):
        return _sound_times(column, kind)
    if pa.types.is_fixed_size_list(kind):
        kind = pa.list_(kind.value_type)
        column = column.cast(kind)
    if _is_list(kind) and pa.types.is_timestamp(kind.value_type):
        return _sound_time_lists(column, kind)
    if pa.types.is_nested(kind):
        column.validate(full=True)
    return column, None


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _all(reasons: list[pa.Array | None], column: pa.ChunkedArray) -> pa.Array | None:
    """The reasons of all chunks as one array, None where there is none."""
    if all(r is None for r in reasons):
        return None
    whole = [pa.nulls(len(c), pa.string()) if r is None else r for r, c in zip(reasons, column.chunks, strict=True)]
    return pa.concat_arrays(whole)


def _sound_texts(texts: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Texts of bounded length in UTF-8, and the reasons of those that were not."""
    lengths = pc.binary_length(texts)
    long = pc.fill_null(pc.greater(lengths, TEXT_BYTES), False)
    try:
        texts.validate(full=True)
        if not pc.any(long).as_py():
            return texts, None
        wrong = np.zeros(0, dtype=np.int64)
    except pa.ArrowInvalid:
        wrong = _not_utf8(texts)
    reasons: list[str | None] = [None] * len(texts)
    mended: list[str | None] = [None] * len(texts)
    raw = texts.cast(pa.large_binary() if pa.types.is_large_string(texts.type) else pa.binary())
    for i in np.flatnonzero(long.to_numpy(zero_copy_only=False)).tolist():
        start = raw[i].as_buffer()[:_SAMPLE].to_pybytes().decode("utf-8", "backslashreplace")
        mended[i], reasons[i] = f"{start}... [cut, {lengths[i].as_py()} bytes]", "oversized_text"
    for i in wrong.tolist():
        if reasons[i] is None:
            mended[i], reasons[i] = raw[i].as_py().decode("utf-8", "backslashreplace"), "not_utf8"
    said = pa.array(reasons, pa.string())
    kind = texts.type
    return pc.if_else(said.is_valid(), pa.array(mended, kind), texts), said


def _not_utf8(texts: pa.Array) -> np.ndarray:
    """Positions of the texts that are not UTF-8 (int64), one validated after the other."""
    found = []
    for i in range(len(texts)):
        try:
            texts.slice(i, 1).validate(full=True)
        except pa.ArrowInvalid:
            found.append(i)
    return np.array(found, dtype=np.int64)


def _sound_times(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.ChunkedArray, pa.Array | None]:
    """Times with a unit of at most a millisecond and no other zone than UTC."""
    zone = "UTC" if kind.tz is not None else None
    if kind.unit != "s":
        return (column if kind.tz == zone else column.cast(pa.timestamp(kind.unit, zone))), None
    seconds = column.cast(pa.timestamp("s")).cast(pa.int64())
    over = pc.greater(pc.if_else(pc.less(seconds, -_MS_SECONDS), _MS_SECONDS + 1, seconds), _MS_SECONDS)
    made = pc.multiply(pc.if_else(over, None, seconds), 1000).cast(pa.timestamp("ms")).cast(pa.timestamp("ms", zone))
    if not pc.any(over).as_py():
        return made, None
    reasons = pc.if_else(pc.fill_null(over, False), "time_out_of_range", pa.scalar(None, pa.string()))
    return made, pa.concat_arrays(reasons.chunks)


def _sound_time_lists(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.ChunkedArray, pa.Array | None]:
    """Lists of such times; a list with one that overflows has a reason."""
    inner = kind.value_type
    if inner.unit != "s" and inner.tz in (None, "UTC"):
        return column, None
    made: list[pa.Array] = []
    reasons: list[pa.Array | None] = []
    for chunk in column.chunks:
        values, bad = _sound_times(pa.chunked_array([chunk.values]), inner)
        flat = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
        rebuilt = type(chunk).from_arrays(chunk.offsets, flat, mask=chunk.is_null() if chunk.null_count else None)
        made.append(rebuilt)
        if bad is None:
            reasons.append(None)
            continue
        hit = np.zeros(len(chunk), dtype=bool)
        at = np.flatnonzero(bad.is_valid().to_numpy(zero_copy_only=False))
        hit[np.searchsorted(chunk.offsets.to_numpy(), at, side="right") - 1] = True
        reasons.append(pc.if_else(pa.array(hit), "time_out_of_range", pa.scalar(None, pa.string())))
    target = pa.large_list if pa.types.is_large_list(kind) else pa.list_
    zone = "UTC" if inner.tz is not None else None
    return pa.chunked_array(made, target(pa.timestamp("ms" if inner.unit == "s" else inner.unit, zone))), _all(
        reasons, column
    )


def presentable(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows as they can stand in a quarantined row's JSON: long texts and lists cut, with a column `__cut` that says how
    long they were; times beyond the years 1 to 9999 as integers of their unit."""
    columns, notes = [], []
    for column in rows.get_columns():
        lengths, most = _lengths(column)
        if lengths is not None and (lengths > most).any():
            unit = "bytes" if column.dtype == pl.String else "items"
            text = pl.format(f"{{}} of {{}} {unit} of {{}}", pl.lit(most), pl.col("n"), pl.lit(column.name))
            notes.append(lengths.alias("n").to_frame().select(pl.when(pl.col("n") > most).then(text)).to_series())
            column = column.str.head(most) if column.dtype == pl.String else column.list.head(most)
        columns.append(_readable_times(column))
    if notes:
        joined = pl.DataFrame([n.alias(str(i)) for i, n in enumerate(notes)])
        text = pl.concat_str(pl.all(), separator="; ", ignore_nulls=True)
        columns.append(joined.select(pl.when(text != "").then(text).alias("__cut")).to_series())
    return pl.DataFrame(columns)


def _lengths(column: pl.Series) -> tuple[pl.Series | None, int]:
    """How long a column's cells are, and how much of them is shown; None for cells of fixed size."""
    if column.dtype == pl.String:
        return column.str.len_bytes(), SHOWN_CHARACTERS
    if isinstance(column.dtype, pl.List):
        return column.list.len(), SHOWN_ITEMS
    return None, 0


def _readable_times(column: pl.Series) -> pl.Series:
    """Times, or lists of them, as they are when all can be written as a date, else as integers."""
    listed = isinstance(column.dtype, pl.List)
    kind = column.dtype.inner if isinstance(column.dtype, pl.List) else column.dtype
    if not isinstance(kind, pl.Datetime):
        return column
    scale = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[kind.time_unit]
    flat = (column.explode() if listed else column).cast(pl.Int64)
    if flat.is_between(_YEAR_1 * scale, _YEAR_10000 * scale, closed="left").all():
        return column
    return column.cast(pl.List(pl.Int64)) if listed else column.cast(pl.Int64)
