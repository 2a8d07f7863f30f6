"""One full run on the tiny simulated log, shared by the tests of this folder, which only read it or copy it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest


def newsrec(home: Path, *arguments: str, code: int = 0) -> str:
    """Runs the command in its own process; gives standard output, or standard error of a refusal."""
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home / "dagster"),
        "NEWSREC_LAKE": str(home / "lake"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        "NEWSREC_DATASET": "simulated",
        "NEWSREC_DATA_ROOT": str(home / "log"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout if code == 0 else done.stderr


@contextmanager
def dagster_home(folder: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose home is `folder / "dagster"`, also for what reads DAGSTER_HOME."""
    (folder / "dagster").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(folder / "dagster"))
        with dg.DagsterInstance.get() as instance:
            yield instance


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A folder with a tiny log, its lake and Dagster's home, after one full run."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "dagster").mkdir()
    newsrec(folder, "simulate", "--out", str(folder / "log"), "--size", "tiny", "--seed", "3")
    newsrec(folder, "run", "--json")
    return folder
