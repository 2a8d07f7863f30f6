"""Logs that declare themselves: learned from a folder, the environment or the lake."""

from dataclasses import replace
from pathlib import Path

import pytest

from ml import datasets
from ml.asof import AsOfPaths
from ml.datasets import DATASETS, dataset, register
from ml.errors import LakeError, UsageError
from resources.bindings import RunSettings
from resources.own_logs import learn, learn_configured
from tests.ml.test_readers_own_log import UTC_TIMES, click, write_log


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """A process that knows no declared log."""
    monkeypatch.setattr(datasets, "_DECLARED", {})
    monkeypatch.delenv("NEWSREC_DATASET", raising=False)
    monkeypatch.delenv("NEWSREC_DATA_ROOT", raising=False)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "log", UTC_TIMES + "day_starts_utc = 4\n", clicks=[click(1, 2, "2023-05-01 08:00")])


def test_by_name_or_as_own_and_later_from_the_lake(log, tmp_path):
    lake = tmp_path / "lake"
    known = learn("own", log, lake)
    assert known == learn("paper", log, lake) == dataset("paper")
    datasets._DECLARED.clear()
    with pytest.raises(UsageError, match="unknown dataset 'paper'"):
        dataset("paper")
    assert learn("paper", None, lake) == known == dataset("paper")
    (lake / ".logs" / "paper.json").write_text("{")
    with pytest.raises(LakeError, match=r"paper\.json has another form .*remove it"):
        learn("paper", None, lake)


def test_another_name_is_refused(log, tmp_path):
    with pytest.raises(UsageError, match="calls the log 'paper', not 'times': use --dataset paper"):
        learn("times", log, tmp_path)
    with pytest.raises(UsageError, match="own names no log"):
        learn("own", None, tmp_path)
    with pytest.raises(UsageError, match=r"unknown dataset '\.\./paper'"):
        learn("../paper", None, tmp_path)
    with pytest.raises(UsageError, match="unknown dataset 'times'"):
        learn("times", tmp_path, tmp_path)
    assert learn("globo", log, tmp_path) is DATASETS["globo"]


@pytest.mark.parametrize("name", ["own", "paper"])
def test_the_environment_names_it(log, tmp_path, monkeypatch, name):
    monkeypatch.setenv("NEWSREC_DATASET", name)
    monkeypatch.setenv("NEWSREC_DATA_ROOT", str(log))
    learn_configured()
    assert dataset("paper").clock.offset_hours == 4
    assert learn(name, None, tmp_path / "lake").name == "paper"


def test_a_name_of_the_system_cannot_be_taken(log, tmp_path):
    known = learn("own", log, tmp_path)
    for taken in ("globo", "own"):
        with pytest.raises(UsageError, match="has a meaning here"):
            register(replace(known, name=taken))


def test_paths_of_the_door_carry_the_declaration_as_json(log, tmp_path):
    known = learn("own", log, tmp_path)
    none = tmp_path / "none"
    paths = AsOfPaths(
        dataset="paper", features=none, interactions=none, popularity=none, content={}, impressions=[], declared=known
    )
    datasets._DECLARED.clear()
    assert AsOfPaths.model_validate_json(paths.model_dump_json()).declared == known


def test_what_a_log_declares_enters_its_recipes(log, tmp_path):
    known = learn("own", log, tmp_path)
    assert known.facts["log"]["offset_hours"] == 4 and DATASETS["globo"].facts == {}


def test_lists_are_synthesised_only_when_asked_for():
    globo = DATASETS["globo"]
    assert RunSettings().inview_of(globo) is None
    choice = RunSettings(inview="uniform", inview_length=7).inview_of(globo)
    assert choice is not None and (choice.synthesise, choice.length) == ("uniform", 7)
    with pytest.raises(UsageError, match="brings in-view lists along"):
        RunSettings(inview="uniform").inview_of(DATASETS["ebnerd"])
    with pytest.raises(UsageError, match="'magic'"):
        RunSettings(inview="magic").inview_of(globo)
