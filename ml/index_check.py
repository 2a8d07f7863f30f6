"""The bytes of a FAISS index held against each other before FAISS opens the file: what it reads it believes, and
neither an allocation of terabytes nor a crash at search can be caught.

Belongs here: the layout of the three kinds that `ml.retrieval` writes, and what must hold in them. Does not belong
here: building and searching. Source of the layout: faiss 1.15, `faiss/impl/index_write.cpp` (`write_index_header`,
`write_HNSW`, `write_InvertedLists`) and `faiss/impl/HNSW.h`.

An index of any other kind is refused.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ml.strangers import regular

MOST_SEARCHED = 65_536
"""Largest `efSearch` and `efConstruction`: memory of every search is in proportion."""

M = 32
"""Neighbours of a vector on the upper levels of a graph; on the lowest twice as many."""

_LEVELS = 64
_ROWS_AT_ONCE = 1 << 16
_INNER_PRODUCT, _TRAINED, _NO_DIRECT_MAP = 0, 1, 0
FLAT, IVF, HNSW = b"IxFI", b"IwFl", b"IHNf"


@dataclass(frozen=True, slots=True)
class Shape:
    """What an index holds: `kind` as choice.json calls it, `rows` vectors of length `dimension`."""

    kind: str
    rows: int
    dimension: int


def check_index(path: Path, remedy: str) -> Shape:
    """What the index at `path` is. Raises ValueError, with the breach in one line, where its bytes contradict each
    other, hold NaN or infinity, or would lead a search out of bounds; DataError where there is no regular file."""
    size = regular(path, remedy)
    if not size:
        raise ValueError("it is empty")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(data)
        try:
            shape = _index(cursor)
            if cursor.at != size:
                raise ValueError(f"{size - cursor.at} bytes follow its end")
        finally:
            cursor.close()
    return shape


class _Cursor:
    """A place in a file's bytes; whatever is taken must lie within them."""

    def __init__(self, data: mmap.mmap) -> None:
        self._view, self.at = memoryview(data), 0

    def close(self) -> None:
        self._view.release()

    def array(self, dtype: str, count: int) -> np.ndarray:
        """`count` values as a copy."""
        width = np.dtype(dtype).itemsize
        if not 0 <= count <= (len(self._view) - self.at) // width:
            raise ValueError(f"it claims {count} values of {width} bytes at byte {self.at} of {len(self._view)}")
        found = np.frombuffer(self._view[self.at : self.at + count * width], dtype).copy()
        self.at += count * width
        return found

    def number(self, dtype: str) -> int:
        return int(self.array(dtype, 1)[0])

    def vector(self, dtype: str) -> np.ndarray:
        """Values after their own number."""
        return self.array(dtype, self.number("<u8"))

    def code(self) -> bytes:
        return self.array("u1", 4).tobytes()

    def expect(self, name: str, dtype: str, *allowed: int) -> int:
        value = self.number(dtype)
        if value not in allowed:
            raise ValueError(f"{name} is {value}, not {' or '.join(map(str, allowed))}")
        return value

    def finite(self, count: int) -> None:
        """Steps over `count` float32 values, none of them NaN or infinite."""
        end = self.at + 4 * count
        if not 0 <= count <= (len(self._view) - self.at) // 4:
            raise ValueError(f"it claims {count} numbers at byte {self.at} of {len(self._view)}")
        while self.at < end:
            if not np.isfinite(self.array("<f4", min(_ROWS_AT_ONCE, (end - self.at) // 4))).all():
                raise ValueError("its vectors hold NaN or infinity")


def _index(cursor: _Cursor) -> Shape:
    code = cursor.code()
    if code == FLAT:
        return _flat(cursor)
    if code == IVF:
        return _inverted(cursor)
    if code == HNSW:
        return _graph(cursor)
    raise ValueError(f"it starts with {code!r}: only flat, IVF-flat and HNSW-flat indexes over inner products are read")


def _header(cursor: _Cursor) -> tuple[int, int]:
    """Dimension and rows."""
    dimension, rows = cursor.number("<i4"), cursor.number("<i8")
    if dimension < 1 or rows < 0:
        raise ValueError(f"it claims {rows} vectors of length {dimension}")
    cursor.array("<i8", 2)
    cursor.expect("its mark of training", "u1", _TRAINED)
    cursor.expect("its metric", "<i4", _INNER_PRODUCT)
    return dimension, rows


def _flat(cursor: _Cursor) -> Shape:
    dimension, rows = _header(cursor)
    cursor.expect("the number of values", "<u8", rows * dimension)
    cursor.finite(rows * dimension)
    return Shape("Flat", rows, dimension)


def _stored(cursor: _Cursor, rows: int, dimension: int) -> None:
    """A flat index within another one."""
    code = cursor.code()
    inner = _flat(cursor) if code == FLAT else None
    if inner is None or (inner.rows, inner.dimension) != (rows, dimension):
        raise ValueError(
            f"{code!r} of {inner and inner.rows} vectors lies where {rows} flat ones of {dimension} belong"
        )


def _inverted(cursor: _Cursor) -> Shape:
    dimension, rows = _header(cursor)
    lists, probes = cursor.number("<u8"), cursor.number("<u8")
    if not 1 <= probes <= lists:
        raise ValueError(f"it searches {probes} of {lists} lists")
    _stored(cursor, lists, dimension)
    cursor.expect("its direct map", "u1", _NO_DIRECT_MAP)
    cursor.expect("the length of its direct map", "<u8", 0)
    if cursor.code() != b"ilar":
        raise ValueError("its inverted lists are of another kind than arrays")
    cursor.expect("the number of lists", "<u8", lists)
    cursor.expect("the bytes of a vector", "<u8", 4 * dimension)
    sizes = _sizes(cursor, lists)
    if int(sizes.sum()) != rows:
        raise ValueError(f"its lists hold {int(sizes.sum())} of {rows} vectors")
    ids = []
    for size in sizes.tolist():
        cursor.finite(size * dimension)
        ids.append(cursor.array("<i8", size))
    if not np.array_equal(np.sort(np.concatenate(ids)), np.arange(rows)):
        raise ValueError("its lists do not hold each vector once")
    return Shape(f"IVF{lists},Flat", rows, dimension)


def _sizes(cursor: _Cursor, lists: int) -> np.ndarray:
    """Lengths of all lists, int64; written in full, or of those that are not empty."""
    code = cursor.code()
    if code == b"full":
        sizes = cursor.vector("<u8")
        if len(sizes) != lists:
            raise ValueError(f"it gives the sizes of {len(sizes)} of {lists} lists")
    elif code == b"sprs":
        pairs = cursor.vector("<u8").reshape(-1, 2)
        if len(np.unique(pairs[:, 0])) != len(pairs) or (pairs[:, 0] >= lists).any():
            raise ValueError("it gives sizes of lists that it does not have")
        sizes = np.zeros(lists, dtype=np.uint64)
        sizes[pairs[:, 0].astype(np.int64)] = pairs[:, 1]
    else:
        raise ValueError(f"it gives the sizes of its lists as {code!r}")
    if (sizes > np.uint64(2**40)).any():
        raise ValueError("it claims a list of more than 2^40 vectors")
    return sizes.astype(np.int64)


def _graph(cursor: _Cursor) -> Shape:
    dimension, rows = _header(cursor)
    cursor.vector("<f8")  # chances of a level: used when vectors are added
    upto, levels, offsets = cursor.vector("<i4"), cursor.vector("<i4"), cursor.vector("<u8")
    neighbours = cursor.vector("<i4")
    entry, top = cursor.number("<i4"), cursor.number("<i4")
    for name in ("efConstruction", "efSearch"):
        value = cursor.number("<i4")
        if not 1 <= value <= MOST_SEARCHED:
            raise ValueError(f"its {name} is {value}")
    cursor.expect("the width of its upper levels", "<i4", 1)
    if not 2 <= len(upto) <= _LEVELS or not np.array_equal(np.diff(upto), [2 * M] + [M] * (len(upto) - 2)) or upto[0]:
        raise ValueError(f"its levels do not have {2 * M}, then {M} neighbours")
    if len(levels) != rows or (rows and not (levels.min() >= 1 and levels.max() < len(upto))):
        raise ValueError(f"it gives the levels of {len(levels)} of {rows} vectors, or levels that it does not have")
    starts = np.concatenate([[0], np.cumsum(upto[levels], dtype=np.int64)])
    if not np.array_equal(offsets, starts.astype(np.uint64)) or len(neighbours) != starts[-1]:
        raise ValueError("its lists of neighbours do not fit the levels")
    if top != levels.max(initial=0) - 1 or not (
        0 <= entry < rows and levels[entry] == top + 1 if rows else entry == -1
    ):
        raise ValueError(f"a search would begin at vector {entry} of {rows} on level {top}")
    _linked(levels, starts, neighbours)
    _stored(cursor, rows, dimension)
    return Shape(f"HNSW{M}", rows, dimension)


def _linked(levels: np.ndarray, starts: np.ndarray, neighbours: np.ndarray) -> None:
    """Raises ValueError for a neighbour that there is not, or not on the level on which it is named."""
    if not ((neighbours >= -1) & (neighbours < len(levels))).all():
        raise ValueError("it names neighbours that it does not have")
    for level in range(1, int(levels.max(initial=1))):
        first = starts[:-1][levels > level] + M * (level + 1)
        named = neighbours[first[:, None] + np.arange(M)]
        if (levels[named[named >= 0]] <= level).any():
            raise ValueError("it names neighbours on levels that they are not on")
