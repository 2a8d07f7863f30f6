"""`newsrec bench orchestration`: a run on the tiny log against the same calls without Dagster.

Belongs here: both ways of carrying out one plan. Does not belong here: the plan and the run (`pipeline.plan`,
`pipeline.run`). Reading, computing, checking, tracking and publishing are the same on both sides.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import dagster as dg

from assets.build import materialise
from assets.graph import BY_NAME
from ml import simulator
from ml.benchmarks.common import interleaved, row, size_of
from ml.datasets import Dataset, dataset
from pipeline.plan import make_plan
from pipeline.run import Goal, as_of_day, execute, report_goals
from resources.bindings import RunSettings, ToolBox, run_settings

MODELS = {"quick": "popular_15", "paper": None}
"""Models of the run; None: all of them, of which training takes the most."""

ROUNDS = 3
PROMISE_S = 0.15
"""Seconds that Dagster may add to an asset partition."""


@dataclass(frozen=True)
class Asked:
    """What both sides carry out, each time into a lake that is new."""

    known: Dataset
    settings: RunSettings
    goals: Goal
    log: Path
    folder: Path

    def toolbox(self) -> ToolBox:
        """Tools over a new lake, with one tracking store for all."""
        store = f"sqlite:///{self.folder / 'mlflow.db'}"
        lake, log = str(self.folder / uuid4().hex), str(self.log)
        return ToolBox(lake=lake, dataset=self.known.name, data_root=log, device="cpu", tracking_uri=store)

    def with_dagster(self) -> None:
        """As `newsrec run` does it."""
        execute(self.known, self.settings, self.toolbox(), self.goals, lambda _: None)

    def without(self) -> int:
        """The same partitions in a loop; how many there were."""
        tools = self.toolbox().tools()
        plan = make_plan(self.known, self.settings, tools, self.goals)
        run = SimpleNamespace(run_id=uuid4().hex, tags={})
        context: Any = SimpleNamespace(run=run, log=logging.getLogger(__name__))
        for node in plan.pending:
            materialise(context, node.stage, self.known, node.day, node.model, self.settings, tools, BY_NAME)
        return len(plan.pending)


def bench_orchestration(size: str = "quick") -> dict[str, Any]:
    """Seconds that Dagster adds to an asset partition, against the promise, and the whole run on both sides. `size`:
    `quick` (baselines only) or `paper` (all models)."""
    models = size_of(MODELS, size)
    with tempfile.TemporaryDirectory() as name, _dagster_home(Path(name) / "dagster"):
        folder = Path(name)
        simulator.simulate(folder / "log", "tiny", 3, lambda *_: None)
        known, settings = dataset("simulated"), run_settings("rolling", models)
        first = Asked(known, settings, [], folder / "log", folder)
        day = as_of_day(known, settings, first.toolbox(), None)
        asked = Asked(known, settings, report_goals(day, settings), folder / "log", folder)
        partitions = asked.without()
        pair = interleaved(asked.with_dagster, asked.without, ROUNDS)
    added = [(a - b) / partitions for a, b in zip(pair.ours, pair.reference, strict=True)]
    results = [
        row("added to an asset partition / promise", added, PROMISE_S, "s"),
        pair.row("newsrec run on tiny / the same calls without Dagster"),
    ]
    return {"bench": "orchestration", "size": {"partitions": partitions, "rounds": ROUNDS}, "results": results}


@contextmanager
def _dagster_home(folder: Path) -> Iterator[None]:
    """An instance of its own, made before anything is timed."""
    folder.mkdir()
    with patch.dict(os.environ, {"DAGSTER_HOME": str(folder)}):
        with dg.DagsterInstance.get():
            pass
        yield
