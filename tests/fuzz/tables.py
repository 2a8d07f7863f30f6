"""Damage to tables: columns, types, cells, rows.

Belongs here: one function a kind, which changes an Arrow table at random and gives the damaged one (or None where it
cannot be applied). Does not belong here: damage to bytes (`lies`, `lines`), to places (`places`).

The column `n` numbers the rows of some tables for the harness; no damage touches it.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Rng = np.random.Generator
TableDamage = Callable[[pa.Table, Rng], pa.Table | None]
TAG = "n"

YEAR_1 = int(datetime(1, 1, 1, tzinfo=UTC).timestamp())
YEAR_9999 = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
INT64 = 2**63


def pick(table: pa.Table, rng: Rng, fits: Callable[[pa.DataType], bool] = lambda _: True) -> str | None:
    """A column at random whose type fits."""
    names = [f.name for f in table.schema if f.name != TAG and fits(f.type) and table.column_names.count(f.name) == 1]
    return str(names[int(rng.integers(len(names)))]) if names else None


def put(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray, new_name: str | None = None) -> pa.Table:
    """The table with a column replaced."""
    return table.set_column(table.column_names.index(name), new_name or name, values)


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def some_rows(table: pa.Table, rng: Rng) -> np.ndarray:
    """A mask of some rows (bool), at least one where there are rows."""
    mask = rng.random(len(table)) < 0.4
    if len(mask):
        mask[rng.integers(len(mask))] = True
    return mask


def missing_column(table: pa.Table, rng: Rng) -> pa.Table | None:
    name = pick(table, rng)
    return table.drop_columns([name]) if name else None


def renamed_column(table: pa.Table, rng: Rng) -> pa.Table | None:
    name = pick(table, rng)
    new = str(rng.choice(["", "X", "line\nbreak", "USER_ID", "x" * 5_000, "__day", "source", "\u202e"]))
    return put(table, name, table[name], new) if name else None


def repeated_column(table: pa.Table, rng: Rng) -> pa.Table | None:
    name = pick(table, rng)
    return table.append_column(name, table[name]) if name else None


def other_order(table: pa.Table, rng: Rng) -> pa.Table | None:
    return table.select([table.column_names[i] for i in rng.permutation(table.num_columns)])


def unknown_column(table: pa.Table, rng: Rng) -> pa.Table | None:
    n = len(table)
    made = [
        pa.array([{"a": 1}] * n, pa.struct([("a", pa.int64())])),
        pa.array([[("k", 1)]] * n, pa.map_(pa.string(), pa.int64())),
        pa.array([b"\xff\x00"] * n, pa.binary()),
        pa.array(["a"] * n).dictionary_encode(),
        pa.array([1] * n, pa.decimal128(20, 3)),
        pa.array([1] * n, pa.duration("ns")),
        pa.array([1] * n, pa.time64("us")),
        pa.array([1] * n, pa.date32()),
        pa.array([1.0] * n, pa.float16()),
        pa.array([["a", None]] * n, pa.list_(pa.string())),
        pa.array([[[1]]] * n, pa.list_(pa.list_(pa.int64()))),
        pa.array([[1, 2]] * n, pa.list_(pa.int64(), 2)),
        pa.array([INT64 - 1] * n, pa.timestamp("s", "Europe/Copenhagen")),
        pa.array([2**64 - 1] * n, pa.uint64()),
        pa.array([None] * n),
        pa.array(["text"] * n),
    ]
    name = str(rng.choice(["source", "__day", "__damage", "__cut", "reason", "extra", "time", "line\nbreak", "table"]))
    return table.append_column(name, made[int(rng.integers(len(made)))])


def wrong_type(table: pa.Table, rng: Rng) -> pa.Table | None:
    name = pick(table, rng)
    if name is None:
        return None
    n = len(table)
    targets = [
        pa.array(["x"] * n), pa.array([1.5] * n), pa.array([True] * n), pa.array([b"x"] * n), pa.array([None] * n),
        pa.array([1] * n, pa.decimal128(10, 2)), pa.array([["x"]] * n), pa.array([{"a": 1}] * n), pa.array([1] * n),
        pa.array([1] * n, pa.date64()), pa.array(["1"] * n).dictionary_encode(), pa.array([[1.5]] * n),
    ]  # fmt: skip
    return put(table, name, targets[int(rng.integers(len(targets)))])


def other_width(table: pa.Table, rng: Rng) -> pa.Table | None:
    """Types that say the same in another width, unit or zone, or in lists of another kind."""
    name = pick(table, rng)
    if name is None:
        return None
    kind = table.schema.field(name).type
    inner = kind.value_type if is_list(kind) else kind
    if pa.types.is_integer(inner):
        wider = rng.choice([pa.int64(), pa.uint64(), pa.int32(), pa.uint32()])
    elif pa.types.is_floating(inner):
        wider = rng.choice([pa.float64(), pa.float32(), pa.float16()])
    elif pa.types.is_timestamp(inner):
        units = [pa.timestamp(u, z) for u in ("s", "ms", "us", "ns") for z in (None, "UTC", "Asia/Kolkata", "+05:30")]
        wider = units[int(rng.integers(len(units)))]
    elif pa.types.is_string(inner) or pa.types.is_large_string(inner):
        wider = rng.choice([pa.string(), pa.large_string()])
    else:
        return None
    target = (pa.list_(wider) if rng.integers(2) else pa.large_list(wider)) if is_list(kind) else wider
    try:
        return put(table, name, table[name].cast(target, safe=False))
    except pa.ArrowException:
        return None


def null_cells(table: pa.Table, rng: Rng) -> pa.Table | None:
    name = pick(table, rng)
    if name is None or not len(table):
        return None
    return put(table, name, pc.if_else(pa.array(~some_rows(table, rng)), table[name], None))


def nothing_but_nulls(table: pa.Table, rng: Rng) -> pa.Table | None:
    name = pick(table, rng)
    if name is None:
        return None
    kind = pa.null() if rng.integers(2) else table.schema.field(name).type
    return put(table, name, pa.nulls(len(table), kind))


def nulls_in_lists(table: pa.Table, rng: Rng) -> pa.Table | None:
    name = pick(table, rng, is_list)
    if name is None or not len(table):
        return None
    return put(table, name, _items(table[name], lambda flat: pc.if_else(_mask(flat, rng), flat, None)))


def _mask(values: pa.Array, rng: Rng) -> pa.Array:
    return pa.array(rng.random(len(values)) < 0.7)


def _items(column: pa.ChunkedArray, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """The lists with their items changed; null lists stay null."""
    lists = column.combine_chunks()
    lists = lists if isinstance(lists, pa.Array) else pa.concat_arrays(lists.chunks)
    flat = change(lists.values)
    return type(lists).from_arrays(lists.offsets, flat, mask=lists.is_null() if lists.null_count else None)


def _extremes(kind: pa.DataType, rng: Rng) -> pa.Array:
    """Extreme values that a type, or one a little wider, can hold."""
    if pa.types.is_timestamp(kind):
        unit = str(rng.choice(["s", "ms", "us", "ns"]))
        per = _PER_SECOND[unit]
        years = [] if unit == "ns" else [YEAR_1 * per, YEAR_9999 * per, (YEAR_9999 + 86_400) * per]
        return pa.array([INT64 - 1, -INT64, 0, INT64 // 1_000, *years], pa.int64()).cast(pa.timestamp(unit))
    if pa.types.is_integer(kind):
        if rng.integers(3) == 0:
            return pa.array([2**64 - 1, 2**63, 2**63 - 1, 0], pa.uint64())
        return pa.array([INT64 - 1, -INT64, -1, 0, 2**31, 2**32], pa.int64())
    if pa.types.is_floating(kind):
        return pa.array([np.inf, -np.inf, np.nan, 1e308, -1e308, 5e-324, -0.0], pa.float64())
    return pa.array(["", "\x00", "\U0001f4f0" * 50, "\r\n", '"'], pa.large_string())


def extreme_values(table: pa.Table, rng: Rng) -> pa.Table | None:
    name = pick(table, rng, lambda k: not (pa.types.is_boolean(k) or (pa.types.is_nested(k) and not is_list(k))))
    if name is None or not len(table):
        return None
    kind = table.schema.field(name).type
    inner = kind.value_type if is_list(kind) else kind
    if pa.types.is_null(inner):
        return None
    bank = _extremes(inner, rng)

    def change(values: pa.Array) -> pa.Array | None:
        drawn = bank.take(pa.array(rng.integers(0, len(bank), len(values))))
        return pc.if_else(_mask(values, rng), values.cast(bank.type), drawn)

    try:
        if is_list(kind):
            return put(table, name, _items(table[name], change))
        return put(table, name, change(pa.concat_arrays(table[name].chunks)))
    except pa.ArrowException:
        return None


def repeated_rows(table: pa.Table, rng: Rng) -> pa.Table | None:
    if not len(table):
        return None
    return pa.concat_tables([table, table.take(rng.integers(0, len(table), int(rng.integers(1, 4))))])


def repeated_ids(table: pa.Table, rng: Rng) -> pa.Table | None:
    """Another row's id."""
    name = next((n for n in ("impression_id", "article_id", "user_id") if n in table.column_names), None)
    if name is None or len(table) < 2:
        return None
    return put(table, name, table[name].take(rng.integers(0, len(table), len(table))))


def negative_ids(table: pa.Table, rng: Rng) -> pa.Table | None:
    name = pick(table, rng, lambda k: pa.types.is_integer(k) or (is_list(k) and pa.types.is_integer(k.value_type)))
    if name is None or not len(table):
        return None

    def change(values: pa.Array) -> pa.Array:
        values = values.cast(pa.int64())
        return pc.if_else(_mask(values, rng), values, pc.subtract(pc.negate(values), 1))

    try:
        lists = is_list(table.schema.field(name).type)
        column = table[name]
        return put(table, name, _items(column, change) if lists else change(pa.concat_arrays(column.chunks)))
    except pa.ArrowException:
        return None


def unordered_rows(table: pa.Table, rng: Rng) -> pa.Table | None:
    return table.take(rng.permutation(len(table))) if len(table) else None


def no_rows(table: pa.Table, rng: Rng) -> pa.Table | None:
    return table.slice(0, 0)


def shifted_clocks(table: pa.Table, rng: Rng) -> pa.Table | None:
    """Clocks days to decades off, before publication or past the log's end."""
    name = pick(table, rng, lambda k: pa.types.is_timestamp(k) or (is_list(k) and pa.types.is_timestamp(k.value_type)))
    if name is None or not len(table):
        return None
    kind = table.schema.field(name).type
    inner = kind.value_type if is_list(kind) else kind
    shift = int(rng.choice([-1, 1])) * int(rng.choice([60, 86_400, 40 * 86_400, 30 * 365 * 86_400]))

    def change(values: pa.Array) -> pa.Array:
        moved = pc.add(values.cast(pa.int64()), shift * _PER_SECOND[inner.unit]).cast(inner)
        return pc.if_else(_mask(values, rng), values, moved)

    column = table[name]
    return put(table, name, _items(column, change) if is_list(kind) else change(pa.concat_arrays(column.chunks)))


def uneven_lists(table: pa.Table, rng: Rng) -> pa.Table | None:
    """Lists cut, emptied or doubled in one column of several."""
    name = pick(table, rng, is_list)
    if name is None or not len(table):
        return None
    kind, values = table.schema.field(name).type, []
    plain = table[name].cast((pa.large_list if pa.types.is_large_list(kind) else pa.list_)(pa.int64())) if (
        pa.types.is_timestamp(kind.value_type)) else table[name]  # fmt: skip
    for row, hit in zip(plain.to_pylist(), some_rows(table, rng), strict=True):
        draws = [[], None, (row or [])[:-1], (row or []) * 2]
        values.append(draws[int(rng.integers(4))] if hit else row)
    return put(table, name, pa.array(values, plain.type).cast(kind))


def click_not_in_view(table: pa.Table, rng: Rng) -> pa.Table | None:
    if "article_ids_clicked" not in table.column_names or not len(table):
        return None
    kind = table.schema.field("article_ids_clicked").type
    if not is_list(kind) or not pa.types.is_integer(kind.value_type):
        return None
    rows = [[999] if hit else [] for hit in some_rows(table, rng)]
    return put(table, "article_ids_clicked", pa.array(rows, kind))


def not_utf8(table: pa.Table, rng: Rng) -> pa.Table | None:
    name = pick(table, rng, lambda k: pa.types.is_string(k) or pa.types.is_large_string(k))
    if not len(table):
        return None
    bank = [b"\xff\xfe", b"ok\xc3", b"\xed\xa0\x80", b"\x80" * 20]
    raw = pa.array([bank[int(rng.integers(4))] if hit else b"sound" for hit in some_rows(table, rng)])
    texts = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    return put(table, name, texts) if name else table.append_column("extra", texts)


def large_cell(table: pa.Table, rng: Rng) -> pa.Table | None:
    """A cell of a megabyte and more, in the middle of others."""
    name = pick(table, rng, lambda k: pa.types.is_string(k) or pa.types.is_large_string(k) or is_list(k))
    if name is None or not len(table):
        return None
    kind, at = table.schema.field(name).type, int(rng.integers(len(table)))
    if is_list(kind):
        cell = pa.array([list(range(120_000))], pa.list_(pa.int32())).cast(pa.list_(pa.int64()))
        if not pa.types.is_timestamp(kind.value_type):
            cell = cell.cast(pa.list_(kind.value_type), safe=False)
        cell = cell.cast(kind)
    else:
        cell = pa.array(["\u00e6" * (2 << 20)], kind)
    column = table[name]
    parts = [
        *column.slice(0, at).chunks,
        *(cell.chunks if isinstance(cell, pa.ChunkedArray) else [cell]),
        *column.slice(at + 1).chunks,
    ]
    return put(table, name, pa.chunked_array(parts, kind))


KINDS: dict[str, TableDamage] = {
    "missing column": missing_column,
    "renamed column": renamed_column,
    "column twice": repeated_column,
    "columns in another order": other_order,
    "unknown column": unknown_column,
    "wrong type": wrong_type,
    "other width, unit or zone": other_width,
    "nulls": null_cells,
    "nothing but nulls": nothing_but_nulls,
    "nulls in lists": nulls_in_lists,
    "extreme values": extreme_values,
    "rows repeated": repeated_rows,
    "ids repeated": repeated_ids,
    "negative ids": negative_ids,
    "unordered rows": unordered_rows,
    "no rows": no_rows,
    "clocks off": shifted_clocks,
    "lists of unequal length": uneven_lists,
    "click not in view": click_not_in_view,
    "text not UTF-8": not_utf8,
    "large cell": large_cell,
}
