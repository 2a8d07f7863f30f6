"""The plan of a run: which partitions of which assets it needs, and why each will or will not run.

Belongs here: walking the stages backwards from a report and comparing recipe keys with the lake. Does not belong
here: running (`pipeline.run`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import dagster as dg

from assets.build import asset_key, input_refs, kept_inputs, key_of
from assets.graph import BY_NAME, STAGES
from assets.stage import Stage
from ml.datasets import Dataset
from ml.errors import LakeError
from resources.bindings import RunSettings, Tools
from resources.lake import Ref, Version
from resources.manifest import input_names

State = Literal["fresh", "missing", "stale", "waits"]
_ORDER = {stage.name: i for i, stage in enumerate(STAGES)}


@dataclass(frozen=True)
class Node:
    """One partition of one asset with its inputs (lake refs) and the verdict."""

    stage: Stage
    day: date
    model: str | None
    ref: Ref
    inputs: tuple[Ref, ...]
    state: State
    why: str

    @property
    def runs(self) -> bool:
        """Whether the run has to touch it."""
        return self.state != "fresh"


@dataclass
class Plan:
    """All nodes that a goal needs, upstream first."""

    dataset: Dataset
    nodes: list[Node] = field(default_factory=list)

    @property
    def pending(self) -> list[Node]:
        """The nodes that are not fresh."""
        return [n for n in self.nodes if n.runs]

    def batches(self) -> list[tuple[date, list[Node]]]:
        """Pending nodes grouped into runs of one Dagster partition each, in an order that respects their inputs."""
        left, groups = list(self.pending), []
        waiting = {n.ref for n in left}
        while left:
            day = left[0].day
            batch, done = [], set()
            for node in left:
                if node.day == day and not any(r in waiting and r not in done for r in node.inputs):
                    batch.append(node)
                    done.add(node.ref)
            groups.append((day, batch))
            waiting -= done
            left = [n for n in left if n.ref not in done]
        return groups

    def keys(self, nodes: Sequence[Node]) -> list[dg.AssetKey]:
        """The Dagster asset keys of `nodes`."""
        return [asset_key(self.dataset, n.stage, n.model) for n in nodes]


def make_plan(
    dataset: Dataset, settings: RunSettings, tools: Tools, goals: Sequence[tuple[Stage, date, str | None]]
) -> Plan:
    """Everything that `goals` need, judged against the lake. Reads manifests and fingerprints, computes nothing."""
    days = tools.source.days(dataset)
    walk: dict[Ref, tuple[Stage, date, str | None, dict[str, list[tuple[Stage, date, Ref]]]]] = {}
    todo = list(goals)
    while todo:
        stage, day, model = todo.pop()
        ref = stage.ref(dataset, day, settings, model)
        if ref in walk:
            continue
        found = input_refs(stage, dataset, day, model, settings, BY_NAME, days)
        walk[ref] = (stage, day, model, found)
        todo.extend((s, d, r.model) for refs in found.values() for s, d, r in refs)
    plan = Plan(dataset)
    states: dict[Ref, State] = {}
    for ref, (stage, day, model, found) in sorted(walk.items(), key=lambda kv: _rank(kv[1])):
        inputs = tuple(r for refs in found.values() for _, _, r in refs)
        state, why = _judge(ref, stage, dataset, day, model, settings, tools, inputs, states)
        states[ref] = state
        plan.nodes.append(Node(stage, day, model, ref, inputs, state, why))
    return plan


def _rank(entry: tuple[Stage, date, str | None, Any]) -> tuple[int, date, str]:
    stage, day, model, _ = entry
    return (_ORDER[stage.name], day, model or "")


def _judge(
    ref: Ref,
    stage: Stage,
    dataset: Dataset,
    day: date,
    model: str | None,
    settings: RunSettings,
    tools: Tools,
    inputs: Sequence[Ref],
    states: Mapping[Ref, State],
) -> tuple[State, str]:
    try:
        current = tools.lake.current(ref)
    except LakeError as error:
        return "missing", f"damaged, is made anew: {error}"
    if current is None:
        return "missing", "not in the lake"
    pending = [r for r in inputs if states[r] != "fresh"]
    if pending:
        more = f" and {len(pending) - 1} more" if len(pending) > 1 else ""
        return "waits", f"input {pending[0]}{more} runs first; skipped if that changes nothing"
    lost = current.lost()
    if lost:
        return "missing", f"file {lost[0]} is gone from the lake, or cut"
    versions = [tools.lake.require(r) for r in inputs]
    versions += [v for found in kept_inputs(stage, dataset, day, model, settings, tools.lake).values() for v in found]
    key, recipe, code = key_of(stage, dataset, day, model, settings, tools, versions)
    if key == current.recipe_key:
        return "fresh", f"recipe key {key[:12]} unchanged"
    return "stale", _difference(tools.lake.publication(ref), versions, recipe, code)


def _difference(
    before: Mapping[str, Any], inputs: Sequence[Version], recipe: Mapping[str, Any], code: Mapping[str, str]
) -> str:
    """Which part of the recipe key moved since the last publication."""
    now = {name: v.manifest_digest for name, v in input_names((v.ref, v) for v in inputs).items()}
    moved = sorted(r for r in now.keys() | before["inputs"].keys() if now.get(r) != before["inputs"].get(r))
    parts = []
    if moved:
        parts.append(
            f"inputs changed: {', '.join(moved[:3])}" + (f" and {len(moved) - 3} more" if len(moved) > 3 else "")
        )
    parts += [f"code of {m} changed" for m, d in code.items() if before["code"].get(m) != d]
    fields = sorted(k for k in recipe.keys() | before["recipe"].keys() if recipe.get(k) != before["recipe"].get(k))
    if fields:
        parts.append(f"recipe changed: {', '.join(fields)}")
    return "; ".join(parts) or "made under another recipe key"
