"""One full run on the tiny simulated log, shared by the tests of this folder, which only read it or copy it.

Until the evaluation asks for it, the oracle is poison, and watched (`test_sealed_oracle` reads what was seen).
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from filelock import FileLock

from resources.lake import Lake
from tests.pipeline.seal import before_the_oracle, environment, poisoned, sealed_run, versions

ASIDE = ("promotion", "drift", "decay", "dataset_analysis")
"""Stages that the report does not need: made, and watched, in a copy."""


def newsrec(home: Path, *arguments: str, code: int = 0) -> str:
    """Runs the command in its own process; gives standard output, or standard error of a refusal."""
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)
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
def home(tmp_path_factory, worker_id):
    """A folder with a tiny log, its lake and Dagster's home, after one full run; `sealed.json` says what the first half
    of it opened and made, and what the lake held after the second. Test processes side by side share one."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "home"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "sealed.json").exists():
            full_run(folder)
    return folder


def full_run(folder: Path) -> None:
    """Fills `folder`. A try that ended in the middle fails once more in whichever process comes next."""
    (folder / "dagster").mkdir(parents=True)
    newsrec(folder, "simulate", "--out", str(folder / "log"), "--size", "tiny", "--seed", "3")
    with poisoned(folder / "log" / "oracle", folder.with_name("home-oracle")):
        seen = sealed_run(folder, [name for name in before_the_oracle() if name not in ASIDE])
    newsrec(folder, "run", "--json")
    (folder / "sealed.json").write_text(json.dumps(seen | {"after": versions(Lake(folder / "lake"))}))
