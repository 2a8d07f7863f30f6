"""Carrying out a plan in this process, through Dagster, without a daemon.

Belongs here: one Dagster run a batch, and what is told about it. Does not belong here: what runs (`pipeline.plan`).
"""

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import dagster as dg

from assets.build import models_of
from assets.graph import BY_NAME
from assets.stage import Stage
from ml.datasets import Dataset
from ml.errors import DataError, NewsrecError, UsageError
from ml.splits import split
from pipeline.definitions import build_defs
from pipeline.left_open import close_left_open
from pipeline.plan import Node, Plan, make_plan
from resources.bindings import RunSettings, ToolBox
from resources.event_log import keep_connections
from resources.running import at_work

Goal = Sequence[tuple[Stage, date, str | None]]


class RunFailed(NewsrecError):
    """A step failed; the message is the step's own line."""


@dataclass(frozen=True)
class Outcome:
    """What a run did: nodes that ran, nodes that were fresh, seconds by stage."""

    ran: int
    fresh: int
    seconds: Mapping[str, float]


def as_of_day(dataset: Dataset, settings: RunSettings, toolbox: ToolBox, asked: date | None) -> date:
    """The day asked for, or the last one that leaves a full test span. Raises UsageError for a day without one."""
    run_split, days = split(settings.split), toolbox.tools().source.days(dataset)
    last = run_split.last_day_with_full_test(days)
    if asked is None:
        return last
    why = lacks(asked, settings, days)
    if why is not None:
        raise UsageError(
            f"no evaluation of {dataset.name} as of {asked} with split {run_split.name}: {why}; "
            f"choose a day after {days[0]} and up to {last}"
        )
    return asked


def lacks(day: date, settings: RunSettings, days: Sequence[date]) -> str | None:
    """Why models as of `day` cannot be evaluated on a log with data on `days`, None where they can."""
    if day <= days[0]:
        return f"nothing comes before the log's first day, {days[0]}"
    lacking = [day + timedelta(days=k) for k in split(settings.split).test_days if day + timedelta(days=k) not in days]
    return f"the log has no data on {lacking[0]}" if lacking else None


def report_goals(day: date, settings: RunSettings) -> Goal:
    """The report of one as-of day, its sessions, and the indexes of its trained models."""
    index = BY_NAME["faiss_index"]
    indexes = [(index, day, model) for model in models_of(index, settings.models)]
    return [(BY_NAME["evaluation_report"], day, None), (BY_NAME["session_splits"], day, None), *indexes]


def execute(
    dataset: Dataset,
    settings: RunSettings,
    toolbox: ToolBox,
    goals: Goal,
    say: Callable[[str], None],
    tags: Mapping[str, str] | None = None,
) -> Outcome:
    """Materialise what `goals` need and is not fresh, batch by batch, while no other run works on the dataset. `tags`
    go to every Dagster run. Raises RunFailed with the step's own line."""
    waiting = f"another run of {dataset.name} is at work in this lake: waiting until it has ended"
    with toolbox.tools().lake.alone(dataset.name, lambda: say(waiting)):
        toolbox.tools().lake.catch_up()
        for line in toolbox.tools().tracker.mend(toolbox.tools().lake):
            say(line)
        plan = make_plan(dataset, settings, toolbox.tools(), goals)
        seconds = _run_plan(plan, settings, toolbox, say, tags or {}) if plan.pending else {}
    return Outcome(len(plan.pending), len(plan.nodes) - len(plan.pending), seconds)


def _run_plan(
    plan: Plan, settings: RunSettings, toolbox: ToolBox, say: Callable[[str], None], tags: Mapping[str, str]
) -> dict[str, float]:
    """Runs the pending nodes; seconds by stage."""
    seconds: dict[str, float] = {}
    keep_connections()
    defs = build_defs({"settings": settings, "toolbox": toolbox}, [plan.dataset.name], settings.models)
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_implicit_global_asset_job_def()  # asks the instance that was opened last
        close_left_open(instance, toolbox.tools().lake.root, say)
        batches = plan.batches()
        for number, (day, nodes) in enumerate(batches, 1):
            started = time.monotonic()
            run_id = str(uuid.uuid4())
            with at_work(toolbox.tools().lake.root, run_id):
                _run_batch(plan, job, instance, run_id, day, nodes, tags)
            took = time.monotonic() - started
            stages = ", ".join(dict.fromkeys(n.stage.name for n in nodes))
            say(f"[{number}/{len(batches)}] {day}: {stages} ({took:.1f} s)")
            seconds[stages] = seconds.get(stages, 0.0) + took
    return seconds


def _run_batch(
    plan: Plan,
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    run_id: str,
    day: date,
    nodes: list[Node],
    tags: Mapping[str, str],
) -> None:
    result = job.execute_in_process(
        instance=instance,
        run_id=run_id,
        partition_key=day.isoformat(),
        asset_selection=plan.keys(nodes),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
        tags={**tags, "newsrec/dataset": plan.dataset.name},
    )
    if result.success:
        return
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            if "DagsterExecutionInterruptedError" in failure.error_display_string:
                raise KeyboardInterrupt
            given = failure.user_failure_data
            if given and given.description:
                raise (DataError if given.metadata["bad_input"].value else RunFailed)(given.description)
            logging.getLogger("pipeline").error("%s", failure.error_display_string)
            cause = failure.error.cause if failure.error and failure.error.cause else failure.error
            raise RunFailed(f"{event.step_key} failed: {cause.message.strip() if cause else 'no message'}")
    raise RunFailed(f"the run of {day} failed before any step: see the Dagster log")
