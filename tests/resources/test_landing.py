"""What arrives becomes days: on time or late, refused or taken, corrected; whatever the order and whoever dies."""

import json
import multiprocessing
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.datasets import dataset
from ml.errors import DataError, LakeError, UsageError
from ml.readers import reader
from resources import landing as module
from resources import refusals
from resources.drops import LANDING, MARKER, land
from resources.landing import Landing, now_ms
from resources.source import DatasetSource
from tests.ml.bundles import article, globo_click, write_hour
from tests.resources.deliveries import (
    EBNERD,
    LAST,
    contents,
    drop,
    files,
    impressions,
    log,
    mark,
    quarantine,
    rows,
)
from tests.resources.kill_help import dies_before

NEXT = date(2023, 5, 21)


def states(drops: list[Any]) -> dict[str, str]:
    return {d.name: d.state for d in drops}


def test_a_drop_makes_its_day_and_leaves_the_others(tmp_path):
    source = log(tmp_path)
    before = {d: source.raw_day(EBNERD, d).recipe for d in source.days(EBNERD)}
    mark(drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00"), (12, "2023-05-22 06:59"))))
    assert source.days(EBNERD)[-1] == LAST, "nothing counts before it was taken in"
    (taken,) = source.take(EBNERD, "me")
    assert (taken.state, taken.rows, taken.late) == ("taken", 2, 0)
    assert source.days(EBNERD)[-1] == NEXT
    assert impressions(source, "2023-05-21") == [11, 12]
    assert {d: source.raw_day(EBNERD, d).recipe for d in before} == before
    recipe = source.raw_day(EBNERD, NEXT).recipe
    assert list(recipe["sources"]) == ["landing/2023-05-21/behaviors.parquet"]
    assert set(source.fingerprint(EBNERD)) > set(recipe["sources"])


def test_rows_carry_the_name_of_their_drop(tmp_path):
    source = log(tmp_path)
    mark(drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00"))))
    source.take(EBNERD, "me")
    (path,) = [f for f in source.raw_day(EBNERD, NEXT).files if f.name == "behaviors.parquet"]
    assert pl.read_parquet(path)["source"].to_list() == ["landing/2023-05-21/behaviors.parquet"]


@pytest.mark.parametrize(
    ("arrived", "hours", "late"),
    [
        ("2023-05-21 13:00", 6, False),  # 20 May ends at 07:00 on the 21st: six hours later is just in time
        ("2023-05-21 13:00:00.001", 6, True),
        ("2023-05-21 13:00:00.001", 6.5, False),
        ("2023-05-23 07:00", 48, False),
        ("2023-05-21 07:00", 0, False),
        ("2023-05-21 07:00:00.001", 0, True),
    ],
)
def test_rows_of_an_earlier_day_are_late_after_its_watermark(tmp_path, arrived, hours, late):
    source = log(tmp_path, hours)
    mark(drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00"), (12, "2023-05-20 09:00"))), arrived)
    (taken,) = source.take(EBNERD, "me")
    assert taken.late == int(late)
    assert impressions(source, "2023-05-20") == ([5] if late else [5, 12])
    found = [("impressions", "late", "landing/2023-05-21/behaviors.parquet", 12)] if late else []
    assert quarantine(source, "2023-05-21") == found


def test_a_day_that_nobody_delivered_is_not_closed_to_its_own_drop(tmp_path):
    source = log(tmp_path)
    mark(drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00"))), "2025-01-01")
    assert source.take(EBNERD, "me")[0].late == 0
    assert impressions(source, "2023-05-21") == [11]


def test_a_drop_of_a_day_that_the_bundle_holds_is_late(tmp_path):
    source = log(tmp_path)
    mark(drop(tmp_path, "2023-05-20", rows((11, "2023-05-20 08:00"))), "2025-01-01")
    assert source.take(EBNERD, "me")[0].late == 1
    assert impressions(source, "2023-05-20") == [5]
    assert quarantine(source, "2023-05-20") == [("impressions", "late", "landing/2023-05-20/behaviors.parquet", 11)]


def test_rows_of_later_days_are_outside_the_drop(tmp_path):
    source = log(tmp_path)
    mark(drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00"), (12, "2023-05-22 08:00"))))
    source.take(EBNERD, "me")
    assert source.days(EBNERD)[-1] == NEXT
    assert quarantine(source, "2023-05-21") == [
        ("impressions", "outside_drop", "landing/2023-05-21/behaviors.parquet", 12)
    ]


def test_the_watermark_of_the_day_of_arrival_stays(tmp_path):
    mark(drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00"), (12, "2023-05-20 09:00"))), "2023-05-22 07:00")
    log(tmp_path, 48).take(EBNERD, "me")
    assert impressions(log(tmp_path, 6), "2023-05-20") == [5, 12]


def test_new_and_changed_articles_come_with_the_drop(tmp_path):
    source = log(tmp_path)
    before = {d: source.raw_day(EBNERD, d).recipe for d in source.days(EBNERD)}
    shown = [*rows((11, "2023-05-21 08:00"), (12, "2023-05-20 09:00"))]
    articles = [article(107, "2023-05-21 07:30"), article(103, "2023-05-18 07:00", title="Corrected title")]
    mark(drop(tmp_path, "2023-05-21", shown, articles), "2025-01-01")
    source.take(EBNERD, "me")
    assert {d: source.raw_day(EBNERD, d).recipe for d in before} == before
    day = reader("ebnerd").tables(source.split(EBNERD)[NEXT], EBNERD, NEXT)
    found = {r["article_id"]: r["title"] for r in day.articles.to_pylist()}
    assert found == {103: "Corrected title", 107: "Title 107"}, "105 and 106 are listed by the bundle"
    assert len(day.clicks) == len(day.impressions) == 1


def test_an_article_that_no_file_lists_is_first_seen(tmp_path):
    source = log(tmp_path)
    shown = [*rows((11, "2023-05-21 08:00"))]
    shown.append(shown[0] | {"impression_id": 12, "article_ids_inview": [106, 900], "article_ids_clicked": [900]})
    mark(drop(tmp_path, "2023-05-21", shown))
    source.take(EBNERD, "me")
    day = reader("ebnerd").tables(source.split(EBNERD)[NEXT], EBNERD, NEXT)
    assert [(r["article_id"], r["published_is_first_seen"]) for r in day.articles.to_pylist()] == [(900, True)]


def test_no_row_is_lost(tmp_path):
    source = log(tmp_path)
    times = ["2023-05-21 08:00", "2023-05-22 08:00", "2023-05-20 08:00", "2023-05-18 08:00", "2031-01-01 00:00"]
    mark(drop(tmp_path, "2023-05-21", rows(*enumerate(times, start=11))))
    source.take(EBNERD, "me")
    held = quarantine(source, "2023-05-21")
    assert sorted([*impressions(source, "2023-05-21"), *(number for *_, number in held)]) == [11, 12, 13, 14, 15]
    assert {(number, reason) for _, reason, _, number in held} == {
        (12, "outside_drop"), (13, "late"), (14, "late"), (15, "outside_days"),
    }  # fmt: skip


def test_a_drop_without_marker_is_left_and_said(tmp_path):
    source = log(tmp_path)
    folder = drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00")))
    (found,) = source.take(EBNERD, "me")
    assert found.state == "incomplete" and MARKER in found.line
    assert source.days(EBNERD)[-1] == LAST
    mark(folder)
    assert states(source.take(EBNERD, "me")) == {"2023-05-21": "taken"}


def test_an_empty_marker_is_one(tmp_path):
    source = log(tmp_path)
    (drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00"))) / MARKER).touch()
    (taken,) = source.take(EBNERD, "me")
    assert taken.state == "taken" and taken.arrived is not None


@pytest.mark.parametrize(
    "said", [{}, {"files": {"behaviors.parquet": {"rows": 1}}}, {"files": {"behaviors.parquet": {}}}]
)
def test_every_key_of_a_marker_may_be_left_out(tmp_path, said):
    source = log(tmp_path)
    folder = drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00")))
    (folder / MARKER).write_text(json.dumps(said))
    assert states(source.take(EBNERD, "me")) == {"2023-05-21": "taken"}


def test_a_digest_in_capitals_is_one(tmp_path):
    source = log(tmp_path)
    folder = drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00")))
    mark(folder)
    said = json.loads((folder / MARKER).read_text())
    digest = said["files"]["behaviors.parquet"]["sha256"].upper()
    (folder / MARKER).write_text(json.dumps({"files": {"behaviors.parquet": {"sha256": digest}}}))
    assert states(source.take(EBNERD, "me")) == {"2023-05-21": "taken"}


def test_arrival_is_recorded_once(tmp_path):
    source = log(tmp_path)
    folder = drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00"), (12, "2023-05-20 09:00")))
    (folder / MARKER).touch()
    os.utime(folder / MARKER, (1_684_666_800, 1_684_666_800))  # 2023-05-21 11:00 UTC: in time
    assert source.take(EBNERD, "me")[0].late == 0
    before = contents(source)
    os.utime(folder / MARKER)
    shutil.rmtree(tmp_path / "lake" / ".split")
    assert source.take(EBNERD, "me")[0].late == 0
    assert contents(source) == before


REFUSED: list[tuple[str, Callable[[Path], Any], str]] = [
    ("other bytes", lambda f: mark(f, said={"files": {"behaviors.parquet": {"sha256": "0" * 64}}}), "other bytes"),
    ("missing file", lambda f: mark(f, said={"files": {"x.parquet": {}}}), "not named by|not there"),
    ("other rows", lambda f: mark(f, said={"files": _rows_said(f, 99)}), "99"),
    ("no JSON", lambda f: (f / MARKER).write_text("x"), "cannot be understood: it is no JSON: leave _COMPLETE"),
    ("deep JSON", lambda f: (f / MARKER).write_text("[" * 100_000), "it is no JSON: leave"),
    ("a list", lambda f: (f / MARKER).write_text("[]"), "cannot be understood: it is no JSON object: leave"),
    ("an escape", lambda f: mark(f, said={"files": {"../x": {}}}), r"key files\.\.\./x: .* leave that key out"),
    ("files of a list", lambda f: mark(f, said={"files": ["x"]}), r"key files: .* not \['x'\]: correct it"),
    ("a file of null", lambda f: mark(f, said=_said_of(None)), r"key files\.behaviors\.parquet: .* not None: correct"),
    (
        "a short digest",
        lambda f: mark(f, said=_said_of({"sha256": "12"})),
        r"parquet\.sha256: .* hexadecimal",
    ),
    ("rows of text", lambda f: mark(f, said=_said_of({"rows": "1"})), r"behaviors\.parquet\.rows: .* not '1': correct"),
    (
        "rows of true",
        lambda f: mark(f, said=_said_of({"rows": True})),
        r"parquet\.rows: .* not True: correct",
    ),
    ("other rows alone", lambda f: mark(f, said=_said_of({"rows": 61})), "has 1 rows, _COMPLETE says 61"),
    ("no time", lambda f: mark(f, said={"arrived": 5}), "key arrived: 5 is no time as 2023-05-22T09"),
    ("no zone", lambda f: mark(f, said={"arrived": "2023-05-21T08:00:00"}), "no time zone"),
    ("the future", lambda f: mark(f, "2099-01-01"), "yet to come"),
    ("a time past the calendar", lambda f: mark(f, said={"arrived": "9999-12-31T23:59:59-01:00"}), "1900 to 2099"),
    ("a time before it", lambda f: mark(f, said={"arrived": "0001-01-01T00:00:00+01:00"}), "1900 to 2099"),
    ("a large marker", lambda f: (f / MARKER).write_text(" " * (1 << 21)), "larger"),
    ("a damaged file", lambda f: ((f / "behaviors.parquet").write_bytes(b"PAR1"), mark(f)), "behaviors.parquet"),
    ("a foreign file", lambda f: ((f / "notes.txt").write_text("x"), mark(f)), "notes.txt"),
    ("a file in a folder", lambda f: (files(f / "x", []), mark_only(f)), "x/behaviors.parquet is no file"),
    ("a link", lambda f: ((f / "l.parquet").symlink_to(f / "behaviors.parquet"), mark(f)), "link"),
    ("a linked folder", lambda f: ((f / "l").symlink_to(f.parent), mark_only(f)), "link"),
    ("a pipe", lambda f: (os.mkfifo(f / "p.parquet"), mark_only(f)), "neither"),
    ("a strange name", lambda f: ((f / "a\nb.parquet").write_text(""), mark_only(f)), "no file name"),
    ("no file", lambda f: ((f / "behaviors.parquet").unlink(), mark(f)), "no file"),
    ("the same file twice", lambda f: (shutil.copytree(f, f / "train"), mark_only(f)), "twice"),
]


def _said_of(entry: Any) -> dict[str, Any]:
    return {"files": {"behaviors.parquet": entry}}


def _rows_said(folder: Path, count: int) -> dict[str, Any]:
    mark(folder)
    said = json.loads((folder / MARKER).read_text())["files"]
    return {name: entry | {"rows": count} for name, entry in said.items()}


def mark_only(folder: Path) -> None:
    (folder / MARKER).touch()


@pytest.mark.parametrize(("spoil", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_malformed_drop_is_refused_and_left_while_the_rest_goes_on(tmp_path, spoil, message):
    source = log(tmp_path)
    folder = drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00")))
    spoil(folder)
    there = sorted(p.name for p in folder.iterdir())
    mark(drop(tmp_path, "2023-05-22", rows((12, "2023-05-22 08:00"))))
    assert states(source.landing(EBNERD).judged()) == {"2023-05-21": "malformed", "2023-05-22": "complete"}
    refused, taken = source.take(EBNERD, "me")
    assert (refused.state, taken.state) == ("malformed", "taken")
    assert re.search(message, refused.why), refused.why
    assert "\n" not in refused.line and str(tmp_path / "lake") not in refused.why
    assert sorted(p.name for p in folder.iterdir()) == there
    assert source.days(EBNERD)[-1] == date(2023, 5, 22)


def test_a_drop_that_was_read_and_refused_does_not_wait_any_more(tmp_path, monkeypatch):
    source = log(tmp_path)
    folder = drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00")))
    (folder / "behaviors.parquet").write_bytes(b"PAR1")
    mark(folder)
    assert states(source.landing(EBNERD).drops()) == {"2023-05-21": "complete"}
    (refused,) = source.take(EBNERD, "me")
    for found in (source.landing(EBNERD).drops(), source.landing(EBNERD).judged()):
        assert [(d.state, d.why) for d in found] == [("malformed", refused.why)]
    with monkeypatch.context() as patch:
        patch.setattr(Landing, "_take", lambda *_: pytest.fail("it is not read again"))
        assert states(source.take(EBNERD, "me")) == {"2023-05-21": "malformed"}
    with monkeypatch.context() as patch:
        patch.setattr(refusals, "_code", lambda: "other readers")
        assert states(source.landing(EBNERD).drops()) == {"2023-05-21": "complete"}
    mark(drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00"))))
    assert states(source.landing(EBNERD).drops()) == {"2023-05-21": "complete"}
    assert states(source.take(EBNERD, "me")) == {"2023-05-21": "taken"}
    (book,) = (tmp_path / "lake" / ".landing" / "ebnerd").glob("*.refused.json")
    assert book.read_text() == "{}", "what is no longer there is forgotten"


@pytest.mark.parametrize("said", ["[", '{"a": 1}'])
def test_a_damaged_list_of_refusals_is_named(tmp_path, said):
    source = log(tmp_path)
    folder = drop(tmp_path, "2023-05-21", [])
    mark(folder)
    source.take(EBNERD, "me")
    (book,) = (tmp_path / "lake" / ".landing" / "ebnerd").glob("*.refused.json")
    book.write_text(said)
    with pytest.raises(LakeError, match=r"refused\.json.*remove it"):
        source.landing(EBNERD).drops()


@pytest.mark.parametrize("name", ["", MARKER, "behaviors.parquet"])
def test_a_drop_that_cannot_be_read_is_refused_while_the_rest_goes_on(tmp_path, monkeypatch, name):
    source = log(tmp_path)
    mark(drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00"))))
    mark(drop(tmp_path, "2023-05-22", rows((12, "2023-05-22 08:00"))))
    forbidden = tmp_path / "log" / LANDING / "2023-05-21" / name

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Path, *args: Any, **more: Any) -> Any:
            if path == forbidden:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *args, **more)

        return opened

    for method in ("open", "iterdir", "read_bytes"):
        monkeypatch.setattr(Path, method, guarded(getattr(Path, method)))
    refused, taken = source.take(EBNERD, "me")
    assert (refused.state, taken.state) == ("malformed", "taken")
    assert "cannot be read (Permission denied)" in refused.why and (name or "2023-05-21") in refused.why


def test_a_marker_whose_file_bears_no_usable_time_is_refused(tmp_path, monkeypatch):
    source, real = log(tmp_path), Path.stat
    mark_only(drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00"))))

    def stat(path: Path, **more: Any) -> Any:
        found = real(path, **more)
        strange = SimpleNamespace(st_mode=found.st_mode, st_size=found.st_size, st_mtime_ns=10**21)
        return strange if path.name == MARKER else found

    monkeypatch.setattr(Path, "stat", stat)
    (refused,) = source.take(EBNERD, "me")
    assert refused.state == "malformed" and "1900 to 2099" in refused.why


def test_a_drop_without_a_row_of_its_day_is_refused(tmp_path):
    source = log(tmp_path)
    mark(drop(tmp_path, "2023-05-21", rows((11, "2023-05-20 08:00"))))
    (found,) = source.take(EBNERD, "me")
    assert found.state == "malformed" and "no row of 2023-05-21" in found.why


@pytest.mark.parametrize("name", ["tuesday", "2023-06-30", "20230521"])
def test_a_folder_that_names_no_day_of_the_log_is_refused(tmp_path, name):
    source = log(tmp_path)
    mark(drop(tmp_path, name, rows((11, "2023-05-21 08:00"))))
    assert [d.state for d in source.take(EBNERD, "me")] == ["malformed"]


def test_a_landing_folder_that_leads_elsewhere_is_refused(tmp_path):
    source = log(tmp_path)
    mark(files(tmp_path / "elsewhere" / "2023-05-21", rows((11, "2023-05-21 08:00"))))
    (tmp_path / "log" / LANDING).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no folder of its own"):
        source.take(EBNERD, "me")


def test_a_linked_drop_is_refused(tmp_path):
    source = log(tmp_path)
    mark(files(tmp_path / "elsewhere", rows((11, "2023-05-21 08:00"))))
    (tmp_path / "log" / LANDING).mkdir()
    (tmp_path / "log" / LANDING / "2023-05-21").symlink_to(tmp_path / "elsewhere")
    assert [d.state for d in source.take(EBNERD, "me")] == ["malformed"]


def test_vectors_in_the_landing_folder_are_none_of_the_bundle(tmp_path):
    source = log(tmp_path)
    before = source.fingerprint(EBNERD)
    folder = drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00")))
    pl.DataFrame({"article_id": [1], "v": [[0.5]]}).write_parquet(folder / "document_vector.parquet")
    mark(folder)
    assert source.fingerprint(EBNERD) == before
    assert reader("ebnerd").artifact_vectors(source.root(EBNERD)) == {}
    (found,) = source.take(EBNERD, "me")
    assert found.state == "malformed" and "document_vector.parquet" in found.why


def test_a_drop_that_changes_after_it_was_taken_changes_nothing(tmp_path):
    source = log(tmp_path)
    folder = drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00")))
    mark(folder)
    source.take(EBNERD, "me")
    before = contents(source)
    files(folder, rows((12, "2023-05-21 09:00")))
    mark(folder)
    (found,) = source.take(EBNERD, "me")
    assert found.state == "changed" and "newsrec correct" in found.why
    shutil.rmtree(folder)
    (found,) = source.take(EBNERD, "me")
    assert found.state == "changed" or "gone" in found.why
    assert contents(source) == before


ARRIVALS = st.sampled_from(["2023-05-21 08:00", "2023-05-22 08:00", "2023-05-23 08:00", "2023-05-24 10:00"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.permutations([21, 22, 23]), st.lists(st.booleans(), min_size=3, max_size=3), st.data())
def test_any_order_of_arrival_gives_the_same_bytes(order, one_by_one, data):
    """Three drops with rows of their day and of the days before, some of them late: the order of taking in and the
    order in which they were written do not matter."""
    arrived = {day: data.draw(ARRIVALS) for day in (21, 22, 23)}

    def taken(order: list[int], one_by_one: list[bool]) -> dict[str, dict[str, str]]:
        with tempfile.TemporaryDirectory() as name:
            home = Path(name)
            source = log(home, 30)
            for day, at_once in zip(order, one_by_one, strict=True):
                shown = [(100 * day + back, f"2023-05-{day - back} 09:00") for back in range(4)]
                articles = [article(day, f"2023-05-{day} 08:00"), article(50, "2023-05-19 10:00", title=f"of {day}")]
                mark(drop(home, f"2023-05-{day}", rows(*shown), articles), arrived[day])
                if at_once:
                    source.take(EBNERD, "me")
            assert set(states(source.take(EBNERD, "me")).values()) == {"taken"}
            return contents(source)

    assert taken(order, one_by_one) == taken([21, 22, 23], [False] * 3)


def _corrected(tmp_path: Path) -> tuple[Any, dict[str, dict[str, str]]]:
    """A log with a drop of 21 May, and its contents before the correction of 20 May."""
    source = log(tmp_path)
    mark(drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00"), (12, "2023-05-20 09:00"))), "2023-05-21 09:00")
    source.take(EBNERD, "me")
    before = contents(source)
    files(tmp_path / "right", rows((21, "2023-05-20 10:00"), (22, "2023-05-19 08:00"), (23, "2023-05-21 08:00")))
    source.correct(EBNERD, LAST, tmp_path / "right", "the robot's clicks", "me")
    return source, before


def test_a_correction_replaces_the_days_rows_and_no_other(tmp_path):
    source, before = _corrected(tmp_path)
    assert impressions(source, "2023-05-20") == [21]
    assert {(n, reason) for _, reason, _, n in quarantine(source, "2023-05-20")} == {
        (22, "outside_correction"),
        (23, "outside_correction"),
    }
    after = contents(source)
    assert [d for d in before if after[d] != before[d]] == ["2023-05-20"]


def test_a_correction_keeps_the_days_articles_that_it_does_not_bring(tmp_path):
    source = log(tmp_path)
    new = article(106, "2023-05-19 06:00", title="Corrected")
    files(tmp_path / "right", rows((21, "2023-05-18 10:00")), [new, article(300, "2023-05-18 09:00")])
    source.correct(EBNERD, date(2023, 5, 18), tmp_path / "right", "why", "me")
    day = reader("ebnerd").tables(source.split(EBNERD)[date(2023, 5, 18)], EBNERD, date(2023, 5, 18))
    found = {r["article_id"]: r["title"] for r in day.articles.to_pylist()}
    assert found == {n: f"Title {n}" for n in (103, 105, 300)} | {106: "Corrected"}


def test_a_correction_is_recorded(tmp_path):
    source, _ = _corrected(tmp_path)
    record = source.landing(EBNERD).records()[-1]
    assert {k: record[k] for k in ("kind", "day", "who", "why", "from", "rows")} == {
        "kind": "correction",
        "day": "2023-05-20",
        "who": "me",
        "why": "the robot's clicks",
        "from": str(tmp_path / "right"),
        "rows": 3,
    }
    assert "landing/2023-05-21/behaviors.parquet" in record["replaces"]["sources"]
    assert record["files"].keys() == {"behaviors.parquet"} and record["at"]


def test_a_correction_is_undone_by_another(tmp_path):
    source, _ = _corrected(tmp_path)
    files(tmp_path / "old", [*rows((12, "2023-05-20 09:00"))])
    source.correct(EBNERD, LAST, tmp_path / "old", "it was no robot", "me")
    assert impressions(source, "2023-05-20") == [12]
    assert [r["kind"] for r in source.landing(EBNERD).records()] == ["opened", "drop", "correction", "correction"]


def test_what_arrives_for_a_corrected_day_is_late(tmp_path):
    source, _ = _corrected(tmp_path)
    mark(drop(tmp_path, "2023-05-22", rows((31, "2023-05-22 08:00"), (32, "2023-05-20 11:00"))), "2023-05-21 09:00")
    assert [d.late for d in source.take(EBNERD, "me")] == [0, 1]
    assert impressions(source, "2023-05-20") == [21]


@pytest.mark.parametrize(
    ("day", "content", "why", "error", "message"),
    [
        (LAST, [(21, "2023-05-20 10:00")], "  ", UsageError, "--why"),
        (LAST, [(21, "2023-05-21 10:00")], "x", DataError, "no row of 2023-05-20"),
        (date(2023, 5, 30), [(21, "2023-05-30 10:00")], "x", DataError, "no data on 2023-05-30"),
    ],
)
def test_a_correction_that_cannot_be_is_refused(tmp_path, day, content, why, error, message):
    source = log(tmp_path)
    before = contents(source)
    files(tmp_path / "right", rows(*content))
    with pytest.raises(error, match=message):
        source.correct(EBNERD, day, tmp_path / "right", why, "me")
    assert contents(source) == before and source.landing(EBNERD).records() == []


def test_another_log_in_the_same_lake_has_its_own_drops(tmp_path):
    source = log(tmp_path)
    mark(drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00"))))
    source.take(EBNERD, "me")
    (tmp_path / "other").mkdir()
    other = log(tmp_path / "other")
    other._lake, other._splits = source._lake, source._splits
    assert other.days(EBNERD)[-1] == LAST


def test_a_moved_log_keeps_its_drops_and_corrections(tmp_path):
    source, _ = _corrected(tmp_path)
    before = contents(source)
    (tmp_path / "log").rename(tmp_path / "moved")
    moved = type(source)(tmp_path / "lake", {"ebnerd": tmp_path / "moved"})
    assert contents(moved) == before
    assert states(moved.take(EBNERD, "me")) == {"2023-05-21": "taken"}
    shutil.copytree(tmp_path / "moved", tmp_path / "copy")
    assert type(source)(tmp_path / "lake", {"ebnerd": tmp_path / "copy"}).days(EBNERD)[-1] == LAST


def test_a_changed_ledger_or_kept_file_is_named(tmp_path):
    source, before = _corrected(tmp_path)
    shutil.rmtree(tmp_path / "lake" / ".split")
    assert contents(source) == before | {"2023-05-20": contents(source)["2023-05-20"]}
    shutil.rmtree(tmp_path / "lake" / ".split")
    kept = next((tmp_path / "lake" / ".landing").rglob("behaviors.parquet"))
    kept.write_bytes(kept.read_bytes() + b" ")
    with pytest.raises(LakeError, match="no longer holds"):
        source.days(EBNERD)
    ledger = source.landing(EBNERD).ledger
    ledger.write_text(ledger.read_text().replace("the robot", "the human"))
    with pytest.raises(LakeError, match="changed after it was written"):
        source.days(EBNERD)


FRESH = multiprocessing.get_context("forkserver")
"""Children of a process without threads: one that has used polars cannot be forked safely."""
FRESH.set_forkserver_preload(["__main__", __name__])


def _correct(home: Path, folder: Path) -> None:
    log(home).landing(EBNERD).correct(LAST, folder, "why", "me", {})


def _take(home: Path) -> None:
    log(home).take(EBNERD, "me")


def test_killed_at_every_step_of_a_correction(tmp_path):
    source = log(tmp_path)
    old = contents(source)
    right = files(tmp_path / "right", rows((21, "2023-05-20 10:00")))
    source.landing(EBNERD).check(right, LAST)  # what the children need of the reader is then cached
    seen = []
    for stop in range(1, 200):
        died = dies_before(stop, _correct, tmp_path, right, start="forkserver")
        seen.append(impressions(source, "2023-05-20"))
        assert {d: c for d, c in contents(source).items() if d != "2023-05-20"} == {
            d: c for d, c in old.items() if d != "2023-05-20"
        }
        if not died:
            break
    assert not died and stop > 15
    changed = seen.index([21])
    assert changed > 5 and all(s == [5] for s in seen[:changed]) and all(s == [21] for s in seen[changed:])


def test_killed_at_every_step_of_taking_in(tmp_path):
    source = log(tmp_path)
    folder = drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00")))
    mark(folder)
    source.landing(EBNERD).check(folder, NEXT)
    for stop in range(1, 200):
        died = dies_before(stop, _take, tmp_path, start="forkserver")
        taken = source.days(EBNERD)[-1] == NEXT
        assert states(source.landing(EBNERD).drops()) == {"2023-05-21": "taken" if taken else "complete"}
        if not died:
            break
    assert not died and stop > 15
    assert [r["kind"] for r in source.landing(EBNERD).records()] == ["opened", "drop"], "taken in once"
    assert impressions(source, "2023-05-21") == [11]


def test_killed_at_every_step_of_landing(tmp_path):
    source = log(tmp_path)
    delivery = files(tmp_path / "delivery", rows((11, "2023-05-21 08:00")), [article(107, "2023-05-21 07:30")])
    arrived, seen = now_ms(), []
    for stop in range(1, 200):
        died = dies_before(stop, land, delivery, tmp_path / "log", NEXT, arrived, start="forkserver")
        seen.append(states(source.landing(EBNERD).drops()))
        if not died:
            break
    assert not died and stop > 15
    assert all(s in ({}, {"2023-05-21": "complete"}) for s in seen) and seen[0] == {}
    assert [p.name for p in (tmp_path / "log" / LANDING / ".staging").iterdir()] == ["sweep"]
    assert states(source.take(EBNERD, "me")) == {"2023-05-21": "taken"}


def test_two_processes_take_in_once(tmp_path):
    source = log(tmp_path)
    folder = drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00")))
    mark(folder)
    workers = [FRESH.Process(target=_take, args=(tmp_path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0] * 3
    assert [r["kind"] for r in source.landing(EBNERD).records()] == ["opened", "drop"]


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    source = log(tmp_path)
    folder = drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00")))
    mark(folder)
    monkeypatch.setattr(module, "copy_file", lambda *_: "0" * 64)
    (found,) = source.take(EBNERD, "me")
    assert found.state == "malformed" and "changed while it was read" in found.why
    monkeypatch.undo()
    assert states(source.take(EBNERD, "me")) == {"2023-05-21": "taken"}, "the next look finds it still"


def test_an_hour_file_of_globo_is_a_drop(tmp_path):
    globo = dataset("globo")
    write_hour(tmp_path / "log", 0, [globo_click(1, 1, "2017-10-02 04:00", 5, "2017-10-02 04:01")])
    hour = write_hour(tmp_path / "next", 24, [globo_click(2, 2, "2017-10-03 04:00", 6, "2017-10-03 04:01")])
    folder = tmp_path / "log" / LANDING / "2017-10-03"
    folder.mkdir(parents=True)
    shutil.copy(hour, folder)
    mark_only(folder)
    source = DatasetSource(tmp_path / "lake", {"globo": tmp_path / "log"})
    assert [d.line for d in source.take(globo, "me")] == ["landing/2017-10-03: taken, 1 rows, 0 of them late"]
    assert source.days(globo) == [date(2017, 10, 2), date(2017, 10, 3)]
    tables = reader("globo").tables(source.split(globo)[date(2017, 10, 3)], globo, date(2017, 10, 3))
    assert tables.clicks["article_id"].to_pylist() == [6]
    assert list(source.fingerprint(globo)) == ["clicks/clicks_hour_000.csv.gz", "landing/2017-10-03/" + hour.name]
