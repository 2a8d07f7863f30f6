"""The registry of models: a new model is one new file and one line here.

Belongs here: the name, kind and loader of every model. Does not belong here: scoring code, and its libraries: a loader
imports its model when it is asked for it, so that reading the registry brings none.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ml.errors import UsageError
from ml.models.base import Embeds, Model, ModelSpec

if TYPE_CHECKING:
    from ml.train import TrainSpec

__all__ = ["MODELS", "Embeds", "Model", "ModelSpec", "model_spec"]


def _popular(minutes: int, paper_window: bool = False) -> Callable[..., Model]:
    def load(*_: object) -> Model:
        from ml.models.popular import Popular

        return Popular(minutes, paper_window)

    return load


def _cooccurrence(*_: object) -> Model:
    from ml.models.cooccurrence import Cooccurrence

    return Cooccurrence()


def _cooccurrence_popular(*_: object) -> Model:
    from ml.models.cooccurrence import CooccurrencePopular

    return CooccurrencePopular()


def _random(*_: object) -> Model:
    from ml.models.random import Random

    return Random()


def _snert(checkpoint: Path | None, device: str = "cpu") -> Model:
    from ml.models.snert import Snert

    if checkpoint is None:
        raise UsageError("snert needs the folder of a checkpoint")
    return Snert.load(checkpoint, device=device)


def _train_snert(spec: "TrainSpec", progress: Callable[[str], None]) -> object:
    from ml.train import train

    return train(spec, progress=progress)


MODELS = {
    spec.name: spec
    for spec in (
        ModelSpec("popular_15", _popular(15)),
        ModelSpec("popular_60", _popular(60)),
        ModelSpec("popular_240", _popular(240)),
        ModelSpec("popular_1440", _popular(1440)),
        ModelSpec("popular_15_paper_window", _popular(15, paper_window=True), strict=False),
        ModelSpec("cooccurrence", _cooccurrence),
        ModelSpec("cooccurrence_popular", _cooccurrence_popular),
        ModelSpec("random", _random),
        ModelSpec("snert", _snert, _train_snert, "snert_quick", ("ml.train", "ml.models.snert"), embeds=True),
    )
}
"""Every model by name, baselines first."""


def model_spec(name: str) -> ModelSpec:
    """The registry's line for `name`; raises UsageError naming the known models."""
    if name not in MODELS:
        raise UsageError(f"unknown model {name!r}: choose from {', '.join(MODELS)}")
    return MODELS[name]
