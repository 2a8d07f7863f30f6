"""`predictions`: the exact top lists and in-view scores of one model on the test span; nothing is scored twice.

Belongs here: opening the as-of door over the test span and asking the model. Does not belong here: scoring and
sampling of test minutes (`ml.predict`), metrics (`assets.evaluation`).
"""

import json
import time
from collections.abc import Callable
from typing import Any

from assets.stage import Need, Stage, Summary, Work, inview_label, test_needs
from ml.datasets import Dataset
from ml.models import MODELS
from ml.splits import split
from ml.synthetic import SYNTHETIC
from resources.bindings import RunSettings, Tools

SECONDS_BETWEEN = 15.0


def _recipe(dataset: Dataset, settings: RunSettings, tools: Tools, model: str | None) -> dict[str, Any]:
    hours = list(split(settings.split).test)
    return {"budget": settings.budget, "seed": settings.seed, "split": settings.split, "test": hours, "model": model}


def _compute(work: Work) -> Summary:
    from ml.asof import AsOf
    from ml.predict import predict

    spec = MODELS[work.model or ""]
    checkpoint = work.one("checkpoint").path if spec.trains else None
    asof = AsOf.open(work.asof_paths())
    span = work.split.spans(work.dataset.clock, work.day)["test"]
    model = spec.load(checkpoint, work.tools.device.name)
    predict(asof, model, span, work.settings.budget, work.out, seed=work.settings.seed, progress=_now_and_then(work))
    span_facts = json.loads((work.out / "span.json").read_text())
    figures = {k: span_facts[k] for k in ("n_cases", "n_impressions", "n_minutes_total", "n_clicks_total")}
    return Summary(
        rows={"cases.parquet": figures["n_cases"], "inview.parquet": figures["n_impressions"]},
        metrics={k: float(v) for k, v in figures.items()},
        metadata=figures,
        labels=inview_label(span_facts[SYNTHETIC]),
    )


def _now_and_then(work: Work) -> Callable[[int, int], None]:
    """Tells how far the scoring is, every quarter of a minute."""
    told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > SECONDS_BETWEEN:
            told = time.monotonic()
            work.progress(f"{done:,} of {total:,} lists")

    return progress


PREDICTIONS = Stage(
    name="predictions",
    group="evaluation",
    description="Exact top 50 per test case and the score of every in-view article, over sampled whole test minutes.",
    needs=(Need("checkpoint", "checkpoint", model="same"), *test_needs()),
    modules=("assets.predictions", "ml.predict", "ml.models"),
    recipe=_recipe,
    compute=_compute,
    by_split="test",
    models="every",
    kinds=("parquet",),
)
