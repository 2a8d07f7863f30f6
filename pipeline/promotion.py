"""Champion and challenger by command: weighing, promoting by hand, rolling back, and what the record says.

Belongs here: finding the checkpoint that is meant, and what is told. Does not belong here: the decision
(`assets.promotion`), the record (`resources.champion`).
"""

from collections.abc import Callable
from datetime import date
from typing import Any

from assets.build import models_of
from assets.graph import BY_NAME
from assets.promotion import follow, read_decision, settle
from ml.datasets import Dataset
from ml.errors import UsageError
from ml.splits import split
from pipeline.run import execute
from resources.bindings import RunSettings, ToolBox, Tools
from resources.champion import Act, Champions, Title
from resources.lake import Ref
from resources.tracker import TrackerError

Json = dict[str, Any]


def challenge(
    dataset: Dataset,
    settings: RunSettings,
    toolbox: ToolBox,
    day: date,
    model: str,
    who: str,
    say: Callable[[str], None],
) -> Json:
    """Weigh the checkpoint of `day` against the champion and act on it; what is missing is made first. A decision that
    stands is not made again, but acted on where that did not come to be. The decision, with `page` and `manifest`."""
    stage = BY_NAME["promotion"]
    if model not in models_of(stage, [model]):
        raise UsageError(f"{model} does not train: there is nothing to promote")
    execute(dataset, settings, toolbox, [(stage, day, model)], say)
    tools = toolbox.tools()
    version = tools.lake.require(stage.ref(dataset, day, settings, model))
    settle(tools, version, who)
    return read_decision(version) | {"manifest": version.manifest_digest, "page": str(version.path / "promotion.html")}


def champions_of(tools: Tools, dataset: str, model: str, split_name: str) -> Champions:
    """The record of a model."""
    return Champions(tools.lake, dataset, model, split(split_name).fit_name)


def promote(
    tools: Tools, dataset: str, model: str, split_name: str, day: date | None, who: str, why: str
) -> tuple[Act, str]:
    """Make the checkpoint of `day` (default: the newest) champion by hand: the act, and why MLflow has not followed, if
    so. Raises UsageError where there is no checkpoint, or where it is champion already; MLflow has then followed."""
    champions = champions_of(tools, dataset, model, split_name)
    fitted = [p for p in tools.lake.partitions(dataset, "checkpoint", model) if p.endswith(f".{champions.split}")]
    wanted = f"{day}.{champions.split}" if day else max(fitted, default="")
    if wanted not in fitted:
        have = ", ".join(p.split(".")[0] for p in fitted) or "none"
        raise UsageError(f"no checkpoint of {model} as of {day or 'any day'} in the lake: there is one for {have}")
    title = Title.of(tools.lake.require(Ref(dataset, "checkpoint", wanted, model)))
    if champions.current() == title:
        follow(tools, champions)
    return champions.promote(title, who, why), _behind(tools, champions)


def rollback(tools: Tools, dataset: str, model: str, split_name: str, who: str, why: str) -> tuple[Act, str]:
    """Bring the champion before the present one back: the act, and why MLflow has not followed, if so."""
    champions = champions_of(tools, dataset, model, split_name)
    return champions.rollback(who, why), _behind(tools, champions)


def _behind(tools: Tools, champions: Champions) -> str:
    """Let MLflow follow an act that stands whatever becomes of this; why it has not, "" where it has."""
    try:
        follow(tools, champions)
    except (TrackerError, UsageError) as error:
        return f"this is recorded, do not repeat it; but MLflow has not followed: {error}"
    return ""


def status(tools: Tools, dataset: str, model: str, split_name: str) -> Json:
    """The champion and every act of its record."""
    champions = champions_of(tools, dataset, model, split_name)
    current = champions.current()
    named = {"ref": str(current.ref), "manifest": current.manifest} if current else None
    return {"dataset": dataset, "model": model, "champion": named, "acts": [a.to_json() for a in champions.acts()]}


def render_status(found: Json) -> str:
    """For the terminal."""
    champion = found["champion"]
    lines = [f"champion: {champion['ref']} (manifest {champion['manifest'][:12]})" if champion else "no champion yet"]
    lines += [f"{a['at']}  {a['action']:8}  {a['ref']}  {a['who']}: {a['why']}" for a in found["acts"]]
    return "\n".join(lines)


def render_decision(decision: Json) -> str:
    """For the terminal."""
    words = {True: "holds", False: "FAILS", None: "–"}
    lines = [
        f"{words[c['passed']]:6}{c['name']}: {c['measured']}; required {c['required']}" for c in decision["criteria"]
    ]
    against = decision["champion"]["ref"] if decision["champion"] else "no champion"
    verdict = "promoted" if decision["promote"] else "refused"
    return "\n".join(
        [*lines, f"{decision['challenger']['ref']} against {against}: {verdict}", f"page: {decision['page']}"]
    )
