"""Nearest articles by inner product: an index over article vectors, its kind chosen by measurement.

Belongs here: building, choosing, storing, loading, refreshing and searching an index. Does not belong here: the vectors
(`ml.models`) and exact top lists with exclusions (`ml.topk`).

A folder holds `index.faiss`, `ids.npy` (the article id of each row) and `choice.json` (kind, parameters, and what was
measured). Timings are not in it: the same vectors, queries and seed give the same bytes.
"""

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ml.errors import DataError
from ml.index_check import Shape, check_index
from ml.strangers import FORM, one_line, read_bytes, read_object

EXACT_BELOW = 20_000
"""Articles up to which a matrix product is fast enough: no approximate kind is tried."""

K = 20
ENOUGH_RECALL = 0.99
GRAPH_PENALTY = 7
"""One distance met while walking a graph costs about as much as this many of a scan: measured on 125,542 x 128."""

_PROBES = (1, 2, 4, 8, 16, 32, 64)
_EF_SEARCH = (32, 64, 128, 256)
_TIMED_QUERIES = 100
_IDS_BYTES = 256 << 20
_ANEW = "build it anew"
_TURNS = 60
_MOVED = 0.1


@dataclass(frozen=True, slots=True)
class ArticleIndex:
    """A FAISS `index` over inner products with the article `ids` int64 [A] of its rows and the `choice` made."""

    index: Any
    ids: np.ndarray
    choice: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A built index with search parameters: `cost` is in scanned distances per query, `latency_ms` was measured."""

    index: Any
    kind: str
    parameters: dict[str, int]
    recall: float
    cost: float
    latency_ms: float

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "parameters": self.parameters,
            f"recall@{K}": round(self.recall, 6),
            "distances_per_query": round(self.cost, 1),
        }


def build_index(vectors: np.ndarray, ids: np.ndarray, queries: np.ndarray, out: Path, seed: int = 0) -> dict[str, Any]:
    """Build the cheapest index that finds 99 % of the exact top 20 of `queries`, and store it in the folder `out`.

    `vectors` float32 [A, d] with their article `ids` int64 [A]; `queries` float32 [Q, d] that stand for future ones.
    With fewer than `EXACT_BELOW` articles or without queries the index is exact. Cost is counted in distances, not
    seconds, so that the choice does not depend on the machine's load. Returns choice.json's content with measured
    `latency_ms` (one query) added to the choice and to each candidate. Raises DataError for arrays that do not fit.
    """
    vectors, queries = _checked(vectors, "vectors"), _checked(queries, "queries")
    ids = np.asarray(ids, dtype=np.int64)
    if len(ids) != len(vectors) or (len(queries) and queries.shape[1] != vectors.shape[1]):
        raise DataError(f"an index of {vectors.shape} vectors cannot have {len(ids)} ids and {queries.shape} queries")
    candidates = list(_candidates(vectors, queries, seed))
    accepted = [c for c in candidates if c.recall >= ENOUGH_RECALL]
    chosen = min(accepted, key=lambda c: (c.cost, c.kind))
    choice = chosen.to_json() | {"articles": len(ids), "dimension": vectors.shape[1], "queries": len(queries)}
    choice["candidates"] = [c.to_json() for c in candidates]
    out.mkdir(parents=True, exist_ok=True)
    _set(chosen.index, chosen.parameters)
    _faiss().write_index(chosen.index, str(out / "index.faiss"))
    np.save(out / "ids.npy", ids, allow_pickle=False)
    (out / "choice.json").write_text(json.dumps(choice, indent=1) + "\n", encoding="utf-8")
    timed = [c.to_json() | {"latency_ms": c.latency_ms} for c in candidates]
    return choice | {"candidates": timed, "latency_ms": chosen.latency_ms}


def load_index(folder: Path) -> ArticleIndex:
    """The index stored in `folder`. Raises DataError when a file is missing, damaged or lies, or they do not belong
    together; FAISS opens the index only once its bytes agree with each other and with the other two files."""
    choice, ids = read_object(folder / "choice.json", _ANEW), _read_ids(folder / "ids.npy")
    path = folder / "index.faiss"
    try:
        found = check_index(path, _ANEW)
        wanted = Shape(choice["kind"], choice["articles"], choice["dimension"])
        if found != wanted or len(ids) != found.rows:
            raise ValueError(f"{found}, choice.json says {wanted}, ids.npy has {len(ids)} ids")
        return ArticleIndex(_faiss().read_index(str(path)), ids, choice)
    except (*FORM, RuntimeError) as error:
        raise DataError(f"{path}: not a readable index ({one_line(error)}): {_ANEW}") from error


def _read_ids(path: Path) -> np.ndarray:
    """Article ids int64 [A], each once, of an .npy file of one row of them."""
    stream = io.BytesIO(read_bytes(path, _ANEW, _IDS_BYTES))
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"it is of version {version}")
        shape, _, kind = np.lib.format.read_array_header_1_0(stream)
        data = stream.read()
        if kind != np.dtype("<i8") or shape != (len(data) // 8,) or len(data) % 8:
            raise ValueError(f"it claims {one_line(kind, 60)} {one_line(shape, 60)} in {len(data)} bytes")
        ids = np.frombuffer(data, dtype="<i8")
        if len(np.unique(ids)) != len(ids):
            raise ValueError("an article stands there twice")
        return ids
    except FORM as error:
        raise DataError(f"{path}: no ids of articles ({one_line(error)}): {_ANEW}") from error


def search(index: ArticleIndex, queries: np.ndarray, k: int = K) -> tuple[np.ndarray, np.ndarray]:
    """The `k` articles of largest inner product: ids int64 [Q, k] and scores float32 [Q, k], best first.

    (-1, -inf) where the index found fewer. Raises DataError for queries of another dimension.
    """
    queries = _checked(queries, "queries")
    if queries.shape[1] != index.index.d:
        raise DataError(f"queries of dimension {queries.shape[1]} for an index of dimension {index.index.d}")
    if not len(index.ids):
        return np.full((len(queries), k), -1, dtype=np.int64), np.full((len(queries), k), -np.inf, dtype=np.float32)
    scores, rows = index.index.search(queries, k)
    return np.where(rows >= 0, index.ids[rows], -1), np.where(rows >= 0, scores, -np.inf).astype(np.float32)


def refreshed(index: ArticleIndex, vectors: np.ndarray, ids: np.ndarray, turn: int) -> ArticleIndex:
    """The index over new `vectors` (float32 [A, d]) of the same articles and of those published since: `ids` int64 [A]
    begins with the index's own. The old index stays as it is.

    An index of inverted lists keeps its centroids. An article stays in its list unless its vector moved by more than a
    squared distance of 0.1 or its turn has come (row modulo 60 = `turn` modulo 60; with one turn a minute, every
    article's list is at most an hour old). Inner products are always those of the new vectors; what a stale list costs
    is recall. Other kinds take all vectors anew. Raises DataError for arrays that do not fit the index.
    """
    faiss = _faiss()
    vectors, ids = _checked(vectors, "vectors"), np.asarray(ids, dtype=np.int64)
    known = len(index.ids)
    if vectors.shape != (len(ids), index.index.d) or not np.array_equal(ids[:known], index.ids):
        raise DataError(
            f"vectors {vectors.shape} are not of the {known} articles of the index and later ones: build it"
        )
    new = faiss.clone_index(index.index)
    new.reset()
    if isinstance(new, faiss.IndexIVF):
        lists = _lists_of(index.index, vectors, turn)
        new.add_core(len(ids), faiss.swig_ptr(vectors), None, faiss.swig_ptr(lists))
    else:
        new.add(vectors)
    return ArticleIndex(new, ids, index.choice | {"articles": len(ids)})


def _lists_of(index: Any, vectors: np.ndarray, turn: int) -> np.ndarray:
    """The inverted list of each vector, int64 [A], from where the index has the old ones."""
    lists = np.full(len(vectors), -1, dtype=np.int64)
    for number in range(index.nlist):
        rows, old = _stored(index, number)
        moved = np.square(vectors[rows] - old).sum(axis=1) > _MOVED
        lists[rows] = np.where(moved | (rows % _TURNS == turn % _TURNS), -1, number)
    stale = np.flatnonzero(lists < 0)
    if len(stale):
        lists[stale] = index.quantizer.search(vectors[stale], 1)[1][:, 0]
    return lists


def _stored(index: Any, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 [n] and vectors float32 [n, d] of an inverted list."""
    faiss = _faiss()
    size, lists = index.invlists.list_size(number), index.invlists
    if not size:
        return np.zeros(0, dtype=np.int64), np.zeros((0, index.d), dtype=np.float32)
    rows = faiss.rev_swig_ptr(lists.get_ids(number), size)
    codes = faiss.rev_swig_ptr(lists.get_codes(number), size * index.code_size)
    return rows.copy(), codes.view(np.float32).reshape(size, index.d).copy()


def _candidates(vectors: np.ndarray, queries: np.ndarray, seed: int) -> Iterator[_Candidate]:
    faiss = _faiss()
    n, d = vectors.shape
    flat = faiss.IndexFlatIP(d)
    flat.add(vectors)
    yield _Candidate(flat, "Flat", {}, 1.0, float(n), _latency(flat, queries))
    if n < EXACT_BELOW or not len(queries):
        return
    truth = flat.search(queries, K)[1]
    ivf = inverted_lists(vectors, seed)
    for probes in _PROBES:
        parameters = {"nprobe": probes}
        recall, distances = _measure(ivf, parameters, queries, truth, faiss.cvar.indexIVF_stats)
        yield _Candidate(ivf, f"IVF{ivf.nlist},Flat", parameters, recall, distances + ivf.nlist, _latency(ivf, queries))
    graph = faiss.IndexHNSWFlat(d, 32, faiss.METRIC_INNER_PRODUCT)
    with _one_thread():  # the order of insertion decides the graph
        graph.add(vectors)
    for ef in _EF_SEARCH:
        parameters = {"efSearch": ef}
        recall, distances = _measure(graph, parameters, queries, truth, faiss.cvar.hnsw_stats)
        yield _Candidate(graph, "HNSW32", parameters, recall, GRAPH_PENALTY * distances, _latency(graph, queries))


def inverted_lists(vectors: np.ndarray, seed: int = 0) -> Any:
    """A FAISS index of `vectors` float32 [A, d] in about 4 sqrt(A) inverted lists around centroids of their own."""
    faiss = _faiss()
    dim = vectors.shape[1]
    ivf = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, _lists(len(vectors)), faiss.METRIC_INNER_PRODUCT)
    ivf.cp.seed = seed + 1
    ivf.cp.max_points_per_centroid = 64
    ivf.train(vectors)
    ivf.add(vectors)
    return ivf


def _measure(
    index: Any, parameters: dict[str, int], queries: np.ndarray, truth: np.ndarray, stats: Any
) -> tuple[float, float]:
    """Share of the exact top K that the index finds, and distances that it computes per query."""
    _set(index, parameters)
    stats.reset()
    with _one_thread():  # the counters are not atomic
        found = index.search(queries, K)[1]
    hits = (found[:, :, None] == truth[:, None, :]).any(axis=1).sum()
    return float(hits / truth.size), stats.ndis / len(queries)


def median_seconds(call: Callable[[np.ndarray], object], inputs: list[np.ndarray]) -> float:
    """Median wall-clock seconds of `call` over `inputs`; NaN for none."""
    taken = []
    for one in inputs:
        before = time.perf_counter()
        call(one)
        taken.append(time.perf_counter() - before)
    return float(np.median(taken)) if taken else float("nan")


def _latency(index: Any, queries: np.ndarray) -> float:
    """Median milliseconds of one query."""
    some = [queries[i : i + 1] for i in range(min(len(queries), _TIMED_QUERIES))]
    return 1000 * median_seconds(lambda query: index.search(query, K), some)


def _set(index: Any, parameters: dict[str, int]) -> None:
    for name, value in parameters.items():
        setattr(index.hnsw if name == "efSearch" else index, name, value)


def _lists(n: int) -> int:
    """Inverted lists for n vectors: the power of two nearest to 4 sqrt(n), on a logarithmic scale."""
    return 2 ** round(np.log2(4 * np.sqrt(n)))


def _checked(vectors: np.ndarray, name: str) -> np.ndarray:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise DataError(f"{name} of an index must be a finite matrix, not {vectors.shape} with NaN or infinity")
    return vectors


@contextmanager
def _one_thread() -> Iterator[None]:
    faiss = _faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _faiss() -> Any:
    import faiss

    return faiss
