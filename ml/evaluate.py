"""Evaluation of stored predictions: the figures of the three research questions, with intervals.

Belongs here: from a predictions folder (`ml.predict`) to `metrics.json` and `per_case.parquet`. Does not belong
here: definitions of metrics (`ml.metrics`), the bootstrap (`ml.bootstrap`), scoring, which has happened.

Paired differences need both models' predictions of the same cases; anything else is refused.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml import metrics, schema
from ml.asof import AsOf
from ml.bootstrap import RESAMPLES, Interval, means, paired_means, paired_union_share, ratios, union_share
from ml.errors import DataError
from ml.log import int_array
from ml.oracle import Oracle

PROTOCOLS = ("thesis", "unread", "in_session")
LIST_LENGTH = 20
RQ1: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{f"recall@{k}": (lambda rank, k=k: metrics.recall_at(rank, k)) for k in (5, 10, 20, 50)},
    **{f"ndcg@{k}": (lambda rank, k=k: metrics.ndcg_at(rank, k)) for k in (10, 20)},
    "mrr@20": lambda rank: metrics.mrr_at(rank, LIST_LENGTH),
}
RQ2: dict[str, Callable[[metrics.RankedLists], np.ndarray]] = {
    "auc": metrics.auc,
    "mrr": metrics.mrr,
    "mrr_mind": metrics.mrr_mind,
    "ndcg@5": lambda lists: metrics.ndcg(lists, 5),
    "ndcg@10": lambda lists: metrics.ndcg(lists, 10),
}
CONVENTIONS = {
    "recall@k": "share of test clicks whose article is in the top k; one target a case, an unavailable one is a miss",
    "ndcg@k": "gain 2^rel - 1, discount log2(rank + 1), ties averaged as scikit-learn does",
    "mrr@20": "reciprocal rank of the target, 0 beyond rank 20",
    "auc": "mean over impressions of the ROC AUC of each, ties counted half; one-class impressions left out",
    "mrr": "reciprocal rank of the first click, mean over impressions, expected over the orders of ties",
    "mrr_mind": "mean over all clicks of 1/rank per impression, as the code of MIND and EB-NeRD has it",
    "ild": "mean cosine distance of a top-20 list's pairs (Eq. A.6)",
    "serendipity": "mean cosine distance of a top-20 list and all the reader's known earlier clicks (Eq. A.7)",
    "novelty": "mean -log2 p over a top-20 list (Eq. A.8); p(i) = (clicks on i in the test span + 1) / (all + articles)",
    "coverage": "distinct articles in top-20 lists over articles available at some test time (Eq. A.9)",
    "categories": "share of the places in top-20 lists (as in Tab. A.6)",
    "intervals": f"95 %, percentiles of {RESAMPLES} resamples of readers; coverage: recentred on the value",
}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """Metrics of N lists: `keys` name them (int64 [N] each, `user_id` among them), `values` float64 [N] by metric."""

    keys: dict[str, np.ndarray]
    values: dict[str, np.ndarray]

    @property
    def reader(self) -> np.ndarray:
        """Reader of each list, int64 [N]: the cluster of the bootstrap."""
        return self.keys[schema.USER_ID]

    def matrix(self) -> np.ndarray:
        """The values as float64 [N, M], columns in the order of `values`."""
        return np.stack(list(self.values.values()), axis=1)

    def estimates(self, seed: int) -> Json:
        """Each metric's mean with its interval."""
        return _named(self.values, means(self.matrix(), self.reader, seed))

    def paired(self, baseline: "Measured", seed: int) -> Json:
        """Each metric's mean difference to the baseline on the same lists. DataError when the lists differ."""
        for name, key in self.keys.items():
            if not np.array_equal(key, baseline.keys[name]):
                raise DataError(f"the baseline's predictions cover other lists ({name} differs): predict both anew")
        return _named(self.values, paired_means(self.matrix(), baseline.matrix(), self.reader, seed), "difference")

    def table(self) -> pa.Table:
        """Keys and values side by side, one row a list."""
        return pa.table({name: pa.array(column) for name, column in {**self.keys, **self.values}.items()})


def evaluate_rq1(predictions: Path, baseline: Path | None, out: Path, seed: int = 0) -> Json:
    """RQ1, recommendation from the whole catalogue: recall, nDCG and MRR of the target per protocol.

    Writes `metrics.json` and `per_case.parquet` (the target's `rank` in each list, 0 when absent: all metrics follow
    from it) to `out` and returns the former. Raises DataError when a folder lacks a file, column or list.
    """
    protocols: Json = {}
    paired: Json = {}
    counts: Json = {}
    tables = []
    for protocol in PROTOCOLS:
        lists = TopLists.read(predictions, protocol)
        counts[protocol] = {
            "cases": len(lists.reader),
            "readers": len(np.unique(lists.reader)),
            "unavailable_targets": int(np.sum(~lists.available)),
        }
        tables.append(_rank_table(lists, protocol))
        if len(lists.reader) == 0:
            continue
        ours = _rq1_measured(lists)
        protocols[protocol] = ours.estimates(seed)
        if baseline is not None:
            paired[protocol] = ours.paired(_rq1_measured(TopLists.read(baseline, protocol)), seed)
    found = _header("rq1", predictions, (*RQ1, "intervals"))
    found |= {"protocols": protocols, "paired": paired, "counts": counts}
    return _write(found, pa.concat_tables(tables), out)


def evaluate_rq2(
    predictions: Path, baseline: Path | None, out: Path, oracle: Path | None = None, seed: int = 0
) -> Json:
    """RQ2, ranking of what was in view: mean over impressions of AUC, MRR and nDCG.

    With the folder of an `oracle` (simulated data): its own figures, and the share of its signal that the model has,
    (auc - 1/2) / (auc of the oracle - 1/2), over the same impressions. Writes and returns as `evaluate_rq1` does.
    Raises DataError when a folder lacks a file or column or the oracle other articles than those in view.
    """
    shown = InViewLists.read(predictions)
    found = _header("rq2", predictions, (*RQ2, "intervals"))
    clicks, items = shown.ranked.clicked, shown.ranked.items
    found["left_out"] = {"no_click": int(np.sum(clicks == 0)), "all_clicked": int(np.sum((clicks == items) & (items > 0)))}
    found["counts"] = {"impressions": len(items), "readers": len(np.unique(shown.keys[schema.USER_ID]))}
    ours = shown.measured()
    found["metrics"] = ours.estimates(seed) if len(items) else {}
    found["paired"] = {}
    if baseline is not None and len(items):
        found["paired"] = ours.paired(InViewLists.read(baseline).measured(), seed)
    if oracle is not None and len(items):
        best = shown.with_scores(Oracle.open(oracle).scores(shown.keys[schema.IMPRESSION_ID])).measured()
        above, below = (m.values["auc"][:, None] - 0.5 for m in (ours, best))
        found["oracle"] = {"metrics": best.estimates(seed)}
        found["oracle"]["share_of_signal"] = ratios(above, below, ours.reader, seed)[0].to_json()
    return _write(found, ours.table(), out)
