"""The registry follows the record: also after a process that died in between, and a store that was away."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from resources import registry
from resources.ref import Ref
from resources.tracker import Tracker, TrackerAway

OLD, NEW = (Ref("simulated", "checkpoint", f"2023-05-{d}.rolling", "snert") for d in (17, 18))
A, B = "a" * 64, "b" * 64


class Died(BaseException):
    """In place of a kill."""


def die(*_: object, **__: object) -> None:
    raise Died


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Tracker(f"sqlite:///{path}").client.get_experiment("0")
    return path


@pytest.fixture
def tracker(empty: Path, tmp_path: Path) -> Tracker:
    return Tracker(f"sqlite:///{shutil.copy(empty, tmp_path)}")


def at(tracker: Tracker, alias: str) -> dict[str, str]:
    tags: dict[str, str] = tracker.client.get_model_version_by_alias(registry.model_name(OLD), alias).tags
    return tags


def test_a_challenger_whose_process_died_before_the_alias_gets_it_later(tracker: Tracker) -> None:
    registry.register(tracker, OLD, A)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        patch.setattr(MlflowClient, "set_registered_model_alias", die)
        registry.register(tracker, NEW, B)
    assert at(tracker, "challenger")["newsrec.manifest"] == A
    registry.register(tracker, NEW, B)
    assert at(tracker, "challenger")["newsrec.manifest"] == B
    registry.register(tracker, OLD, A)
    assert at(tracker, "challenger")["newsrec.manifest"] == B, "an older version is not the challenger again"
    assert len(tracker.client.search_model_versions(f"name = '{registry.model_name(OLD)}'")) == 2


@pytest.mark.parametrize("call", ["set_registered_model_alias", "set_model_version_tag"])
def test_a_coronation_whose_process_died_is_completed(tracker: Tracker, call: str) -> None:
    registry.crown(tracker, OLD, A, "ann", "first")
    registry.register(tracker, NEW, B)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        patch.setattr(MlflowClient, call, die)
        registry.crown(tracker, NEW, B, "bob", "better")
    registry.crown(tracker, NEW, B, "bob", "better")
    told = at(tracker, "champion")
    assert (told["newsrec.manifest"], told[registry.WHO], told[registry.WHY]) == (B, "bob", "better")


def test_who_and_why_are_those_of_the_last_act(tracker: Tracker) -> None:
    """The alias was not told of the acts in between: it fits, the words do not."""
    registry.crown(tracker, OLD, A, "ann", "first")
    registry.crown(tracker, OLD, A, "bob", "back again")
    told = at(tracker, "champion")
    assert (told[registry.WHO], told[registry.WHY]) == ("bob", "back again")


def test_a_champion_that_is_told_already_is_not_written_again(tracker: Tracker) -> None:
    written: list[str] = []
    registry.crown(tracker, OLD, A, "ann", "first")
    with pytest.MonkeyPatch.context() as patch:
        for call in ("set_registered_model_alias", "set_model_version_tag", "create_model_version"):
            patch.setattr(MlflowClient, call, lambda *_, call=call, **__: written.append(call))
        registry.crown(tracker, OLD, A, "ann", "first")
    assert written == []


@pytest.mark.parametrize("tell", ["register", "crown", "note_refusal"])
def test_a_locked_store_may_answer_in_a_moment(tracker: Tracker, tmp_path: Path, tell: str) -> None:
    words = {"register": (), "crown": ("ann", "first"), "note_refusal": ("RQ2 AUC",)}[tell]
    impatient = Tracker(f"{tracker.uri}?timeout=0")
    impatient.client.get_experiment("0")
    with sqlite3.connect(tmp_path / "mlflow.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackerAway, match=r"database is locked: .* sta(ys|nds)"):
            getattr(registry, tell)(impatient, OLD, A, *words)
        other.rollback()


def test_a_server_that_is_away_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackerAway, match="the record of champions stands"):
        registry.crown(Tracker("http://127.0.0.1:9"), OLD, A, "ann", "first")
