"""The Globo reader: hour files, days, clocks past the log's end."""

import json
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml import schema
from ml.datasets import DATASETS
from ml.errors import DataError
from ml.readers import DayTables, reader, text
from ml.readers.account import read_account
from tests.ml.bundles import GLOBO_COLUMNS, globo_click, ms, write_hour
from tests.ml.test_readers_ebnerd import assert_conserved, columns, digests, reasons

GLOBO = DATASETS["globo"]
READER = reader("globo")
D1, D2 = date(2017, 10, 1), date(2017, 10, 2)
START = "2017-10-01 02:37"


def split_and_read(root: Path, out: Path) -> dict[date, DayTables]:
    """All days of a log."""
    return {day: READER.tables(out / str(day), GLOBO, day) for day in READER.split(root, GLOBO, out)}


def small_log(root: Path, packed: bool = True) -> Path:
    """Two days (from 03:00 UTC), three readers, a header-only hour."""
    first = [
        globo_click(0, 11, START, 50, "2017-10-01 03:00"),
        globo_click(0, 11, START, 60, "2017-10-01 03:00:30"),
        globo_click(1, 12, START, 50, "2017-10-02 03:00"),
        globo_click(1, 12, START, 50, "2017-10-02 03:00"),
    ]
    write_hour(root, 0, first, packed=packed)
    write_hour(root, 1, [], packed=packed)
    write_hour(root, 2, [globo_click(2, 13, "2017-10-02 04:00", 70, "2017-10-02 05:00")], packed=packed)
    return root


@pytest.mark.parametrize("packed", [True, False])
def test_clicks(tmp_path: Path, packed: bool) -> None:
    days = split_and_read(small_log(tmp_path / "in", packed), tmp_path / "out")
    names = ("user_id", "article_id", "time", "session_id", "device", "os", "region", "referrer", "read_time")
    assert columns(days[D1].clicks, *names) == [
        (0, 50, ms("2017-10-01 03:00"), 11, 3, 20, 21, 2, None),
        (0, 60, ms("2017-10-01 03:00:30"), 11, 3, 20, 21, 2, None),
    ]
    assert columns(days[D2].clicks, "user_id", "article_id") == [(1, 50), (2, 70)]
    assert days[D2].counts["clicks"]["duplicates"] == 1
    for tables in days.values():
        assert_conserved(tables)
        assert tables.articles.schema.equals(schema.ARTICLES)
        assert tables.clicks.schema.equals(schema.CLICKS)
        assert len(tables.impressions) == 0


def test_first_click_stands_in_for_publication(tmp_path: Path) -> None:
    days = split_and_read(small_log(tmp_path / "in"), tmp_path / "out")
    names = ("article_id", "published", "published_is_first_seen", "category_id")
    assert columns(days[D1].articles, *names) == [
        (50, ms("2017-10-01 03:00"), True, None),
        (60, ms("2017-10-01 03:00:30"), True, None),
    ]


def test_metadata_gives_the_category(tmp_path: Path) -> None:
    root = small_log(tmp_path / "in")
    lines = (
        "article_id,category_id,created_at_ts,publisher_id,words_count",
        "60,7,1,0,100",
        "70,8,1,0,100",
        "99,9,1,0,1",
    )
    (root / "articles_metadata.csv").write_text("\n".join(lines) + "\n")
    days = split_and_read(root, tmp_path / "out")
    assert columns(days[D1].articles, "article_id", "category_id") == [(50, None), (60, 7)]
    assert columns(days[D2].articles, "article_id", "category_id") == [(50, None), (70, 8)]


def test_clocks_past_the_end_are_held_back(tmp_path: Path) -> None:
    root = small_log(tmp_path / "in")
    late = [
        globo_click(3, 14, "2017-10-02 04:00", 50, "2017-10-03 02:59:59"),  # the last session's day still runs
        globo_click(3, 14, "2017-10-02 04:00", 60, "2017-10-03 03:00"),
        globo_click(3, 14, "2017-10-02 04:00", 70, "2017-11-04 03:00"),
        globo_click("x", 14, "2017-10-02 04:00", 70, "2017-10-02 04:00"),
        globo_click(3, 14, "2017-10-02 04:00", "", "2017-10-02 04:00"),
        globo_click(3, 14, "2017-10-02 04:00", 80, 10**18),
    ]
    write_hour(root, 3, late)
    days = split_and_read(root, tmp_path / "out")
    assert list(days) == [D1, D2]
    assert not (tmp_path / "out" / "2017-10-03").exists()
    assert columns(days[D2].clicks, "user_id", "article_id") == [(1, 50), (2, 70), (3, 50)]
    held_back = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert sorted((r["reason"], json.loads(r["row"])["click_article_id"]) for r in held_back) == [
        ("after_log_end", 60),
        ("outside_days", 70),
        ("outside_days", 80),
        ("unparsable", "70"),
    ]
    file = "clicks/clicks_hour_003.csv.gz"  # with the line, but for rows that had a place in a day
    assert {r["source"] for r in held_back} == {file, f"{file}:4", f"{file}:5", f"{file}:7"}
    assert Counter(days[D2].quarantine["reason"].to_pylist()) == {"null_id": 1}


def test_equal_sources_give_equal_bytes(tmp_path: Path) -> None:
    root = small_log(tmp_path / "in")
    for out in ("a", "b"):
        READER.split(root, GLOBO, tmp_path / out)
    assert digests(tmp_path / "a") == digests(tmp_path / "b") != {}


@pytest.mark.parametrize("most", [1, 2, 3])
def test_lines_in_smaller_pieces_are_the_same_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1,2\n\n3,4\n5\n\n6,7")
    whole = list(text.pieces(path, ["b"]))  # the last line ends with the file and is a block by itself
    monkeypatch.setattr(text, "_LINES", most)
    parts = list(text.pieces(path, ["b"]))
    assert len(whole) == 2 and len(parts) == -(-5 // most) + 1
    assert pl.concat([p.rows for p in parts]).rows() == [("2", 2), ("4", 4), ("7", 7)]
    for name in ("rows", "bad"):
        assert pl.concat([getattr(p, name) for p in parts]).equals(pl.concat([getattr(p, name) for p in whole]))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="point the data root at the Globo log"):
        READER.sources(tmp_path)


def test_a_file_and_its_unpacked_copy(tmp_path: Path) -> None:
    small_log(tmp_path)
    write_hour(tmp_path, 1, [], packed=False)
    with pytest.raises(DataError, match="remove one of them"):
        READER.sources(tmp_path)


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    small_log(tmp_path / "elsewhere")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "clicks").symlink_to(tmp_path / "elsewhere" / "clicks")
    with pytest.raises(DataError, match="outside the data root"):
        READER.sources(tmp_path / "root")


def test_missing_column(tmp_path: Path) -> None:
    write_hour(tmp_path / "in", 0, [], header=GLOBO_COLUMNS.replace("click_timestamp", "when"))
    with pytest.raises(DataError, match=r"clicks_hour_000.csv.gz has no column click_timestamp"):
        READER.split(tmp_path / "in", GLOBO, tmp_path / "out")


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_damaged_file(tmp_path: Path, keep: float) -> None:
    lines = [globo_click(i, i, START, 37 * i, "2017-10-01 05:00") for i in range(2000)]
    path = write_hour(tmp_path / "in", 0, lines)
    packed = path.read_bytes()
    path.write_bytes(packed[: int(len(packed) * keep)])
    with pytest.raises(DataError, match=r"clicks_hour_000.csv.gz cannot be read .*fetch it again"):
        READER.split(tmp_path / "in", GLOBO, tmp_path / "out")


def test_an_empty_log_is_refused(tmp_path: Path) -> None:
    write_hour(tmp_path / "in", 0, [])
    with pytest.raises(DataError, match=r"no click falls in 2017-10-01\.\.2017-10-17"):
        READER.split(tmp_path / "in", GLOBO, tmp_path / "out")


def test_blank_lines_hold_no_row(tmp_path: Path) -> None:
    root = small_log(tmp_path / "in")
    write_hour(root, 7, ["", globo_click(9, 9, "2017-10-01 03:00", 50, "2017-10-01 03:00"), "\r", "", " "])
    split_and_read(root, tmp_path / "out")
    rows = read_account(tmp_path / "out").files["clicks/clicks_hour_007.csv.gz", "clicks"]
    assert (rows.rows_in, rows.placed, rows.quarantined) == (2, 1, 1), "a line with a space is a row"
    held_back = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert [r["source"] for r in held_back if "007" in r["source"]] == ["clicks/clicks_hour_007.csv.gz:6"]


def test_bad_metadata(tmp_path: Path) -> None:
    root = small_log(tmp_path / "in")
    lines = ("article_id,category_id", "60,7", "60,sport", "60,8", "60,7", "70,99999999999", ",1", "50", "70,5")
    (root / "articles_metadata.csv").write_text("\n".join(lines) + "\n")
    days = split_and_read(root, tmp_path / "out")
    assert columns(days[D1].articles, "article_id", "category_id") == [(50, None), (60, 7)]
    assert columns(days[D2].articles, "article_id", "category_id") == [(50, None), (70, 5)]
    held_back = pq.read_table(tmp_path / "out" / "quarantine.parquet")
    assert reasons(held_back) == {
        ("articles", "unparsable"): 1, ("articles", "duplicate_article_id"): 1, ("articles", "out_of_range"): 1,
        ("articles", "null_id"): 1, ("articles", "wrong_number_of_fields"): 1,
    }  # fmt: skip


@pytest.mark.real
@pytest.mark.slow
def test_real_log(real_data: Any, tmp_path: Path) -> None:
    days = READER.split(real_data("globo"), GLOBO, tmp_path)
    assert days == [date(2017, 10, d) for d in range(1, 12)]
    held_back = pq.read_table(tmp_path / "quarantine.parquet")
    rows = [json.loads(r) for r in held_back["row"].to_pylist()]
    users = [np.array([r["user_id"] for r in rows])]
    articles = [np.array([r["click_article_id"] for r in rows])]
    clicks = len(held_back)
    for day in days:
        tables = READER.tables(tmp_path / str(day), GLOBO, day)
        assert_conserved(tables)
        clicks += tables.counts["clicks"]["rows_in"]
        users.append(tables.clicks["user_id"].to_numpy())
        articles.append(tables.articles["article_id"].to_numpy())
    assert clicks == 2_309_336
    assert len(np.unique(np.concatenate(users))) == 285_220
    assert len(np.unique(np.concatenate(articles))) == 35_554
    # The data README: about a thousand rows carry clocks far past the log's end.
    times = np.array([r["click_timestamp"] for r in rows])
    assert np.all(times >= GLOBO.clock.start(date(2017, 10, 12)))
    assert 1_000 < len(rows) < 2_000
    assert pa.types.is_string(held_back["source"].type)
