"""The nightly retrain: what arrived is taken in, yesterday's models are tested on what followed, today's are trained.

Belongs here: which nights are due, the job and its schedule. Does not belong here: what one run materialises
(`pipeline.run`).

The night of day L, the last day with data: the report as of L, which tests the models that knew nothing of L on L;
and the checkpoints and indexes as of the day after, which know all of L.
"""

import os
from dataclasses import dataclass
from datetime import date, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import dagster as dg

from assets.build import models_of
from assets.graph import BY_NAME
from ml.datasets import Dataset, dataset
from ml.errors import DataError, UsageError
from ml.splits import split
from pipeline.left_open import close_left_open
from pipeline.plan import Plan, make_plan
from pipeline.steps import operating, switched_on
from resources.bindings import RunSettings, ToolBox, Tools

CRON = "0 3 * * *"
TRAINED = ("checkpoint", "faiss_index")
UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


@dataclass(frozen=True, slots=True)
class Nights:
    """Nights that are due, in order, by the last day of data that each knows; `why` in words. `plan` is that of the
    newest night, due or not, where it had to be made to know."""

    days: tuple[date, ...]
    why: str
    plan: Plan | None = None


def goals_of(night: date, settings: RunSettings) -> list[tuple]:  # type: ignore[type-arg]
    """What the night of the day `night` materialises, with all that it needs."""
    from pipeline.run import report_goals

    tomorrow, weighed = night + timedelta(days=1), BY_NAME["promotion"]
    trained = [(BY_NAME[s], tomorrow, m) for s in TRAINED for m in models_of(BY_NAME[s], settings.models)]
    challengers = [(weighed, night, m) for m in models_of(weighed, settings.models)]
    return [*report_goals(night, settings), *trained, *challengers]


def due(data: Dataset, settings: RunSettings, tools: Tools) -> Nights:
    """The nights that the lake lacks since the last one that it holds, or the newest where that has become stale.

    A lake without any night gets the newest only: earlier ones are a backfill. Raises DataError without data.
    """
    from pipeline.run import lacks

    known = tools.source.days(data)
    days = [d for d in known if lacks(d, settings, known) is None]
    if not days:
        raise DataError(f"{data.name} has no day that models could be tested on: two days in a row are needed")
    held = done(data, settings, tools)
    behind = [d for d in days if d > max(held)] if held else days[-1:]
    if behind:
        since = f"the last night in the lake is that of {max(held)}" if held else "no night is in the lake yet"
        return Nights(tuple(behind), f"{since}, the log reaches to {days[-1]}")
    plan = newest_plan(data, settings, tools, days[-1])
    if plan.pending:
        first = next(n for n in plan.nodes if n.runs)
        return Nights((days[-1],), f"{len(plan.pending)} partitions of the newest night: {first.ref} {first.why}", plan)
    return Nights((), f"nothing changed since the night of {days[-1]}: {len(plan.nodes)} partitions are fresh", plan)


def newest_plan(data: Dataset, settings: RunSettings, tools: Tools, night: date) -> Plan:
    """The plan of one night."""
    return make_plan(data, settings, tools, goals_of(night, settings))


def done(data: Dataset, settings: RunSettings, tools: Tools) -> set[date]:
    """Nights whose report and next day's models are in the lake, fresh or not."""

    def held(stage: str, model: str | None) -> set[date]:
        suffix = f".{settings.split if model is None else split(settings.split).fit_name}"
        found = tools.lake.partitions(data.name, stage, model)
        return {date.fromisoformat(p.removesuffix(suffix)) for p in found if p.endswith(suffix) and "~" not in p}

    nights = held("evaluation_report", None)
    for stage in TRAINED:
        for model in models_of(BY_NAME[stage], settings.models):
            nights &= {d - timedelta(days=1) for d in held(stage, model)}
    return nights


def nightly_job(name: str) -> dg.JobDefinition:
    """The job of one dataset. Its one step runs the plans of all nights that are due, oldest first."""

    @dg.op(name=f"{name}_nightly_retrain", description="Takes in what arrived, then retrains and evaluates in order.")
    def retrain(context: dg.OpExecutionContext, settings: RunSettings, toolbox: ToolBox) -> None:
        from pipeline.deliveries import take_arrivals
        from pipeline.run import execute

        data = dataset(name)
        tags = {"newsrec/asked_by": f"nightly {context.run_id}", "newsrec/parent_run": context.run_id}
        with operating(context, toolbox) as tools:
            take_arrivals(tools.source, data, context.log.info)
            tools.lake.catch_up()
            nights = due(data, settings, tools)
            context.log.info(nights.why)
            for night in nights.days:
                context.log.info(f"night of {night}: models as of {night} on {night}, retraining as of the day after")
                outcome = execute(data, settings, toolbox, goals_of(night, settings), context.log.info, tags)
                context.log.info(f"night of {night}: {outcome.ran} partitions ran, {outcome.fresh} were fresh")

    @dg.job(
        name=f"{name}_nightly",
        tags={"newsrec/dataset": name},
        description="Nightly retrain; runs only what is not fresh.",
    )
    def job() -> None:
        retrain()

    return job


def nightly_schedule(name: str, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """03:00 in the dataset's time zone, unless NEWSREC_NIGHTLY_CRON or NEWSREC_TIMEZONE say otherwise. A tick that
    finds nothing to do says so and starts no run; a night that was missed is caught up by the next one."""

    @dg.schedule(
        name=f"{name}_nightly",
        job=job,
        cron_schedule=_cron(),
        execution_timezone=_zone(name),
        default_status=dg.DefaultScheduleStatus.RUNNING if switched_on(name) else dg.DefaultScheduleStatus.STOPPED,
        description="Skips, with the reason, when no drop waits and the newest night is fresh.",
    )
    def nightly(
        context: dg.ScheduleEvaluationContext, settings: RunSettings, toolbox: ToolBox
    ) -> dg.RunRequest | dg.SkipReason:
        tools = toolbox.tools()
        close_left_open(context.instance, tools.lake.root, context.log.warning)
        filters = dg.RunsFilter(job_name=job.name, statuses=UNDER_WAY)
        if context.instance.get_runs_count(filters):
            return dg.SkipReason("the night before is still at work; it takes in what has arrived when it plans")
        try:
            why, wanted = _wanted(dataset(name), settings, tools)
        except (DataError, UsageError) as error:
            return dg.SkipReason(str(error))
        return dg.RunRequest(tags={"newsrec/why": why[:200]}) if wanted else dg.SkipReason(why)

    return nightly


def _wanted(data: Dataset, settings: RunSettings, tools: Tools) -> tuple[str, bool]:
    """Why the night runs, or why it need not."""
    tools.source.root(data)
    if not tools.lake.partitions(data.name, "evaluation_report"):
        return "no report is in the lake yet", True
    drops = tools.source.landing(data).drops()
    complete = [d.name for d in drops if d.state == "complete"]
    if complete:
        return f"drops wait in the landing folder: {', '.join(complete)}", True
    nights = due(data, settings, tools)
    left = [f"{d.name} is {d.state}" for d in drops if d.state != "taken"]
    return nights.why + (f"; landing: {', '.join(left)}" if left else ""), bool(nights.days)


def _cron() -> str:
    said = os.environ.get("NEWSREC_NIGHTLY_CRON") or CRON
    from dagster._utils.schedules import is_valid_cron_string

    if not is_valid_cron_string(said):
        raise UsageError(f"NEWSREC_NIGHTLY_CRON={said!r} is no cron expression: write for example '{CRON}'")
    return said


def _zone(name: str) -> str:
    said = os.environ.get("NEWSREC_TIMEZONE") or dataset(name).clock.timezone
    try:
        ZoneInfo(said)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise UsageError(f"NEWSREC_TIMEZONE={said!r} is no time zone: write for example Europe/Copenhagen") from error
    return said
