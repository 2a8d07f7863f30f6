"""Runs whose process is gone are ended, those of a living one are not."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from pipeline.left_open import close_left_open
from resources.running import FOLDER, at_work

STARTED = dg.DagsterRunStatus.STARTED


def leave(lake: Path, run_id: str) -> None:
    """What a killed process leaves of its work on a run: the file without its lock."""
    (lake / ".locks" / FOLDER).mkdir(parents=True, exist_ok=True)
    (lake / ".locks" / FOLDER / run_id).touch()


@pytest.fixture
def instance():
    with dg.instance_for_test() as found:
        yield found


def test_a_run_without_its_process_is_ended_once_and_frees_its_slots(instance, tmp_path):
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default("gpu")
    instance.event_log_storage.set_concurrency_slots("gpu", 1)
    run = create_run_for_test(instance, job_name="night", status=STARTED)
    assert storage.claim_concurrency_slot("gpu", run.run_id, "train").is_claimed
    leave(tmp_path, run.run_id)
    said: list[str] = []
    assert close_left_open(instance, tmp_path, said.append) == [run.run_id]
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    assert storage.get_concurrency_info("gpu").active_slot_count == 0
    assert "its process is gone" in said[0] and len(said) == 1
    assert close_left_open(instance, tmp_path, said.append) == []


def test_a_run_that_is_worked_on_goes_on(instance, tmp_path):
    run = create_run_for_test(instance, job_name="night", status=STARTED)
    with at_work(tmp_path, run.run_id):
        assert close_left_open(instance, tmp_path) == []
    assert instance.get_run_by_id(run.run_id).status == STARTED


def test_a_run_that_has_ended_stays_as_it_is(instance, tmp_path):
    run = create_run_for_test(instance, job_name="night", status=dg.DagsterRunStatus.SUCCESS)
    leave(tmp_path, run.run_id)
    assert close_left_open(instance, tmp_path) == []
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.SUCCESS
    assert not list((tmp_path / ".locks" / FOLDER).iterdir())


def test_a_run_of_another_dagster_is_left_to_it(instance, tmp_path):
    leave(tmp_path, "unknown")
    assert close_left_open(instance, tmp_path) == []
    assert [p.name for p in (tmp_path / ".locks" / FOLDER).iterdir()] == ["unknown"]
