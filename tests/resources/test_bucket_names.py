"""Names that a bucket or a stranger's `.bucket` folder can bring: none leads out of the lake."""

import json
from pathlib import Path

import pytest

from ml.errors import DamagedLake
from resources.bucket.head import is_unit
from resources.bucket.memory import OPEN, Memory, Note


@pytest.mark.parametrize(
    "name",
    [
        "simulated/clicks/2023-05-18",
        "simulated/checkpoint/snert/2023-05-18.rolling",
        ".logs",
        ".landing/globo",
        "mind/.champion",
    ],
)
def test_partitions_and_books_are_units(name: str) -> None:
    assert is_unit(name)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../.champion", ".landing/..", ".landing/.", ".landing/", "a/../b", "/etc/.champion",
        ".landing/a\0", "..\\.champion", ".landing/a/b", "simulated/clicks", "Simulated/clicks/2023-05-18",
        ".landing/\u202e", "./.champion", "a//.champion",
    ],
)  # fmt: skip
def test_nothing_else_is_one(name: str) -> None:
    assert not is_unit(name)


def test_a_note_is_read_back(tmp_path: Path) -> None:
    memory, note = Memory(tmp_path), Note(".logs", "ab" * 8, frozenset({"a"}), frozenset({"objects/.logs/x/a"}))
    memory.note(note)
    assert memory.notes() == [note]


@pytest.mark.parametrize(
    "change",
    [
        {"unit": "../.champion"},
        {"unit": ".landing/.."},
        {"unit": 7},
        {"token": "../../x"},
        {"token": "cd" * 8},
        {"drop": ["objects/simulated/clicks/2023-05-18/x"]},
        {"before": 7},
        {"drop": None},
    ],
)
def test_a_note_that_would_lead_elsewhere_is_refused(tmp_path: Path, change: dict) -> None:
    said = {"unit": ".logs", "token": "ab" * 8, "before": [], "drop": []} | change
    (tmp_path / OPEN).mkdir(parents=True)
    (tmp_path / OPEN / f"{'ab' * 8}.json").write_text(json.dumps(said))
    with pytest.raises(DamagedLake, match=r"abab\.json has another form .*: remove it") as error:
        Memory(tmp_path).notes()
    assert str(error.value).isprintable()
