"""A raw day from several deliveries: no row lost, the last word on an article, equal bytes for equal pieces."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml.errors import DataError
from ml.readers import reader
from ml.readers.merge import Listing, Piece, count_rows, listed_articles, merge_day

EBNERD, GLOBO = reader("ebnerd"), reader("globo")


def day(folder: Path, **tables: dict) -> Path:
    folder.mkdir(parents=True)
    for name, columns in tables.items():
        pl.DataFrame(columns).write_parquet(folder / f"{name}.parquet")
    return folder


def articles(*rows: tuple[int, str], source: str = "articles.parquet") -> dict:
    return {
        "article_id": [i for i, _ in rows],
        "title": [title for _, title in rows],
        "source": [source] * len(rows),
    }


def behaviors(*numbers: int) -> dict:
    return {
        "impression_id": list(numbers),
        "article_ids_inview": [[7, 8]] * len(numbers),
        "source": ["train/behaviors.parquet"] * len(numbers),
    }


def read(path: Path) -> list[dict]:
    return pl.read_parquet(path).to_dicts()


def test_events_follow_each_other_in_the_order_of_the_pieces_under_their_names(tmp_path):
    a, b = day(tmp_path / "a", behaviors=behaviors(1, 2)), day(tmp_path / "b", behaviors=behaviors(3))
    names = {"train/behaviors.parquet": "landing/2023-05-21/behaviors.parquet"}
    merge_day([Piece(a, "bundle", "all"), Piece(b, "drop", "all", names=names)], EBNERD, None, tmp_path / "out")
    found = read(tmp_path / "out" / "behaviors.parquet")
    assert [r["impression_id"] for r in found] == [1, 2, 3]
    assert [r["source"] for r in found] == ["train/behaviors.parquet"] * 2 + ["landing/2023-05-21/behaviors.parquet"]
    assert not (tmp_path / "out" / "quarantine.parquet").exists()


def test_the_last_delivery_has_the_word_on_an_article_and_the_others_are_quarantined(tmp_path):
    a = day(tmp_path / "a", articles=articles((1, "old"), (2, "same"), (3, "only here")))
    b = day(tmp_path / "b", articles=articles((1, "new"), (2, "same"), source="x"))
    merge_day([Piece(a, "bundle", "all"), Piece(b, "drop", "all")], EBNERD, None, tmp_path / "out")
    found = {r["article_id"]: r["title"] for r in read(tmp_path / "out" / "articles.parquet")}
    assert found == {1: "new", 2: "same", 3: "only here"}
    (held,) = read(tmp_path / "out" / "quarantine.parquet")
    assert (held["table"], held["reason"]) == ("articles", "superseded") and "old" in held["row"]


def test_rows_of_one_delivery_do_not_supersede_each_other(tmp_path):
    a, b = day(tmp_path / "a", articles=articles((1, "x"), (1, "y"))), day(tmp_path / "b", articles=articles((1, "x")))
    merge_day([Piece(a, "drop", "all"), Piece(b, "drop", "articles")], EBNERD, None, tmp_path / "out")
    assert [r["title"] for r in read(tmp_path / "out" / "articles.parquet")] == ["x", "y"]
    assert not (tmp_path / "out" / "quarantine.parquet").exists()


def test_rows_with_a_reason_are_held_back_with_it(tmp_path):
    a = day(tmp_path / "a", behaviors=behaviors(1), articles=articles((1, "x")), unlisted={"article_id": [9]})
    merge_day([Piece(a, "drop", "events", "late")], EBNERD, None, tmp_path / "events")
    merge_day([Piece(a, "drop", "all", "outside_drop")], EBNERD, None, tmp_path / "all")
    events, everything = (read(tmp_path / n / "quarantine.parquet") for n in ("events", "all"))
    assert [(r["table"], r["reason"]) for r in events] == [("impressions", "late")]
    assert sorted(r["table"] for r in everything) == ["articles", "impressions"]


def test_globo_has_one_category_row_an_article(tmp_path):
    a = day(tmp_path / "a", clicks={"user_id": [1], "source": ["c"]}, articles={"article_id": [5], "category_id": [1]})
    b = day(tmp_path / "b", clicks={"user_id": [2], "source": ["c"]}, articles={"article_id": [5], "category_id": [2]})
    merge_day([Piece(a, "bundle", "all"), Piece(b, "drop", "all")], GLOBO, None, tmp_path / "out")
    assert read(tmp_path / "out" / "articles.parquet") == [{"article_id": 5, "category_id": 2}]
    assert [r["user_id"] for r in read(tmp_path / "out" / "clicks.parquet")] == [1, 2]
    assert [r["reason"] for r in read(tmp_path / "out" / "quarantine.parquet")] == ["superseded"]


def test_articles_that_no_file_lists_are_named(tmp_path):
    a = day(tmp_path / "a", behaviors=behaviors(1), articles=articles((7, "x")))
    listed = listed_articles([Listing(a), Listing(tmp_path / "none")])
    assert listed is not None and listed.tolist() == [7]
    merge_day([Piece(a, "drop", "all")], EBNERD, listed, tmp_path / "out")
    assert read(tmp_path / "out" / "unlisted.parquet") == [{"article_id": 8}]
    merge_day([Piece(a, "drop", "all")], EBNERD, np.array([8, 7]), tmp_path / "known")
    assert read(tmp_path / "known" / "unlisted.parquet") == []
    assert listed_articles([Listing(tmp_path)]) is None


def test_types_that_widen_are_widened_and_others_refused(tmp_path):
    small = {"impression_id": pl.Series([1], dtype=pl.Int32), "source": ["s"]}
    a, b = day(tmp_path / "a", behaviors=small), day(tmp_path / "b", behaviors={"impression_id": [2**40]})
    merge_day([Piece(a, "x", "all"), Piece(b, "y", "all")], EBNERD, None, tmp_path / "out")
    assert [r["impression_id"] for r in read(tmp_path / "out" / "behaviors.parquet")] == [1, 2**40]
    c = day(tmp_path / "c", behaviors={"impression_id": [[1]]})
    with pytest.raises(DataError, match=r"c/behaviors\.parquet: a column has another type"):
        merge_day([Piece(a, "x", "all"), Piece(c, "y", "all")], EBNERD, None, tmp_path / "other")


def test_event_rows_are_counted_without_articles_and_quarantine(tmp_path):
    a = day(tmp_path / "a", behaviors=behaviors(1, 2), history={"user_id": [1]}, articles=articles((1, "x")))
    pl.DataFrame({"article_id": [1]}).write_parquet(a / "unlisted.parquet")
    assert count_rows(a, EBNERD.derived_files) == 3
