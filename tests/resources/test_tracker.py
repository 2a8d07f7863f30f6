"""One MLflow run per asset and partition, also after errors, retries and many processes at once."""

import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ml.errors import UsageError
from resources.lake import Lake
from resources.ref import Ref
from resources.tracker import Tracker, TrackerAway, TrackerError

REF = Ref("simulated", "checkpoint", "2023-05-18.rolling", "snert")


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")


def test_what_was_logged_is_there(tracker: Tracker, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("{}")
    with tracker.run(REF, "dagster-1", "key-1", {"extra": "x"}) as run:
        run.params({"recipe": {"lr": 0.1, "layers": [1, 2]}, "seed": 1})
        run.metrics({"recall@20": 0.25, "in_session.ndcg@20": 0.5, "nothing": float("nan")})
        run.curve("loss", [0, 10], [2.0, 1.0])
        run.curves([{"step": 5, "auc": 0.6}])
        run.artifact(path)
        run.input("simulated/clicks/2023-05-17", "ab" * 32)
        run.tags({"newsrec.manifest": "m" * 64})
    found = tracker.client.get_run(run.run_id)
    assert found.info.run_name == str(REF)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"recipe.lr": "0.1", "recipe.layers": "[1, 2]", "seed": "1"}
    assert found.data.metrics == {"recall_at_20": 0.25, "in_session.ndcg_at_20": 0.5, "loss": 1.0, "auc": 0.6}
    assert [(m.step, m.value) for m in tracker.client.get_metric_history(run.run_id, "loss")] == [(0, 2.0), (10, 1.0)]
    expected = {
        "newsrec.ref": str(REF),
        "newsrec.recipe_key": "key-1",
        "newsrec.dagster_run": "dagster-1",
        "extra": "x",
    }
    assert expected.items() <= found.data.tags.items()
    assert found.data.tags["newsrec.manifest"] == "m" * 64
    (dataset,) = [i.dataset for i in found.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest) == ("simulated/clicks/2023-05-17", ("ab" * 32)[:36])
    assert "ab" * 32 in dataset.source
    assert [a.path for a in tracker.client.list_artifacts(run.run_id)] == ["metrics.json"]
    assert run.run_id in run.url


def test_more_than_one_call_holds(tracker: Tracker) -> None:
    with tracker.run(Ref("simulated", "checkpoint", "2023-05-19", "snert"), "dagster-1", "key") as run:
        run.curves([{"step": s, "loss": 1.0 / (s + 1), "auc": 0.5} for s in range(1000)])
        run.params({f"p{i}": i for i in range(250)})
    assert [m.step for m in tracker.client.get_metric_history(run.run_id, "loss")] == list(range(1000))
    assert len(tracker.client.get_run(run.run_id).data.params) == 250


def test_an_error_closes_the_run_as_failed_and_a_retry_continues_it(tracker: Tracker) -> None:
    ref = Ref("simulated", "clicks", "2023-05-18")
    with pytest.raises(ZeroDivisionError), tracker.run(ref, "dagster-1", "key") as first:
        first.metrics({"rows": 3.0})
        _ = 1 / 0
    assert tracker.client.get_run(first.run_id).info.status == "FAILED"
    assert tracker.client.get_run(first.run_id).data.metrics == {"rows": 3.0}
    with tracker.run(ref, "dagster-1", "key") as second:
        assert tracker.client.get_run(second.run_id).info.status == "RUNNING"
    assert second.run_id == first.run_id
    assert tracker.client.get_run(first.run_id).info.status == "FINISHED"
    with tracker.run(ref, "dagster-2", "key") as third:
        pass
    assert third.run_id != first.run_id


def test_what_cannot_be_logged_closes_the_run_as_failed(tracker: Tracker) -> None:
    with pytest.raises(Exception, match="Invalid"), tracker.run(Ref("simulated", "bad", "2023-05-18"), "d", "k") as run:
        run.metrics({"a|b": 1.0})
    assert tracker.client.get_run(run.run_id).info.status == "FAILED"


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/x", "databricks"])
def test_other_stores_are_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="sqlite"):
        _ = Tracker(uri).client


def test_mlflow_is_not_imported_before_use() -> None:
    import subprocess

    code = "import sys, resources.tracker; resources.tracker.Tracker(); sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _first_use(uri: str, number: int) -> None:
    with Tracker(uri).run(Ref("simulated", "clicks", f"2023-05-0{number}"), "dagster", "key") as run:
        run.metrics({"n": float(number)})


def test_four_processes_use_a_fresh_store_at_once(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    workers = [multiprocessing.get_context("fork").Process(target=_first_use, args=(uri, n)) for n in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0, 0, 0, 0]
    tracker = Tracker(uri)
    found = tracker.client.search_runs([tracker.experiment("simulated")])
    assert sorted(r.data.metrics["n"] for r in found) == [1, 2, 3, 4]
    assert {r.info.status for r in found} == {"FINISHED"}
    assert (tmp_path / "new" / "mlruns").as_uri() in found[0].info.artifact_uri


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def kept_tracker(lake: Lake, uri: str) -> Tracker:
    return Tracker(uri, lake.root / ".tracking")


def publish_tracked(lake: Lake, tracker: Tracker, dagster_run: str, text: str, fail: Callable[[str], None]) -> str:
    """A run that publishes; `fail` is called at each of its stations."""
    with tracker.run(REF, dagster_run, "key") as run:
        with lake.staging(REF) as staged:
            (staged.path / "metrics.json").write_text(text)
            run.metrics({"recall@20": 0.5})
            run.curves([{"step": 5, "loss": 0.25}])
            run.params({"seed": 1})
            run.input("simulated/clicks/2023-05-17", "ab" * 32)
            fail("computed")
            run.about_to_publish(["metrics.json"])
            fail("kept")
            version = lake.publish(staged, {}, "key", {}, {}, None, [], {"mlflow_run": run.run_id})
        fail("published")
        run.published(version, ["metrics.json"])
    fail("told")
    return run.run_id


def _publish_and_die(lake: Lake, uri: str, station: str) -> None:
    def fail(here: str) -> None:
        if here == station:
            os.kill(os.getpid(), signal.SIGKILL)

    publish_tracked(lake, kept_tracker(lake, uri), f"dagster-{station}", "{}", fail)


@pytest.mark.parametrize(
    ("station", "status"),
    [("computed", "KILLED"), ("kept", "KILLED"), ("published", "FINISHED"), ("told", "FINISHED")],
)
def test_the_run_of_a_killed_process_is_closed_and_told(
    tracker: Tracker, lake: Lake, station: str, status: str
) -> None:
    found = _runs(tracker)
    child = multiprocessing.get_context("spawn").Process(target=_publish_and_die, args=(lake, tracker.uri, station))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    (before,) = [r for r in _runs(tracker) if r.info.run_id not in {f.info.run_id for f in found}]
    assert before.info.status == ("FINISHED" if station == "told" else "RUNNING")
    said = kept_tracker(lake, tracker.uri).mend(lake)
    assert len(said) == (station != "told")
    after = tracker.client.get_run(before.info.run_id)
    assert after.info.status == status
    if status == "FINISHED":
        current = lake.require(REF)
        assert after.data.metrics == {"recall_at_20": 0.5, "loss": 0.25} and after.data.params == {"seed": "1"}
        assert after.data.tags["newsrec.manifest"] == current.manifest_digest
        assert after.data.tags["newsrec.ledger_head"] == current.ledger_head
        assert [a.path for a in tracker.client.list_artifacts(before.info.run_id)] == ["metrics.json"]
        assert len(after.inputs.dataset_inputs) == 1
    assert kept_tracker(lake, tracker.uri).mend(lake) == []
    assert not [p for p in (lake.root / ".tracking").iterdir() if p.name != "sweep"]


def _runs(tracker: Tracker) -> list[Any]:
    return list(tracker.client.search_runs([tracker.experiment("simulated")]))


def test_a_store_that_fails_after_publishing_is_told_by_the_next_run(tracker: Tracker, lake: Lake) -> None:
    """The defect that was: the run stayed FAILED, and the next run said "unchanged"."""
    mine = kept_tracker(lake, tracker.uri)
    broken = mlflow_error("database is locked")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrackerError, match=r"locked: what was published stays"):

        def fail(station: str) -> None:
            if station == "published":
                patch.setattr(MlflowClient, "log_batch", broken)
                patch.setattr(MlflowClient, "log_artifact", broken)

        publish_tracked(lake, mine, "dagster-locked", "{}", fail)
    (failed,) = [r for r in _runs(tracker) if r.data.tags["newsrec.dagster_run"] == "dagster-locked"]
    assert failed.info.status == "FAILED" and lake.require(REF).file("metrics.json").is_file()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "search_runs", broken)
        (line,) = mine.mend(lake)
        assert "1 MLflow runs are still to be closed" in line and "locked" in line
    (line,) = mine.mend(lake)
    assert "told of what was published" in line
    mended = tracker.client.get_run(failed.info.run_id)
    assert mended.info.status == "FINISHED" and mended.data.metrics["recall_at_20"] == 0.5
    assert mended.data.tags["newsrec.manifest"] == lake.require(REF).manifest_digest


def test_a_store_that_is_away_stops_before_any_work(tmp_path: Path, lake: Lake) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    tracker = kept_tracker(lake, f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(TrackerError, match="nothing was published") as caught:
        publish_tracked(lake, tracker, "d", "{}", lambda _: None)
    assert "\n" not in str(caught.value) and lake.current(REF) is None


def test_what_the_store_refuses_for_good_does_not_wait_for_ever(tracker: Tracker, lake: Lake) -> None:
    mine = kept_tracker(lake, tracker.uri)

    with pytest.raises(TrackerError, match="Invalid"), mine.run(REF, "dagster-bad", "key") as run:
        run.metrics({"a|b": 1.0})
        run.about_to_publish([])
        with lake.staging(REF) as staged:
            (staged.path / "a.txt").write_text("bad")
            version = lake.publish(staged, {}, "key", {}, {}, None, [], {"mlflow_run": run.run_id})
        run.published(version)
    (line,) = mine.mend(lake)
    assert "refuses it for good" in line
    assert mine.mend(lake) == []
    assert tracker.client.get_run(run.run_id).info.status == "FAILED"


def test_a_version_that_was_removed_meanwhile_holds_up_no_run(tracker: Tracker, lake: Lake) -> None:
    mine = kept_tracker(lake, tracker.uri)
    broken = mlflow_error("database is locked")
    for number in (1, 2):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(TrackerAway):

            def fail(station: str, patch: pytest.MonkeyPatch = patch) -> None:
                if station == "published":
                    patch.setattr(MlflowClient, "log_batch", broken)

            publish_tracked(lake, mine, f"dagster-gone-{number}", f'{{"n": {number}}}', fail)
    first, second = sorted(lake.folder(REF).glob("*/metrics.json"), key=lambda p: p.read_text())
    first.parent.chmod(0o755)
    shutil.rmtree(first.parent)
    second.chmod(0o644)
    second.unlink()
    assert len(mine.mend(lake)) == 2 and mine.mend(lake) == []
    runs = [r for r in _runs(tracker) if r.data.tags["newsrec.dagster_run"].startswith("dagster-gone")]
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert [("removed" in r.data.tags.get("newsrec.ended", "")) for r in runs].count(True) == 1


def test_a_run_of_a_living_process_is_left_alone(tracker: Tracker, lake: Lake) -> None:
    with kept_tracker(lake, tracker.uri).run(REF, "dagster-living", "key") as run:
        assert kept_tracker(lake, tracker.uri).mend(lake) == []
        assert tracker.client.get_run(run.run_id).info.status == "RUNNING"


def test_a_damaged_note_of_an_open_run_is_named(tracker: Tracker, lake: Lake) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrackerError):
        patch.setattr(MlflowClient, "create_run", mlflow_error("away"))
        publish_tracked(lake, kept_tracker(lake, tracker.uri), "d", "{}", lambda _: None)
    (note,) = (lake.root / ".tracking").glob("*.json")
    note.write_bytes(b"{")
    (line,) = kept_tracker(lake, tracker.uri).mend(lake)
    assert note.name in line and "damaged" in line


def mlflow_error(text: str) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise MlflowException(text)

    return call
