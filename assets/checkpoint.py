"""`checkpoint`: a model fitted to the targets before the as-of day.

Belongs here: the training specification made from lake versions. Does not belong here: training (`ml.train`).
"""

import json
from typing import TYPE_CHECKING, Any

from assets import plots
from assets.stage import Need, Stage, Summary, Work, fit_needs, inview_label
from ml.datasets import Dataset
from ml.models import MODELS
from ml.splits import split
from ml.synthetic import SYNTHETIC, marked
from resources.bindings import RunSettings, Tools
from resources.lake import Version
from resources.registry import register

if TYPE_CHECKING:
    from ml.train import TrainSpec


def _recipe(dataset: Dataset, settings: RunSettings, tools: Tools, model: str | None) -> dict[str, Any]:
    return {
        "recipe": settings.recipe_of(model).model_dump(mode="json"),
        "seed": settings.seed,
        "split": split(settings.split).fit_name,
    }


def spec_of(work: Work) -> "TrainSpec":
    """What the training of `work.model` is given."""
    from ml.train import TrainSpec

    spans = work.split.spans(work.dataset.clock, work.day)
    return TrainSpec(
        asof=work.asof_paths(),
        sessions=work.one("session_splits").file("sessions.parquet"),
        sessions_digest=work.one("interactions").content,
        recipe=work.settings.recipe_of(work.model),
        seed=work.settings.seed,
        out=work.out,
        device=work.tools.device.name,
        train_end=spans["train"][1],
        states=work.unfinished,
        states_key=work.unfinished.name if work.unfinished else "",
    )


def _compute(work: Work) -> Summary:
    train = MODELS[work.model or ""].train
    assert train is not None
    device, spec = work.tools.device, spec_of(work)
    with device.lease(work.tools.lake.root, work.progress):
        train(spec, progress=work.progress)
    curves = json.loads((work.out / "curves.json").read_text())
    metrics = json.loads((work.out / "metrics.json").read_text())
    made = metrics.get(SYNTHETIC, "")
    validation = {"recall@20": "recall@20", "ndcg@20": "ndcg@20", "auc": marked("auc", made)}
    return Summary(
        metrics={k: float(v) for k, v in metrics.items() if isinstance(v, (int, float))},
        metadata={"device": device.describe()},
        labels=inview_label(made),
        plots={
            "loss": plots.curves(curves, _same("loss", "nce"), "loss"),
            "spectrum": plots.curves(
                curves, _same("erank_user", "erank_article", "cosine_user", "cosine_article"), "share"
            ),
            "validation": plots.curves(curves, validation, "validation"),
        },
        artifacts=["recipe.json", "curves.json", "metrics.json"],
        curves=curves,
    )


def _same(*names: str) -> dict[str, str]:
    """Lines that are called as they are named."""
    return {name: name for name in names}


def _register(tools: Tools, version: Version, who: str) -> None:
    """Each retrain is a challenger in the model registry."""
    register(tools.tracker, version.ref, version.manifest_digest)


CHECKPOINT = Stage(
    name="checkpoint",
    group="training",
    description="Weights, fitted scalers, recipe and curves of a model that has seen nothing from its as-of day on.",
    needs=(Need("session_splits", "session_splits"), *fit_needs()),
    modules=("assets.checkpoint",),
    recipe=_recipe,
    compute=_compute,
    by_split="fit",
    models="trained",
    pool="gpu",
    kinds=("pytorch",),
    after=_register,
)
