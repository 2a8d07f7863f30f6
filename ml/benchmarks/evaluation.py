"""Benchmark of evaluation: predictions and all metrics of many test cases against a loop over cases.

Belongs here: `newsrec bench evaluation`, the loop. Does not belong here: predicting (`ml.predict`), measuring
(`ml.evaluate`).

Ours is what the assets do: exact top 50 of each case over the catalogue as it was in its minute under three protocols,
the scores of the impressions, every metric of the three questions with its bootstrap interval, and the files. The loop
takes one case after another through the same model: scores of the catalogue as of the case, a full sort for each
protocol, the metrics by their definitions, no intervals and no files. It is timed on a sample and scaled. For the
network it stands there twice: encoding the catalogue for each case, as a loop over cases does, and with the vectors of
a minute kept for the cases of that minute. The network has the paper's size and no training: its figures mean nothing.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import ndcg_score, roc_auc_score

from ml.asof import AsOf
from ml.benchmarks.common import row, size_of, timed
from ml.benchmarks.world import END_MS, World
from ml.clock import MS_PER_DAY, minute_of
from ml.evaluate import LIST_LENGTH, evaluate_rq1, evaluate_rq2, evaluate_rq3
from ml.features import FittedFeatures
from ml.models.base import Model
from ml.models.popular import Popular
from ml.models.snert import Snert
from ml.predict import PROTOCOLS, TOP, Targets, excluded_rows, predict, sample_minutes, targets_of, top_lists
from ml.recipes import recipe
from ml.snert import SnertNet

FAMILY = "body"
SPAN = (END_MS - MS_PER_DAY // 2, END_MS)
_FITTED_ON = 5_000
_AGREE = 1e-5
_COMPARED = 10


@dataclass(frozen=True, slots=True)
class Size:
    """The log, its test cases, the network's recipe and the cases that the loop takes."""

    world: World
    cases: int
    recipe: str
    looped: int


SIZES = {
    "quick": Size(World(10_000, 60, 2_880, 64), 4_000, "snert_quick", 20),
    "paper": Size(World(125_542, 579, 2_880, 768), 100_000, "snert_thesis", 20),
}


def bench_evaluation(size: str = "quick") -> dict[str, Any]:
    """Cases a second, ours and the loop's, for the network and for the most popular articles.

    `size`: `quick` or `paper`; UsageError otherwise, RuntimeError if the lists differ. Form: DESIGN, section 7.
    """
    chosen = size_of(SIZES, size)
    asof = chosen.world.make()
    results, grown = [], []
    for model in (Popular(60), network(asof, chosen.recipe)):
        evaluated(asof, model, chosen.cases // 20)  # compiles
        sizes = [chosen.cases // 9, chosen.cases // 3, chosen.cases]
        runs = [timed(partial(evaluated, asof, model, budget)) for budget in sizes]
        grown.append({"name": model.name, "sizes": [n for n, _ in runs], "seconds": [s for _, s in runs]})
        cases, seconds = runs[-1]
        for name, per_case in _references(asof, model, chosen):
            results.append(row(f"{model.name} / {name}", cases / seconds, 1 / per_case, "cases/s", "more"))
    described = {"articles": chosen.world.articles, "cases": grown[-1]["sizes"][-1], "looped": chosen.looped}
    return {"bench": "evaluation", "size": described, "results": results, "growth": grown}


def network(asof: AsOf, name: str) -> Snert:
    """A SNeRT of a named recipe on this log, untrained."""
    chosen = recipe(name)
    fitted = FittedFeatures.fit(chosen, asof, np.arange(min(_FITTED_ON, len(asof.clicks))))
    torch.manual_seed(0)
    return Snert(SnertNet(fitted.spec, chosen), fitted, chosen)


def evaluated(asof: AsOf, model: Model, budget: int) -> int:
    """Predict and measure at least `budget` test cases; how many there were."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        facts = predict(asof, model, SPAN, budget, out / "predictions")
        evaluate_rq1(out / "predictions", None, out / "rq1")
        evaluate_rq2(out / "predictions", None, out / "rq2")
        evaluate_rq3(out / "predictions", None, out / "rq3", asof, FAMILY)
    return int(str(facts["n_cases"]))


def _references(asof: AsOf, model: Model, size: Size) -> Iterator[tuple[str, float]]:
    """What the loop is called and its seconds for a case."""
    targets = targets_of(asof, SPAN)
    minutes = sample_minutes(targets.cases.time, size.cases)
    inside = targets.take(np.isin(minute_of(targets.cases.time), minutes))
    _must_agree(asof, model, inside.take(minute_of(inside.cases.time) == minutes[0]))
    clicks = np.bincount(asof.clicks.article, minlength=len(asof.catalogue))
    share = (clicks + 1) / (clicks.sum() + len(clicks))
    apart = inside.take(np.linspace(0, len(inside) - 1, size.looped).astype(np.int64))
    encoding = timed(lambda: looped(asof, model, apart, share))[1] / len(apart)
    yield "loop over cases", encoding
    if isinstance(model, Snert):
        together = inside.take(np.arange(size.looped))
        looped(asof, model, together.take(np.arange(1)), share)
        keeping = timed(lambda: looped(asof, model, together, share))[1] / len(together)
        once_a_minute = (encoding - keeping) * len(minutes) / len(inside)
        yield "loop over cases, vectors of a minute kept", keeping + once_a_minute


def _must_agree(asof: AsOf, model: Model, targets: Targets) -> None:
    """RuntimeError where a list of one minute's cases differs from a full sort."""
    time = int(targets.cases.time[0])
    ours = top_lists(asof, model, time, targets.cases, dict.fromkeys(PROTOCOLS, TOP))
    for i in range(min(len(targets), _COMPARED)):
        one = targets.take(np.array([i]))
        scores = model.catalogue_scores(asof, time, one.cases)[0]
        for protocol in PROTOCOLS:
            best = _sorted(asof, scores, one, protocol)
            found = ours[protocol][1][i]
            if not np.allclose(scores[best], found[: len(best)], rtol=0, atol=_AGREE):
                raise RuntimeError(f"the list of {model.name} under {protocol} differs from a full sort")


def looped(asof: AsOf, model: Model, targets: Targets, share: np.ndarray) -> list[dict[str, float]]:
    """The metrics of one case after another; `share` float64 [A] of the clicks by article."""
    measured = []
    for i in range(len(targets)):
        one = targets.take(np.array([i]))
        scores = model.catalogue_scores(asof, int(one.cases.time[0]), one.cases)[0]
        found = _in_view(asof, model, one)
        for protocol in PROTOCOLS:
            best = _sorted(asof, scores, one, protocol)
            found |= _accuracy(protocol, best, asof.clicks.article[one.target[0]])
            if protocol == "thesis":
                history = asof.clicks.article[one.cases.first[0] : one.cases.stop[0]]
                found |= _beyond(asof, share, best[:LIST_LENGTH], history)
        measured.append(found)
    return measured


def _sorted(asof: AsOf, scores: np.ndarray, one: Targets, protocol: str) -> np.ndarray:
    """The best articles of one case by a full sort."""
    left = np.array(scores)
    banned = excluded_rows(asof, one.cases, protocol)[1]
    left[banned[banned < len(left)]] = -np.inf
    return np.argsort(-left, kind="stable")[:TOP]


def _accuracy(protocol: str, best: np.ndarray, target: int) -> dict[str, float]:
    hit = np.flatnonzero(best == target)
    rank = int(hit[0]) + 1 if len(hit) else 0
    found = {f"{protocol} recall@{k}": float(0 < rank <= k) for k in (5, 10, 20, 50)}
    found |= {f"{protocol} ndcg@{k}": float(1 / np.log2(rank + 1)) if 0 < rank <= k else 0.0 for k in (10, 20)}
    return found | {f"{protocol} mrr@20": 1 / rank if 0 < rank <= 20 else 0.0}


def _beyond(asof: AsOf, share: np.ndarray, best: np.ndarray, history: np.ndarray) -> dict[str, float]:
    """Diversity, serendipity, novelty and categories of one list."""
    vectors = asof.content(FAMILY).vectors
    ours, read = (vectors[rows] / np.linalg.norm(vectors[rows], axis=1, keepdims=True) for rows in (best, history))
    pairs = (ours @ ours.T)[np.triu_indices(len(best), 1)]
    found = {"ild": float(np.mean(1 - pairs)), "serendipity": float(np.mean(1 - ours @ read.T))}
    found["novelty"] = float(np.mean(-np.log2(share[best])))
    names, counts = np.unique(asof.catalogue.category[best], return_counts=True)
    return found | {f"category {n}": c / len(best) for n, c in zip(names.tolist(), counts.tolist(), strict=True)}


def _in_view(asof: AsOf, model: Model, one: Targets) -> dict[str, float]:
    """AUC, nDCG and MRR of the impression in which the case's click was made."""
    i = int(asof.impression_of(one.target)[0])
    part = slice(asof.impressions.offsets[i], asof.impressions.offsets[i + 1])
    rows, label = asof.impressions.article[part], asof.impressions.clicked[part]
    score = model.candidate_scores(asof, one.cases, np.array([0, len(rows)]), rows)
    if label.all():
        return {}
    ranked = label[np.argsort(-score, kind="stable")]
    found = {f"ndcg@{k}": ndcg_score([label], [score], k=k) for k in (5, 10)}
    reciprocal = np.flatnonzero(ranked) + 1
    return found | {
        "auc": roc_auc_score(label, score),
        "mrr": 1 / reciprocal[0],
        "mrr_mind": float(np.mean(1 / reciprocal)),
    }
