"""Erased readers in drops, corrections and the data root: out of what was kept, and not taken in again."""

import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from resources import ledger
from resources.erasure.erase import erase, resume
from resources.lake import Lake
from tests.resources.deliveries import EBNERD, drop, impressions, log, mark, rows
from tests.resources.kill_help import dies_before

NOW = datetime(2026, 11, 25, tzinfo=UTC)
NEXT = date(2023, 5, 21)
READER, OTHER = 3, 1
BOTH = rows((11, "2023-05-21 08:00"), (12, "2023-05-21 09:00"))
"""One impression of each."""


def do(root: Path, user: int = READER) -> dict:
    return erase(Lake(root), "ebnerd", user, "", "me", NOW, lambda _: None, f"R-{'abcd'[user]}")


def readers_below(root: Path) -> set[int]:
    found: set[int] = set()
    for path in root.rglob("*.parquet"):
        if "user_id" in pq.read_schema(path).names:
            found |= set(pq.read_table(path).column("user_id").to_pylist())
    return found


def test_a_kept_drop_is_rewritten_and_its_day_has_only_the_others(tmp_path: Path) -> None:
    source = log(tmp_path)
    mark(drop(tmp_path, "2023-05-21", BOTH))
    source.take(EBNERD, "me")
    before = source.raw_day(EBNERD, NEXT)
    assert READER in readers_below(tmp_path / "lake/.landing") and before.erased == {}
    assert do(tmp_path / "lake")["kept_file_rows"] == 1
    assert READER not in readers_below(tmp_path / "lake")
    after = source.raw_day(EBNERD, NEXT)
    assert impressions(source, "2023-05-21") == [12]
    assert after.sources == before.sources, "what was delivered is what it was"
    assert after.recipe != before.recipe
    assert [d.state for d in source.take(EBNERD, "me")] == ["taken"], "the drop in the data root is still the same"


def test_a_reader_in_the_bundle_is_left_out_with_a_word_and_other_days_stay_fresh(tmp_path: Path) -> None:
    source = log(tmp_path)
    before = {d: source.raw_day(EBNERD, d).recipe for d in source.days(EBNERD)}
    do(tmp_path / "lake")
    days = {d: source.raw_day(EBNERD, d) for d in source.days(EBNERD)}
    assert days.keys() == before.keys() and READER not in readers_below(tmp_path / "lake")
    for day, raw in days.items():
        assert ("erased" in raw.recipe) == bool(raw.erased) == (raw.recipe != before[day])
    assert any(raw.erased for raw in days.values()) and not all(raw.erased for raw in days.values())


def test_a_drop_that_comes_after_the_erasure_is_kept_without_the_reader(tmp_path: Path) -> None:
    source = log(tmp_path)
    source.days(EBNERD)
    do(tmp_path / "lake")
    mark(drop(tmp_path, "2023-05-21", BOTH))
    (taken,) = source.take(EBNERD, "me")
    assert taken.state == "taken" and impressions(source, "2023-05-21") == [12]
    assert source.raw_day(EBNERD, NEXT).erased == {}, "the kept copy holds nothing to leave out"
    assert READER not in readers_below(tmp_path / "lake")
    shutil.rmtree(tmp_path / "lake/.split")
    assert impressions(source, "2023-05-21") == [12], "its cut can be made again from what was kept"
    assert [d.state for d in source.take(EBNERD, "me")] == ["taken"]


def test_a_drop_of_erased_readers_alone_leaves_a_log_that_can_be_read(tmp_path: Path) -> None:
    source = log(tmp_path)
    mark(drop(tmp_path, "2023-05-21", BOTH))
    source.take(EBNERD, "me")
    do(tmp_path / "lake", READER)
    do(tmp_path / "lake", OTHER)
    assert not {READER, OTHER} & readers_below(tmp_path / "lake")
    assert source.days(EBNERD)[-1] == date(2023, 5, 20)
    (book,) = (tmp_path / "lake/.landing/ebnerd").glob("*/ledger.jsonl")
    assert ledger.problems(book) == [] and len(list((book.parent / "files").iterdir())) == 1


@pytest.mark.slow
def test_what_a_killed_taking_in_left_is_erased_too(tmp_path: Path) -> None:
    source = log(tmp_path)
    mark(drop(tmp_path, "2023-05-21", BOTH))
    for stop in range(1, 400, 3):
        shutil.rmtree(tmp_path / "lake", ignore_errors=True)
        killed = dies_before(stop, source.take, EBNERD, "me", start="forkserver")
        if (tmp_path / "lake/.landing").is_dir():
            do(tmp_path / "lake")
            assert READER not in readers_below(tmp_path / "lake/.landing/ebnerd"), stop
        if not killed:
            break
    assert not killed and stop > 20


def test_killed_at_every_step_the_drop_counts_as_it_was_or_without_the_reader(tmp_path: Path) -> None:
    source = log(tmp_path)
    mark(drop(tmp_path, "2023-05-21", BOTH))
    source.take(EBNERD, "me")
    shutil.copytree(tmp_path / "lake", tmp_path / "sealed")
    for stop in range(1, 200, 4):
        shutil.rmtree(tmp_path / "lake")
        shutil.copytree(tmp_path / "sealed", tmp_path / "lake")
        killed = dies_before(stop, do, tmp_path / "lake")
        assert impressions(source, "2023-05-21") in ([11, 12], [12])
        resume(Lake(tmp_path / "lake"), "ebnerd", "me", NOW, lambda _: None)
        do(tmp_path / "lake")
        assert impressions(source, "2023-05-21") == [12]
        assert READER not in readers_below(tmp_path / "lake")
        if not killed:
            break
    assert not killed and stop > 20
