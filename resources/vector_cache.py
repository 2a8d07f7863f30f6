"""Vectors on disk by digest: what was encoded once is not encoded again.

Belongs here: chunk files of (digest, vector). Does not belong here: encoding (`resources.text_encoder`).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ml.parquet import read_table
from ml.strangers import reading
from resources.parquet import write_parquet
from resources.staging import temporary_folder

REMEDY = "remove it, its texts are encoded again"


class VectorCache:
    """Parquet chunks in `folder`, each complete or absent; several processes may add to it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._where: dict[str, tuple[Path, int]] = {}
        self._read: set[Path] = set()

    def missing(self, digests: Sequence[str]) -> list[str]:
        """The distinct digests that have no vector yet, in order of first appearance. Raises DataError naming a
        damaged chunk. What a chunk says of a text is believed."""
        for path in sorted(set(self.folder.glob("*.parquet")) - self._read):
            for row, digest in enumerate(_read(path, "digest").to_pylist()):
                self._where.setdefault(digest, (path, row))
            self._read.add(path)
        return [d for d in dict.fromkeys(digests) if d not in self._where]

    def add(self, digests: Sequence[str], vectors: np.ndarray) -> None:
        """Store vectors float32 [N, D] of distinct digests as one chunk, written whole."""
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
        table = pa.table({"digest": list(digests), "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})
        name = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
        with temporary_folder(self.folder / ".partial") as partial:
            write_parquet(table, partial / name)
            (partial / name).replace(self.folder / f"{name}.parquet")

    def get(self, digests: Sequence[str]) -> np.ndarray:
        """Vectors float32 [N, D] of digests that are there, in order; [0, 0] for none."""
        places = [self._where[d] for d in digests]
        chunks = {path: _vectors(path) for path in sorted({p for p, _ in places})}
        if not places:
            return np.zeros((0, 0), dtype=np.float32)
        return np.stack([chunks[path][row] for path, row in places])


def _read(path: Path, column: str) -> pa.ChunkedArray:
    return read_table(path, [column], REMEDY).column(column)


def _vectors(path: Path) -> np.ndarray:
    column = _read(path, "vector").combine_chunks()
    with reading(path, REMEDY):
        found = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
        if column.null_count or found.dtype != np.float32 or not np.isfinite(found).all():
            raise ValueError("vectors are not finite numbers")
        return found
