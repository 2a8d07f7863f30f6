"""Where a log begins and ends when nothing says so: clocks that are far off, and honest logs that are not cut."""

import json
from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.datasets import DATASETS
from ml.errors import DataError
from ml.own_log import declared_dataset
from ml.readers import DayTables, reader
from ml.readers.span import SILENCE, last_carrying, remote_days, span_of, usual_rows
from tests.ml.bundles import globo_click, history, impression, write_bundle, write_hour
from tests.ml.test_readers_ebnerd import assert_conserved
from tests.ml.test_readers_mind import news, write_mind
from tests.ml.test_readers_own_log import OSLO, UTC_TIMES, click, write_log

DAYS = 10
A_DAY = 40
START = datetime(2023, 5, 1, 8)


def held_back(out: Path) -> list[dict[str, Any]]:
    path = out / "quarantine.parquet"
    return pq.read_table(path).to_pylist() if path.exists() else []


def split_and_read(name: str, root: Path, out: Path) -> dict[date, DayTables]:
    known = DATASETS.get(name) or declared_dataset(root)
    found = reader(name)
    days = {d: found.tables(out / str(d), known, d) for d in found.split(root, known, out)}
    for tables in days.values():
        assert_conserved(tables)
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == [str(d) for d in days]
    return days


# The rule


def test_a_usual_day_is_no_robot_and_no_stray() -> None:
    assert usual_rows({0: 7}) == 7
    assert usual_rows({0: 100, 1: 90, 2: 80, 3: 1, 4: 1}) == 80
    assert usual_rows({0: 5_000_000, 1: 100, 2: 90}) == 90
    assert usual_rows(dict.fromkeys(range(10), 100) | dict.fromkeys(range(20, 70), 1)) == 100


@pytest.mark.parametrize(
    ("rows", "span"),
    [
        ({0: 3}, (0, 0)),
        ({0: 3, 1: 2, 2: 1}, (0, 2)),
        (dict.fromkeys(range(10), 100) | {10: 1}, (0, 10)),  # the next day may be cut short
        (dict.fromkeys(range(10), 100) | {10: 1, 11: 1}, (0, 10)),
        (dict.fromkeys(range(10), 100) | {11: 5}, (0, 11)),  # a twentieth of a usual day
        (dict.fromkeys(range(10), 100) | {11: 4}, (0, 9)),
        (dict.fromkeys(range(10), 100) | {9 + 17 * i: 1 for i in range(1, 50)}, (0, 9)),
        (dict.fromkeys(range(10), 100) | {600: 30}, (0, 9)),  # many, but on the far side of a silence
        (dict.fromkeys(range(10), 100) | {600: 49, 20: 1}, (0, 9)),  # a near one, shielded by a far one
        (dict.fromkeys(range(10), 100) | {600: 53}, (0, 600)),  # a twentieth of all: too many to be a few
        (dict.fromkeys(range(10), 100) | {-19_000: 3, -40: 3}, (0, 9)),
        (dict.fromkeys(range(10), 100) | {-SILENCE - 1: 3}, (-SILENCE - 1, 9)),
        (dict.fromkeys(range(10), 100) | {-SILENCE - 2: 3}, (0, 9)),
        ({d: 2**d for d in range(24)}, (0, 23)),  # a site that grows, from its first reader on
        ({d: round(10_000 * 0.8**d) for d in range(30)}, (0, 25)),  # one that is given up
        ({0: 10_000_000} | dict.fromkeys(range(1, 30), 10000), (0, 29)),  # a robot
        ({d: 1_000 if d % 7 == 0 else 20 for d in range(70)}, (0, 69)),  # a weekly newsletter
        (dict.fromkeys((*range(10), *range(31, 40)), 100), (0, 39)),  # an outage of three weeks
        ({40 * d: 1 for d in range(100)}, (160, 3800)),
    ],
)
def test_the_span(rows: dict[int, int], span: tuple[int, int]) -> None:
    assert span_of(rows) == span


@given(
    st.lists(st.integers(50, 1_000), min_size=2, max_size=60),
    st.dictionaries(st.integers(SILENCE + 2, 3_000), st.integers(1, 2), max_size=3),
    st.dictionaries(st.integers(SILENCE + 2, 3_000), st.integers(1, 2), max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_a_few_rows_far_away_change_nothing(log: list[int], before: dict[int, int], after: dict[int, int]) -> None:
    """Days of 50 to 1,000 rows one after the other are the log; of at least 100 rows six are a few only where they are
    fewer than a twentieth."""
    rows = dict(enumerate(log))
    far = {-d: n for d, n in before.items()} | {len(log) - 1 + d: n for d, n in after.items()}
    few = max(sum(before.values()), sum(after.values())) < 0.05 * (sum(log) + sum(far.values()))
    assert span_of(rows) == (0, len(log) - 1)
    if few:
        assert span_of(rows | far) == (0, len(log) - 1)


@given(st.dictionaries(st.integers(-2_000, 2_000), st.integers(1, 5_000), min_size=1, max_size=40), st.integers(-9, 9))
@settings(max_examples=200, deadline=None)
def test_the_span_moves_with_the_log_and_holds_its_largest_day(rows: dict[int, int], shift: int) -> None:
    first, last = span_of(rows)
    assert first in rows and last in rows
    assert first <= max(rows, key=lambda d: (rows[d], d)) <= last
    assert span_of({d + shift: n for d, n in rows.items()}) == (first + shift, last + shift)
    inside = sum(n for d, n in rows.items() if first <= d <= last)
    before = sum(n for d, n in rows.items() if d < first)
    assert before < 0.05 * sum(rows.values()) or not before
    assert inside > 0 and last_carrying(rows) in rows


# The readers: ten days of forty rows, and clocks that are off


def clocks(*far: int) -> list[datetime]:
    """Times of ten days of forty clicks, then those of single rows so many days after the last."""
    log = [START + timedelta(days=d, minutes=m) for d in range(DAYS) for m in range(A_DAY)]
    return log + [START + timedelta(days=DAYS - 1 + d) for d in far]


@pytest.mark.parametrize(
    ("rows", "remote"),
    [
        (dict.fromkeys(range(10), 3) | {20: 1}, {20: 10}),
        (dict.fromkeys(range(10), 3) | {-5: 1}, {-5: 4}),
        (dict.fromkeys(range(20), 3) | {40: 1, 41: 2}, {40: 20, 41: 20}),
        (dict.fromkeys((0, 7, 14, 21, 28, 42), 1), {}),  # a weekly letter, once left out
        (dict.fromkeys((0, 7, 14, 21, 28, 60), 1), {60: 31}),
        (dict.fromkeys(range(10), 3) | {20: 4}, {}),  # too many for a clock
        (dict.fromkeys(range(10), 3) | {12: 1}, {}),
        ({0: 9, 1: 9, 20: 1}, {}),  # nothing is known of its silences
    ],
)
def test_days_far_from_all_others(rows: dict[int, int], remote: dict[int, int]) -> None:
    assert remote_days(rows) == remote


def test_an_own_log_that_names_no_days(tmp_path: Path) -> None:
    far = (2, 3, 40, 400, 999, 20_000, -60, -19_000)
    rows = [click(1, i, time) for i, time in enumerate(clocks(*far))]
    days = split_and_read("own", write_log(tmp_path / "in", clicks=rows), tmp_path / "out")
    assert list(days) == [date(2023, 5, d) for d in range(1, 11)]
    found = {
        r["source"]: (r["table"], r["reason"], json.loads(r["row"])["article_id"]) for r in held_back(tmp_path / "out")
    }
    first = DAYS * A_DAY
    assert found == {f"clicks.parquet:{first + i + 1}": ("clicks", "outside_days", first + i) for i in range(len(far))}
    assert sum(t.counts["clicks"]["rows_in"] for t in days.values()) + len(far) == len(rows)


def test_the_day_after_the_last_whole_one_is_the_logs(tmp_path: Path) -> None:
    rows = [click(1, i, time) for i, time in enumerate(clocks(1))]
    days = split_and_read("own", write_log(tmp_path / "in", clicks=rows), tmp_path / "out")
    assert len(days) == DAYS + 1 and not held_back(tmp_path / "out")


@pytest.mark.parametrize(
    ("said", "days"),
    [
        ("first_day = 2023-05-01\nlast_day = 2024-06-13\n", DAYS + 1),
        ("last_day = 2024-06-13\n", DAYS + 1),
        ("last_day = 2023-05-05\n", 5),
        ("first_day = 2023-05-06\n", 5),
    ],
)
def test_days_that_a_log_names_count(tmp_path: Path, said: str, days: int) -> None:
    rows = [click(1, i, time) for i, time in enumerate(clocks(400))]
    root = write_log(tmp_path / "in", UTC_TIMES + said, clicks=rows)
    found = split_and_read("own", root, tmp_path / "out")
    assert len(found) == days


@pytest.mark.parametrize("few", [1, 20])
def test_a_silence_amid_many_rows_stops_an_own_log(tmp_path: Path, few: int) -> None:
    """A sixth of all rows lies 610 days later: which of both is the log, it must say itself."""
    rows = [click(1, i, START) for i in range(5 * few)]
    rows += [click(1, i, START + timedelta(days=611)) for i in range(few)]
    root = write_log(tmp_path / "in", clicks=rows)
    message = (
        rf"no row for 610 days between 2023-05-01 \({5 * few} rows.* 2025-01-01 \({few} rows.*is a clock off\? Name"
    )
    with pytest.raises(DataError, match=message):
        declared_dataset(root)
    said = UTC_TIMES + "first_day = 2023-05-01\nlast_day = 2023-05-02\n"
    days = split_and_read("own", write_log(root, said), tmp_path / "out")
    assert list(days) == [date(2023, 5, 1)] and len(held_back(tmp_path / "out")) == few


def test_no_click_on_the_days_that_a_log_names(tmp_path: Path) -> None:
    root = write_log(tmp_path, UTC_TIMES + "first_day = 2024-01-01\n", clicks=[click(1, 1, START)])
    with pytest.raises(DataError, match=r"no click falls in 2024-01-01\.\., the days of paper: correct first_day"):
        declared_dataset(root)


def test_a_million_absurd_clocks_are_counted_as_two_days(tmp_path: Path) -> None:
    """Times of every millennium must not make a table of millions of days, nor an error but the one line."""
    rows = [click(1, i, datetime(1 + i, 1, 1)) for i in range(1_800)]
    root = write_log(tmp_path, OSLO + 'times_without_zone = "UTC"\n', clicks=rows)
    with pytest.raises(DataError, match="is a clock off"):
        declared_dataset(root)


def test_ebnerd(tmp_path: Path) -> None:
    shown = [impression(i + 1, 1, str(t), [5, 6], [5], read_time=0.0) for i, t in enumerate(clocks(2, 9, 25, -60))]
    read = [history(2, ("2023-04-30 10:00", 6), ("2023-02-10 10:00", 7), ("2023-06-05 10:00", 8))]
    root = write_bundle(tmp_path / "in", {"train": shown}, {"train": read})
    days = split_and_read("ebnerd", root, tmp_path / "out")
    assert list(days) == [date(2023, 4, 30), *(date(2023, 5, d) for d in range(1, 11))]
    found = [(r["table"], r["reason"], r["source"]) for r in held_back(tmp_path / "out")]
    assert Counter(found) == {
        ("impressions", "after_log_end", "train/behaviors.parquet"): 3,
        ("impressions", "before_log_start", "train/behaviors.parquet"): 1,
        ("clicks", "after_log_end", "train/history.parquet"): 1,
        ("clicks", "before_log_start", "train/history.parquet"): 1,
    }
    ids = {json.loads(r["row"]).get("impression_id") for r in held_back(tmp_path / "out")}
    assert ids == {401, 402, 403, 404, None}


def test_mind(tmp_path: Path) -> None:
    log = [f"{d * 30 + m}|U7|11/{9 + d}/2019 8:{m:02d}:00 AM||N1-0 N2-1" for d in range(3) for m in range(30)]
    far = [f"{900 + d}|U7|11/{d}/2019 8:00:00 AM||N1-0 N{d}-1" for d in (13, 20)]
    root = write_mind(tmp_path / "in", "train", [*log, *far], [news(1), news(13), news(20)])
    days = split_and_read("mind", root, tmp_path / "out")
    assert list(days) == [date(2019, 11, d) for d in (9, 10, 11)]
    assert {(r["table"], r["reason"], r["source"]) for r in held_back(tmp_path / "out")} == {
        ("impressions", "after_log_end", "train/behaviors.tsv:91"),
        ("impressions", "after_log_end", "train/behaviors.tsv:92"),
        ("articles", "never_shown", "train/news.tsv:2"),
        ("articles", "never_shown", "train/news.tsv:3"),
    }


def test_globo_with_sessions_that_start_on_a_wrong_day(tmp_path: Path) -> None:
    """A session whose start is as far off as its clicks does not move the end of the log."""
    lines = [
        globo_click(m, m, f"2017-10-0{d} 04:00", 50, f"2017-10-0{d} 05:{m:02d}") for d in (1, 2, 3) for m in range(50)
    ]
    far = [globo_click(99, 99, "2017-10-09 04:00", 50, f"2017-10-{d} 05:00") for d in ("09", "10")]
    write_hour(tmp_path / "in", 0, [*lines, *far])
    days = split_and_read("globo", tmp_path / "in", tmp_path / "out")
    assert list(days) == [date(2017, 10, d) for d in (1, 2, 3)]
    rows = held_back(tmp_path / "out")
    assert [(r["reason"], json.loads(r["row"])["user_id"]) for r in rows] == [("after_log_end", 99)] * 2
