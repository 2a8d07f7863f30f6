"""`evaluation_rq1`, `evaluation_rq2`, `evaluation_rq3`: metrics with intervals, from stored predictions alone.

Belongs here: which predictions are measured against which. Does not belong here: metrics and intervals
(`ml.evaluate`).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from assets.stage import BASELINE, Need, Stage, Summary, Work, inview_label, no_recipe, test_needs
from ml.datasets import Dataset
from ml.synthetic import SYNTHETIC
from resources.bindings import RunSettings, Tools

VECTOR_FAMILIES = ("body", "title", "coclick")
"""Whose vectors measure diversity and serendipity: the first that the log has."""


def _vectors_recipe(*_: object) -> dict[str, Any]:
    return {"vectors": list(VECTOR_FAMILIES)}


def _baseline(work: Work) -> Path | None:
    return None if work.model == BASELINE else work.one("baseline").path


def _summary(out: Path) -> Summary:
    metrics = json.loads((out / "metrics.json").read_text())
    figures: dict[str, float] = {}
    for protocol, values in metrics["protocols"].items():
        for name, entry in values.items():
            if isinstance(entry, dict) and entry.get("value") is not None:
                figures[f"{protocol}.{name}"] = float(entry["value"])
    labels = inview_label(metrics.get(SYNTHETIC))
    return Summary(metrics=figures, metadata={"metrics": metrics}, labels=labels, artifacts=["metrics.json"])


def _rq1(work: Work) -> Summary:
    from ml.evaluate import evaluate_rq1

    evaluate_rq1(work.one("predictions").path, _baseline(work), work.out)
    return _summary(work.out)


def _rq2(work: Work) -> Summary:
    from ml.evaluate import evaluate_rq2

    oracle = work.tools.source.oracle(work.dataset)
    bundle = oracle.parent if oracle else None
    evaluate_rq2(work.one("predictions").path, _baseline(work), work.out, bundle)
    return _summary(work.out)


def _rq3(work: Work) -> Summary:
    from ml.asof import AsOf
    from ml.evaluate import evaluate_rq3

    asof = AsOf.open(work.asof_paths())
    family = next((f for f in VECTOR_FAMILIES if f in asof.families), None)
    features = work.one("article_features").file("features.parquet")
    evaluate_rq3(work.one("predictions").path, _baseline(work), work.out, asof, family, features)
    return _summary(work.out)


def _oracle_recipe(dataset: Dataset, settings: RunSettings, tools: Tools, model: str | None) -> dict[str, Any]:
    return {"oracle": tools.source.oracle_digest(dataset)}


def _evaluation(
    name: str,
    description: str,
    compute: Callable[[Work], Summary],
    needs: tuple[Need, ...] = (),
    recipe: Callable[..., dict[str, Any]] = no_recipe,
) -> Stage:
    return Stage(
        name=name,
        group="evaluation",
        description=description,
        needs=(
            Need("predictions", "predictions", model="same"),
            Need("baseline", "predictions", model="baseline"),
            *needs,
        ),
        modules=("assets.evaluation", "ml.evaluate"),
        recipe=recipe,
        compute=compute,
        by_split="test",
        models="every",
    )


EVALUATION_RQ1 = _evaluation(
    "evaluation_rq1", "Global recommendation: Recall@20, NDCG@20 over the live catalogue.", _rq1
)
EVALUATION_RQ2 = _evaluation(
    "evaluation_rq2", "In-view ranking: AUC per impression, MRR, nDCG@5/10.", _rq2, recipe=_oracle_recipe
)
EVALUATION_RQ3 = _evaluation(
    "evaluation_rq3",
    "Beyond accuracy: diversity, serendipity, novelty, coverage, categories.",
    _rq3,
    needs=test_needs(),
    recipe=_vectors_recipe,
)
