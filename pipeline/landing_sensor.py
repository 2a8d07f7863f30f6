"""The landing sensor: a complete drop becomes one run, a malformed one an alert.

Belongs here: which drops ask for a run, and the job that takes one in. Does not belong here: the rules of drops
(`resources.drops`, `resources.landing`).
"""

import os
from datetime import date

import dagster as dg

from assets.graph import STAGES
from assets.stage import Stage
from ml.datasets import Dataset, dataset
from ml.errors import DataError, UsageError
from pipeline.alerts import Alert, Alerts
from pipeline.left_open import close_left_open
from pipeline.steps import operating, switched_on
from resources.bindings import RunSettings, ToolBox, Tools
from resources.drops import Drop, files_digest

EVERY_SECONDS, EVERY = 30, "NEWSREC_LANDING_SECONDS"
DAY_TAG = "newsrec/drop"
REMEDY = {
    "malformed": "deliver the drop again as docs/landing.md says, or move it away; the other drops went on",
    "changed": "the day was taken in before: use `newsrec correct`, or put the folder back as it was",
}


class DropConfig(dg.Config):
    """Which drop is to be taken in."""

    day: str


def ingestion() -> list[Stage]:
    """The daily stages that a drop's run materialises; what depends on models is the night's."""
    return [s for s in STAGES if s.daily and s.group == "ingestion"]


def landing_job(name: str) -> dg.JobDefinition:
    """The job of one dataset: takes in what is complete, then materialises the days that the drop has a part in."""

    @dg.op(name=f"{name}_take_in", description="Takes in a drop and makes the canonical tables of its days.")
    def take_in(context: dg.OpExecutionContext, config: DropConfig, settings: RunSettings, toolbox: ToolBox) -> None:
        from pipeline.deliveries import asked_by
        from pipeline.run import execute

        data = dataset(name)
        with operating(context, toolbox) as tools:
            found = {d.name: d for d in tools.source.take(data, asked_by())}
            drop = found.get(config.day)
            if drop is None:
                raise UsageError(f"no drop {config.day} in the landing folder of {name}: it was moved away")
            context.log.info(drop.line)
            if drop.state != "taken":
                raise DataError(f"{drop.line}; {REMEDY.get(drop.state, 'it will be taken in when it is complete')}")
            goals = [(stage, day, None) for day in touched(data, tools, drop.name) for stage in ingestion()]
            tags = {"newsrec/asked_by": f"landing {context.run_id}", "newsrec/parent_run": context.run_id}
            outcome = execute(data, settings, toolbox, goals, context.log.info, tags)
            context.log.info(f"{drop.name}: {outcome.ran} partitions ran, {outcome.fresh} were fresh")

    @dg.job(name=f"{name}_landing", description="Takes in one drop of the landing folder.")
    def job() -> None:
        take_in()

    return job


def touched(data: Dataset, tools: Tools, name: str) -> list[date]:
    """Days with rows of the drop `name`."""
    days = set(tools.source.days(data))
    found = {
        d for delivery in tools.source.landing(data).log().drops if str(delivery.day) == name for d in delivery.days
    }
    return sorted(found & days)


def landing_sensor(name: str, job: dg.JobDefinition) -> dg.SensorDefinition:
    """One run request a complete drop, by the digest of its files; malformed and changed drops raise one alert and
    stay where they are; incomplete ones are left alone."""

    @dg.sensor(
        name=f"{name}_landing",
        job=job,
        minimum_interval_seconds=_interval(),
        default_status=dg.DefaultSensorStatus.RUNNING if switched_on(name) else dg.DefaultSensorStatus.STOPPED,
        description="A complete drop in landing/<day>/ becomes one run; malformed drops are reported once.",
    )
    def landing(context: dg.SensorEvaluationContext, toolbox: ToolBox) -> dg.SensorResult | dg.SkipReason:
        data, tools = dataset(name), toolbox.tools()
        close_left_open(context.instance, tools.lake.root, context.log.warning)
        try:
            drops = tools.source.landing(data).drops()
        except (DataError, UsageError) as error:
            return dg.SkipReason(str(error))
        alerts = Alerts.configured(tools.lake.root)
        for drop in drops:
            if drop.state in REMEDY and alerts.record(_alert(name, drop)):
                context.log.warning(drop.line)
        requests = [_request(name, drop) for drop in drops if drop.state == "complete"]
        if requests:
            return dg.SensorResult(run_requests=requests)
        left = ", ".join(f"{d.name} is {d.state}" for d in drops if d.state != "taken")
        return dg.SkipReason(f"no complete drop waits{f': {left}' if left else ''}")

    return landing


def _interval() -> int:
    """Seconds between two looks at the landing folder: NEWSREC_LANDING_SECONDS, else 30."""
    said = os.environ.get(EVERY) or str(EVERY_SECONDS)
    if not said.isdecimal() or not 1 <= int(said) <= 86_400:
        raise UsageError(f"{EVERY}={said!r} is no number of seconds: write for example {EVERY_SECONDS}")
    return int(said)


def _request(name: str, drop: Drop) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{name}/{drop.name}/{files_digest(drop.files)}",
        run_config={"ops": {f"{name}_take_in": {"config": {"day": drop.name}}}},
        tags={DAY_TAG: drop.name, "newsrec/dataset": name},
    )


def _alert(name: str, drop: Drop) -> Alert:
    return Alert(f"{drop.state}_drop", name, f"landing/{drop.name}", drop.why, REMEDY[drop.state])
