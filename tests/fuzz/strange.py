"""What a stranger does to an artifact: one function a kind of damage, by format.

Belongs here: damage to bytes that respects a format just enough to be believed. Does not belong here: damage to any
file's bytes or place (`files`), to rows of tables (`tables`), to footers (`lies`); making manifests agree (`agree`).

A function takes the file's bytes and a generator and gives other bytes; None where the damage does not apply.
"""

import io
import json
import os
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

Rng = np.random.Generator
Damage = Callable[[bytes, Rng], bytes | None]
HUGE = (2**31 - 1, 2**33, 2**40, 2**60, 2**63 - 1)


def _one(values: Any, rng: Rng) -> Any:
    found = list(values)
    return found[int(rng.integers(len(found)))]


# Pickles: opened by mistake, they make the folder that MARK names.

MARK = "NEWSREC_FUZZ_MARK"


class _Maker:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ.get(MARK, "opened"),)


def plain_pickle(data: bytes, rng: Rng) -> bytes:
    return pickle.dumps(_Maker(), protocol=int(rng.integers(2, 6)))


def torch_pickle(data: bytes, rng: Rng) -> bytes:
    out = io.BytesIO()
    torch.save({"weight": torch.zeros(3), "x": _Maker()}, out, _use_new_zipfile_serialization=bool(rng.integers(2)))
    return out.getvalue()


def numpy_pickle(data: bytes, rng: Rng) -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([_Maker()], dtype=object), allow_pickle=True)
    return out.getvalue()


def archive(data: bytes, rng: Rng) -> bytes:
    out = io.BytesIO()
    np.savez(out, a=np.zeros(10 ** int(rng.integers(1, 6))))
    return out.getvalue()


def spliced(data: bytes, rng: Rng) -> bytes:
    """A piece of the file again in another place of it."""
    if len(data) < 8:
        return data * 2
    a, b, c = (int(x) for x in np.sort(rng.integers(0, len(data), 3)))
    return data[:a] + data[b:c] + data[a:]


PICKLES: dict[str, Damage] = {
    "pickle": plain_pickle,
    "pickle of torch.save": torch_pickle,
    "pickle in an array": numpy_pickle,
    "archive": archive,
}


# safetensors


def _tensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _packed(header: Any, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def _names(header: dict[str, Any]) -> list[str]:
    return [name for name in header if name != "__metadata__"]


def header_length(data: bytes, rng: Rng) -> bytes:
    return int(_one((0, 1, 7, len(data), len(data) - 8, 10**8, *HUGE, 2**64 - 1), rng)).to_bytes(8, "little") + data[8:]


def header_deep(data: bytes, rng: Rng) -> bytes:
    _, body = _tensors(data)
    return _packed(b'{"a":' * int(_one((500, 50_000, 190_000), rng)), body)


def header_many(data: bytes, rng: Rng) -> bytes:
    """A hundred thousand empty tensors."""
    header, body = _tensors(data)
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return _packed({**header, **{f"x{i}": empty for i in range(100_000)}}, body)


def header_twice(data: bytes, rng: Rng) -> bytes:
    header, body = _tensors(data)
    name = _one(_names(header), rng)
    text = json.dumps(header)
    return _packed((text[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}" + "}").encode(), body)


def shape_lie(data: bytes, rng: Rng) -> bytes:
    header, body = _tensors(data)
    entry = header[_one(_names(header), rng)]
    entry["shape"] = _one(
        ([], [0], [-1], [*entry["shape"], 2], [int(_one(HUGE, rng))], [2**32, 2**32], [1.5], ["a"]), rng
    )
    return _packed(header, body)


def offset_lie(data: bytes, rng: Rng) -> bytes:
    header, body = _tensors(data)
    entry = header[_one(_names(header), rng)]
    a, b = entry["data_offsets"]
    entry["data_offsets"] = _one(
        ([b, a], [a + 4, b + 4], [-4, b], [0, int(_one(HUGE, rng))], [a, a], [a], ["0", "4"]), rng
    )
    return _packed(header, body)


def other_type(data: bytes, rng: Rng) -> bytes:
    header, body = _tensors(data)
    entry = header[_one(_names(header), rng)]
    entry["dtype"] = _one({"F16", "I32", "BF16", "F64", "U8", "BOOL", "X"} - {entry["dtype"]}, rng)
    return _packed(header, body)


def _rewritten(data: bytes, change: Callable[[dict[str, np.ndarray]], None]) -> bytes:
    """The file with its arrays changed."""
    from safetensors.numpy import load, save

    arrays = load(data)
    change(arrays)
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def _floating(arrays: dict[str, np.ndarray]) -> list[str]:
    return [name for name, array in arrays.items() if array.dtype.kind == "f" and array.size]


def not_finite(data: bytes, rng: Rng) -> bytes | None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        names = _floating(arrays)
        if names:
            flat = arrays[_one(names, rng)].reshape(-1)
            flat[int(rng.integers(flat.size))] = _one((np.nan, np.inf, -np.inf), rng)

    changed = _rewritten(data, change)
    return changed if changed != _rewritten(data, lambda _: None) else None


def other_shape(data: bytes, rng: Rng) -> bytes:
    def change(arrays: dict[str, np.ndarray]) -> None:
        name = _one(arrays, rng)
        array = arrays[name]
        arrays[name] = array[None] if array.ndim == 0 or rng.integers(2) else np.concatenate([array, array[:1]])

    return _rewritten(data, change)


def other_width(data: bytes, rng: Rng) -> bytes:
    def change(arrays: dict[str, np.ndarray]) -> None:
        name = _one(arrays, rng)
        arrays[name] = arrays[name].astype(np.int16 if arrays[name].dtype.kind == "i" else np.float16)

    return _rewritten(data, change)


def missing_tensor(data: bytes, rng: Rng) -> bytes:
    return _rewritten(data, lambda arrays: arrays.pop(_one(arrays, rng)) and None)


def extra_tensor(data: bytes, rng: Rng) -> bytes:
    return _rewritten(data, lambda arrays: arrays.update({"more": np.zeros(3, dtype=np.float32)}))


def shuffled_values(data: bytes, rng: Rng) -> bytes:
    """Values of one tensor in another order: other weights, or an order that something relies on."""

    def change(arrays: dict[str, np.ndarray]) -> None:
        rng.shuffle(arrays[_one(arrays, rng)].reshape(-1))

    return _rewritten(data, change)


TENSORS: dict[str, Damage] = {
    "header length": header_length,
    "header nested deep": header_deep,
    "header of 100,000 tensors": header_many,
    "header with a name twice": header_twice,
    "lying shape": shape_lie,
    "lying place": offset_lie,
    "lying type": other_type,
    "NaN or infinite value": not_finite,
    "tensor of another shape": other_shape,
    "tensor of another width": other_width,
    "tensor missing": missing_tensor,
    "tensor too many": extra_tensor,
    "values shuffled": shuffled_values,
}


# FAISS


def index_number(data: bytes, rng: Rng) -> bytes:
    """One of the first numbers, or one found anywhere, huge, negative or off by one."""
    changed = bytearray(data)
    fields = ((4, "<i"), (8, "<q"), (32, "<B"), (33, "<i"), (37, "<Q"), (45, "<Q"), (53, "<Q"))
    at, kind = _one(fields, rng) if rng.random() < 0.6 else (4 * int(rng.integers(len(data) // 4 - 2)), "<i")
    width = 8 * struct.calcsize(kind)
    now = struct.unpack_from(kind, changed, at)[0]
    low, high = (0, 2**width - 1) if kind.isupper() else (-(2 ** (width - 1)), 2 ** (width - 1) - 1)
    value = int(_one((0, 1, -1, now + 1, now - 1, now * 2, *HUGE), rng))
    struct.pack_into(kind, changed, at, max(low, min(high, value)))
    return bytes(changed)


def index_kind(data: bytes, rng: Rng) -> bytes:
    return (
        _one((b"IxF2", b"IwPQ", b"IHNs", b"IxMp", b"IBxF", b"IxSQ", b"ILfs", b"Ibwf", b"null", b"IxPT"), rng) + data[4:]
    )


def index_not_finite(data: bytes, rng: Rng) -> bytes:
    """A vector's value: they make up the end of a flat index, of a graph, and of the last inverted list."""
    changed = bytearray(data)
    at = len(data) - 4 * int(rng.integers(1, 40)) if data[:4] != b"IwFl" else 200 + 4 * int(rng.integers(20))
    struct.pack_into("<f", changed, at, float(_one((np.nan, np.inf), rng)))
    return bytes(changed)


def index_neighbour(data: bytes, rng: Rng) -> bytes | None:
    """A neighbour of a graph that is none, or the place where searches begin."""
    if data[:4] != b"IHNf":
        return None
    changed, at = bytearray(data), 37
    for width in (8, 4, 4, 8):  # chances, numbers of neighbours, levels, offsets
        at += 8 + width * struct.unpack_from("<Q", data, at)[0]
    count = struct.unpack_from("<Q", data, at)[0]
    place = at + 8 + 4 * int(rng.integers(count + 5))
    struct.pack_into("<i", changed, place, int(_one((-2, 60, 10**6, 2**31 - 1, -(2**31), 59), rng)))
    return bytes(changed)


INDEXES: dict[str, Damage] = {
    "number in an index": index_number,
    "another kind of index": index_kind,
    "NaN in an index": index_not_finite,
    "neighbour of a graph": index_neighbour,
}


# .npy


def array_header(data: bytes, rng: Rng) -> bytes:
    kind = _one(("<i8", "|O", "<f8", "<i4", "|b1", "<U8", ">i8", "|V8"), rng)
    shape = _one(
        (
            "(60,)",
            "(61,)",
            f"({_one(HUGE, rng)},)",
            "(60, 1)",
            "()",
            "(-1,)",
            "(True,)",
            "('a',)",
            "(__import__('os'),)",
        ),
        rng,
    )
    text = f"{{'descr': '{kind}', 'fortran_order': {bool(rng.integers(2))}, 'shape': {shape}, }}"
    if rng.random() < 0.2:
        text = _one(("{" * 9000, "[]", "os.system('true')", "{'descr': ['<i8'] * 99999}"), rng)
    head = text.encode().ljust(118 - (118 + 10) % 64 + 54, b" ") + b"\n"
    return (
        b"\x93NUMPY" + bytes([int(_one((1, 1, 1, 2, 3, 9), rng)), 0]) + struct.pack("<H", len(head)) + head + data[128:]
    )


def repeated_id(data: bytes, rng: Rng) -> bytes:
    return data[:-8] + data[-16:-8]


ARRAYS: dict[str, Damage] = {"header of an array": array_header, "id twice": repeated_id}


# Parquet


def rows_bomb(data: bytes, rng: Rng) -> bytes:
    """The same columns with very many equal rows in a small file."""
    table = pq.read_table(io.BytesIO(data)).slice(0, 1)
    out, rows = io.BytesIO(), 4_000_000
    with pq.ParquetWriter(out, table.schema, compression="zstd", use_dictionary=True) as writer:
        block = table.take(pa.array(np.zeros(rows, dtype=np.int64)))
        for _ in range(int(_one((6, 12), rng))):
            writer.write_table(block, row_group_size=rows)
    return out.getvalue()


def text_bomb(data: bytes, rng: Rng) -> bytes | None:
    """One text of ten megabytes in every row, once in the file."""
    table = pq.read_table(io.BytesIO(data))
    names = [f.name for f in table.schema if pa.types.is_string(f.type)]
    if not names or not len(table):
        return None
    name, rows = str(_one(names, rng)), max(len(table), 400)
    table = table.take(pa.array(np.arange(rows) % len(table)))
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * (10 << 20)]))
    return _written(table.set_column(table.column_names.index(name), name, texts))


def list_bomb(data: bytes, rng: Rng) -> bytes | None:
    """One list of tens of millions of equal items."""
    table = pq.read_table(io.BytesIO(data))
    names = [f.name for f in table.schema if pa.types.is_list(f.type) and pa.types.is_integer(f.type.value_type)]
    if not names or not len(table):
        return None
    name, size = str(_one(names, rng)), int(_one((20_000_000, 60_000_000), rng))
    values = pa.array(np.full(size, 1000, dtype=np.int64))
    lists = pa.LargeListArray.from_arrays(pa.array([0, *[size] * len(table)], pa.int64()), values)
    return _written(table.set_column(table.column_names.index(name), name, lists))


def _written(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", store_schema=False)
    return out.getvalue()


def huge_footer(data: bytes, rng: Rng) -> bytes:
    length = int(_one((0, len(data), len(data) - 12, 20 << 20, 2**31 - 1, 2**32 - 1), rng))
    return data[:-8] + struct.pack("<I", length) + b"PAR1"


def float_values(data: bytes, rng: Rng) -> bytes | None:
    """NaN or infinity among numbers, also those in lists of fixed length."""
    table = pq.read_table(io.BytesIO(data))
    for name in rng.permutation(table.column_names):
        column, kind = table[str(name)].combine_chunks(), table.schema.field(str(name)).type
        inner = kind.value_type if pa.types.is_fixed_size_list(kind) else kind
        if not pa.types.is_floating(inner) or not len(table):
            continue
        flat = (column.flatten() if inner is not kind else column).fill_null(0).to_numpy(zero_copy_only=False).copy()
        flat[int(rng.integers(len(flat)))] = _one((np.nan, np.inf, -np.inf, 3e38), rng)
        values = pa.array(flat, inner)
        made = pa.FixedSizeListArray.from_arrays(values, kind.list_size) if inner is not kind else values
        return _written(table.set_column(table.column_names.index(str(name)), str(name), made))
    return None


TABLES: dict[str, Damage] = {
    "bomb of rows": rows_bomb,
    "bomb of text": text_bomb,
    "bomb of a list": list_bomb,
    "length of the footer": huge_footer,
    "NaN among numbers": float_values,
}


# JSON


def _places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value stands."""
    found = [way]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _places(inner, (*way, key))
    return found


def _changed(value: Any, way: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not way:
        return change(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[way[0]] = _changed(copy[way[0]], way[1:], change)
    return copy


ODD = (
    None,
    True,
    -1,
    0,
    1.5,
    2**70,
    "",
    "x",
    "../../../outside",
    "/etc/passwd",
    "a\0b",
    "\u202e\x1b[2J",
    [],
    {},
    [[]],
    [1],
    {"a": 1},
)
"""Values of another type or meaning."""


def other_value(value: Any, rng: Rng) -> Any:
    """One value anywhere replaced."""
    return _changed(value, _one(_places(value), rng), lambda _: _one(ODD, rng))


def missing_entry(value: Any, rng: Rng) -> Any:
    way = _one([w for w in _places(value) if w], rng)

    def without(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {k: v for k, v in inner.items() if k != way[-1]}
        return [v for i, v in enumerate(inner) if i != way[-1]]

    return _changed(value, way[:-1], without)


def more_entries(value: Any, rng: Rng) -> Any:
    ways = [w for w in _places(value) if isinstance(_at(value, w), dict)]
    return _changed(value, _one(ways, rng), lambda inner: {**inner, "more": _one(ODD, rng)}) if ways else None


def other_number(value: Any, rng: Rng) -> Any:
    ways = [w for w in _places(value) if type(_at(value, w)) in (int, float)]
    odd = (0, -1, 10**9, 2**31, 2**63, 10**30, 1e308, -0.0, 0.1)
    return _changed(value, _one(ways, rng), lambda _: _one(odd, rng)) if ways else None


def _at(value: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        value = value[key]
    return value


VALUES: dict[str, Callable[[Any, Rng], Any]] = {
    "value of another type": other_value,
    "entry missing": missing_entry,
    "entry too many": more_entries,
    "another number": other_number,
}
"""Damage to the value of a JSON file, which is then written as its writer would."""


def json_twice(data: bytes, rng: Rng) -> bytes | None:
    value = json.loads(data)
    if not isinstance(value, dict) or not value:
        return None
    name = _one(value, rng)
    return data.rstrip()[:-1] + f", {json.dumps(name)}: {json.dumps(_one((value[name], None, 0), rng))}}}".encode()


def json_constant(data: bytes, rng: Rng) -> bytes | None:
    """NaN, infinity, or a number beyond all numbers in the place of one."""
    value = json.loads(data)
    ways = [w for w in _places(value) if type(_at(value, w)) in (int, float)]
    if not ways:
        return None
    text = json.dumps(_changed(value, _one(ways, rng), lambda _: "@@"))
    return text.replace('"@@"', str(_one(("NaN", "Infinity", "-Infinity", "1e999", "-1e999"), rng))).encode()


def json_deep(data: bytes, rng: Rng) -> bytes:
    depth = int(_one((1_000, 100_000, 4_000_000), rng))
    return _one((b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth), rng)


def json_long(data: bytes, rng: Rng) -> bytes:
    """Tens of megabytes of small values, or of one text."""
    size = int(_one((10, 60), rng)) << 20
    return _one((b"[" + b"[]," * (size // 3) + b"[]]", b'{"a": "' + b"x" * size + b'"}', b" " * size + data), rng)


def json_encoding(data: bytes, rng: Rng) -> bytes:
    text = data.decode("utf-8", "replace")
    return _one((text.encode("utf-16"), text.encode("utf-32"), b"\xef\xbb\xbf" + data, data + b"\xff"), rng)


def json_surrogate(data: bytes, rng: Rng) -> bytes | None:
    value = json.loads(data)
    ways = [w for w in _places(value) if isinstance(_at(value, w), str)]
    if not ways:
        return None
    return json.dumps(_changed(value, _one(ways, rng), lambda _: "@@")).replace("@@", "\\ud800").encode()


JSON: dict[str, Damage] = {
    "name twice": json_twice,
    "NaN or infinity in JSON": json_constant,
    "nesting without end": json_deep,
    "JSON of tens of megabytes": json_long,
    "another encoding": json_encoding,
    "half a surrogate pair": json_surrogate,
}
