"""Kept connections to Dagster's event log: the same events, for other processes, after a kill, without the file."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from resources.event_log import KEPT, keep_connections

RUN = """
import os, signal, sys
import dagster as dg
from resources.event_log import keep_connections

if "keep" in sys.argv:
    keep_connections()

@dg.asset(check_specs=[dg.AssetCheckSpec("whole", asset="noted")])
def noted(context):
    context.log.info("a line")
    if "die" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
    found = dg.AssetCheckResult(check_name="whole", passed=True)
    return dg.MaterializeResult(metadata={"rows": 3}, check_results=[found])

with dg.DagsterInstance.get() as instance:
    assert dg.materialize([noted], instance=instance).success
"""


def ran(home: Path, *words: str) -> int:
    """Exit code of one run in a process of its own."""
    home.mkdir(exist_ok=True)
    environment = os.environ | {"DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "1"}
    return subprocess.run([sys.executable, "-c", RUN, *words], env=environment, capture_output=True).returncode


def told(home: Path) -> list[list[str]]:
    """What another process finds of each run: types of events and lines, in order."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = [record.dagster_run.run_id for record in instance.get_run_records()]
        events = [
            [e.dagster_event.event_type_value if e.dagster_event else e.user_message for e in instance.all_logs(r)]
            for r in runs
        ]
    return events


def test_the_events_are_those_that_dagster_writes(tmp_path: Path) -> None:
    assert ran(tmp_path / "usual") == ran(tmp_path / "kept", "keep") == 0
    usual, kept = told(tmp_path / "usual"), told(tmp_path / "kept")
    assert usual == kept and "a line" in kept[0] and "ASSET_CHECK_EVALUATION" in kept[0]


def test_what_a_killed_process_wrote_stays_and_the_next_goes_on(tmp_path: Path) -> None:
    assert ran(tmp_path, "keep", "die") == -signal.SIGKILL
    (events,) = told(tmp_path)
    assert events[-1] == "a line" and "STEP_START" in events
    assert ran(tmp_path, "keep") == 0
    assert len(told(tmp_path)) == 2


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqliteEventLogStorage:
    monkeypatch.setattr(SqliteEventLogStorage, "_connect", SqliteEventLogStorage._connect)
    keep_connections.__wrapped__()
    return SqliteEventLogStorage(str(tmp_path / "runs"))


def connections(storage: SqliteEventLogStorage) -> list[str]:
    """Files of the log that this process has open."""
    files = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile, as that of the listing itself
            files.append(entry.readlink())
    return sorted({f.stem for f in files if str(f.parent) == storage._base_dir and f.suffix == ".db"})


def test_one_connection_a_file_and_few_files(storage: SqliteEventLogStorage) -> None:
    runs = [f"run{i}" for i in range(KEPT + 3)]
    for run in [*runs, runs[-1]]:
        with storage.run_connection(run) as connection:
            connection.exec_driver_sql("SELECT 1")
        with storage.index_connection() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
    assert connections(storage) == ["index", *runs[-KEPT:]]


def test_a_file_that_has_gone_is_made_anew(storage: SqliteEventLogStorage) -> None:
    for _ in range(2):
        with storage.run_connection("gone") as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM event_logs").scalar() == 0
        for path in Path(storage._base_dir).glob("gone.db*"):
            path.unlink()
