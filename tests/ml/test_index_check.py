"""The check of FAISS files: what FAISS writes passes, what would lead it astray does not reach it."""

import struct
from pathlib import Path

import faiss
import numpy as np
import pytest

from ml.errors import DataError
from ml.index_check import M, Shape, check_index

ROWS, DIM = 300, 8
KINDS = {"Flat": "Flat", "IVF": "IVF16,Flat", "HNSW": "HNSW32"}


def written(kind: str, path: Path, rows: int = ROWS) -> bytes:
    """An index of random vectors as FAISS writes it."""
    vectors = np.random.default_rng(0).normal(size=(rows, DIM)).astype(np.float32)
    index = {
        "Flat": lambda: faiss.IndexFlatIP(DIM),
        "IVF": lambda: faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM), DIM, 16, faiss.METRIC_INNER_PRODUCT),
        "HNSW": lambda: faiss.IndexHNSWFlat(DIM, M, faiss.METRIC_INNER_PRODUCT),
    }[kind]()
    index.verbose = False
    if kind == "IVF":
        index.cp.min_points_per_centroid = 1
        index.train(np.random.default_rng(1).normal(size=(ROWS, DIM)).astype(np.float32))
    index.add(vectors)
    faiss.write_index(index, str(path))
    return path.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [0, 1, 5, ROWS])
def test_what_faiss_writes_passes(tmp_path: Path, kind: str, rows: int) -> None:
    written(kind, tmp_path / "i", rows)
    assert check_index(tmp_path / "i", "again") == Shape(KINDS[kind], rows, DIM)


@pytest.mark.parametrize("kind", KINDS)
def test_no_cut_and_no_end_is_taken(tmp_path: Path, kind: str) -> None:
    data, path = written(kind, tmp_path / "i", 40), tmp_path / "j"
    for cut in [*range(0, len(data), max(1, len(data) // 90)), len(data) - 1]:
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match="it"):
            check_index(path, "again")
    path.write_bytes(data + b"\0")
    with pytest.raises(ValueError, match="1 bytes follow its end"):
        check_index(path, "again")


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_passes_can_be_searched(tmp_path: Path, kind: str) -> None:
    """Any four bytes replaced: either refused, or FAISS reads it and finds existing rows."""
    data, path, rng = written(kind, tmp_path / "i", 40), tmp_path / "j", np.random.default_rng(2)
    queries = rng.normal(size=(3, DIM)).astype(np.float32)
    passed = 0
    faiss.omp_set_num_threads(1)
    for _ in range(150):
        changed = bytearray(data)
        at = 4 * int(rng.integers(len(data) // 4 - 1)) if rng.random() < 0.5 else int(rng.integers(120))
        value = int(rng.choice([0, 1, -1, 2, 39, 40, 41, 2**16, 2**31 - 1, -(2**31)]))
        struct.pack_into("<i", changed, at, value)
        path.write_bytes(changed)
        try:
            shape = check_index(path, "again")
        except ValueError:
            continue
        passed += 1
        scores, found = faiss.read_index(str(path)).search(queries, 5)
        assert shape.rows == 40 and found.max() < 40 and not np.isnan(scores).any()
    assert passed > 0


def neighbours(data: bytes) -> int:
    """Where the neighbours of a graph begin."""
    at = 37
    for width in (8, 4, 4, 8):
        at += 8 + width * struct.unpack_from("<Q", data, at)[0]
    return at + 8


def test_neighbours_that_are_none_are_refused(tmp_path: Path) -> None:
    data, path = written("HNSW", tmp_path / "i"), tmp_path / "j"
    levels_at = 37 + 8 + 8 * struct.unpack_from("<Q", data, 37)[0]
    levels_at += 8 + 4 * struct.unpack_from("<Q", data, levels_at)[0]
    levels = np.frombuffer(data, "<i4", ROWS, levels_at + 8)
    high = int(np.argmax(levels))
    low = int(np.argmin(levels))
    assert levels[high] > 1 == levels[low]
    start = neighbours(data) + 4 * int(np.sum(2 * M + M * (levels[:high] - 1)))
    for place, value, said in (
        (start, ROWS, "neighbours that it does not have"),
        (start, -2, "neighbours that it does not have"),
        (start + 4 * 2 * M, low, "levels that they are not on"),
    ):
        changed = bytearray(data)
        struct.pack_into("<i", changed, place, value)
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=said):
            check_index(path, "again")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_that_are_not_finite_are_refused(tmp_path: Path, kind: str, value: float) -> None:
    data = written(kind, tmp_path / "i")
    vector = struct.pack("<8f", *np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)[7])
    assert data.count(vector) == 1
    (tmp_path / "i").write_bytes(data.replace(vector, struct.pack("<f", value) + vector[4:]))
    with pytest.raises(ValueError, match="NaN or infinity"):
        check_index(tmp_path / "i", "again")


@pytest.mark.parametrize("index", ["IVF16,PQ4x4", "SQ8", "PCA4,Flat", "IDMap,Flat"])
def test_other_kinds_are_refused(tmp_path: Path, index: str) -> None:
    made = faiss.index_factory(DIM, index, faiss.METRIC_INNER_PRODUCT)
    faiss.write_index(made, str(tmp_path / "i"))
    with pytest.raises(ValueError, match="only flat, IVF-flat and HNSW-flat"):
        check_index(tmp_path / "i", "again")


def test_other_metrics_are_refused(tmp_path: Path) -> None:
    faiss.write_index(faiss.IndexHNSWFlat(DIM, M), str(tmp_path / "i"))
    with pytest.raises(ValueError, match="metric"):
        check_index(tmp_path / "i", "again")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    written("Flat", tmp_path / "i")
    (tmp_path / "j").symlink_to(tmp_path / "i")
    with pytest.raises(DataError, match="is a link"):
        check_index(tmp_path / "j", "again")
