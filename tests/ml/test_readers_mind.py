"""The MIND reader: days, several clicks an impression, untimed histories, quarantine."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import schema
from ml.datasets import DATASETS
from ml.errors import DataError
from ml.readers import DayTables, reader
from ml.readers.codes import category_code
from ml.readers.mind import ID_STEP
from tests.ml.bundles import ms
from tests.ml.test_readers_ebnerd import assert_conserved, columns, digests

MIND = DATASETS["mind"]
READER = reader("mind")
D9, D10, D15 = date(2019, 11, 9), date(2019, 11, 10), date(2019, 11, 15)


def write_mind(root: Path, folder: str, behaviors: Sequence[str], news: Sequence[str] | None = None) -> Path:
    """Files of one split, cells given with | between them."""
    where = root / folder
    where.mkdir(parents=True, exist_ok=True)
    (where / "behaviors.tsv").write_text("".join(line.replace("|", "\t") + "\n" for line in behaviors))
    if news is not None:
        (where / "news.tsv").write_text("".join(line.replace("|", "\t") + "\n" for line in news))
    return root


def news(number: int, category: str = "sports", title: str = "Title") -> str:
    return f'N{number}|{category}|{category}_sub|{title} {number}|Abstract, "quoted|https://x/{number}|[]|[]'


def small(root: Path) -> Path:
    first = [
        "1|U7|11/9/2019 12:00:00 AM|N90 N91|N1-0 N2-1 N3-1",
        "2|U8|11/9/2019 11:59:59 PM||N2-0 N4-1",
        "3|U7|11/10/2019 1:02:03 PM|N90|N1-1 N4-0",
    ]
    write_mind(root, "train", first, [news(1), news(2, "autos"), news(99)])
    return write_mind(root, "dev", ["1|U7|11/15/2019 9:00:00 AM|N90|N5-1 N1-0"], [news(1), news(5, "news")])


def split_and_read(root: Path, out: Path) -> dict[date, DayTables]:
    return {day: READER.tables(out / str(day), MIND, day) for day in READER.split(root, MIND, out)}


def held_back(out: Path) -> Counter[tuple[str, str, str]]:
    path = out / "quarantine.parquet"
    rows = pq.read_table(path).to_pylist() if path.exists() else []
    return Counter((r["table"], r["reason"], r["source"]) for r in rows)


def test_each_clicked_candidate_is_a_click(tmp_path: Path) -> None:
    days = split_and_read(small(tmp_path / "in"), tmp_path / "out")
    assert list(days) == [D9, D10, D15]
    assert columns(days[D9].clicks, "user_id", "article_id", "time", "impression_id") == [
        (7, 2, ms("2019-11-09 00:00"), 1),
        (7, 3, ms("2019-11-09 00:00"), 1),
        (8, 4, ms("2019-11-09 23:59:59"), 2),
    ]
    assert columns(days[D9].impressions, "impression_id", "user_id", "inview", "clicked") == [
        (1, 7, [1, 2, 3], [2, 3]),
        (2, 8, [2, 4], [4]),
    ]
    assert days[D15].impressions["impression_id"].to_pylist() == [1 + ID_STEP]
    assert set(days[D9].impressions[schema.SYNTHETIC].to_pylist()) == {None}
    for tables in days.values():
        assert_conserved(tables)
        assert tables.articles.schema.equals(schema.ARTICLES)
        assert tables.impressions.schema.equals(schema.IMPRESSIONS)


@pytest.mark.parametrize("day", [9, 10])
def test_an_impression_of_a_used_id_gives_no_clicks(tmp_path: Path, day: int) -> None:
    lines = ["1|U7|11/9/2019 1:00:00 AM||N1-0 N2-1", f"1|U8|11/{day}/2019 2:00:00 AM||N1-1 N2-1"]
    made = split_and_read(write_mind(tmp_path / "in", "train", lines), tmp_path / "out")
    assert [row for tables in made.values() for row in columns(tables.clicks, "user_id", "article_id")] == [(7, 2)]
    assert [r for t in made.values() for r in t.quarantine["reason"].to_pylist()] == ["duplicate_impression_id"]
    for tables in made.values():
        assert_conserved(tables)


def test_histories_are_counted_and_make_no_clicks(tmp_path: Path) -> None:
    days = split_and_read(small(tmp_path / "in"), tmp_path / "out")
    assert [days[d].counts["clicks"]["untimed_history"] for d in days] == [2, 1, 1]
    assert {90, 91}.isdisjoint(a for t in days.values() for a in t.clicks["article_id"].to_pylist())
    assert pq.read_table(tmp_path / "out" / str(D9) / "impressions.parquet")["history"].to_pylist() == ["N90 N91", ""]


def test_articles_appear_with_their_text(tmp_path: Path) -> None:
    days = split_and_read(small(tmp_path / "in"), tmp_path / "out")
    names = ("article_id", "published", "published_is_first_seen", "title", "subtitle", "category", "category_id")
    assert columns(days[D9].articles, *names) == [
        (1, ms("2019-11-09 00:00"), True, "Title 1", 'Abstract, "quoted', "sports", category_code("sports")),
        (2, ms("2019-11-09 00:00"), True, "Title 2", 'Abstract, "quoted', "autos", category_code("autos")),
        (3, ms("2019-11-09 00:00"), True, None, None, None, None),
        (4, ms("2019-11-09 23:59:59"), True, None, None, None, None),
    ]
    assert days[D9].articles["subcategory"].to_pylist() == ["sports_sub", "autos_sub", None, None]
    # N99 never appears; N1 of dev repeats that of train exactly
    assert held_back(tmp_path / "out") == {("articles", "never_shown", "train/news.tsv:3"): 1}


def test_rows_that_cannot_be_read_are_held_back(tmp_path: Path) -> None:
    lines = [
        "1|U7|11/9/2019 8:00:00 AM||N1-0 N2-1",
        "2|7|11/9/2019 8:00:00 AM||N1-0 N2-1",
        "x|U7|11/9/2019 8:00:00 AM||N1-0 N2-1",
        "4|U7|2019-11-09 08:00||N1-0 N2-1",
        "5|U7|11/9/2019 8:00:00 AM||N1-0 N2",
        "6|U7|11/9/2019 8:00:00 AM||N1-0 X2-1",
        "7|U7|11/9/2019 8:00:00 AM||N1-0 N2-2",
        "8|U7|11/9/2019 8:00:00 AM|N1-0 N2-1",
        "9|U7|11/9/1999 8:00:00 AM||N1-0 N2-1",
        "10|U7|11/9/2019 8:00:00 AM||",
    ]
    root = write_mind(tmp_path / "in", "", lines, [news(1), news(1, title="Other"), "N2|sports", news(1)])
    days = split_and_read(root, tmp_path / "out")
    assert held_back(tmp_path / "out") == {
        ("impressions", "unparsable_id", "behaviors.tsv:2"): 1,
        ("impressions", "unparsable_id", "behaviors.tsv:3"): 1,
        ("impressions", "unparsable_time", "behaviors.tsv:4"): 1,
        ("impressions", "unparsable_candidates", "behaviors.tsv:5"): 1,
        ("impressions", "unparsable_candidates", "behaviors.tsv:6"): 1,
        ("impressions", "unparsable_candidates", "behaviors.tsv:7"): 1,
        ("impressions", "wrong_number_of_cells", "behaviors.tsv:8"): 1,
        ("impressions", "outside_days", "behaviors.tsv:9"): 1,
        ("articles", "duplicate_article_id", "news.tsv:2"): 1,
        ("articles", "wrong_number_of_cells", "news.tsv:3"): 1,
    }
    assert Counter(days[D9].quarantine["reason"].to_pylist()) == {"empty_inview": 1}
    assert days[D9].impressions["impression_id"].to_pylist() == [1]
    assert_conserved(days[D9])


def test_a_test_folder_has_no_clicks(tmp_path: Path) -> None:
    root = write_mind(tmp_path / "in", "test", ["4|U7|11/16/2019 8:00:00 AM|N9|N1 N2"])
    tables = split_and_read(root, tmp_path / "out")[date(2019, 11, 16)]
    assert len(tables.clicks) == 0
    assert columns(tables.impressions, "impression_id", "inview", "clicked") == [(4 + 2 * ID_STEP, [1, 2], [])]


def test_equal_sources_give_equal_bytes(tmp_path: Path) -> None:
    root = small(tmp_path / "in")
    for out in ("a", "b"):
        READER.split(root, MIND, tmp_path / out)
    assert digests(tmp_path / "a") == digests(tmp_path / "b") != {}


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither behaviors\.tsv"):
        READER.sources(tmp_path)
    small(tmp_path / "in")
    write_mind(tmp_path / "in", "", ["1|U7|11/9/2019 8:00:00 AM||N1-0"])
    with pytest.raises(DataError, match="remove one of them"):
        READER.sources(tmp_path / "in")
    old = write_mind(tmp_path / "old", "", ["1|U7|11/9/2001 8:00:00 AM||N1-0"])
    with pytest.raises(DataError, match="no impression falls in 2019-11-09"):
        READER.split(old, MIND, tmp_path / "out")


CELL = st.text(st.characters(exclude_characters="\n\r\t|", exclude_categories=["Cs"]), max_size=12)
LINE = st.one_of(
    st.lists(CELL, min_size=1, max_size=7).map("\t".join),
    st.builds(
        "{}\tU{}\t11/{}/2019 {}:00:00 AM\t{}\t{}".format,
        st.integers(-1, 9),
        st.integers(0, 3),
        st.integers(8, 11),
        st.integers(0, 13),
        st.sampled_from(["", "N1 N2"]),
        st.sampled_from(["N1-0 N2-1", "N1-1", "", "N1", "N1-0 N2", "N1-1 N1-1"]),
    ),
)


@given(st.lists(LINE, max_size=12))
@settings(max_examples=60, deadline=None)
def test_no_line_is_lost(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    root = tmp_path_factory.mktemp("mind")
    good = "77\tU7\t11/9/2019 8:00:00 AM\t\tN1-0 N2-1"
    (root / "behaviors.tsv").write_text("".join(f"{line}\n" for line in [good, *lines]), encoding="utf-8")
    days = split_and_read(root, root / "out")
    early = sum(n for (table, _, _), n in held_back(root / "out").items() if table == "impressions")
    counted = sum(t.counts["impressions"]["rows_in"] for t in days.values())
    assert early + counted == 1 + sum(1 for line in lines if line)
    for tables in days.values():
        assert_conserved(tables)


@pytest.mark.real
def test_real_log(real_data: Any, tmp_path: Path) -> None:
    days = split_and_read(real_data("mind"), tmp_path)
    assert list(days) == [date(2019, 11, d) for d in range(9, 14)]
    assert sum(len(t.impressions) for t in days.values()) == 4_032
    assert all(reason == "never_shown" for _, reason, _ in held_back(tmp_path))
    told = sum(t.articles["title"].is_valid().to_numpy(zero_copy_only=False).sum() for t in days.values())
    assert told > 0
    assert max(len(c) for t in days.values() for c in t.impressions["clicked"].to_pylist()) > 1
    for tables in days.values():
        assert_conserved(tables)
        assert json.dumps(tables.counts)


def test_impression_ids_that_would_meet_those_of_another_folder_are_held_back(tmp_path: Path) -> None:
    rows = [f"{n}|U7|11/9/2019 9:00:00 AM||N5-1" for n in (1, ID_STEP - 1, ID_STEP, 2**63 - 1)]
    write_mind(tmp_path / "in", "dev", rows)
    days = split_and_read(tmp_path / "in", tmp_path / "out")
    assert days[D9].impressions["impression_id"].to_pylist() == [ID_STEP + 1, 2 * ID_STEP - 1]
    assert held_back(tmp_path / "out") == {
        ("impressions", "id_too_large", "dev/behaviors.tsv:3"): 1,
        ("impressions", "id_too_large", "dev/behaviors.tsv:4"): 1,
    }
    alone = split_and_read(write_mind(tmp_path / "alone", "", rows), tmp_path / "alone-out")
    assert alone[D9].impressions["impression_id"].to_pylist() == [1, ID_STEP - 1, ID_STEP, 2**63 - 1]


@pytest.mark.parametrize("name", ["train/behaviors.tsv", "train/news.tsv"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    root = small(tmp_path / "in")
    (root / name).unlink()
    (root / name).symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=rf"{name} leads outside the data root"):
        split_and_read(root, tmp_path / "out")
