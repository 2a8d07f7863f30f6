"""The EB-NeRD reader: days, canonical tables, quarantine, artifacts."""

import hashlib
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml import schema
from ml.datasets import DATASETS
from ml.errors import DataError, UsageError
from ml.readers import DayTables, reader
from ml.readers.artifacts import vectors_of
from tests.ml import bundles
from tests.ml.bundles import article, at, history, impression, ms, write_bundle

EBNERD = DATASETS["ebnerd"]
READER = reader("ebnerd")
D17, D18, D19, D20 = (date(2023, 5, d) for d in (17, 18, 19, 20))


def split_and_read(root: Path, out: Path) -> dict[date, DayTables]:
    """All days of a bundle."""
    return {day: READER.tables(out / str(day), EBNERD, day) for day in READER.split(root, EBNERD, out)}


def one_day(tmp_path: Path, *rows: Any, **kwargs: Any) -> DayTables:
    """The tables of 18 May for a bundle of these impressions alone."""
    root = write_bundle(tmp_path / "in", {"train": rows}, {}, **kwargs)
    return split_and_read(root, tmp_path / "out")[D18]


def columns(table: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    """Rows of some columns; times in ms."""
    arrays = [table[n].cast(pa.int64()) if table[n].type == schema.TIME else table[n] for n in names]
    return list(zip(*(a.to_pylist() for a in arrays), strict=True))


def reasons(table: pa.Table) -> Counter[tuple[str, str]]:
    """How many rows are held back, by table and reason."""
    return Counter(zip(table["table"].to_pylist(), table["reason"].to_pylist(), strict=True))


def told(tables: DayTables) -> dict[tuple[str, str, str, str], int]:
    """How many rows are remarked on, by table, reason, column and file."""
    return {(r.table, r.reason, r.column, r.file): r.count for r in tables.remarks}


def assert_conserved(tables: DayTables) -> None:
    """rows in = published + quarantined + exact duplicates, and the figures are those of the tables."""
    held_back = Counter(tables.quarantine["table"].to_pylist())
    for name in ("articles", "clicks", "impressions"):
        counts = tables.counts[name]
        assert counts["rows_in"] == counts["published"] + counts["quarantined"] + counts["duplicates"]
        assert counts["duplicates"] >= 0
        assert counts["published"] == len(getattr(tables, name))
        assert counts["quarantined"] == held_back[name]


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_unknown_reader() -> None:
    with pytest.raises(UsageError, match="choose one of ebnerd, globo"):
        reader("nonsense")


def test_days_and_clicks(tmp_path: Path) -> None:
    days = split_and_read(bundles.synthetic_bundle(tmp_path / "in"), tmp_path / "out")
    assert list(days) == [D17, D18, D19, D20]
    names = ("user_id", "article_id", "time", "impression_id", "session_id", "read_time", "device")
    assert columns(days[D17].clicks, *names) == [
        (1, 101, ms("2023-05-17 08:00"), None, None, 60.0, None),
        (2, 101, ms("2023-05-17 09:00"), None, None, 60.0, None),
        (1, 102, ms("2023-05-17 20:00"), None, None, 60.0, None),
    ]
    assert columns(days[D18].clicks, *names) == [
        (1, 103, ms("2023-05-18 08:00"), 1, 10, 30.0, 2),
        (1, 102, ms("2023-05-18 09:30:20") - 1, 2, 10, None, 2),
    ]
    assert days[D17].counts["clicks"] == {
        "rows_in": 6, "published": 3, "quarantined": 0, "duplicates": 3, "from_impressions": 0,
    }  # fmt: skip
    assert told(days[D18]) == {
        ("clicks", "value_out_of_range", "next_read_time", "train/behaviors.parquet"): 1,
        ("clicks", "exact_copy", "", "validation/history.parquet"): 2,
    }
    late = [row for row in days[D18].quarantine.to_pylist() if row["table"] == "clicks"]
    assert [row["reason"] for row in late] == ["outside_day"] * 2, "clicked half a minute into the next log day"
    assert not (tmp_path / "out" / "quarantine.parquet").exists()


@pytest.mark.parametrize(
    ("read_time", "after_ms"),
    [(None, 0), (0.0, 0), (-3.0, 0), (float("nan"), 0), (float("inf"), 0), (0.5, 499), (14.0, 13_999), (1e9, None)],
)
def test_a_click_comes_read_time_after_its_impression(tmp_path: Path, read_time: float | None, after_ms: int) -> None:
    """A millisecond before the page that it opens comes into view; after the day's end it is known to no day."""
    shown = bundles.impression(1, 1, "2023-05-18 09:00", [103, 104], [103], read_time=read_time)
    root = bundles.write_bundle(tmp_path / "in", {"train": [shown]}, {}, None)
    tables = split_and_read(root, tmp_path / "out")[D18]
    wanted = [] if after_ms is None else [ms("2023-05-18 09:00") + after_ms]
    assert tables.clicks["time"].cast("int64").to_pylist() == wanted
    assert_conserved(tables)
    assert tables.impressions["time"].cast("int64").to_pylist() == [ms("2023-05-18 09:00")]


@pytest.mark.parametrize(
    ("reader_id", "article_id", "time", "clicks"),
    [
        (1, 103, "2023-05-18 09:00:16", 1),
        (1, 103, "2023-05-18 09:00:11", 1),
        (1, 103, "2023-05-18 09:00:17", 2),
        (2, 103, "2023-05-18 09:00:14", 2),
        (1, 104, "2023-05-18 09:00:14", 2),
    ],
)
def test_a_history_within_three_seconds_repeats_the_click(
    tmp_path: Path, reader_id: int, article_id: int, time: str, clicks: int
) -> None:
    shown = bundles.impression(1, 1, "2023-05-18 09:00", [103, 104], [103], read_time=14.0)
    read = bundles.history(reader_id, (time, article_id))
    root = bundles.write_bundle(tmp_path / "in", {"train": [shown]}, {"validation": [read]}, None)
    tables = split_and_read(root, tmp_path / "out")[D18]
    assert len(tables.clicks) == clicks
    assert tables.counts["clicks"]["duplicates"] == 2 - clicks
    assert ms("2023-05-18 09:00:14") - 1 in tables.clicks["time"].cast("int64").to_pylist()
    assert_conserved(tables)


def test_impressions(tmp_path: Path) -> None:
    days = split_and_read(bundles.synthetic_bundle(tmp_path / "in"), tmp_path / "out")
    assert len(days[D17].impressions) == 0
    names = ("impression_id", "user_id", "time", "inview", "clicked", "session_id", "device", "os", "subscriber")
    assert columns(days[D20].impressions, *names) == [
        (5, 3, ms("2023-05-20 12:00"), [105, 106], [106], 30, 1, None, True)
    ]
    assert days[D18].impressions["impression_id"].to_pylist() == [1, 2, 3]


def test_tables_have_canonical_schemas_and_conserve_rows(tmp_path: Path) -> None:
    for tables in split_and_read(bundles.synthetic_bundle(tmp_path / "in"), tmp_path / "out").values():
        assert tables.articles.schema.equals(schema.ARTICLES)
        assert tables.clicks.schema.equals(schema.CLICKS)
        assert tables.impressions.schema.equals(schema.IMPRESSIONS)
        assert tables.quarantine.schema.equals(schema.QUARANTINE)
        assert_conserved(tables)


def test_articles_lie_in_the_day_of_publication(tmp_path: Path) -> None:
    days = split_and_read(bundles.synthetic_bundle(tmp_path / "in"), tmp_path / "out")
    names = ("article_id", "published", "published_is_first_seen", "title", "category", "premium")
    # 104 was published at 06:59, when 17 May (from 07:00) still ran; 101 is years older than the log.
    assert columns(days[D17].articles, *names) == [
        (101, ms("2020-01-01 00:00"), False, "Title 101", "krimi", False),
        (102, ms("2023-05-17 08:30"), False, "Title 102", "news", True),
        (104, ms("2023-05-18 06:59"), False, "Title 104", "krimi", False),
    ]
    assert days[D18].articles["article_id"].to_pylist() == [103, 105, 106]
    assert len(days[D19].articles) == len(days[D20].articles) == 0


def test_without_articles_the_first_appearance_stands_in(tmp_path: Path) -> None:
    days = split_and_read(bundles.synthetic_bundle(tmp_path / "in", with_articles=False), tmp_path / "out")
    assert columns(days[D18].articles, "article_id", "published", "published_is_first_seen", "title") == [
        (101, ms("2023-05-18 08:00"), True, None),
        (102, ms("2023-05-18 08:00"), True, None),
        (103, ms("2023-05-18 08:00"), True, None),
        (104, ms("2023-05-18 09:30"), True, None),
        (105, ms("2023-05-19 06:59:59"), True, None),
    ]
    assert days[D18].counts["articles"]["first_seen"] == 5


def test_articles_off_their_day(tmp_path: Path) -> None:
    listed = [
        article(1, "2023-05-19 12:00"),  # its day has no data: the next one with data
        article(2, "2023-05-20 12:00"),  # appears on the 18th, before publication
        article(3, None),  # no publication, appears on the 20th
        article(4, None),  # no publication, never appears
        article(5, "2023-06-01 12:00"),  # after the log's end
        article(6, "2023-05-18 12:00"),  # in view on its day, two hours before publication
        article(None, "2023-05-18 12:00"),
    ]
    rows = [
        impression(1, 1, "2023-05-18 10:00", [2, 6, 7], [6]),
        impression(2, 1, "2023-05-20 13:00", [2, 3], [2]),
    ]
    root = write_bundle(tmp_path / "in", {"train": rows}, {}, listed)
    days = split_and_read(root, tmp_path / "out")
    names = ("article_id", "published", "published_is_first_seen", "title")
    assert columns(days[D18].articles, *names) == [
        (2, ms("2023-05-18 10:00"), True, "Title 2"),
        (6, ms("2023-05-18 10:00"), True, "Title 6"),
        (7, ms("2023-05-18 10:00"), True, None),
    ]
    assert columns(days[D20].articles, *names) == [
        (1, ms("2023-05-19 12:00"), False, "Title 1"),
        (2, ms("2023-05-20 12:00"), False, "Title 2"),
        (3, ms("2023-05-20 13:00"), True, "Title 3"),
    ]
    held_back = pq.read_table(tmp_path / "out" / "quarantine.parquet")
    assert reasons(held_back) == {
        ("articles", "null_time"): 1, ("articles", "after_log_end"): 1, ("articles", "null_id"): 1,
    }  # fmt: skip
    assert sorted(held_back["source"].to_pylist()) == [f"articles.parquet:{row}" for row in (4, 5, 7)]


def test_of_articles_with_one_id_the_last_modified_is_kept(tmp_path: Path) -> None:
    old = article(1, "2023-05-18 08:00", title="old", last_modified_time=at("2023-05-18 09:00"))
    new = article(1, "2023-05-18 08:00", title="new", last_modified_time=at("2023-05-18 10:00"))
    tables = one_day(tmp_path, impression(1, 1, "2023-05-18 10:00", [1], [1]), articles=[old, new, new])
    assert tables.articles["title"].to_pylist() == ["new"]
    assert reasons(tables.quarantine) == {("articles", "duplicate_article_id"): 1}
    assert tables.counts["articles"]["duplicates"] == 1


def test_a_click_on_what_was_not_in_view_stays_a_click(tmp_path: Path) -> None:
    tables = one_day(tmp_path, impression(1, 1, "2023-05-18 10:00", [5, 6], [6, 9]))
    assert tables.clicks["article_id"].to_pylist() == [6, 9]
    assert len(tables.impressions) == 0
    assert reasons(tables.quarantine) == {("impressions", "clicked_not_in_view"): 1}
    assert '"clicked":[6,9]' in tables.quarantine["row"][0].as_py()
    assert tables.quarantine["source"].to_pylist() == ["train/behaviors.parquet"]
    assert_conserved(tables)


def test_row_rules(tmp_path: Path) -> None:
    time = "2023-05-18 10:00"
    tables = one_day(
        tmp_path,
        impression(1, 1, time, [5], [5]),
        impression(1, 1, time, [5], [5]),  # exact repetition
        impression(1, 1, time, [5, 6], [6]),  # id 1 again, other content
        impression(None, 1, time, [5], []),
        impression(2, None, time, [5], [5]),
        impression(3, -1, time, [5], [5]),
        impression(4, 1, time, [], []),
        impression(5, 1, time, None, [7]),
        impression(6, 1, time, [5, None], [5]),
    )
    assert reasons(tables.quarantine) == {
        ("impressions", "duplicate_impression_id"): 1,
        ("impressions", "null_id"): 3,
        ("impressions", "negative_id"): 1,
        ("impressions", "empty_inview"): 2,
        ("clicks", "null_id"): 1,
        ("clicks", "negative_id"): 1,
        ("clicks", "duplicate_click"): 1,  # impression 6 tells of the click on 5, too
    }
    assert tables.impressions["impression_id"].to_pylist() == [1]
    assert tables.counts["impressions"]["duplicates"] == 1
    # (1, 5) and (1, 7) remain; neither the repetition of impression 1 nor the other one of that id tells of a click.
    assert tables.clicks["article_id"].to_pylist() == [5, 7]
    assert_conserved(tables)


@pytest.mark.parametrize("cell", ["read_time", "next_read_time", "next_scroll_percentage"])
def test_rows_of_one_impression_that_differ_in_a_cell_of_its_click_are_no_copies(tmp_path: Path, cell: str) -> None:
    """Which of them is true nobody knows: the first stands, and there is one click."""
    one = impression(1, 1, "2023-05-18 10:00", [5, 6], [5]) | {cell: 10.0}
    tables = one_day(tmp_path, one, one | {cell: 70.0})
    assert reasons(tables.quarantine) == {("impressions", "duplicate_impression_id"): 1}
    assert tables.counts["impressions"]["duplicates"] == 0
    assert columns(tables.clicks, "article_id", "impression_id") == [(5, 1)]
    assert_conserved(tables)


@pytest.mark.parametrize("days", [(18, 18), (18, 20)])
def test_an_impression_of_a_used_id_gives_no_clicks(tmp_path: Path, days: tuple[int, int]) -> None:
    rows = [
        impression(1, 1, f"2023-05-{days[0]} 10:00", [5, 6], [5]),
        impression(1, 2, f"2023-05-{days[1]} 11:00", [5, 6, 7], [5, 6, 7]),
        impression(2, 2, f"2023-05-{days[1]} 12:00", [5, 6], [6]),
        impression(0, 3, f"2023-05-{days[1]} 13:00", [5, 6], [6]),  # id 0 names no impression
        impression(0, 4, f"2023-05-{days[1]} 13:00", [5, 6], [5]),
    ]
    root = write_bundle(tmp_path / "in", {"train": rows}, {})
    made = split_and_read(root, tmp_path / "out")
    clicks = [row for tables in made.values() for row in columns(tables.clicks, "user_id", "article_id")]
    assert clicks == [(1, 5), (2, 6), (3, 6), (4, 5)]
    assert [reasons(t.quarantine) for t in made.values()][-1] == {("impressions", "duplicate_impression_id"): 1}
    for tables in made.values():
        assert_conserved(tables)


def test_a_history_may_tell_a_click_otherwise_than_behaviors_do(tmp_path: Path) -> None:
    """The layout tells it twice; what one file says twice and differently is held back."""
    time = "2023-05-18 10:00"
    twice = dict(history(1, (time, 5), (time, 5))) | {"read_time_fixed": [70.0, 80.0]}
    shown = impression(1, 1, time, [5], [5])
    root = write_bundle(tmp_path / "in", {"train": [shown]}, {"train": [twice], "validation": [history(1, (time, 5))]})
    tables = split_and_read(root, tmp_path / "out")[D18]
    assert reasons(tables.quarantine) == {} and tables.clicks["impression_id"].to_pylist() == [1]
    assert tables.counts["clicks"]["duplicates"] == 3
    root = write_bundle(tmp_path / "alone", {"train": [impression(1, 2, time, [5], [5])]}, {"train": [twice]})
    tables = split_and_read(root, tmp_path / "other")[D18]
    assert reasons(tables.quarantine) == {("clicks", "duplicate_click"): 1}
    assert_conserved(tables)


def test_beyond_accuracy_rows_of_test_are_valid(tmp_path: Path) -> None:
    rows = [impression(0, u, "2023-05-18 10:00", [5, 6], []) for u in (1, 2)]
    rows.append(impression(7, 3, "2023-05-18 10:00", [5, 6], []))
    root = write_bundle(tmp_path / "in", {"test": rows}, {})
    tables = split_and_read(root, tmp_path / "out")[D18]
    names = ("impression_id", "user_id", "clicked")
    assert columns(tables.impressions, *names) == [(0, 1, []), (0, 2, []), (7, 3, [])]
    assert len(tables.clicks) == len(tables.quarantine) == 0


def test_rows_outside_the_days_and_uneven_histories(tmp_path: Path) -> None:
    uneven = dict(history(4, ("2023-05-17 10:00", 5))) | {"read_time_fixed": [1.0, 2.0]}
    nothing = dict.fromkeys(bundles.HISTORY.names) | {"user_id": 5}
    root = write_bundle(
        tmp_path / "in",
        {"train": [impression(1, 1, "2024-01-01 10:00", [5], [5]), impression(2, 1, "2023-05-18 10:00", [5], [5])]},
        {"train": [history(3, ("2023-02-02 06:59", 5), ("2023-02-02 07:00", 5)), uneven, nothing, history(6)]},
    )
    days = split_and_read(root, tmp_path / "out")
    assert list(days) == [date(2023, 2, 2), D18]
    held_back = pq.read_table(tmp_path / "out" / "quarantine.parquet")
    assert reasons(held_back) == {
        ("impressions", "outside_days"): 1, ("clicks", "outside_days"): 1, ("clicks", "history_lengths_differ"): 1,
    }  # fmt: skip
    assert "__" not in "".join(held_back["row"].to_pylist())


def test_times_with_a_zone_are_converted(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "in", {"train": [impression(1, 1, "2023-05-18 10:00", [5], [5])]}, {})
    path = root / "train" / "behaviors.parquet"
    table = pq.read_table(path)
    there = table["impression_time"].cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us", tz="Europe/Copenhagen"))
    pq.write_table(table.set_column(table.column_names.index("impression_time"), "impression_time", there), path)
    tables = split_and_read(root, tmp_path / "out")[D18]
    assert columns(tables.clicks, "time") == [(ms("2023-05-18 10:00"),)]


def test_equal_sources_give_equal_bytes(tmp_path: Path) -> None:
    root = bundles.synthetic_bundle(tmp_path / "in")
    for out in ("a", "b"):
        READER.split(root, EBNERD, tmp_path / out)
    assert digests(tmp_path / "a") == digests(tmp_path / "b") != {}


IDENTIFIERS = st.one_of(st.none(), st.integers(-1, 4))
HOURS = st.integers(0, 40)
IMPRESSION = st.tuples(
    IDENTIFIERS, IDENTIFIERS, HOURS, st.lists(st.integers(1, 4), max_size=3), st.lists(st.integers(1, 4), max_size=2)
)
READ = st.tuples(st.integers(0, 3), st.lists(st.tuples(HOURS, st.integers(1, 4)), max_size=4))


def hour(number: int) -> str:
    """An hour from 07:00 on 18 May 2023 on."""
    return f"2023-05-{18 + (7 + number) // 24} {(7 + number) % 24:02d}:00"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shown=st.lists(IMPRESSION, min_size=1, max_size=8), read=st.lists(READ, max_size=3))
def test_clicks_are_the_union_and_every_row_is_accounted_for(
    shown: list[Any], read: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    rows = [impression(i, u, hour(h), inview, clicked) for i, u, h, inview, clicked in shown]
    past = [history(u, *((hour(h), a) for h, a in clicks)) for u, clicks in read]
    days = split_and_read(write_bundle(folder / "in", {"train": rows}, {"train": past}), folder / "out")
    names = ("impression_id", "user_id", "time", "inview", "clicked")
    stands = {row[0]: row[1:] for tables in days.values() for row in columns(tables.impressions, *names) if row[0]}

    def tells(number: int | None, user: int | None, of: int, *lists: list[int]) -> bool:
        """Whether the clicks of a row count: not where its id was published before, or by another row of its day."""
        if number not in stands or stands[number] == (user, ms(hour(of)), *lists):
            return True
        return EBNERD.clock.day_of(ms(hour(of))) < EBNERD.clock.day_of(stands[number][1])

    shown_once = [row for row in shown if tells(*row)]
    expected = {(u, a, ms(hour(h))) for _, u, h, _, clicked in shown_once for a in clicked if u is not None and u >= 0}
    expected |= {(u, a, ms(hour(h))) for u, clicks in read for h, a in clicks}
    found = [row for tables in days.values() for row in columns(tables.clicks, "user_id", "article_id", "time")]
    assert len(found) == len(set(found))
    assert set(found) == expected
    for day, tables in days.items():
        assert_conserved(tables)
        order = columns(tables.clicks, "time", "user_id", "article_id")
        assert order == sorted(order)
        assert all(EBNERD.clock.day_of(t) == day for t, _, _ in order)
        ids = [i for i in tables.impressions["impression_id"].to_pylist() if i]
        assert len(ids) == len(set(ids))
        seen = set(tables.clicks["article_id"].to_pylist())
        assert seen <= set(tables.articles["article_id"].to_pylist())
    assert sum(t.counts["impressions"]["rows_in"] for t in days.values()) == len(shown)
    published = sum(len(clicked) for *_, clicked in stands.values())
    copies = [row for row in shown_once if stands.get(row[0]) == (row[1], ms(hour(row[2])), *row[3:])]
    clicks_in = sum(len(clicked) for *_, clicked in shown_once) - sum(len(row[-1]) for row in copies) + published
    clicks_in += sum(len(clicks) for _, clicks in read)
    assert sum(t.counts["clicks"]["rows_in"] for t in days.values()) == clicks_in


def test_sources_in_fixed_order(tmp_path: Path) -> None:
    root = bundles.synthetic_bundle(tmp_path)
    vectors = root / "artifacts" / "Ekstra_Bladet_word2vec" / "document_vector.parquet"
    vectors.parent.mkdir(parents=True)
    pq.write_table(pa.table({"article_id": [1], "document_vector": [[1.0]]}), vectors)
    assert [str(p.relative_to(root)) for p in READER.sources(root)] == [
        "train/behaviors.parquet",
        "train/history.parquet",
        "validation/behaviors.parquet",
        "validation/history.parquet",
        "articles.parquet",
        "artifacts/Ekstra_Bladet_word2vec/document_vector.parquet",
    ]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="point the data root at the folder that holds train/"):
        READER.sources(tmp_path)


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    bundles.synthetic_bundle(tmp_path / "elsewhere")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "train").symlink_to(tmp_path / "elsewhere" / "train")
    with pytest.raises(DataError, match="outside the data root"):
        READER.sources(tmp_path / "root")


def edit(path: Path, change: Any) -> None:
    """Rewrites a parquet file."""
    pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("train/behaviors.parquet", "article_ids_clicked"),
        ("validation/behaviors.parquet", "impression_time"),
        ("train/history.parquet", "read_time_fixed"),
        ("articles.parquet", "published_time"),
    ],
)
def test_missing_column(tmp_path: Path, file: str, column: str) -> None:
    root = bundles.synthetic_bundle(tmp_path / "in")
    edit(root / file, lambda t: t.drop_columns([column]))
    with pytest.raises(DataError, match=rf"{file} has no column {column} .*published bundle"):
        READER.split(root, EBNERD, tmp_path / "out")


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("train/behaviors.parquet", "impression_time"),
        ("train/behaviors.parquet", "article_ids_inview"),
        ("train/history.parquet", "article_id_fixed"),
        ("articles.parquet", "article_id"),
    ],
)
def test_wrong_type(tmp_path: Path, file: str, column: str) -> None:
    root = bundles.synthetic_bundle(tmp_path / "in")
    edit(root / file, lambda t: t.set_column(t.column_names.index(column), column, pa.array(["x"] * len(t))))
    with pytest.raises(DataError, match=rf"{file}: column {column} has type string"):
        READER.split(root, EBNERD, tmp_path / "out")


@pytest.mark.parametrize("file", ["train/behaviors.parquet", "train/history.parquet", "articles.parquet"])
@pytest.mark.parametrize("length", [0, 400])
def test_damaged_file(tmp_path: Path, file: str, length: int) -> None:
    root = bundles.synthetic_bundle(tmp_path / "in")
    (root / file).write_bytes((root / file).read_bytes()[:length])
    with pytest.raises(DataError, match=rf"{file} cannot be read .*fetch it again"):
        READER.split(root, EBNERD, tmp_path / "out")


def test_a_log_of_other_days_is_refused(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "in", {"train": [impression(1, 1, "2021-05-18 10:00", [5], [5])]}, {})
    with pytest.raises(DataError, match=r"no row falls in 2023-02-02\.\.2023-06-08"):
        READER.split(root, EBNERD, tmp_path / "out")


def test_a_day_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds neither"):
        READER.tables(tmp_path, EBNERD, D18)


def test_preferred_artifacts(tmp_path: Path) -> None:
    assert READER.artifact_vectors(tmp_path) == {}
    for name in ("document_vector", "bert_base_multilingual_cased", "image_embeddings"):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"article_id": [1], "v": [[1.0]]}), tmp_path / name / f"{name}.parquet")
    found = READER.artifact_vectors(tmp_path)
    assert {family: p.stem for family, p in found.items()} == {
        "body": "bert_base_multilingual_cased", "image": "image_embeddings",
    }  # fmt: skip


def test_vectors_are_cut_out_by_id(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = rng.permutation(20_000)
    values = rng.standard_normal((20_000, 3)).astype(np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 3).cast(pa.list_(pa.float32()))
    path = tmp_path / "document_vector.parquet"
    pq.write_table(pa.table({"article_id": pa.array(ids, pa.int32()), "document_vector": lists}), path)
    wanted = np.array([19_999, 5, 5, 777_777])
    table = vectors_of(path, wanted)
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 3)
    assert table["article_id"].to_pylist() == [5, 19_999]
    assert table["since"].null_count == 2
    matrix = np.array(table["vector"].to_pylist(), dtype=np.float32)
    np.testing.assert_array_equal(matrix, values[[int(np.flatnonzero(ids == i)[0]) for i in (5, 19_999)]])
    assert len(vectors_of(path, np.array([-5]))) == 0


def test_vectors_of_unequal_length_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image_embeddings.parquet"
    pq.write_table(pa.table({"article_id": [1, 2], "image_embedding": [[1.0], [1.0, 2.0]]}), path)
    with pytest.raises(DataError, match=r"vectors of 2 lengths \[1, 2\]"):
        vectors_of(path, np.array([1, 2]))
    pq.write_table(pa.table({"article_id": [1, 2]}), path)
    with pytest.raises(DataError, match="0 columns of number lists"):
        vectors_of(path, np.array([1, 2]))


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (pa.array([1, 2**63], pa.uint64()), [[1.0], [2.0]], r"v\.parquet: article_id 9223372036854775808 is above"),
        ([1, 2], [[1.0, None], [1.0, 2.0]], r"v\.parquet: 1 numbers in vectors are null"),
        ([1, 2], [[1, None], [None, 2]], r"v\.parquet: 2 numbers"),
        ([1, 2], [[1.0], [float("nan")]], r"v\.parquet: 1 numbers"),
        ([1, 2], [[1e300], [1.0]], r"v\.parquet: 1 numbers"),
    ],
)
def test_vectors_and_ids_that_none_can_be_are_refused(tmp_path: Path, ids: Any, vectors: Any, message: str) -> None:
    path = tmp_path / "v.parquet"
    pq.write_table(pa.table({"article_id": ids, "v": vectors}), path)
    with pytest.raises(DataError, match=message):
        vectors_of(path, np.array([1]))


@pytest.mark.real
def test_real_slice(real_data: Any, tmp_path: Path) -> None:
    root = real_data("ebnerd_slice")
    days = split_and_read(root, tmp_path)
    assert (min(days), max(days), len(days)) == (date(2023, 2, 2), date(2023, 3, 1), 28)
    behaviors = pq.read_table(root / "train" / "behaviors.parquet")
    clicked = sum(map(len, behaviors["article_ids_clicked"].to_pylist()))
    assert sum(t.counts["clicks"]["rows_in"] for t in days.values()) == 8_303 + clicked
    assert sum(len(t.impressions) for t in days.values()) == 1_046
    for tables in days.values():
        assert_conserved(tables)
        shown = {a for inview in tables.impressions["inview"].to_pylist() for a in inview}
        assert set(tables.articles["article_id"].to_pylist()) == shown | set(tables.clicks["article_id"].to_pylist())
        assert all(tables.articles["published_is_first_seen"].to_pylist())


@pytest.mark.real
def test_real_clicks_open_a_page_when_their_impression_ends(real_data: Any) -> None:
    """What `ml.readers.ebnerd` says about the click's time: in a session the first view of the clicked article's page
    comes 0 to 2 s after impression time + read_time (91 of 101), never before; and in histories the next article is
    opened a read time after the one before, or later."""
    log = pl.read_parquet(real_data("ebnerd_slice") / "train/behaviors.parquet")
    key = ["user_id", "session_id", "article_id"]
    clicks = log.explode("article_ids_clicked").select(
        *key[:2],
        pl.col("article_ids_clicked").cast(log.schema["article_id"]).alias("article_id"),
        (pl.col("impression_time") + pl.duration(seconds=pl.col("read_time"))).alias("clicked"),
        pl.col("impression_time").alias("shown"),
    )
    views = log.select(*key, "impression_time").drop_nulls().join(clicks, on=key)
    first = views.filter(pl.col("impression_time") > pl.col("shown")).group_by([*key, "shown"]).agg(pl.all().min())
    after = first.select((pl.col("impression_time") - pl.col("clicked")).dt.total_seconds()).to_series()
    assert len(after) > 100 and after.min() >= 0
    assert (after <= 2).mean() > 0.85

    read = pl.read_parquet(real_data("ebnerd_slice") / "train/history.parquet")
    read = read.select("user_id", "impression_time_fixed", "read_time_fixed").explode(pl.exclude("user_id"))
    opened = pl.col("impression_time_fixed").shift(-1).over("user_id") - pl.col("impression_time_fixed")
    left = read.select((opened.dt.total_seconds() - pl.col("read_time_fixed")).alias("s")).drop_nulls()["s"]
    close = left.filter(left < 1800)
    assert len(close) > 5000 and (close < 0).mean() < 0.01
    assert close.is_between(0, 2).mean() > 0.35
