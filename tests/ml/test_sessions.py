"""Interactions, session ranges and the exclusion mask against plain loops; the real log of Globo.com where present."""

import gzip
import hashlib
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import schema
from ml.clock import MS_PER_MINUTE
from ml.errors import DataError
from ml.log import Clicks
from ml.sessions import (
    GAP_MINUTES,
    _reader_ranges,
    build_interactions,
    exclusion_mask,
    read_sessions,
    session_ranges,
    write_sessions,
)
from tests.ml.worlds import sorted_clicks, tiny_world

GAP = GAP_MINUTES * MS_PER_MINUTE
Row = tuple[int, int, int, int | None]
"""user, article, time, session of the source"""


def write_clicks(path: Path, rows: list[Row]) -> Path:
    user, article, time, session = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    columns = {name: pa.nulls(len(rows), schema.CLICKS.field(name).type) for name in schema.CLICKS.names}
    columns |= {
        "user_id": pa.array(user, pa.int64()),
        "article_id": pa.array(article, pa.int64()),
        "time": pa.array(time, pa.int64()).cast(schema.TIME),
        "session_id": pa.array(session, pa.int64()),
        "read_time": pa.array(np.arange(len(rows)), pa.float32()),
        "device": pa.array(article, pa.int32()),
    }
    pq.write_table(pa.table(columns, schema=schema.CLICKS), path)
    return path


def build(files: list[Path], out: Path, start: int = 0, end: int = 10**15, threads: int = 2) -> pa.Table:
    with duckdb.connect(config={"threads": threads}) as con:
        rows = build_interactions(con, files, out, start, end)
    table = pq.read_table(out)
    assert table.num_rows == rows
    assert table.schema.equals(schema.INTERACTIONS)
    return table


def naive_sessions(rows: list[Row]) -> list[tuple[int, int, int, int]]:
    """(user, time, article, session number), reader by reader in a loop."""
    out = []
    readers: dict[int, list[Row]] = {}
    for row in rows:
        readers.setdefault(row[0], []).append(row)
    for user in sorted(readers):
        number, before = 0, None
        for _, article, time, session in sorted(readers[user], key=lambda r: (r[2], r[1], r[3] is None, r[3])):
            if before is not None:
                known = session is not None and before[1] is not None
                number += session != before[1] if known else time - before[0] >= GAP
            out.append((user, time, article, number))
            before = (time, session)
    return out


CLICK = st.tuples(
    st.integers(-2, 2), st.integers(0, 3), st.integers(0, 8).map(lambda i: i * GAP // 3), st.sampled_from([None, 5, 6])
)


@settings(max_examples=15, deadline=None)
@given(days=st.lists(st.lists(CLICK, max_size=12), min_size=1, max_size=2))
def test_interactions_are_sorted_and_sessions_numbered(tmp_path_factory, days: list[list[Row]]) -> None:
    folder = tmp_path_factory.mktemp("clicks")
    files = [write_clicks(folder / f"{i}.parquet", rows) for i, rows in enumerate(days)]
    table = build(files, folder / "out.parquet")
    columns = (table.column(c).cast(pa.int64()).to_pylist() for c in ("user_id", "time", "article_id", "session_id"))
    assert list(zip(*columns, strict=True)) == naive_sessions([row for rows in days for row in rows])
    assert table.column("device").to_pylist() == table.column("article_id").to_pylist()


def test_a_session_ends_after_thirty_minutes_without_a_click(tmp_path: Path) -> None:
    rows: list[Row] = [(1, 0, 0, None), (1, 1, GAP - 1, None), (1, 2, 2 * GAP - 1, None), (2, 0, 5 * GAP, None)]
    assert build([write_clicks(tmp_path / "a", rows)], tmp_path / "out").column("session_id").to_pylist() == [
        0,
        0,
        1,
        0,
    ]


def test_a_session_of_the_source_outlasts_a_gap_and_may_be_short(tmp_path: Path) -> None:
    rows: list[Row] = [(1, 0, 0, 9), (1, 1, 10 * GAP, 9), (1, 2, 10 * GAP + 1, 3), (1, 3, 10 * GAP + 2, 9)]
    assert build([write_clicks(tmp_path / "a", rows)], tmp_path / "out").column("session_id").to_pylist() == [
        0,
        0,
        1,
        2,
    ]


def test_the_window_holds_its_start_and_not_its_end(tmp_path: Path) -> None:
    rows: list[Row] = [(1, i, i * 1000, None) for i in range(10)]
    table = build([write_clicks(tmp_path / "a", rows)], tmp_path / "out", start=3000, end=7000)
    assert table.column("article_id").to_pylist() == [3, 4, 5, 6]


def test_no_clicks_give_an_empty_table(tmp_path: Path) -> None:
    assert build([], tmp_path / "none").num_rows == 0
    assert build([write_clicks(tmp_path / "a", [])], tmp_path / "out").num_rows == 0


def test_a_file_without_a_column_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [1]}), tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"bad\.parquet: no column 'article_id'"):
        build([tmp_path / "bad.parquet"], tmp_path / "out")


def test_the_same_clicks_give_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the threads, the memory, the passes and the order of rows; more rows than a row group, many ties."""
    rng = np.random.default_rng(0)
    n = 200_000
    user, article, time = rng.integers(0, 2000, n), rng.integers(0, 50, n), rng.integers(0, 3000, n) * 60_000
    columns = {name: pa.nulls(n, schema.CLICKS.field(name).type) for name in schema.CLICKS.names}
    columns |= {"user_id": pa.array(user), "article_id": pa.array(article), "time": pa.array(time).cast(schema.TIME)}
    columns["impression_id"] = pa.array(rng.integers(0, 3, n))
    table = pa.table(columns, schema=schema.CLICKS)
    shuffled = table.take(pa.array(rng.permutation(n)))
    digests = set()
    ways = (
        (table, 2, n),
        (table, 1, n),
        (shuffled, 2, n),
        (shuffled, 2, 70_000),
        (table, 2, 150_000),
        (table, 1, 30_000),
    )
    for number, (source, threads, pass_rows) in enumerate(ways):
        files = [tmp_path / f"{number}a.parquet", tmp_path / f"{number}b.parquet"]
        pq.write_table(source.slice(0, n // 3), files[0])
        pq.write_table(source.slice(n // 3), files[1], row_group_size=20_000)
        with duckdb.connect(config={"threads": threads, "memory_limit": "150MB"}) as con:
            assert build_interactions(con, files, tmp_path / f"{number}.parquet", 0, 10**12, pass_rows=pass_rows) == n
        digests.add(hashlib.sha256((tmp_path / f"{number}.parquet").read_bytes()).hexdigest())
    assert len(digests) == 1


@settings(max_examples=40, deadline=None)
@given(days=st.lists(st.lists(CLICK, max_size=8, unique=True), min_size=1, max_size=2), huge=st.booleans())
def test_published_order_and_any_other_order_lead_to_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, days: list[list[Row]], huge: bool
) -> None:
    """Files as they are published take the radix sort, shuffled ones the sort by all columns."""
    folder = tmp_path_factory.mktemp("clicks")
    wide = 2**61 if huge else 1
    rows = [[(u * wide, a, t + 1_000_000 * day, s) for u, a, t, s in of] for day, of in enumerate(days)]
    published = [sorted(of, key=lambda r: (r[2], r[0], r[1], r[3] is None, r[3])) for of in rows]
    tables = []
    for name, of_days in (("published", published), ("reversed", [of[::-1] for of in published[::-1]])):
        files = [write_clicks(folder / f"{name}{i}.parquet", of) for i, of in enumerate(of_days)]
        tables.append(build(files, folder / f"{name}.parquet").drop_columns(["read_time"]))
    assert tables[0].equals(tables[1])


@settings(max_examples=40, deadline=None)
@given(clicks=st.lists(st.integers(1, 9), max_size=12), pass_rows=st.integers(1, 20))
def test_passes_hold_every_reader_once_and_no_more_clicks_than_allowed(clicks: list[int], pass_rows: int) -> None:
    user = 3 * np.arange(len(clicks))
    ranges = _reader_ranges(user, np.array(clicks, dtype=np.int64), pass_rows)
    held = [[c for u, c in zip(user, clicks, strict=True) if first <= u <= last] for first, last in ranges]
    assert [c for of in held for c in of] == clicks
    assert all(len(of) == 1 or sum(of) <= pass_rows for of in held)
    assert all(sum(a) + b[0] > pass_rows for a, b in pairwise(held)), "a pass could have held one reader more"


CLICKS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 30)), max_size=60)


def of_tuples(rows: list[tuple[int, int, int]]) -> Clicks:
    user, article, time = (np.array([r[i] for r in rows], dtype=np.int64) for i in range(3))
    return sorted_clicks(user, article, time)


@settings(max_examples=150, deadline=None)
@given(CLICKS, st.integers(1, 5), st.integers(0, 3), st.integers(0, 30))
def test_ranges_are_the_last_clicks_strictly_before_each_target(
    rows: list[tuple[int, int, int]], max_history: int, min_history: int, middle: int
) -> None:
    clicks = of_tuples(rows)
    spans = {"train": (5, middle), "validation": (middle, 25)}
    expected = []
    for split, (start, end) in spans.items():
        for target in range(len(clicks)):
            if not start <= clicks.time[target] < end:
                continue
            own = [r for r in range(target) if clicks.user[r] == clicks.user[target]]
            history = [r for r in own if clicks.time[r] < clicks.time[target]][-max_history:]
            if len(history) >= min_history:
                first = history[0] if history else min((r for r in own), default=target)
                expected.append({"first": first, "target": target, "split": split})
    found = session_ranges(clicks.user, clicks.time, spans, max_history, min_history)
    assert found.schema.equals(schema.SESSIONS)
    assert found.to_pylist() == expected


@settings(max_examples=150, deadline=None)
@given(CLICKS, st.integers(0, 31))
def test_the_mask_is_equation_3_2_cut_at_the_boundary(rows: list[tuple[int, int, int]], boundary: int) -> None:
    clicks = of_tuples(rows)
    targets = np.arange(len(clicks))
    found = exclusion_mask(clicks, targets, boundary)
    assert found.dtype == np.int32
    assert found.shape == (len(clicks), 11)
    for i in targets:
        own = np.flatnonzero(clicks.user == clicks.user[i])
        place = int(np.flatnonzero(own == i)[0])
        for j in range(11):
            other = place + j - 5
            known = 0 <= other < len(own) and (j <= 5 or clicks.time[own[other]] < boundary)
            assert found[i, j] == (clicks.article[own[other]] if known else -1)


def test_the_mask_of_chosen_targets() -> None:
    clicks = of_tuples([(1, article, 10 * article) for article in range(9)])
    assert exclusion_mask(clicks, np.array([6, 0]), 75).tolist() == [
        [1, 2, 3, 4, 5, 6, 7, -1, -1, -1, -1],
        [-1, -1, -1, -1, -1, 0, 1, 2, 3, 4, 5],
    ]
    assert exclusion_mask(clicks, np.array([], dtype=np.int64), 75).shape == (0, 11)


def test_ranges_are_bound_to_their_interactions(tmp_path: Path) -> None:
    clicks = tiny_world().clicks
    table = session_ranges(clicks.user, clicks.time, {"train": (0, 10**15)})
    path = tmp_path / "sessions.parquet"
    write_sessions(table, path, "abc")
    read = read_sessions(path, "abc")
    assert len(read) == len(table)
    assert read.first.tolist() == table.column("first").to_pylist()
    assert read.target[read.split == "train"].tolist() == table.column("target").to_pylist()
    assert (read.first < read.target).all()
    with pytest.raises(DataError, match="made for interactions abc, not for abd: rebuild session_splits"):
        read_sessions(path, "abd")
    pq.write_table(table, path)
    with pytest.raises(DataError, match="unknown"):
        read_sessions(path, "abc")
    before = path.read_bytes()
    write_sessions(table, path, "abc")
    write_sessions(table, tmp_path / "again.parquet", "abc")
    assert path.read_bytes() == (tmp_path / "again.parquet").read_bytes() != before


@pytest.mark.real
def test_globo_keeps_its_sessions(real_data, tmp_path: Path) -> None:
    """An hour of the real log: the source's sessions stay, and are numbered from 0 within a reader."""
    with gzip.open(real_data("globo") / "clicks/clicks_hour_034.csv.gz") as file:
        raw = pa_csv.read_csv(file)
    rows = list(
        zip(
            *(raw.column(c).to_pylist() for c in ("user_id", "click_article_id", "click_timestamp", "session_id")),
            strict=True,
        )
    )
    table = build([write_clicks(tmp_path / "a", rows)], tmp_path / "out")
    columns = (table.column(c).cast(pa.int64()).to_pylist() for c in ("user_id", "time", "article_id", "session_id"))
    assert list(zip(*columns, strict=True)) == naive_sessions(rows)
    sessions = raw.group_by(["user_id", "session_id"]).aggregate([]).num_rows
    ours = table.group_by(["user_id", "session_id"]).aggregate([]).num_rows
    assert sessions <= ours <= 1.01 * sessions  # a few readers switch between two open sessions
