"""What articles are about, as vectors with versions in time.

Belongs here: vectors by article, which version holds at a time, and reading them from `article_embeddings`. Does not
belong here: making vectors (text encoder, co-clicks) and metadata (`ml.articles`).
"""

from dataclasses import dataclass
from pathlib import Path

import numba as nb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml import schema
from ml.clock import minute_start
from ml.errors import DataError
from ml.log import Catalogue
from ml.parquet import read_table

SINCE = "since"
VECTOR = "vector"
ALWAYS = np.iinfo(np.int64).min
"""`since` of a version that holds from the beginning (null in files)."""


@dataclass(frozen=True, slots=True)
class Content:
    """Vectors of one family. The versions of article a (catalogue row) are `vectors[offsets[a]:offsets[a + 1]]`, in
    order of `since` (ms): each holds for times whose minute began at or after it, until the next one does.

    `vectors` float32 [V, D] (D = 0: the family is absent); `offsets` int64 [A + 1]; `since` int64 [V].
    """

    vectors: np.ndarray
    offsets: np.ndarray
    since: np.ndarray

    @property
    def dim(self) -> int:
        """Length D of a vector, 0 where the family is absent."""
        return int(self.vectors.shape[1])

    @classmethod
    def empty(cls, n_articles: int) -> "Content":
        """No vectors for any article."""
        return cls(np.zeros((0, 0), np.float32), np.zeros(n_articles + 1, np.int64), np.zeros(0, np.int64))

    @classmethod
    def static(cls, rows: np.ndarray, vectors: np.ndarray, n_articles: int) -> "Content":
        """One version an article, from the beginning: `rows` int [R] catalogue rows, `vectors` float32 [R, D].

        Raises DataError if a row is named twice or lies outside the catalogue.
        """
        if len(np.unique(rows)) != len(rows):
            raise DataError("an article has two vectors without a time: give each version its `since`")
        return cls.versions(rows, np.full(len(rows), ALWAYS), vectors, n_articles)

    @classmethod
    def versions(cls, rows: np.ndarray, since: np.ndarray, vectors: np.ndarray, n_articles: int) -> "Content":
        """From versions in any order; of two with the same article and time the later one is kept.

        `rows` int [R] catalogue rows, `since` int64 [R] ms, `vectors` float32 [R, D]. Raises DataError for a row
        outside the catalogue.
        """
        if len(rows) and (rows.min() < 0 or rows.max() >= n_articles):
            raise DataError(f"vectors for article rows outside 0..{n_articles - 1}: rebuild article_features")
        order = np.lexsort((since, rows))
        rows, since = rows[order], since[order].astype(np.int64)
        last = np.ones(len(rows), dtype=bool)
        last[:-1] = (rows[1:] != rows[:-1]) | (since[1:] != since[:-1])
        counts = np.bincount(rows[last], minlength=n_articles)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(np.ascontiguousarray(vectors[order[last]], dtype=np.float32), offsets, since[last])

    @classmethod
    def load(cls, paths: list[Path], catalogue: Catalogue) -> "Content":
        """From `article_embeddings` parquet files: article_id int64, since timestamp (null: from the beginning), vector
        fixed_size_list<float32>[D]. Articles that the catalogue lacks are left out.

        Raises DataError naming the file whose columns, dimension or values are wrong.
        """
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for path in paths:
            part = _read(path, catalogue)
            if not len(part[0]):
                continue
            if parts and part[2].shape[1] != parts[0][2].shape[1]:
                raise DataError(
                    f"{path}: vectors of length {part[2].shape[1]}, in the files before it {parts[0][2].shape[1]}: "
                    "rebuild article_embeddings"
                )
            parts.append(part)
        if not parts:
            return cls.empty(len(catalogue))
        rows, since, vectors = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return cls.versions(rows, since, vectors, len(catalogue))

    def index(self, time_ms: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Version (row of `vectors`) of article `rows[b, k]` at `time_ms[b]`, int32 [B, K]; -1 where none holds yet."""
        rows = np.ascontiguousarray(rows, dtype=np.int32)
        return _index(self.offsets, self.since, minute_start(time_ms), rows)

    def at(self, time_ms: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Vectors of article `rows[b, k]` at `time_ms[b]`, float32 [B, K, D]; zeros where none holds yet."""
        index = self.index(time_ms, rows)
        if not len(self.vectors):
            return np.zeros((*index.shape, self.dim), dtype=np.float32)
        return np.where(index[:, :, None] >= 0, self.vectors[np.maximum(index, 0)], np.float32(0))

    def before(self, time_ms: int, n_articles: int) -> "Content":
        """Only the versions that hold by the minute of `time_ms`, of the first `n_articles` articles."""
        owner = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        keep = (self.since <= minute_start(np.array([time_ms]))) & (owner < n_articles)
        return Content.versions(owner[keep], self.since[keep], self.vectors[keep], n_articles)


def _read(path: Path, catalogue: Catalogue) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Catalogue rows, `since` (ms) and vectors of one file, without articles that the catalogue lacks."""
    table = read_table(path, (schema.ARTICLE_ID, SINCE, VECTOR), "rebuild article_embeddings")
    for name, wanted in ((schema.ARTICLE_ID, pa.int64()), (SINCE, schema.TIME)):
        if table.schema.field(name).type != wanted or (name != SINCE and table[name].null_count):
            raise DataError(f"{path}: column {name} is not {wanted} throughout: rebuild article_embeddings")
    kind = table.schema.field(VECTOR).type
    if not (pa.types.is_fixed_size_list(kind) and pa.types.is_float32(kind.value_type)):
        raise DataError(f"{path}: column {VECTOR!r} is {kind}, not a list of float32 of fixed size")
    rows = catalogue.rows(table.column(schema.ARTICLE_ID).to_numpy())
    known = np.flatnonzero(rows >= 0)
    since = pc.fill_null(table.column(SINCE).cast(schema.TIME).cast(pa.int64()), ALWAYS).to_numpy()
    column = table.column(VECTOR).combine_chunks()
    flat = column.flatten()
    if column.null_count or flat.null_count or not np.isfinite(flat.to_numpy()).all():
        raise DataError(f"{path}: column {VECTOR!r} has values that are null or not finite: rebuild article_embeddings")
    vectors = flat.to_numpy().reshape(len(rows), kind.list_size)
    return rows[known], since[known], vectors[known]


@nb.njit(cache=True, nogil=True)
def _index(offsets: np.ndarray, since: np.ndarray, now: np.ndarray, rows: np.ndarray) -> np.ndarray:
    out = np.full(rows.shape, -1, np.int32)
    n_articles = len(offsets) - 1
    for b in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            row = rows[b, k]
            if 0 <= row < n_articles:
                lo, hi = offsets[row], offsets[row + 1]
                while lo < hi:
                    middle = (lo + hi) >> 1
                    if since[middle] <= now[b]:
                        lo = middle + 1
                    else:
                        hi = middle
                if lo > offsets[row]:
                    out[b, k] = lo - 1
    return out
