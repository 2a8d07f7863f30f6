"""The two deployment profiles, for real: the laptop's files; the server's Postgres, with an S3 server behind MLflow."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
import yaml

from resources.lake import Lake, Ref
from resources.tracker import Tracker
from tests.pipeline import postgres_help
from tests.pipeline.postgres_help import PASSWORD, Postgres
from tests.resources import s3_help
from tests.resources.lake_help import publish_text

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILES = {"laptop": REPOSITORY / "dagster.yaml", "server": REPOSITORY / "deploy/server/dagster.yaml"}
REF = Ref("simulated", "clicks", "2023-05-18")
LONGEST_SECONDS = 300
"""A busy machine starts a server slowly."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_help.serving() as server:
        server.rows("postgres", "CREATE DATABASE dagster")
        server.rows("postgres", "CREATE DATABASE mlflow")
        yield server


@contextmanager
def instance_of(profile: str, home: Path) -> Iterator[dg.DagsterInstance]:
    home.mkdir()
    shutil.copyfile(PROFILES[profile], home / "dagster.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.get() as instance:
            yield instance


@pytest.fixture
def server(postgres: Postgres, tmp_path: Path, monkeypatch) -> Iterator[dg.DagsterInstance]:
    """The instance of the server profile, with the environment that deploy/compose.yaml gives it."""
    for name, value in (
        ("HOST", "127.0.0.1"),
        ("PORT", str(postgres.port)),
        ("DB", "dagster"),
        ("USER", "postgres"),
        ("PASSWORD", PASSWORD),
    ):
        monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", value)
    with instance_of("server", tmp_path / "dagster") as instance:
        yield instance


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a"]), pool="gpu")
def small() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 3})


def test_the_laptop_loads_and_keeps_files(tmp_path: Path) -> None:
    with instance_of("laptop", tmp_path / "dagster") as instance:
        assert dg.materialize([small], partition_key="a", instance=instance).success
        assert type(instance.run_storage).__name__ == "SqliteRunStorage"
        assert instance.get_runs_count() == 1
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
    assert (tmp_path / "dagster/history/runs.db").is_file()


def test_the_server_runs_a_job_through_postgres(server: dg.DagsterInstance, postgres: Postgres, tmp_path: Path) -> None:
    kinds = [type(s).__name__ for s in (server.run_storage, server.event_log_storage, server.schedule_storage)]
    assert kinds == ["PostgresRunStorage", "PostgresEventLogStorage", "PostgresScheduleStorage"]
    done = dg.materialize([small], partition_key="a", instance=server, tags={"newsrec/dataset": "x"})
    assert done.success
    ((status,),) = postgres.rows("dagster", f"SELECT status FROM runs WHERE run_id = '{done.run_id}'")
    assert status == "SUCCESS"
    found = postgres.rows(
        "dagster", "SELECT partition FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
    )
    assert found == [("a",)]
    event = server.get_latest_materialization_event(dg.AssetKey("small"))
    assert event is not None and event.asset_materialization.metadata["rows"].value == 3
    assert not list(tmp_path.glob("dagster/**/*.db")), "nothing of the instance lies in files"


def test_the_server_limits_what_runs_at_a_time(server: dg.DagsterInstance) -> None:
    limits = server.get_concurrency_config()
    assert limits.pool_config.default_pool_limit == 1
    assert limits.pool_config.pool_granularity.value == "op"
    assert limits.run_queue_config.max_concurrent_runs == 4
    assert limits.run_queue_config.tag_concurrency_limits == [{"key": "dagster/backfill", "limit": 2}]
    assert type(server.run_coordinator).__name__ == "QueuedRunCoordinator"
    assert dg.materialize([small], partition_key="a", instance=server).success
    store = server.event_log_storage
    assert "gpu" in store.get_concurrency_keys(), "the step has waited for its pool"
    first, second = (store.claim_concurrency_slot("gpu", f"run {n}", "step") for n in (1, 2))
    assert (first.is_claimed, second.is_claimed) == (True, False), "one trainer at a time, held by Postgres"
    store.free_concurrency_slots_for_run("run 1")
    store.free_concurrency_slots_for_run("run 2")


def test_a_missing_password_is_named(tmp_path: Path, monkeypatch) -> None:
    for name in [n for n in os.environ if n.startswith("DAGSTER_POSTGRES_")]:
        monkeypatch.delenv(name)
    with pytest.raises(Exception, match="DAGSTER_POSTGRES_"), instance_of("server", tmp_path / "dagster") as instance:
        instance.get_runs_count()


def test_the_profiles_differ_in_what_a_server_needs_and_in_nothing_else() -> None:
    laptop, server = (yaml.safe_load(p.read_text()) for p in PROFILES.values())
    assert server.keys() - laptop.keys() == {"storage", "retention"} and laptop.keys() <= server.keys()
    assert laptop["concurrency"]["pools"] == server["concurrency"]["pools"]
    assert laptop["python_logs"] == server["python_logs"]
    for name, value in laptop["run_monitoring"].items():
        assert server["run_monitoring"][name] == value


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def tracking_server(postgres: Postgres, home: Path) -> Iterator[str]:
    """MLflow's server as deploy/compose.yaml starts it: Postgres behind it, artifacts in a bucket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": postgres.url("mlflow"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (home / "mlflow.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--artifacts-destination=s3://mlflow"],
            env=environment,
            stdout=log,
            stderr=log,
            cwd=home,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + LONGEST_SECONDS
        while not _listens(port):
            assert process.poll() is None and time.monotonic() < end, (home / "mlflow.log").read_text()[-2000:]
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_tracked_run_lies_in_postgres_and_its_artifact_in_a_bucket(postgres: Postgres, tmp_path: Path) -> None:
    with s3_help.serving() as s3:
        s3.client.create_bucket(Bucket="mlflow")
        with tracking_server(postgres, tmp_path) as uri:
            lake, tracker = Lake(tmp_path / "lake"), Tracker(uri, tmp_path / "tracking")
            with tracker.run(REF, "dagster-1", "key") as run:
                run.metrics({"recall@20": 0.25})
                version = publish_text(lake, REF, "a", "key")
                run.published(version, ["a.txt"])
        keys = [item["Key"] for item in s3.client.list_objects_v2(Bucket="mlflow").get("Contents", [])]
    assert postgres.rows("mlflow", f"SELECT status, name FROM runs WHERE run_uuid = '{run.run_id}'") == [
        ("FINISHED", str(REF))
    ]
    assert postgres.rows("mlflow", "SELECT key, value FROM latest_metrics") == [("recall_at_20", 0.25)]
    ((manifest,),) = postgres.rows("mlflow", "SELECT value FROM tags WHERE key = 'newsrec.manifest'")
    assert manifest == version.manifest_digest
    assert [key.rsplit("/", 1)[1] for key in keys] == ["a.txt"] and run.run_id in keys[0]
