"""`interactions`: the user-sorted clicks that models as of a day may see.

Belongs here: the trailing window and its publication. Does not belong here: the query (`ml.sessions`).
"""

from datetime import timedelta
from typing import Any

from assets.stage import Need, Stage, Summary, Work
from ml.datasets import Dataset
from ml.splits import HISTORY_DAYS, TRAIN_DAYS
from resources.bindings import RunSettings, Tools

WINDOW_DAYS = TRAIN_DAYS + HISTORY_DAYS


def _recipe(dataset: Dataset, settings: RunSettings, tools: Tools, model: str | None) -> dict[str, Any]:
    return {"window_days": WINDOW_DAYS}


def _compute(work: Work) -> Summary:
    from ml.sessions import build_interactions

    clock = work.dataset.clock
    with work.tools.engine() as engine:
        rows = build_interactions(
            engine.connection,
            [v.file("clicks.parquet") for v in work.inputs["clicks"]],
            work.out / "interactions.parquet",
            clock.start(work.day - timedelta(days=WINDOW_DAYS)),
            clock.start(work.day),
        )
    return Summary(rows={"interactions.parquet": rows}, metrics={"rows": rows})


INTERACTIONS = Stage(
    name="interactions",
    group="features",
    description=f"Clicks of the {WINDOW_DAYS} days before the as-of day, sorted by reader and time.",
    needs=(Need("clicks", "clicks", lambda _: (-WINDOW_DAYS, -1)),),
    modules=("assets.interactions", "ml.sessions"),
    recipe=_recipe,
    compute=_compute,
    table="interactions",
    kinds=("duckdb", "parquet"),
)
