"""Evaluation of stored predictions: the figures of the three research questions, with intervals.

Belongs here: from a predictions folder to `metrics.json` and `per_case.parquet`. Does not belong here: reading the
folder (`ml.stored`), definitions of metrics (`ml.metrics`, `ml.beyond`), the bootstrap (`ml.bootstrap`), scoring.

Paired differences need both models' predictions of the same lists; anything else is refused.
"""

import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml import metrics, schema
from ml.asof import AsOf
from ml.beyond import Surroundings
from ml.bootstrap import RESAMPLES, Interval, means, paired_means, paired_union_share, ratios, union_share
from ml.errors import DataError
from ml.oracle import Oracle
from ml.stored import PROTOCOLS, InViewLists, TopLists, read_span

LIST_LENGTH = 20
SHARE = "share_of_signal"
IN_VIEW = "in_view"
RQ1: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{f"recall@{k}": partial(metrics.recall_at, k=k) for k in (5, 10, 20, 50)},
    **{f"ndcg@{k}": partial(metrics.ndcg_at, k=k) for k in (10, 20)},
    "mrr@20": partial(metrics.mrr_at, k=20),
}
RQ2: dict[str, Callable[[metrics.RankedLists], np.ndarray]] = {
    "auc": metrics.auc,
    "mrr": metrics.mrr,
    "mrr_mind": metrics.mrr_mind,
    "ndcg@5": partial(metrics.ndcg, k=5),
    "ndcg@10": partial(metrics.ndcg, k=10),
}
NO_TRUTH = (
    "the oracle holds {held:,} of the {lists:,} in-view lists of the test span; it tells of the bundle alone, "
    "not of days that landed later or were corrected"
)
INTERVALS = f"95 %, between percentiles of {RESAMPLES} resamples of readers; paired differences on the same lists"
CONVENTIONS = {
    "rq1": {
        "recall@k": "share of test clicks whose article is in the top k; not yet available ones are misses",
        "ndcg@k": "one relevant article a case: 1 / log2(rank + 1) within k, else 0",
        "mrr@20": "1 / rank of the target within 20, else 0",
        "intervals": INTERVALS,
    },
    "rq2": {
        "auc": "mean over impressions of the ROC AUC of each, ties counted half; one-class impressions left out",
        "mrr": "1 / rank of the first click, expected over the orders of tied items",
        "mrr_mind": "mean of 1 / rank over all clicks of an impression, what the MIND and EB-NeRD code calls MRR",
        "ndcg@k": "gain 2^rel - 1, discount log2(rank + 1), ties averaged as scikit-learn does",
        SHARE: "(AUC - 1/2) / (AUC of the oracle - 1/2) over the same impressions, all of which the oracle must hold",
        "intervals": INTERVALS,
    },
    "rq3": {
        "lists": "the first 20 places under protocol thesis",
        "ild": "mean cosine distance of a list's pairs of articles (Eq. A.6)",
        "serendipity": "mean cosine distance of a list's articles to all known earlier clicks of the reader (Eq. A.7)",
        "novelty": "mean -log2 p over a list (Eq. A.8), p = (clicks in the test span + 1) / (all of them + catalogue)",
        "coverage": "distinct recommended articles / articles available at some test time (Eq. A.9)",
        "categories": "share of recommended places (Tab. A.6); the 20 categories most clicked in the test span",
        "intervals": f"{INTERVALS}; of coverage: 1.96 standard deviations of the resamples",
    },
}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """Metrics of N lists: `keys` name the lists (int64 [N] each, `user_id` among them), `values` float64 [N] each."""

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
        """Each metric's mean with its interval; nothing where there are no lists or no metrics."""
        if not (len(self.reader) and self.values):
            return {}
        return _named(self.values, means(self.matrix(), self.reader, seed))

    def paired(self, baseline: "Measured", seed: int) -> Json:
        """Each metric's mean difference to the baseline on the same lists. DataError when the lists differ."""
        for name, key in self.keys.items():
            if not np.array_equal(key, baseline.keys[name]):
                raise DataError(f"the baseline's predictions are of other lists ({name} differs): predict both anew")
        if not (len(self.reader) and self.values):
            return {}
        return _named(self.values, paired_means(self.matrix(), baseline.matrix(), self.reader, seed), "difference")

    def table(self, **more: pa.Array | np.ndarray) -> pa.Table:
        """Keys, `more` and values side by side, one row a list."""
        columns = {**self.keys, **more, **self.values}
        columns[schema.CLICK_TIME] = pa.array(self.keys[schema.CLICK_TIME]).cast(schema.TIME)
        return pa.table(columns)


def evaluate_rq1(predictions: Path, baseline: Path | None, out: Path, seed: int = 0) -> Json:
    """RQ1, recommendation from the whole catalogue: recall, nDCG and MRR of the target per protocol.

    Writes `metrics.json` and `per_case.parquet` (with the target's `rank` in each list, 0 when absent) to `out` and
    returns the former; `paired` is the difference to `baseline`'s predictions. Raises DataError when a folder lacks a
    file, column or list.
    """
    found = _header("rq1", predictions, seed) | {"counts": {}}
    tables = []
    for protocol in PROTOCOLS:
        lists = TopLists.read(predictions, protocol)
        rank = _rank(lists)
        ours = Measured(lists.keys, {name: measure(rank) for name, measure in RQ1.items()})
        tables.append(ours.table(protocol=pa.array([protocol] * len(rank), pa.string()), rank=rank))
        found["counts"][protocol] = _count(lists.reader) | {"unavailable_targets": int(np.sum(~lists.available))}
        found["protocols"][protocol] = ours.estimates(seed)
        if baseline is not None:
            theirs = TopLists.read(baseline, protocol)
            rank = _rank(theirs)
            base = Measured(theirs.keys, {name: measure(rank) for name, measure in RQ1.items()})
            found["paired"][protocol] = ours.paired(base, seed)
    return _write(found, pa.concat_tables(tables), out)


def evaluate_rq2(
    predictions: Path, baseline: Path | None, out: Path, oracle: Path | None = None, seed: int = 0
) -> Json:
    """RQ2, ranking of what was in view: mean over impressions of AUC, MRR and nDCG (protocol `in_view`).

    With the bundle of an `oracle` (its root; simulated data): the oracle's own figures, and the share of its signal
    that the model has; where it does not hold every list, both are left out with the reason. Where nobody was shown the
    lists, `synthetic_inview` says how they were made. Writes and returns as `evaluate_rq1` does. Raises DataError when
    a folder or the oracle lacks a file or column.
    """
    shown = InViewLists.read(predictions)
    ours = _rq2_measured(shown)
    clicks, items = shown.ranked.clicked, shown.ranked.items
    found = _header("rq2", predictions, seed) | {"counts": {IN_VIEW: _count(ours.reader)}}
    found["counts"][IN_VIEW] |= {
        "without_click": int(np.sum(clicks == 0)),
        "all_clicked": int(np.sum((clicks == items) & (items > 0))),
    }
    found["protocols"][IN_VIEW] = ours.estimates(seed)
    made = read_span(predictions).get(schema.SYNTHETIC)
    if made:
        found[schema.SYNTHETIC] = made
    if baseline is not None:
        found["paired"][IN_VIEW] = ours.paired(_rq2_measured(InViewLists.read(baseline)), seed)
    if oracle is not None and len(items):
        found |= _beside_the_truth(shown, ours, Oracle.open(oracle), found["protocols"][IN_VIEW], seed)
    label = {schema.SYNTHETIC: pa.array([made] * len(ours.reader), pa.string())} if made else {}
    return _write(found, ours.table(**label), out)


def _beside_the_truth(shown: InViewLists, ours: Measured, truth: Oracle, figures: Json, seed: int) -> Json:
    """The oracle's own figures; the share of its signal goes to `figures`. A figure over a part of the lists would not
    be comparable with the others: unless the oracle holds all, only the reason is given."""
    impressions = shown.keys[schema.IMPRESSION_ID]
    held = truth.holds(impressions, shown.offsets, shown.articles)
    if not held.all():
        return {"left_out": {SHARE: NO_TRUTH.format(held=int(held.sum()), lists=len(held))}}
    best = _rq2_measured(shown.ranked_by(*truth.inview(impressions)))
    above, below = (m.values["auc"][:, None] - 0.5 for m in (ours, best))
    figures |= _named([SHARE], ratios(above, below, ours.reader, seed))
    return {"oracle": best.estimates(seed)}


def evaluate_rq3(
    predictions: Path,
    baseline: Path | None,
    out: Path,
    asof: AsOf,
    family: str | None,
    features: Path | None = None,
    seed: int = 0,
    protocol: str = "thesis",
) -> Json:
    """RQ3, beyond accuracy: diversity, serendipity, novelty, coverage and categories of the top-20 lists.

    `asof` must hold the clicks of the test span. Content vectors of `family`, as they are at its end, measure
    distances; a metric without its data is left out with the reason. `features` (article_features parquet) names the
    categories. Writes and returns as `evaluate_rq1` does. Raises DataError like it, and when the span has no clicks.
    """
    lists = TopLists.read(predictions, protocol, LIST_LENGTH)
    world = Surroundings.of(asof, read_span(predictions), family, features)
    ours = _rq3_measured(world, lists)
    received = (lists.articles, lists.reader_of_articles())
    found = _header("rq3", predictions, seed) | {"counts": {protocol: _count(lists.reader)}}
    found |= {"left_out": world.left_out, "vectors": {"family": family} | world.vectors_note(lists)}
    found["protocols"][protocol] = ours.estimates(seed) | _named(
        ["coverage"], [union_share(*received, world.size, seed)]
    )
    found["categories"] = Measured(lists.keys, world.category_shares(lists)).estimates(seed)
    found["clicks_by_category"] = world.clicks_by_category()
    if baseline is not None:
        theirs = TopLists.read(baseline, protocol, LIST_LENGTH)
        base = (theirs.articles, theirs.reader_of_articles())
        coverage = paired_union_share(*received, *base, world.size, seed)
        found["paired"][protocol] = ours.paired(_rq3_measured(world, theirs), seed)
        found["paired"][protocol] |= _named(["coverage"], [coverage], "difference")
    return _write(found, ours.table(), out)


def _rank(lists: TopLists) -> np.ndarray:
    return metrics.target_rank(lists.keys[schema.ARTICLE_ID], lists.articles, lists.offsets)


def _rq2_measured(shown: InViewLists) -> Measured:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)  # metrics.json has the counts
        return Measured(shown.keys, {name: measure(shown.ranked) for name, measure in RQ2.items()})


def _rq3_measured(world: Surroundings, lists: TopLists) -> Measured:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)  # metrics.json has the counts
        return Measured(lists.keys, world.measure(lists))


def _count(reader: np.ndarray) -> Json:
    return {"lists": len(reader), "readers": len(np.unique(reader))}


def _header(rq: str, predictions: Path, seed: int) -> Json:
    span = read_span(predictions)
    kept = {name: span.get(name) for name in ("start_ms", "end_ms", "n_minutes_total", "n_cases", "n_impressions")}
    kept["n_minutes"] = len(span["minutes"])
    settings = {"dataset": span["dataset"], "span": kept, "seed": seed, "conventions": CONVENTIONS[rq]}
    return {"rq": rq} | settings | {"protocols": {}, "paired": {}}


def _named(names: Iterable[str], intervals: list[Interval], value: str = "value") -> Json:
    """Intervals by metric name, the estimate itself under the key `value`."""
    out = {}
    for name, interval in zip(names, intervals, strict=True):
        numbers = interval.to_json()
        out[name] = {value: numbers.pop("value")} | numbers
    return out


def _write(found: Json, per_case: pa.Table, out: Path) -> Json:
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(per_case, out / "per_case.parquet", compression="zstd")
    (out / "metrics.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return found
