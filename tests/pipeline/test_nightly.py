"""Which nights are due, the schedule's verdict, and a drop that becomes a run; on the tiny log whose last days arrive
later."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from assets.graph import BY_NAME
from ml.errors import DataError, UsageError
from pipeline import automation, landing_sensor, nightly
from pipeline.alerts import Alerts
from pipeline.nightly import done, due, goals_of, nightly_job, nightly_schedule
from pipeline.plan import Node, Plan
from pipeline.steps import plain_failures
from resources.bindings import RunSettings, ToolBox
from resources.lake import Ref
from resources.running import at_work
from tests.pipeline.conftest import dagster_home
from tests.pipeline.test_deliveries import CUT, FIRST, SIMULATED, Home
from tests.pipeline.test_left_open import leave

SETTINGS = RunSettings(models=["snert", "popular_15"])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The shortened log without deliveries; tests follow each other in it."""
    folder = tmp_path_factory.mktemp("nightly")
    with dagster_home(folder) as instance:
        made = Home(folder)
        made.instance = instance
        yield made


def publish(home: Home, stage: str, day: date, model: str | None = None) -> None:
    """A version of the partition, whatever is in it."""
    ref = BY_NAME[stage].ref(SIMULATED, day, SETTINGS, model)
    with home.tools.lake.staging(ref) as staged:
        (staged.path / "x").write_text(str(day))
        home.tools.lake.publish(staged, {}, "k", {}, {}, None, [], {"seconds": 1.0})


def publish_night(home: Home, night: date) -> None:
    publish(home, "evaluation_report", night)
    for stage in nightly.TRAINED:
        publish(home, stage, night + timedelta(days=1), "snert")


def tick(home: Home):
    """What the schedule says now."""
    schedule = nightly_schedule("simulated", nightly_job("simulated"))
    context = dg.build_schedule_context(
        instance=home.instance, resources={"settings": SETTINGS, "toolbox": home.toolbox}
    )
    return schedule.evaluate_tick(context)


def sense(home: Home, cursor: str | None = None):
    """What the landing sensor says now."""
    sensor = landing_sensor.landing_sensor("simulated", landing_sensor.landing_job("simulated"))
    context = dg.build_sensor_context(instance=home.instance, cursor=cursor, resources={"toolbox": home.toolbox})
    return sensor.evaluate_tick(context)


def test_a_night_tests_yesterdays_models_and_trains_todays():
    goals = {(stage.name, day, model) for stage, day, model in goals_of(date(2023, 5, 4), SETTINGS)}
    assert ("evaluation_report", date(2023, 5, 4), None) in goals
    assert ("checkpoint", date(2023, 5, 5), "snert") in goals and ("faiss_index", date(2023, 5, 5), "snert") in goals


def test_the_first_night_is_the_newest_and_later_ones_follow_in_order(home):
    last = CUT[0] - timedelta(days=1)
    assert due(SIMULATED, SETTINGS, home.tools).days == (last,)
    publish_night(home, FIRST + timedelta(days=1))
    assert done(SIMULATED, SETTINGS, home.tools) == {FIRST + timedelta(days=1)}
    assert due(SIMULATED, SETTINGS, home.tools).days == (FIRST + timedelta(days=2), last)
    publish(home, "evaluation_report", last)
    assert due(SIMULATED, SETTINGS, home.tools).days[-1] == last, "its models are not there yet"
    publish_night(home, last)
    nights = due(SIMULATED, SETTINGS, home.tools)
    assert nights.days == (last,) and "newest night" in nights.why, "what it was made from is not fresh"


def test_the_schedule_skips_with_the_reason_and_runs_when_a_drop_waits(home, monkeypatch):
    ref = Ref("simulated", "clicks", str(FIRST))
    fresh = Plan(SIMULATED, [Node(BY_NAME["clicks"], FIRST, None, ref, (), "fresh", "")])
    monkeypatch.setattr(nightly, "newest_plan", lambda *_: fresh)
    said = tick(home)
    assert (
        said.run_requests == []
        and f"nothing changed since the night of {CUT[0] - timedelta(days=1)}" in said.skip_message
    )
    (home.root / "landing" / str(CUT[0])).mkdir(parents=True)
    assert "2023-05-04 is incomplete" in tick(home).skip_message
    deliver(home, CUT[0])
    said = tick(home)
    assert len(said.run_requests) == 1 and str(CUT[0]) in said.run_requests[0].tags["newsrec/why"]


def test_a_drop_that_was_refused_asks_for_no_second_night(home, monkeypatch):
    publish_night(home, CUT[0] - timedelta(days=1))
    ref = Ref("simulated", "clicks", str(FIRST))
    fresh = Plan(SIMULATED, [Node(BY_NAME["clicks"], FIRST, None, ref, (), "fresh", "")])
    monkeypatch.setattr(nightly, "newest_plan", lambda *_: fresh)
    deliver(home, CUT[0])
    (home.root / "landing" / str(CUT[0]) / "behaviors.parquet").write_bytes(b"PAR1")
    assert len(tick(home).run_requests) == 1
    home.tools.source.take(SIMULATED, "me")
    said = tick(home)
    assert said.run_requests == [] and f"{CUT[0]} is malformed" in said.skip_message
    deliver(home, CUT[0])
    assert len(tick(home).run_requests) == 1


def test_the_conditions_take_the_plan_that_told_what_is_due(home, monkeypatch):
    publish_night(home, CUT[0] - timedelta(days=1))
    ref = Ref("simulated", "clicks", str(FIRST))
    made = []

    def planned(*_: object) -> Plan:
        made.append(Plan(SIMULATED, [Node(BY_NAME["clicks"], FIRST, None, ref, (), "fresh", "")]))
        return made[-1]

    monkeypatch.setattr(nightly, "make_plan", planned)
    asked = datetime.now(UTC), "simulated", home.toolbox.model_dump_json(), SETTINGS.model_dump_json()
    assert automation._cached(*asked) is made[0] and len(made) == 1


def test_a_night_whose_process_is_gone_does_not_keep_the_next_one_away(home):
    root = home.tools.lake.root
    run = create_run_for_test(home.instance, job_name="simulated_nightly", status=dg.DagsterRunStatus.STARTED)
    with at_work(root, run.run_id):
        assert "still at work" in tick(home).skip_message
        assert not home.instance.get_run_by_id(run.run_id).is_finished
    leave(root, run.run_id)
    assert "still at work" not in (tick(home).skip_message or "")
    assert home.instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE


def deliver(home: Home, day: date) -> None:
    """The day's files in its landing folder, with an empty marker."""
    folder = home.root / "landing" / str(day)
    folder.mkdir(parents=True, exist_ok=True)
    for path in home.deliveries[day].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "_COMPLETE").touch()


def test_a_schedule_without_a_log_skips_with_the_reason(home, tmp_path):
    toolbox = ToolBox(lake=str(tmp_path), dataset="simulated", data_root=str(tmp_path / "nowhere"))
    schedule = nightly_schedule("simulated", nightly_job("simulated"))
    context = dg.build_schedule_context(instance=home.instance, resources={"settings": SETTINGS, "toolbox": toolbox})
    assert "no folder" in schedule.evaluate_tick(context).skip_message


def test_one_run_request_a_drop_and_one_alert_a_malformed_drop(home, monkeypatch):
    monkeypatch.setenv("NEWSREC_ALERT_LOG", str(home.root.parent / "alerts.jsonl"))
    bad = home.root / "landing" / "not-a-day"
    bad.mkdir()
    first, second = sense(home), sense(home)
    assert [r.run_key for r in first.run_requests] == [r.run_key for r in second.run_requests]
    (request,) = first.run_requests
    assert request.run_key.startswith(f"simulated/{CUT[0]}/")
    (alert,) = Alerts.configured(home.tools.lake.root).entries()
    assert (alert["kind"], alert["subject"]) == ("malformed_drop", "landing/not-a-day")
    assert bad.is_dir(), "left in place"


def test_the_run_of_a_drop_takes_it_in_and_makes_its_tables(home):
    request = sense(home).run_requests[0]
    result = landing_sensor.landing_job("simulated").execute_in_process(
        instance=home.instance,
        run_config=request.run_config,
        resources={"settings": SETTINGS, "toolbox": home.toolbox},
    )
    assert result.success
    for stage in landing_sensor.ingestion():
        assert home.tools.lake.current(stage.ref(SIMULATED, CUT[0], SETTINGS, None)) is not None, stage.name
    assert "no complete drop waits" in sense(home).skip_message
    assert CUT[0] in due(SIMULATED, SETTINGS, home.tools).days
    children = home.instance.get_runs(dg.RunsFilter(tags={"newsrec/parent_run": result.run_id}))
    assert children and all(r.tags["newsrec/asked_by"] == f"landing {result.run_id}" for r in children)


def test_a_drop_that_cannot_be_read_fails_its_run_in_one_line_and_stays(home):
    folder = home.root / "landing" / str(CUT[1])
    folder.mkdir(parents=True)
    (folder / "behaviors.parquet").write_bytes(b"PAR1 but no more")
    (folder / "_COMPLETE").touch()
    (request,) = sense(home).run_requests
    result = landing_sensor.landing_job("simulated").execute_in_process(
        instance=home.instance,
        run_config=request.run_config,
        resources={"settings": SETTINGS, "toolbox": home.toolbox},
        raise_on_error=False,
    )
    (failed,) = [e for e in result.all_events if e.is_step_failure]
    line = failed.step_failure_data.user_failure_data.description
    assert "malformed" in line and "behaviors.parquet" in line and "\n" not in line
    assert folder.is_dir() and not [e for e in result.all_events if e.is_step_restarted]


@pytest.mark.parametrize(
    ("variable", "value"), [("NEWSREC_NIGHTLY_CRON", "at three"), ("NEWSREC_TIMEZONE", "Mars/Olympus")]
)
def test_a_wrong_setting_is_refused_in_one_line(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=variable):
        nightly_schedule("simulated", nightly_job("simulated"))


@pytest.mark.parametrize("value", ["0", "often", "-5", "1.5"])
def test_a_landing_interval_that_means_nothing_is_refused(monkeypatch, value):
    monkeypatch.setenv("NEWSREC_LANDING_SECONDS", value)
    with pytest.raises(UsageError, match="NEWSREC_LANDING_SECONDS"):
        landing_sensor.landing_sensor("simulated", landing_sensor.landing_job("simulated"))


def test_how_often_the_landing_folder_is_looked_at_is_configurable(monkeypatch):
    def interval():
        return landing_sensor.landing_sensor(
            "simulated", landing_sensor.landing_job("simulated")
        ).minimum_interval_seconds

    assert interval() == 30
    monkeypatch.setenv("NEWSREC_LANDING_SECONDS", "5")
    assert interval() == 5


def test_hour_and_zone_are_configurable(monkeypatch):
    schedule = nightly_schedule("simulated", nightly_job("simulated"))
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * *", "Europe/Copenhagen")
    monkeypatch.setenv("NEWSREC_NIGHTLY_CRON", "30 4 * * *")
    monkeypatch.setenv("NEWSREC_TIMEZONE", "UTC")
    schedule = nightly_schedule("simulated", nightly_job("simulated"))
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 4 * * *", "UTC")


def test_only_what_may_pass_is_tried_again():
    with pytest.raises(dg.RetryRequested), plain_failures():
        raise TimeoutError("slow")
    with pytest.raises(dg.Failure) as final, plain_failures():
        raise DataError("a column is missing")
    assert final.value.allow_retries is False and final.value.description == "a column is missing"
    with pytest.raises(ZeroDivisionError), plain_failures():
        _ = 1 / 0


def test_no_schedule_starts_by_itself_unless_told(monkeypatch):
    monkeypatch.delenv("NEWSREC_AUTOPILOT", raising=False)
    job = nightly_job("simulated")
    assert nightly_schedule("simulated", job).default_status == dg.DefaultScheduleStatus.STOPPED
    monkeypatch.setenv("NEWSREC_AUTOPILOT", "1")
    monkeypatch.setenv("NEWSREC_DATASET", "simulated")
    assert nightly_schedule("simulated", job).default_status == dg.DefaultScheduleStatus.RUNNING
    assert nightly_schedule("globo", nightly_job("globo")).default_status == dg.DefaultScheduleStatus.STOPPED
