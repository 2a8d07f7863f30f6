"""What the code location serves, as it is: names of jobs, schedules and sensors; freshness; what a failure tells."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from assets import build
from assets.build import build_asset
from assets.stage import Stage, Summary, no_recipe
from ml.datasets import DATASETS
from pipeline.alerts import Alerts
from pipeline.definitions import defs as load
from pipeline.left_open import close_left_open
from pipeline.operations import is_watched
from pipeline.steps import operated
from pipeline.watch import failure_sensor, freshness_policy, freshness_sensor
from resources import running
from resources.bindings import RunSettings, ToolBox

LOGS = ("ebnerd", "globo", "mind", "simulated")


@pytest.fixture(scope="module")
def defs():
    return load()


def test_names_of_jobs_schedules_and_sensors(defs):
    made = defs.get_repository_def()
    kinds = ("all", "landing", "nightly", "variant")
    jobs = {j.name for j in made.get_all_jobs() if not j.name.startswith("__")}
    assert {j for j in jobs if j.startswith(LOGS)} == {f"{log}_{kind}" for log in LOGS for kind in kinds}
    assert {s.name for s in made.schedule_defs if s.name.startswith(LOGS)} == {f"{log}_nightly" for log in LOGS}
    sensors = {s.name for s in made.sensor_defs}
    assert {s for s in sensors if s.startswith(LOGS)} == {f"{log}_landing" for log in LOGS}
    assert {s for s in sensors if not s.startswith(LOGS)} == {"automation", "failure_alert", "freshness_alert"}


def test_checkpoint_index_and_report_have_a_freshness_policy_and_every_asset_a_condition(defs):
    specs = [s for s in defs.resolve_all_asset_specs() if s.key.path[0] == operated()]
    watched = {s.key.to_user_string() for s in specs if s.freshness_policy is not None}
    names = ("checkpoint/snert", "faiss_index/snert", "evaluation_report")
    assert watched == {f"{operated()}/{n}" for n in names}
    assert specs and all(s.automation_condition is not None for s in specs)
    others = [s for s in defs.resolve_all_asset_specs() if s.key.path[0] != operated()]
    assert others and not [s for s in others if s.freshness_policy or s.automation_condition]


@pytest.mark.parametrize("hours", ["0", "soon", "-3", "nan"])
def test_hours_that_mean_nothing_are_refused(monkeypatch, hours):
    monkeypatch.setenv("NEWSREC_FRESH_HOURS", hours)
    with pytest.raises(Exception, match="NEWSREC_FRESH_HOURS"):
        freshness_policy()


class Record:
    """What Dagster keeps of an asset's freshness."""

    def __init__(self, state: str, minute: int) -> None:
        from datetime import UTC, datetime

        from dagster._core.definitions.freshness import FreshnessState

        self.freshness_state = FreshnessState[state]
        self.updated_at = datetime(2026, 1, 1, 3, minute, tzinfo=UTC)


def test_an_asset_that_turns_stale_alerts_once(tmp_path, monkeypatch):
    monkeypatch.setenv("NEWSREC_ALERT_LOG", str(tmp_path / "alerts.jsonl"))
    key = dg.AssetKey(["simulated", "evaluation_report"])
    assert is_watched(key) == (operated() == "simulated")
    cursor, sensor = None, freshness_sensor([key])
    with dg.instance_for_test() as instance:
        for minute, state in enumerate(["PASS", "WARN", "FAIL", "FAIL", "PASS", "FAIL"]):
            monkeypatch.setattr(type(instance), "get_freshness_state_records", lambda *_: {key: Record(state, minute)})  # noqa: B023
            tick = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor))
            cursor = tick.cursor
            assert ("all fresh" in tick.skip_message) == (state == "PASS")
    told = [e["text"].split(":")[0] for e in Alerts.configured(tmp_path).entries()]
    assert told == ["freshness WARN", "freshness FAIL", "freshness FAIL"]
    assert json.loads(cursor) == {"simulated/evaluation_report": "FAIL"}


def test_a_failed_run_alerts_with_the_steps_own_line(tmp_path, monkeypatch):
    monkeypatch.setenv("NEWSREC_ALERT_LOG", str(tmp_path / "alerts.jsonl"))

    @dg.op
    def broken() -> None:
        raise dg.Failure(description="column user_id is missing: deliver the file again", allow_retries=False)

    @dg.job(tags={"newsrec/dataset": "simulated"})
    def simulated_broken() -> None:
        broken()

    with dg.instance_for_test() as instance:
        result = simulated_broken.execute_in_process(instance=instance, raise_on_error=False)
        context = dg.build_run_status_sensor_context(
            "failure_alert", result.get_run_failure_event(), instance, result.dagster_run
        ).for_run_failure()
        failure_sensor()(context)
        failure_sensor()(context)
    (alert,) = Alerts.configured(tmp_path).entries()
    assert alert["text"] == "broken: column user_id is missing: deliver the file again"
    assert (alert["kind"], alert["dataset"], alert["event"]) == ("failure", "simulated", result.run_id)


def one(work):
    (work.out / "one.txt").write_text("1\n")
    return Summary(rows={"one.txt": 1})


ONE = Stage("one", "g", "d", (), ("ml.clock",), no_recipe, one, daily=True)


def globo_day(folder: Path) -> ToolBox:
    """The tools of a lake in `folder`, over a log of one click beside it."""
    (folder / "log" / "clicks").mkdir(parents=True, exist_ok=True)
    header = "user_id,session_id,session_start,session_size,click_article_id,click_timestamp,click_environment,click_deviceGroup,click_os,click_country,click_region,click_referrer_type\n"  # noqa: E501
    row = "1,2,1507200000000,2,3,1507208400000,4,3,20,1,20,2\n"
    (folder / "log" / "clicks" / "clicks_hour_000.csv").write_text(header + row)
    return ToolBox(
        lake=str(folder / "lake"),
        dataset="globo",
        data_root=str(folder / "log"),
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        device="cpu",
    )


def run_one(toolbox: ToolBox, instance: dg.DagsterInstance, pool: str | None = None, **settings: object):
    """One step over that log."""
    return dg.materialize(
        [build_asset(replace(ONE, pool=pool), DATASETS["globo"], None, {"one": ONE}, [])],
        partition_key="2017-10-05",
        resources={"settings": RunSettings(**settings), "toolbox": toolbox},
        instance=instance,
        raise_on_error=False,
    )


def test_a_launched_step_waits_for_a_planned_run_and_writes_with_the_default_settings_only(tmp_path, monkeypatch):
    toolbox = globo_day(tmp_path)
    lake = toolbox.tools().lake
    monkeypatch.setattr(running, "is_launched", lambda _: True)
    monkeypatch.setattr(build, "BUSY_SECONDS", 0)
    monkeypatch.setattr(build, "BUSY_TRIES", 2)

    def launched(**settings: object) -> dg.ExecuteInProcessResult:
        return run_one(toolbox, dg.DagsterInstance.ephemeral(), **settings)

    with lake.alone("globo", lambda: None):
        kept_out = launched()
    assert not kept_out.success and len([e for e in kept_out.all_events if e.is_step_restarted]) == 2
    refused = launched(seed=7)
    (failed,) = [e for e in refused.all_events if e.is_step_failure]
    assert "seed=7" in failed.step_failure_data.user_failure_data.description
    assert launched().success
    with lake.beside("globo", lambda: pytest.fail("steps stand beside each other")), lake.beside("globo", lambda: None):
        assert launched().success


LAUNCHED = """
import sys
from pathlib import Path
import dagster as dg
from resources import running
from tests.pipeline.test_operations import globo_day, run_one
running.is_launched = lambda _: True
with dg.DagsterInstance.local_temp(sys.argv[1] + "/dagster") as instance:
    run_one(globo_day(Path(sys.argv[1])), instance, sys.argv[2] or None)
"""


@pytest.mark.parametrize(("pool", "said"), [("", "a planned run of globo is at work"), ("gpu", "blocked by")])
def test_a_launched_run_that_is_killed_while_it_waits_is_ended(tmp_path, pool, said):
    """For a planned run, and for its pool before its first step."""
    (tmp_path / "dagster").mkdir()
    lake = globo_day(tmp_path).tools().lake
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        instance.event_log_storage.set_concurrency_slots("gpu", 0)
        with lake.alone("globo", lambda: None):
            command = [sys.executable, "-c", LAUNCHED, str(tmp_path), pool]
            waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            heard = next((line for line in waiting.stderr if said in line), "")
            waiting.kill()
            waiting.communicate()
        assert heard, "it ended without waiting"
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.STARTED
        assert close_left_open(instance, lake.root) == [run.run_id]
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
