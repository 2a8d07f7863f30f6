"""Promotion and rollback by hand where MLflow is away: what is recorded stands, once, and the alias follows later."""

import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ml.errors import UsageError
from pipeline.promotion import promote, rollback
from resources.champion import Champions
from resources.lake import Lake, Ref
from resources.registry import CHAMPION, MANIFEST, model_name
from resources.tracker import Tracker, TrackerAway
from tests.pipeline.seal import environment
from tests.resources.lake_help import publish_text

REFS = [Ref("simulated", "checkpoint", f"2023-05-{day}.rolling", "snert") for day in (16, 17, 18)]
MODEL = ("simulated", "snert", "rolling")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of three checkpoints that became champion one after the other, and the store that was told."""
    folder = tmp_path_factory.mktemp("three")
    (folder / "dagster").mkdir()
    tools = tools_of(folder)
    for ref in REFS:
        publish_text(tools.lake, ref, str(ref))
        assert promote(tools, *MODEL, None, "ann", "newer")[1] == ""
    return folder


@pytest.fixture
def home(three: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(three, tmp_path / "home"))


def tools_of(folder: Path, uri: str = "") -> Any:
    return SimpleNamespace(lake=Lake(folder / "lake"), tracker=Tracker(uri or f"sqlite:///{folder / 'mlflow.db'}"))


def alias(folder: Path) -> str:
    version = tools_of(folder).tracker.client.get_model_version_by_alias(model_name(REFS[0]), CHAMPION)
    return str(version.tags[MANIFEST])


def current(folder: Path) -> Ref:
    champion = Champions(Lake(folder / "lake"), *MODEL).current()
    assert champion is not None
    assert champion.manifest == Lake(folder / "lake").require(champion.ref).manifest_digest
    return champion.ref


def digest(folder: Path, ref: Ref) -> str:
    return Lake(folder / "lake").require(ref).manifest_digest


def test_a_rollback_that_mlflow_did_not_hear_of_is_done_and_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    act, behind = rollback(tools_of(home, "http://127.0.0.1:9"), *MODEL, "bob", "complaints")
    assert act.subject.ref == current(home) == REFS[1]
    assert "recorded, do not repeat it" in behind and "MLflow store http://127.0.0.1:9" in behind
    assert "\n" not in behind and "run again" not in behind
    assert alias(home) == digest(home, REFS[2])
    with pytest.raises(UsageError, match="champion already"):
        promote(tools_of(home), *MODEL, act.subject.day, "bob", "again")
    assert alias(home) == digest(home, REFS[1]), "the repeated promotion mends the alias"
    assert current(home) == REFS[1]


def test_a_repeated_promotion_mends_the_alias(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away, old_day = tools_of(home, "http://127.0.0.1:9"), date(2023, 5, 16)
    act, behind = promote(away, *MODEL, old_day, "bob", "back")
    assert "recorded" in behind and act.subject.ref == current(home) == REFS[0]
    with pytest.raises(TrackerAway, match="the record of champions stands"):
        promote(away, *MODEL, old_day, "bob", "back")
    with pytest.raises(UsageError, match="champion already"):
        promote(tools_of(home), *MODEL, old_day, "bob", "back")
    assert alias(home) == digest(home, REFS[0])
    assert len(Champions(away.lake, *MODEL).acts()) == 4


def test_the_command_ends_well_and_says_both(home: Path) -> None:
    """A script that repeats what failed would otherwise go back twice."""
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    command = [sys.executable, "-m", "pipeline.cli", "rollback", "--why", "complaints"]
    done = subprocess.run(command, env=environment(home) | away, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and current(home) == REFS[1]
    assert f"{REFS[1]} is champion again" in done.stderr and "MLflow has not followed" in done.stderr
