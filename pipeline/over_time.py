"""Drift and decay by command: making what they look back at, and telling what they say.

Belongs here: goals and text. Does not belong here: measures (`ml.drift`, `ml.decay`).
"""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from assets.graph import BY_NAME
from assets.segments import QUESTIONS
from ml.datasets import Dataset
from ml.errors import UsageError
from ml.measured import read_figures
from ml.sheet import estimate
from ml.strangers import reading
from ml.synthetic import SYNTHETIC, marked
from pipeline.run import execute
from resources.bindings import RunSettings, ToolBox

Shown = tuple[dict[str, Any], str, Path]
"""The figures, the text for the terminal, and the page."""


def decay(
    dataset: Dataset, settings: RunSettings, toolbox: ToolBox, day: date | None, model: str, say: Callable[[str], None]
) -> Shown:
    """Evaluate the checkpoint of `day` on each later day with data, up to the settings' number, then gather."""
    tools = toolbox.tools()
    days = tools.source.days(dataset)
    made = [p.split(".")[0] for p in tools.lake.partitions(dataset.name, "checkpoint", model) if p.endswith(".rolling")]
    if day is None and not made:
        raise UsageError(
            f"no checkpoint of {model} in the lake: run `newsrec run --dataset {dataset.name}`, or say --as-of"
        )
    start = day or date.fromisoformat(min(made))
    ages = [a for a in range(settings.decay_days + 1) if start + timedelta(days=a) in days]
    if not ages:
        raise UsageError(f"the log has no data on {start} or the {settings.decay_days} days after it")
    for age in ages:
        lagged = RunSettings(**{**settings.model_dump(), "split": f"lag_{age}" if age else "rolling"})
        goals = [(BY_NAME[f"evaluation_{q}"], start, model) for q in QUESTIONS]
        execute(dataset, lagged, toolbox, goals, say)
    stage = BY_NAME["decay"]
    execute(dataset, settings, toolbox, [(stage, start, model)], say)
    version = tools.lake.require(stage.ref(dataset, start, settings, model))
    path = version.file("decay.json")
    found = read_figures(path, {"rows": list, "missing": list})
    lines = [f"{dataset.name}: {model} as of {start}, tested later without training"]
    with reading(path):
        lines += _decay_lines(found)
    return found, "\n".join(lines), version.path / "decay.html"


def _decay_lines(found: dict[str, Any]) -> list[str]:
    lines = []
    for row in found["rows"]:
        where = marked(f"{row['question']}.{row['protocol']}.{row['metric']}", row[SYNTHETIC])
        retrained = f"  retrained {estimate(row['retrained'])}" if row["retrained"] else ""
        lines.append(f"{row['age']:3d} days  {where:26}{estimate(row)}{retrained}")
    return lines + [f"{day}: {why}" for day, why in found["missing"]]


def drift(
    dataset: Dataset, settings: RunSettings, toolbox: ToolBox, day: date | None, say: Callable[[str], None]
) -> Shown:
    """Drift of the days before `day` (default: of all days with data)."""
    tools = toolbox.tools()
    days = tools.source.days(dataset)
    end = day or days[-1] + timedelta(days=1)
    if not days[0] < end <= days[-1] + timedelta(days=1):
        raise UsageError(f"drift as of {end}: choose a day after {days[0]} and up to {days[-1] + timedelta(days=1)}")
    stage = BY_NAME["drift"]
    execute(dataset, settings, toolbox, [(stage, end, None)], say)
    version = tools.lake.require(stage.ref(dataset, end, settings, None))
    path = version.file("drift.json")
    found = read_figures(path, {"days": list, "features": list, "first": str, "last": str})
    with reading(path):
        return found, _drift_text(dataset.name, found), version.path / "drift.html"


def _drift_text(name: str, found: dict[str, Any]) -> str:
    lines = [f"{name}, {found['first']} to {found['last']}"]
    for row in found["days"]:
        psi = max((f for f in found["features"] if f["day"] == row["day"]), key=lambda f: f["psi"], default=None)
        moved = f"  largest PSI {psi['psi']:.3f} ({psi['feature']})" if psi else ""
        lines.append(f"{row['day']}  {row['clicks']:>9,} clicks  Gini {row['gini']:.3f}{moved}")
    return "\n".join(lines)
