"""Benchmark of the in-view metrics: AUC, nDCG and MRR of many impressions against a loop over scikit-learn.

Belongs here: `newsrec bench metrics`, generated impressions, the loop. Does not belong here: the metrics
(`ml.metrics`).

The loop takes one impression after another, as the published code of MIND and EB-NeRD does; it is timed on a sample and
scaled to all of them. scikit-learn has no MRR: there the loop is NumPy, and knows no ties. Both sides must agree to
1e-12.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import ndcg_score, roc_auc_score

from ml.benchmarks.common import growth, interleaved, row, size_of, timed
from ml.metrics import RankedLists, auc, mrr, ndcg

SIZES = {"quick": (100_000, 200), "paper": (1_000_000, 400)}
"""Impressions, and how many of them the loop takes."""

AGREE = 1e-12
K = 10
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Shown:
    """Impressions: `clicked` bool and `scores` float32 [V], ragged by `offsets` int64 [I + 1]."""

    clicked: np.ndarray
    scores: np.ndarray
    offsets: np.ndarray

    def first(self, n: int) -> "Shown":
        """The first `n` impressions."""
        stop = self.offsets[n]
        return Shown(self.clicked[:stop], self.scores[:stop], self.offsets[: n + 1])


def bench_metrics(size: str = "quick") -> dict[str, Any]:
    """Seconds for AUC, nDCG@10 and MRR of all impressions, ours and the loop's.

    `size`: `quick` or `paper`; UsageError otherwise, RuntimeError if the two disagree. Form: DESIGN, section 7.
    """
    impressions, sampled = size_of(SIZES, size)
    shown = generated(impressions)
    sample = shown.first(sampled)
    apart = float(np.abs(ours(sample) - loop(sample)).max())
    if not apart <= AGREE:
        raise RuntimeError(f"the metrics differ from scikit-learn's by {apart}")
    pair = interleaved(lambda: ours(shown), lambda: loop(sample), _ROUNDS)
    scaled = [seconds * impressions / sampled for seconds in pair.reference]
    name = f"AUC, nDCG@{K}, MRR of {impressions:,} impressions / loop over scikit-learn ({sampled} of them, scaled)"
    sizes = [impressions // 4, impressions // 2, impressions]
    return {
        "bench": "metrics",
        "size": {"impressions": impressions, "items": len(shown.scores), "largest_difference": apart},
        "results": [row(name, list(pair.ours), scaled, "s")],
        "growth": [growth("metrics by impressions", lambda n: timed(lambda: ours(shown.first(n)))[1], sizes)],
    }


def generated(impressions: int) -> Shown:
    """Lists of 5 to 19 articles, one to three of them clicked."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 20, impressions)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    clicked = np.zeros(offsets[-1], dtype=bool)
    clicks = 1 + rng.choice(3, impressions, p=(0.9, 0.08, 0.02))
    for number in range(3):
        some = clicks > number
        clicked[(offsets[:-1] + rng.integers(0, lengths))[some]] = True
    return Shown(clicked, rng.normal(size=offsets[-1]).astype(np.float32), offsets)


def ours(shown: Shown) -> np.ndarray:
    """AUC, nDCG@10 and MRR, float64 [3, I]."""
    lists = RankedLists.rank(shown.clicked, shown.scores, shown.offsets)
    return np.stack([auc(lists), ndcg(lists, K), mrr(lists)])


def loop(shown: Shown) -> np.ndarray:
    """The same, one impression after another."""
    out = np.empty((3, len(shown.offsets) - 1))
    for i in range(out.shape[1]):
        part = slice(shown.offsets[i], shown.offsets[i + 1])
        label, score = shown.clicked[part], shown.scores[part]
        out[0, i] = roc_auc_score(label, score)
        out[1, i] = ndcg_score([label], [score], k=K)
        out[2, i] = 1 / (1 + np.flatnonzero(label[np.argsort(-score)])[0])
    return out
