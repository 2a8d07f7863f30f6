"""Who watches the runs and the age of what they made: the sensors that raise alerts.

Belongs here: freshness policies, the failure sensor, the freshness sensor. Does not belong here: recording and
delivering alerts (`pipeline.alerts`).
"""

import json
import os
from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from ml.errors import UsageError
from pipeline.alerts import Alert, Alerts
from resources.places import lake_root

EVERY_SECONDS = 60
WATCHED = ("checkpoint", "faiss_index", "evaluation_report")
FAIL_HOURS = 36.0
"""A nightly that was missed once is noticed by the middle of the next day."""
WARN_SHARE = 0.75
ACTIONS = {
    "FAIL": "look at the schedule's last ticks and the last failed run, then start the nightly job by hand",
    "WARN": "the next nightly should make it fresh; look whether drops still arrive (`newsrec landing`)",
}


def freshness_policy() -> dg.FreshnessPolicy:
    """Materialised within NEWSREC_FRESH_HOURS (default 36), a warning at three quarters of it."""
    text = os.environ.get("NEWSREC_FRESH_HOURS") or str(FAIL_HOURS)
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < 24 * 366:
        raise UsageError(f"NEWSREC_FRESH_HOURS={text!r} is no number of hours: write for example 36")
    return dg.FreshnessPolicy.time_window(
        fail_window=timedelta(hours=hours), warn_window=timedelta(hours=hours * WARN_SHARE)
    )


def failure_sensor() -> dg.SensorDefinition:
    """An alert for every failed run that Dagster launched, with the failed step's own line."""

    @dg.run_failure_sensor(
        name="failure_alert",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Every failed run: one alert, with the step's own line.",
    )
    def failure_alert(context: dg.RunFailureSensorContext) -> None:
        run = context.dagster_run
        steps = [_line(e) for e in context.get_step_failure_events()]
        text = "; ".join(steps) or context.failure_event.message or "no message"
        partition = run.tags.get("dagster/partition")
        Alerts.configured(lake_root()).record(
            Alert(
                kind="failure",
                dataset=_dataset_of(run),
                subject=f"{run.job_name}{f' {partition}' if partition else ''}",
                text=text,
                action=f"run {run.run_id}: the line says what to do; then launch it again, or wait for the next night",
                event=run.run_id,
            )
        )

    return failure_alert


def _dataset_of(run: dg.DagsterRun) -> str:
    """By the run's tag, or by its assets: those of backfills and clicks in the UI have no tag."""
    selected = sorted(key.path[0] for key in run.asset_selection or ())
    return run.tags.get("newsrec/dataset") or (selected[0] if selected else run.job_name)


def _line(event: dg.DagsterEvent) -> str:
    failure = event.step_failure_data
    given = failure.user_failure_data
    if given and given.description:
        return f"{event.step_key}: {given.description}"
    cause = failure.error.cause or failure.error if failure.error else None
    return f"{event.step_key}: {cause.message.strip().splitlines()[0] if cause and cause.message else 'no message'}"


def freshness_sensor(keys: Sequence[dg.AssetKey]) -> dg.SensorDefinition:
    """An alert when one of `keys` turns stale by its freshness policy; delivers, too, what a webhook refused before."""

    @dg.sensor(
        name="freshness_alert",
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Alerts when a checkpoint, an index or a report is older than its freshness policy allows.",
    )
    def freshness_alert(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        before: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
        alerts = Alerts.configured(lake_root())
        now: dict[str, str] = {}
        for key, record in sorted(context.instance.get_freshness_state_records(list(keys)).items()):
            name, state = key.to_user_string(), record.freshness_state.name
            now[name] = state
            if state in ACTIONS and before.get(name) != state:
                when = record.updated_at.isoformat(timespec="seconds")
                text = f"freshness {state}: not materialised for as long as its policy allows"
                alerts.record(Alert("freshness", key.path[0], name, text, ACTIONS[state], event=when))
        waiting = alerts.deliver()
        context.update_cursor(json.dumps(now, sort_keys=True))
        stale = ", ".join(f"{n} {s}" for n, s in now.items() if s in ACTIONS)
        return dg.SkipReason(f"{stale or 'all fresh'}{f'; {waiting} alerts wait for the webhook' if waiting else ''}")

    return freshness_alert
