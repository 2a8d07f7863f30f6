"""Benchmark of the loader: a real training step against a step on one fixed batch that lies in memory.

Belongs here: `newsrec bench loader`, trainings that need no log. Does not belong here: the loop (`ml.train`), figures
of a card (`ml.benchmarks.gpu`).

What a real step costs more is its batch: targets, negatives, features, and their way to the device.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ml.asof import AsOf
from ml.batches import Batches
from ml.benchmarks.common import Pair, growth, interleaved, median_seconds, size_of
from ml.benchmarks.world import World
from ml.clock import MS_PER_DAY
from ml.features import FittedFeatures
from ml.recipes import SNERT_QUICK, SNERT_THESIS, Recipe
from ml.sessions import exclusion_mask
from ml.snert import SnertNet
from ml.train import Run, choose_device
from ml.validation import Validation

_SEED = 1
_TRAIN_DAYS = 7
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Training:
    """A recipe on a log, and how many of its steps make a round."""

    world: World
    recipe: Recipe
    steps: int


SIZES = {
    "quick": Training(World(20_000, 25, 28 * 1440, 64), SNERT_QUICK, 20),
    "paper": Training(World(125_542, 200, 36 * 1440, 384), SNERT_THESIS, 10),
}
"""`paper`: the thesis' catalogue and recipe; on two cores a step of it takes seconds."""


def bench_loader(size: str = "quick") -> dict[str, Any]:
    """Milliseconds of a step with its own batch and of one on a fixed batch, on the device that `auto` finds, and how
    making a batch grows with its size. `size`: `quick` or `paper`; UsageError otherwise."""
    asked, device = size_of(SIZES, size), choose_device("auto")
    asof = asked.world.make()
    run = prepared(asof, asked.recipe, device)
    name = f"training step of {asked.recipe.name} on {device} / on one fixed batch"
    results = [step_pair(run, asked.steps).row(name, "ms", 1000 / asked.steps)]
    sizes = [asked.recipe.batch // 4, asked.recipe.batch, 4 * asked.recipe.batch]
    grown = growth("making a batch, by its targets", lambda batch: _making(asof, asked.recipe, batch), sizes)
    described = {"articles": asked.world.articles, "clicks": len(asof.clicks), "batch": asked.recipe.batch}
    return {"bench": "loader", "size": described, "results": results, "growth": [grown]}


def prepared(asof: AsOf, recipe: Recipe, device: str) -> Run:
    """A training of `recipe` on the last seven days of `asof`, before its first step."""
    batches = _batches(asof, recipe)
    none = Validation.choose(asof, batches.targets[:0], recipe.validation_cases, _SEED)
    return Run(batches, none, SnertNet(batches.fitted.spec, recipe).to(device), device, lambda _: None)


def _batches(asof: AsOf, recipe: Recipe) -> Batches:
    clicks = asof.clicks
    end = int(clicks.time.max()) + 1
    targets = np.flatnonzero(clicks.time >= end - _TRAIN_DAYS * MS_PER_DAY)
    targets = targets[clicks.article[targets] < asof.available(clicks.time[targets])]
    fitted = FittedFeatures.fit(recipe, asof, targets)
    return Batches(asof, fitted, recipe, targets, exclusion_mask(clicks, targets, end), _SEED)


def step_pair(run: Run, steps: int, rounds: int = _ROUNDS) -> Pair:
    """Seconds of `steps` steps with their own batches, the first of which is waited for, and of as many on one."""
    fixed = run.batches.make(0)
    first = 1

    def real() -> None:
        nonlocal first
        for step, batch in run.ahead(first, first + steps):
            run.step(step, batch)
        first += steps

    def still() -> None:
        for step in range(1, 1 + steps):
            run.step(step, fixed)

    return interleaved(real, still, rounds)


def _making(asof: AsOf, recipe: Recipe, batch: int) -> float:
    batches = _batches(asof, recipe.model_copy(update={"batch": batch}))
    batches.make(0)
    return median_seconds(lambda: batches.make(1))
