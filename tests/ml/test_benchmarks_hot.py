"""Benchmarks of the hot paths at tiny sizes: their form, and that they refuse to time two sides that disagree."""

import numpy as np
import pytest

from ml.benchmarks import evaluation, metrics, refresh, retrieval, sampling
from ml.benchmarks.trained import more
from ml.benchmarks.world import World
from ml.features import raw_dynamic
from ml.topk import top_ks

SMALL = World(400, 8, 1_600, 8)


def rows_of(found: dict, bench: str) -> list[dict]:
    assert found["bench"] == bench
    assert all({"name", "ours", "reference", "ratio", "unit"} <= set(row) for row in found["results"])
    assert all(len(grown["sizes"]) == len(grown["seconds"]) == 3 for grown in found["growth"])
    return found["results"]


def test_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(metrics.SIZES, "quick", (3_000, 50))
    found = metrics.bench_metrics()
    assert len(rows_of(found, "metrics")) == 1 and found["size"]["largest_difference"] <= 1e-12
    monkeypatch.setattr(metrics, "mrr", lambda lists: np.ones(len(lists.items)))
    with pytest.raises(RuntimeError, match="differ from scikit-learn"):
        metrics.bench_metrics()


def test_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sampling.SIZES, "quick", (SMALL, 2))
    assert rows_of(sampling.bench_sampling(), "sampling")[0]["unit"] == "ms"
    monkeypatch.setattr(sampling, "raw_dynamic", lambda *asked: raw_dynamic(*asked) + 1)
    with pytest.raises(RuntimeError, match="differ from counts of the log"):
        sampling.bench_sampling()


def test_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(evaluation.SIZES, "quick", evaluation.Size(SMALL, 90, "snert_quick", 3))
    found = rows_of(evaluation.bench_evaluation(), "evaluation")
    assert [row["name"].partition(" / ")[0] for row in found] == ["popular_60", "snert", "snert"]
    monkeypatch.setattr("ml.predict.top_ks", lambda scores, wanted: top_ks(-scores, wanted))
    with pytest.raises(RuntimeError, match="differs from a full sort"):
        evaluation.bench_evaluation()


def test_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(refresh.SIZES, "quick", (World(3_000, 8, 1_600, 8), "snert_quick"))
    seconds, _, recall = rows_of(refresh.bench_refresh(), "refresh")
    assert seconds["unit"] == "s" and recall["ours"] > 0.5 and recall["ratio"] > 0.9


@pytest.mark.slow
def test_retrieval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(retrieval.SIZES, "quick", ("tiny", 20, 16, (1_000, 2_000, 4_000)))
    found = rows_of(retrieval.bench_retrieval(), "retrieval")
    assert [row["unit"] for row in found] == ["ms", "ms", "recall", "ms"] * 3
    assert found[2]["ours"] == 1.0 and found[3]["reference"] == retrieval.PUBLISHED_MS


def test_more_vectors_lie_between_neighbours() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = more(vectors, 500)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    nearest = np.sort(vectors @ vectors.T, axis=1)[:, ::-1][:, 10]
    best = (found @ vectors.T).max(axis=1)
    assert np.all(best >= np.sqrt((1 + nearest.min()) / 2) - 1e-5)
