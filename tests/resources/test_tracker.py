"""One MLflow run per asset and partition, also after errors, retries and many processes at once."""

import multiprocessing
import sys
from pathlib import Path

import pytest

from ml.errors import UsageError
from resources.ref import Ref
from resources.tracker import Tracker

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
