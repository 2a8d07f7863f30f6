"""What was delivered is verified by the lake's own copies, whatever becomes of the folders it came in."""

import shutil
from datetime import date
from pathlib import Path

import pytest

from resources.erasure.book import Book
from resources.erasure.deliveries import erase
from resources.lake import Lake, Ref
from resources.lineage.check import check_sources
from resources.lineage.deliveries import check_deliveries
from resources.lineage.graph import walk_all
from tests.resources.deliveries import EBNERD, drop, files, log, mark, rows
from tests.resources.lineage_help import flip, publish, rewrite

LATER = date(2023, 5, 21)


@pytest.fixture
def home(tmp_path):
    """A drop that was taken in and a correction of its day, with raw tables that name what they were cut from."""
    source = log(tmp_path)
    mark(drop(tmp_path, str(LATER), rows((501, "2023-05-21 10:00"))), "2023-05-22 09:00")
    (taken,) = source.take(EBNERD, "t")
    assert taken.state == "taken"
    seal(tmp_path, "before")
    source.correct(EBNERD, LATER, files(tmp_path / "right", rows((502, "2023-05-21 11:00"))), "a robot", "t")
    seal(tmp_path, "after")
    return tmp_path


def seal(home: Path, name: str) -> None:
    """A raw table of the later day, as it is made of the log now."""
    recipe = dict(log(home).raw_day(EBNERD, LATER).recipe)
    publish(Lake(home / "lake"), Ref("ebnerd", "raw_parquet", str(LATER)), {"raw.bin": name}, [], recipe=recipe)


def told(home: Path) -> list[str]:
    return [str(f) for f in check_deliveries(walk_all(home / "lake"))]


def kept(home: Path) -> list[Path]:
    return sorted((home / "lake" / ".landing" / "ebnerd").glob("*/files/**/behaviors.parquet"))


def test_deliveries_hold_also_when_their_folders_are_gone(home):
    graph = walk_all(home / "lake")
    named = {n for node in graph.nodes.values() for n in node.recipe["sources"]}
    assert {n.split("/")[0] for n in named} >= {"landing", "correction"}
    assert told(home) == [] and check_sources(graph, home / "log") == []
    shutil.rmtree(home / "log" / "landing")
    shutil.rmtree(home / "right")
    assert told(home) == [] and check_sources(graph, home / "log") == []


def test_a_flipped_bit_and_a_missing_copy_are_named(home):
    assert len(kept(home)) == 2
    for path in kept(home):
        before = path.read_bytes()
        flip(path, 100, 3)
        (line,) = told(home)
        assert "has other bytes than were taken in" in line
        path.unlink()
        assert "is missing in the lake" in told(home)[0]
        path.write_bytes(before)
    assert told(home) == []


def test_a_ledger_that_was_changed_or_is_gone_is_named(home):
    (path,) = (home / "lake" / ".landing" / "ebnerd").glob("*/ledger.jsonl")
    before = path.read_bytes()
    rewrite(path, before.replace(b"a robot", b"a mouse"))
    assert any("was changed after it was written" in line for line in told(home))
    path.unlink()
    assert len(told(home)) == 2 and all("named by no landing ledger" in line for line in told(home))


def test_what_was_rewritten_for_an_erased_reader_holds_by_its_new_digest(home):
    from datetime import UTC, datetime

    book = Book(home / "lake", "ebnerd")
    request = book.ask(1 + 501 % 3, "a letter", "t", datetime(2023, 6, 1, tzinfo=UTC), "")
    assert erase(home / "lake", "ebnerd", book.readers(request.name), request, "2023-06-01T00:00:00+00:00")
    assert told(home) == []
    flip(kept(home)[0], 100, 3)
    assert len(told(home)) == 1
