"""The registry of models: a new model is one new file and one line here.

Belongs here: the name, kind and loader of every model. Does not belong here: scoring code.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ml.errors import UsageError
from ml.models.base import Embeds, Model, ModelSpec
from ml.models.cooccurrence import Cooccurrence, CooccurrencePopular
from ml.models.popular import Popular
from ml.models.random import Random

if TYPE_CHECKING:
    from ml.train import TrainSpec

__all__ = ["MODELS", "Embeds", "Model", "ModelSpec", "model_spec"]


def _snert(checkpoint: Path | None, device: str = "cpu") -> Model:
    from ml.models.snert import Snert  # brings torch, which reading the registry must not

    if checkpoint is None:
        raise UsageError("snert needs the folder of a checkpoint")
    return Snert.load(checkpoint, device=device)


def _train_snert(spec: "TrainSpec", progress: Callable[[str], None]) -> object:
    from ml.train import train

    return train(spec, progress=progress)


MODELS = {
    spec.name: spec
    for spec in (
        ModelSpec("popular_15", lambda *_: Popular(15)),
        ModelSpec("popular_60", lambda *_: Popular(60)),
        ModelSpec("popular_240", lambda *_: Popular(240)),
        ModelSpec("popular_1440", lambda *_: Popular(1440)),
        ModelSpec("popular_15_paper_window", lambda *_: Popular(15, paper_window=True), strict=False),
        ModelSpec("cooccurrence", lambda *_: Cooccurrence()),
        ModelSpec("cooccurrence_popular", lambda *_: CooccurrencePopular()),
        ModelSpec("random", lambda *_: Random()),
        ModelSpec("snert", _snert, _train_snert, "snert_quick", ("ml.train", "ml.models.snert"), embeds=True),
    )
}
"""Every model by name, baselines first."""


def model_spec(name: str) -> ModelSpec:
    """The registry's line for `name`; raises UsageError naming the known models."""
    if name not in MODELS:
        raise UsageError(f"unknown model {name!r}: choose from {', '.join(MODELS)}")
    return MODELS[name]
