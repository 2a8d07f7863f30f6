"""Automation conditions that say of an asset's partition what `--explain` says of it.

Belongs here: the condition and its sensor. Does not belong here: the verdict itself (`pipeline.plan`).
"""

import logging
from datetime import datetime
from functools import lru_cache
from typing import Any

import dagster as dg

from assets.build import asset_key
from ml.datasets import dataset
from ml.errors import DataError, UsageError
from pipeline.plan import Plan
from resources.bindings import RunSettings, ToolBox, default_settings

SENSOR = "automation"


class Ready(dg.AutomationCondition):  # type: ignore[type-arg]
    """True for the partitions that the newest night's plan calls missing or stale and whose inputs are all fresh.

    A partition that waits becomes ready when its inputs have run, unless they came out as they were.
    """

    def __init__(self, name: str, toolbox: ToolBox | None = None, settings: RunSettings | None = None) -> None:
        self.dataset = name
        self._toolbox = toolbox
        self._settings = settings

    @property
    def name(self) -> str:
        """What the UI calls the condition."""
        return "ready_by_plan"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:  # type: ignore[type-arg]
        """The ready partitions of the asset, among those that the condition is asked about."""
        toolbox = self._toolbox or ToolBox()
        plan = _plan_at(context.evaluation_time, self.dataset, toolbox, self._settings or default_settings())
        ready = ready_partitions(plan, context.key) if plan else set()
        view = context.asset_graph_view
        found: Any = view.get_empty_subset(key=context.key)
        if ready and context.partitions_def is not None:
            found = view.get_subset_from_partition_keys(context.key, context.partitions_def, ready)
        return dg.AutomationResult(context, true_subset=context.candidate_subset.compute_intersection(found))


def ready_partitions(plan: Plan, key: dg.AssetKey) -> set[str]:
    """Partition keys of `key` that are not fresh and whose inputs are."""
    pending = {n.ref for n in plan.pending}
    return {
        n.day.isoformat()
        for n in plan.pending
        if asset_key(plan.dataset, n.stage, n.model) == key and not pending & set(n.inputs)
    }


def condition(name: str, toolbox: ToolBox | None = None, settings: RunSettings | None = None) -> Any:
    """Ready by the plan, not under way already, and not failed the last time: a failure waits for a person."""
    still = ~dg.AutomationCondition.in_progress() & ~dg.AutomationCondition.execution_failed()
    return (Ready(name, toolbox, settings) & still).with_label("pending by the plan, inputs fresh")


def automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """Evaluates the conditions in the code location, which alone can read the lake. Off until it is switched on: the
    nightly schedule does the same work at an hour of one's choice."""
    return dg.AutomationConditionSensorDefinition(
        SENSOR,
        target=dg.AssetSelection.all(),
        use_user_code_server=True,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Launches what `newsrec run --explain` calls missing or stale, as soon as its inputs are fresh.",
    )


@lru_cache(maxsize=1)
def _cached(moment: datetime, name: str, toolbox: str, settings: str) -> Plan | None:
    """One plan for all assets of a tick."""
    from pipeline.nightly import due, newest_plan

    data, made = dataset(name), RunSettings.model_validate_json(settings)
    tools = ToolBox.model_validate_json(toolbox).tools()
    try:
        nights = due(data, made, tools)
        return nights.plan or newest_plan(data, made, tools, nights.days[-1])
    except (DataError, UsageError) as error:
        logging.getLogger("pipeline").warning("nothing is launched for %s: %s", name, error)
        return None


def _plan_at(moment: datetime, name: str, toolbox: ToolBox, settings: RunSettings) -> Plan | None:
    return _cached(moment, name, toolbox.model_dump_json(), settings.model_dump_json())
