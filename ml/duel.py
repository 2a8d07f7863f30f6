"""Challenger against champion on one test span: paired figures, segments, effective rank, latency.

Belongs here: measuring what `ml.promotion` judges. Does not belong here: the judgement, and which models these are.

Both score the same lists, those of the challenger's stored predictions. The champion is fitted to older days, so
nothing of the span is known to either.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ml import schema
from ml.asof import AsOf
from ml.evaluate import evaluate_rq1, evaluate_rq2, evaluate_rq3
from ml.log import Cases
from ml.metrics import relative_effective_rank
from ml.models import Embeds, Model
from ml.predict import predict, targets_of, top_lists
from ml.segments import Labeller, Sources, per_case_of, segment_means
from ml.stored import InViewLists, read_span

PROTOCOL = "thesis"
VECTORS = 2000
TIMED = 60
TOP = 20
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Side:
    """A model and the folder of its predictions (the champion's are written there)."""

    model: Model
    predictions: Path


@dataclass(frozen=True, slots=True)
class Duel:
    """`figures`: by question the challenger's and the champion's entries and their paired difference; `paired`: the
    entries that decide, by `recall`, `auc`, `coverage`; `unmeasured`: why one of them is missing; `segments`: paired
    differences by question, dimension and segment; `erank` and `latency` by side."""

    figures: Json
    paired: Json
    unmeasured: dict[str, str]
    segments: Json
    erank: dict[str, dict[str, float]]
    latency: dict[str, dict[str, float]]


def duel(
    asof: AsOf,
    challenger: Side,
    champion: Side | None,
    family: str | None,
    sources: Sources,
    scratch: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Duel:
    """Measure both; `scratch` is an empty folder for what need not stay. `family` names the content vectors of RQ3."""
    span = read_span(challenger.predictions)
    bounds = (int(span["start_ms"]), int(span["end_ms"]))
    sides = {"challenger": challenger} | ({"champion": champion} if champion else {})
    if champion is not None:
        predict(asof, champion.model, bounds, span["budget"], champion.predictions, progress, span["seed"])
    baseline = champion.predictions if champion else None

    def questions(side: Path, base: Path | None, out: Path) -> dict[str, Json]:
        return {
            "rq1": evaluate_rq1(side, base, out / "rq1"),
            "rq2": evaluate_rq2(side, base, out / "rq2"),
            "rq3": evaluate_rq3(side, base, out / "rq3", asof, family, sources.features),
        }

    measured = {"challenger": questions(challenger.predictions, baseline, scratch / "challenger_cases")}
    if champion is not None:
        measured["champion"] = questions(champion.predictions, None, scratch / "champion_cases")
    figures = {
        rq: {name: found[rq]["protocols"] for name, found in measured.items()}
        | {"paired": measured["challenger"][rq]["paired"]}
        for rq in ("rq1", "rq2", "rq3")
    }
    paired, unmeasured = _deciding(figures)
    labeller = Labeller(sources, span, asof.clock)
    segments = _segments(labeller, challenger.predictions, scratch) if champion is not None else {}
    cases = targets_of(asof, bounds).cases
    erank = {name: _erank(asof, side.model, bounds[0], cases) for name, side in sides.items()}
    latency = {name: _latency(asof, side.model, cases) for name, side in sides.items()}
    return Duel(figures, paired, unmeasured, segments, erank, latency)


def _deciding(figures: Json) -> tuple[Json, dict[str, str]]:
    """Paired entries of Recall@20, AUC and coverage, and why one is missing."""
    places = {
        "recall": ("rq1", PROTOCOL, "recall@20", "the test span has no test case"),
        "auc": ("rq2", "in_view", "auc", "the test span has no in-view lists"),
        "coverage": ("rq3", PROTOCOL, "coverage", "the test span has no test case"),
    }
    paired, unmeasured = {}, {}
    for name, (rq, protocol, metric, why) in places.items():
        entry = figures[rq]["paired"].get(protocol, {}).get(metric)
        if entry is None:
            unmeasured[name] = why
        else:
            paired[name] = entry
    return paired, unmeasured


def _segments(labeller: Labeller, predictions: Path, scratch: Path) -> Json:
    """Paired differences of Recall@20 (protocol thesis), AUC and novelty by dimension and segment."""
    out: Json = {}
    for rq, metric, protocol in (("rq1", "recall@20", PROTOCOL), ("rq2", "auc", ""), ("rq3", "novelty", "")):
        keys, ours = per_case_of(scratch / "challenger_cases" / rq / "per_case.parquet", rq, protocol)
        _, theirs = per_case_of(scratch / "champion_cases" / rq / "per_case.parquet", rq, protocol)
        if not len(keys[schema.USER_ID]) or metric not in ours:
            continue
        shown = rq == "rq2"
        labels = labeller.of_impressions(InViewLists.read(predictions)) if shown else labeller.of_cases(keys)
        difference = {metric: ours[metric] - theirs[metric]}
        out[rq] = segment_means(difference, labels, keys[schema.USER_ID], key="difference")
    return out


def _spread(cases: Cases, most: int) -> np.ndarray:
    """At most `most` positions of `cases`, evenly spread from the first to the last; int64, ascending."""
    return np.unique(np.linspace(0, max(len(cases) - 1, 0), min(most, len(cases))).astype(np.int64))


def _erank(asof: AsOf, model: Model, start: int, cases: Cases) -> dict[str, float]:
    """Relative effective rank (Eq. A.10) of readers' vectors, of at most `VECTORS` test cases, and of the vectors of as
    many articles, the newest at `start` (ms), the span's; NaN for vectors that are not finite, empty for a model
    without."""
    if not isinstance(model, Embeds):
        return {}
    available = int(asof.available(np.array([start]))[0])
    rows = np.arange(max(available - VECTORS, 0), available)
    vectors = {"readers": model.user_vectors(asof, cases.take(_spread(cases, VECTORS)))}
    vectors["articles"] = model.article_vectors(asof, start, rows)
    finite = {name: bool(np.isfinite(v).all()) for name, v in vectors.items()}
    return {n: relative_effective_rank(v) if finite[n] else float("nan") for n, v in vectors.items() if len(v)}


def _latency(asof: AsOf, model: Model, cases: Cases) -> dict[str, float]:
    """Milliseconds of one reader's top 20 over the live catalogue, minutes apart so that nothing of a minute is kept:
    `median` and `p95` of at most `TIMED` lists after one that warms up. NaN without a test case."""
    took = []
    for i in _spread(cases, TIMED + 1).tolist():
        one = cases.take(np.array([i]))
        started = time.perf_counter()
        top_lists(asof, model, int(one.time[0]), one, {"unread": TOP})
        took.append(1000 * (time.perf_counter() - started))
    timed = took[1:] or took
    if not timed:
        return {"median": float("nan"), "p95": float("nan"), "lists": 0}
    return {"median": float(np.median(timed)), "p95": float(np.percentile(timed, 95)), "lists": len(timed)}
