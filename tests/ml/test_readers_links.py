"""What tables say of each other: links of clicks to impressions, articles without a row, appearances too early."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.datasets import DATASETS
from ml.own_log import declared_dataset
from ml.readers import DayTables, links, reader
from tests.ml.bundles import article, at, history, impression, ms, write_bundle
from tests.ml.test_readers_ebnerd import assert_conserved, columns, told
from tests.ml.test_readers_own_log import UTC_TIMES, click, write_log

D1, D2 = date(2023, 5, 1), date(2023, 5, 2)
SAID = UTC_TIMES + "first_day = 2023-05-01\nlast_day = 2023-05-03\n"
KINDS = {
    **dict.fromkeys(("user_id", "article_id", "impression_id"), pa.int64()),
    **dict.fromkeys(("inview", "clicked"), pa.list_(pa.int64())),
}


def own(root: Path, out: Path, **rows: Sequence[Mapping[str, Any]]) -> dict[date, DayTables]:
    write_log(root, SAID, KINDS, **rows)
    known = declared_dataset(root)
    days = {d: reader("own").tables(out / str(d), known, d) for d in reader("own").split(root, known, out)}
    for tables in days.values():
        assert_conserved(tables)
    return days


def shown(number: int, user: int, time: str, inview: list[int], clicked: list[int] | None = None) -> dict[str, Any]:
    return {"impression_id": number, "user_id": user, "time": at(time), "inview": inview, "clicked": clicked or []}


# Links of clicks to impressions


def test_links_hold_across_the_border_of_days(tmp_path: Path) -> None:
    impressions = [shown(1, 7, "2023-05-01 23:59", [5, 6]), shown(2, 7, "2023-05-02 00:10", [5])]
    clicks = [
        click(7, 5, "2023-05-02 00:01", impression_id=1),
        click(7, 8, "2023-05-02 00:02", impression_id=1),
        click(9, 5, "2023-05-02 00:03", impression_id=1),
        click(7, 5, "2023-05-01 10:00", impression_id=2),
        click(7, 5, "2023-05-02 00:05", impression_id=3),
        click(7, 5, "2023-05-02 00:06"),
    ]
    days = own(tmp_path / "in", tmp_path / "out", clicks=clicks, impressions=impressions)
    assert columns(days[D1].clicks, "impression_id") == [(2,)]
    assert columns(days[D2].clicks, "impression_id") == [(1,), (None,), (None,), (None,), (None,)]
    found = [
        (r.reason, r.count, r.examples[0][0], json.loads(r.examples[0][1])["impression_id"]) for r in days[D2].remarks
    ]
    assert [f for f in found if f[0] != "nothing_clicked"] == [
        ("impression_missing", 1, "clicks.parquet:5", 3),
        ("impression_of_another_reader", 1, "clicks.parquet:3", 1),
        ("article_not_in_impression", 1, "clicks.parquet:2", 1),
    ]


def test_an_impression_that_is_held_back_at_once_is_missing(tmp_path: Path) -> None:
    impressions = [shown(1, 7, "2022-05-01 10:00", [5])]
    days = own(
        tmp_path / "in",
        tmp_path / "out",
        clicks=[click(7, 5, "2023-05-01 10:00", impression_id=1)],
        impressions=impressions,
    )
    assert told(days[D1]) == {("clicks", "impression_missing", "impression_id", "clicks.parquet"): 1}


def test_a_log_without_impressions(tmp_path: Path) -> None:
    days = own(tmp_path / "in", tmp_path / "out", clicks=[click(7, 5, "2023-05-01 10:00", impression_id=1)])
    assert told(days[D1]) == {("clicks", "impression_missing", "impression_id", "clicks.parquet"): 1}


def _verdict(row: Mapping[str, Any], lists: Sequence[Mapping[str, Any]]) -> str | None:
    """Of one click, by its definition: the first impression of an id, on the first day that has one."""
    named = [i for i in lists if i["impression_id"] == row["impression_id"]]
    if row["impression_id"] is None:
        return None
    if not named:
        return links.VERDICTS[3]
    first = min(named, key=lambda i: (i["time"], i["user_id"]))
    return links.VERDICTS[2 if first["user_id"] != row["user_id"] else 0 if row["article_id"] in first["inview"] else 1]


TIMES = st.integers(0, 3 * 24 - 1).map(lambda h: datetime(2023, 5, 1) + timedelta(hours=h))
CLICK = st.fixed_dictionaries(
    {
        "user_id": st.integers(1, 2),
        "article_id": st.integers(1, 3),
        "time": TIMES,
        "impression_id": st.one_of(st.none(), st.integers(1, 4)),
    }
)
SHOWN = st.fixed_dictionaries(
    {
        "impression_id": st.integers(1, 4),
        "user_id": st.integers(1, 2),
        "time": TIMES,
        "inview": st.lists(st.integers(1, 3), min_size=1, max_size=3),
        "clicked": st.just([]),
    }
)


@given(st.lists(CLICK, min_size=1, max_size=14), st.lists(SHOWN, max_size=8), st.sampled_from([1, 4, 4_000_000]))
@settings(max_examples=25, deadline=None)
def test_links_agree_with_their_definition(
    tmp_path_factory: pytest.TempPathFactory, clicks: list[Any], impressions: list[Any], most: int
) -> None:
    root = tmp_path_factory.mktemp("links")
    tables = {"clicks": clicks, "impressions": impressions}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(links, "_MOST", most)
        days = own(root / "in", root / "out", **{k: v for k, v in tables.items() if v})
    expected = [_verdict(row, impressions) for row in clicks]
    reasons = Counter(why for why in expected if why is not None)
    said: Counter[str] = Counter()
    for tables_of_day in days.values():
        said.update({r.reason: r.count for r in tables_of_day.remarks if r.reason in links.VERDICTS})
    assert said == reasons
    kept = {
        (r["time"], r["user_id"], r["article_id"])
        for r, why in zip(clicks, expected, strict=True)
        if why is None and r["impression_id"]
    }
    for tables_of_day in days.values():
        rows = tables_of_day.clicks.to_pylist()
        linked = {(r["time"].replace(tzinfo=None), r["user_id"], r["article_id"]) for r in rows if r["impression_id"]}
        assert linked == {k for k in kept if k[0].date() in {r["time"].date() for r in rows}}


def test_a_hundred_thousand_clicks_on_one_long_list_take_no_table_of_their_product(tmp_path: Path) -> None:
    """Each pair once would be ten thousand million rows."""
    n = 100_000
    times = pa.array(np.full(n, ms("2023-05-01 08:00")) + np.arange(n), pa.timestamp("ms"))
    same = pa.array(np.ones(n, dtype=np.int64))
    root = write_log(tmp_path / "in", SAID)
    pq.write_table(
        pa.table({"user_id": same, "article_id": pa.array(np.arange(n)), "time": times, "impression_id": same}),
        root / "clicks.parquet",
    )
    lists = pa.array([list(range(n))] + [[0]] * (n - 1), pa.list_(pa.int64()))
    nothing = pa.array([[]] * n, pa.list_(pa.int64()))
    pq.write_table(
        pa.table({"impression_id": same, "user_id": same, "time": times, "inview": lists, "clicked": nothing}),
        root / "impressions.parquet",
    )
    known = declared_dataset(root)
    reader("own").split(root, known, tmp_path / "out")
    clicks = pq.read_table(tmp_path / "out" / str(D1) / "clicks.parquet")
    assert clicks["link"].null_count == n


# Lists


def test_lists_without_a_click_are_counted(tmp_path: Path) -> None:
    impressions = [
        shown(1, 7, "2023-05-01 10:00", [5, 6], [5]),
        shown(2, 7, "2023-05-01 10:01", [5, 6]),
        shown(3, 7, "2023-05-01 10:02", [5, 6]) | {"clicked": None},
        shown(4, 7, "2023-05-01 10:03", [5, 6], [9]),
        shown(5, 7, "2023-05-01 10:04", []),
    ]
    days = own(tmp_path / "in", tmp_path / "out", clicks=[click(7, 5, "2023-05-01 10:00")], impressions=impressions)
    assert columns(days[D1].impressions, "impression_id", "clicked") == [(1, [5]), (2, []), (3, [])]
    assert told(days[D1]) == {
        ("impressions", "nothing_clicked", "clicked", "impressions.parquet"): 1,
        ("impressions", "clicked_unknown", "clicked", "impressions.parquet"): 1,
    }
    assert Counter(days[D1].quarantine["reason"].to_pylist()) == {"clicked_not_in_view": 1, "empty_inview": 1}


@pytest.mark.parametrize(("split", "count"), [("train", 1), ("validation", 1), ("test", 0)])
def test_a_list_of_which_nothing_is_said_is_counted_where_clicks_are_published(
    tmp_path: Path, split: str, count: int
) -> None:
    rows = [impression(1, 1, "2023-05-18 10:00", [5], [5]), impression(2, 1, "2023-05-18 10:01", [5], None)]  # type: ignore[arg-type]
    root = write_bundle(tmp_path / "in", {split: rows}, {})
    log = DATASETS["ebnerd"]
    reader("ebnerd").split(root, log, tmp_path / "out")
    tables = reader("ebnerd").tables(tmp_path / "out" / "2023-05-18", log, date(2023, 5, 18))
    assert len(tables.impressions) == 2
    assert sum(r.count for r in tables.remarks if r.reason == "clicked_unknown") == count


# Articles


def ebnerd(
    root: Path, out: Path, rows: Sequence[Any], reads: Sequence[Any], listed: Sequence[Any]
) -> dict[date, DayTables]:
    write_bundle(root, {"train": rows}, {"train": reads} if reads else {}, listed)
    log = DATASETS["ebnerd"]
    return {d: reader("ebnerd").tables(out / str(d), log, d) for d in reader("ebnerd").split(root, log, out)}


def test_appearances_before_publication_are_counted_and_kept(tmp_path: Path) -> None:
    """On the day of publication and days before; at the very millisecond nothing is early."""
    rows = [
        impression(1, 1, "2023-05-18 10:00", [5, 6], [5], read_time=0.0),
        impression(2, 1, "2023-05-18 12:00", [5, 6], [6], read_time=0.0),
        impression(3, 1, "2023-05-20 10:00", [5, 7], [7], read_time=0.0),
        impression(4, 1, "2023-05-20 12:00", [7, 7], [7], read_time=0.0),
    ]
    reads = [history(2, ("2023-05-17 10:00", 7), ("2023-05-18 11:59", 5), ("2023-05-18 12:00", 5))]
    listed = [
        article(5, "2023-05-18 12:00"),
        article(6, "2023-05-18 10:00"),
        article(7, "2023-05-20 12:00"),
        article(8, None),
    ]
    days = ebnerd(tmp_path / "in", tmp_path / "out", rows, reads, listed)
    found = {d.day: told(t) for d, t in days.items()}
    clicked = ("clicks", "click_before_publication", "time")
    inview = ("impressions", "shown_before_publication", "inview", "train/behaviors.parquet")
    twice = ("impressions", "twice_in_view", "inview", "train/behaviors.parquet")
    assert found == {
        17: {(*clicked, "train/history.parquet"): 1},
        18: {(*clicked, "train/behaviors.parquet"): 1, (*clicked, "train/history.parquet"): 1, inview: 1},
        20: {(*clicked, "train/behaviors.parquet"): 1, inview: 1, twice: 1},
    }
    assert sum(len(t.clicks) for t in days.values()) == 7
    published = dict(columns(days[date(2023, 5, 18)].articles, "article_id", "published"))
    assert published == {5: ms("2023-05-18 10:00"), 6: ms("2023-05-18 10:00")}
    (early,) = [r for r in days[date(2023, 5, 17)].remarks if r.reason == "click_before_publication"]
    assert json.loads(early.examples[0][1]) == {"article_id": 7, "time": "2023-05-17T10:00:00.000Z"}


def test_appearances_before_publication_in_an_own_log(tmp_path: Path) -> None:
    listed = [{"article_id": 5, "published": at("2023-05-01 10:30")}, {"article_id": 6, "published": None}]
    clicks = [click(7, 5, "2023-05-01 10:29"), click(7, 5, "2023-05-01 10:30"), click(7, 6, "2023-05-01 10:00")]
    impressions = [shown(1, 7, "2023-05-01 10:00", [6, 5], [6])]
    days = own(tmp_path / "in", tmp_path / "out", clicks=clicks, impressions=impressions, articles=listed)
    assert told(days[D1]) == {
        ("clicks", "click_before_publication", "time", "clicks.parquet"): 1,
        ("impressions", "shown_before_publication", "inview", "impressions.parquet"): 1,
    }
    assert len(days[D1].clicks) == 3


def test_articles_that_the_table_lacks_are_counted_once(tmp_path: Path) -> None:
    clicks = [click(7, a, f"2023-05-0{d} 10:00") for d in (1, 2) for a in (5, 8, 9)]
    impressions = [shown(1, 7, "2023-05-01 10:00", [5, 9, 11], [5]), shown(2, 7, "2023-05-02 10:00", [11, 12], [12])]
    days = own(tmp_path / "in", tmp_path / "out", clicks=clicks, impressions=impressions, articles=[{"article_id": 5}])
    key = ("articles", "unlisted_article", "article_id")
    assert told(days[D1]) == {(*key, "clicks.parquet"): 2, (*key, "impressions.parquet"): 1}
    unclicked = ("impressions", "clicked_without_a_row", "clicked", "impressions.parquet")
    assert told(days[D2]) == {(*key, "clicks.parquet"): 2, (*key, "impressions.parquet"): 2, unclicked: 1}
    assert {r.ids for r in days[D2].remarks if r.ids} == {frozenset({8, 9}), frozenset({11, 12})}
    assert {s for r in days[D1].remarks for s, _ in r.examples} == {
        "clicks.parquet:2", "clicks.parquet:3", "impressions.parquet:1",
    }  # fmt: skip


def test_without_an_article_table_nothing_is_missing_from_it(tmp_path: Path) -> None:
    days = own(tmp_path / "in", tmp_path / "out", clicks=[click(7, 5, "2023-05-01 10:00")])
    assert days[D1].remarks == ()
