"""Benchmark of retrieval: the chosen index against exhaustive search, on clustered unit vectors.

Belongs here: `newsrec bench retrieval`. Does not belong here: the index itself (`ml.retrieval`).
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ml.errors import UsageError
from ml.retrieval import K, build_index, load_index, median_seconds, search

SIZES = {"quick": (25_000, 64), "paper": (125_542, 128)}
"""Articles and dimension; `paper`: document 1's catalogue and Tab. 5.1."""

PUBLISHED_MS = 4.47
"""Document 1, Sec. 5.2.1: retrieval of the top 20 of one user on a CPU, hardware not named."""

_CLUSTERS = 1000
_QUERIES = 1000
_BATCH = 100


def bench_retrieval(size: str = "quick") -> dict[str, Any]:
    """Milliseconds of one query and of a batch of 100: ours (the kind that `build_index` chooses) and `IndexFlatIP`.

    `size`: `quick` or `paper`; UsageError otherwise. Form: DESIGN, section 7.
    """
    import faiss

    if size not in SIZES:
        raise UsageError(f"unknown size {size!r}: choose one of {', '.join(SIZES)}")
    articles, dimension = SIZES[size]
    vectors, queries = clustered_vectors(articles, dimension, seed=0)
    exact = faiss.IndexFlatIP(dimension)
    exact.add(vectors)
    with tempfile.TemporaryDirectory() as folder:
        choice = build_index(vectors, np.arange(articles), queries, Path(folder))
        index = load_index(Path(folder))
    kind = " ".join([choice["kind"], *(f"{name}={value}" for name, value in choice["parameters"].items())])
    results = []
    for name, rows in (("one query", 1), (f"batch of {_BATCH}", _BATCH)):
        parts = [queries[i : i + rows] for i in range(0, min(len(queries), 50 * rows), rows)]
        ours = 1000 * median_seconds(lambda batch: search(index, batch, K), parts)
        reference = 1000 * median_seconds(lambda batch: exact.search(batch, K), parts)
        results.append(_row(f"{name}, {kind} / IndexFlatIP", ours, reference, "ms"))
    published = f"one query, {kind} / as published in document 1 (other hardware)"
    results.append(_row(published, results[0]["ours"], PUBLISHED_MS, "ms"))
    threads = faiss.omp_get_max_threads()
    described = {
        "articles": articles,
        "dimension": dimension,
        "k": K,
        "threads": threads,
        "recall@20": choice["recall@20"],
    }
    return {"bench": "retrieval", "size": described, "results": results}


def clustered_vectors(
    articles: int, dimension: int, seed: int, clusters: int = _CLUSTERS
) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors float32 [articles, dimension] around common centres, and queries [1000, dimension] drawn alike."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, dimension))
    points = centres[rng.integers(0, clusters, articles + _QUERIES)]
    points += rng.normal(scale=0.7, size=points.shape)
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return points[:articles], points[articles:]


def _row(name: str, ours: float, reference: float, unit: str) -> dict[str, Any]:
    return {"name": name, "ours": ours, "reference": reference, "ratio": reference / ours, "unit": unit}
