"""Benchmark of retrieval: the chosen index against exhaustive search, on the vectors of a trained model.

Belongs here: `newsrec bench retrieval`. Does not belong here: the index itself (`ml.retrieval`), the training
(`ml.benchmarks.trained`).

The model is trained for a short while on a simulated log of hundreds to thousands of articles. More of them are points
between a real one and one of its nearest (SMOTE). The index is chosen with the vectors of some readers; recall and time
are measured with those of others.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ml.benchmarks.common import interleaved, row, size_of, timed
from ml.benchmarks.trained import more, trained
from ml.retrieval import ArticleIndex, K, build_index, load_index, search

SIZES = {
    "quick": ("tiny", 150, 64, (25_000, 50_000, 100_000)),
    "paper": ("demo", 600, 128, (125_542, 350_000, 1_000_000)),
}
"""Simulated log, training steps, dimension and numbers of articles; `paper`: document 1's catalogue and Tab. 5.1."""

PUBLISHED_MS = 4.47
"""Document 1, Sec. 5.2.1: retrieval of the top 20 of one user on a CPU, hardware not named."""

QUERIES = 1000
"""At most so many readers choose the index, and as many others measure it."""

BATCH = 100
_ROUNDS = 9
_ONES = 20


def bench_retrieval(size: str = "quick") -> dict[str, Any]:
    """Milliseconds of one query and of a batch of 100, and recall: ours (the kind that `build_index` chooses) and
    `IndexFlatIP`.

    `size`: `quick` or `paper`; UsageError otherwise. Form: DESIGN, section 7.
    """
    import faiss

    log, steps, dim, sizes = size_of(SIZES, size)
    with tempfile.TemporaryDirectory() as folder:
        model = trained(Path(folder), log, steps, dim)
    real, queries = model.vectors(), model.queries()
    choosing, measured = queries[::2][:QUERIES], queries[1::2][:QUERIES]
    results, one_query, build = [], [], []
    for n in sizes:
        vectors = more(real, n)
        exact = faiss.IndexFlatIP(dim)
        exact.add(vectors)
        index, seconds = timed(partial(_built, vectors, choosing))
        found = _rows(index, exact, measured)
        results += found
        one_query.append(found[0]["ours"] / 1000)
        build.append(seconds)
    growth = [
        {"name": name, "sizes": list(sizes), "seconds": s} for name, s in (("one query", one_query), ("build", build))
    ]
    described = {"simulated": log, "steps": steps, "trained_articles": len(real), "dimension": dim, "k": K}
    described |= {"articles": list(sizes), "threads": faiss.omp_get_max_threads()}
    return {"bench": "retrieval", "size": described, "results": results, "growth": growth}


def _built(vectors: np.ndarray, queries: np.ndarray) -> ArticleIndex:
    with tempfile.TemporaryDirectory() as folder:
        build_index(vectors, np.arange(len(vectors)), queries, Path(folder))
        return load_index(Path(folder))


def _rows(index: ArticleIndex, exact: Any, queries: np.ndarray) -> list[dict[str, Any]]:
    """One query, a batch, recall, and one query beside the published figure."""
    kind = " ".join([index.choice["kind"], *(f"{k}={v}" for k, v in index.choice["parameters"].items())])
    text = f"{len(index.ids):,} articles, {kind}"
    single = interleaved(
        lambda: [search(index, queries[i : i + 1], K) for i in range(_ONES)],
        lambda: [exact.search(queries[i : i + 1], K) for i in range(_ONES)],
        _ROUNDS,
    )
    batch = interleaved(lambda: search(index, queries[:BATCH], K), lambda: exact.search(queries[:BATCH], K), _ROUNDS)
    one = single.row(f"one query, {text} / IndexFlatIP", "ms", 1000 / _ONES)
    published = row(f"one query, {text} / document 1 (other hardware)", one["ours"], PUBLISHED_MS, "ms")
    truth = exact.search(queries, K)[1]
    hits = (search(index, queries, K)[0][:, :, None] == truth[:, None, :]).any(axis=1).mean()
    return [
        one,
        batch.row(f"batch of {BATCH}, {text} / IndexFlatIP", "ms", 1000),
        row(f"recall@{K}, {text} / IndexFlatIP", float(hits), 1.0, "recall", "more"),
        published,
    ]
