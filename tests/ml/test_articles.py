"""Article features: counts against a plain Python definition, the union over days, the loaded table."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import schema
from ml.articles import ARTICLE_FEATURES, NUMERIC, ArticleTable, build_article_features, text_features
from ml.errors import DataError
from ml.log import Catalogue

START = datetime(2023, 5, 18, 7, tzinfo=UTC)


def articles(rows: list[dict]) -> pa.Table:
    full = [
        {name: row.get(name) for name in schema.ARTICLES.names} | {"published_is_first_seen": False} for row in rows
    ]
    return pa.Table.from_pylist(full, schema=schema.ARTICLES)


def statistics(body: str | None, title: str | None = None, subtitle: str | None = None) -> dict[str, float | None]:
    columns = text_features(*(pa.array([t], pa.string()) for t in (title, subtitle, body)))
    return {name: column[0].as_py() for name, column in columns.items()}


def test_counts_of_a_hand_counted_text() -> None:
    got = statistics("Æbler, pærer! Æbler koster 3.5 kroner. Er det dyrt? Ja", "Frugt på vej", None)
    words = ["æbler", "pærer", "æbler", "koster", "3", "5", "kroner", "er", "det", "dyrt", "ja"]
    expected = {
        "body_word_count": 11,
        "body_sentence_count": 4,
        "body_unique_ratio": 10 / 11,
        "body_exclamation_count": 1,
        "body_comma_count": 1,
        "body_digit_ratio": 2 / 54,
        "title_word_count": 3,
        "body_avg_token_len": sum(map(len, words)) / 11,
        "body_avg_sentence_len": 11 / 4,
    }
    assert got.pop("subtitle_word_count") is None
    assert got == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("body", [None, "", "  \n "])
def test_no_text_gives_null_and_not_zero(body: str | None) -> None:
    assert set(statistics(body, body, body).values()) == {None}


def test_text_without_a_word_has_no_ratio_to_words() -> None:
    got = statistics("?!")
    assert got["body_word_count"] is None and got["body_unique_ratio"] is None and got["body_avg_token_len"] is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="aAbø1 .,!?\n", max_size=40), min_size=1, max_size=5))
def test_words_equal_the_plain_definition(texts: list[str]) -> None:
    blank = pa.array([None] * len(texts), pa.string())
    got = text_features(blank, blank, pa.array(texts, pa.string()))
    for i, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        if not words:
            assert got["body_unique_ratio"][i].as_py() is None
            continue
        assert got["body_word_count"][i].as_py() == len(words)
        assert got["body_unique_ratio"][i].as_py() == pytest.approx(len(set(words)) / len(words))
        assert got["body_avg_token_len"][i].as_py() == pytest.approx(sum(map(len, words)) / len(words))
        pieces = [p for p in re.split(r"[.!?]+(?=\s|$)", text) if p.strip()]
        assert got["body_sentence_count"][i].as_py() >= len(pieces)


def test_union_keeps_the_earliest_publication_then_the_last_text(tmp_path: Path) -> None:
    hour = timedelta(hours=1)
    first = articles(
        [
            {"article_id": 9, "published": START + hour, "body": "one two"},
            {"article_id": 2, "published": START + hour, "body": "one", "modified": START + hour, "premium": True},
            {"article_id": 5, "published": START + 3 * hour, "body": "late row"},
        ]
    )
    second = articles(
        [
            {"article_id": 2, "published": START + hour, "body": "one two three", "modified": START + 2 * hour},
            {"article_id": 5, "published": START, "category_id": 7, "category": "sport"},
            {"article_id": 9, "published": START + 2 * hour, "body": "x"},
        ]
    )
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path, table in zip(paths, (first, second), strict=True):
        pq.write_table(table, path)
    out = tmp_path / "features.parquet"
    assert build_article_features(paths, out) == 3
    table = pq.read_table(out)
    assert table.schema.equals(ARTICLE_FEATURES)
    assert table.column("article_id").to_pylist() == [5, 2, 9]
    assert table.column("body_word_count").to_pylist() == [None, 3, 2]
    assert table.column("premium").to_pylist() == [-1, -1, -1]
    loaded = ArticleTable.load(out)
    assert loaded.category.tolist() == [7, -1, -1]
    assert loaded.numeric.shape == (3, len(NUMERIC)) and np.isnan(loaded.numeric[0]).all()
    assert Catalogue.load(out).article_id.tolist() == loaded.article_id.tolist()
    again = tmp_path / "again.parquet"
    build_article_features(paths, again)
    assert again.read_bytes() == out.read_bytes()


def test_no_articles_give_an_empty_table(tmp_path: Path) -> None:
    assert build_article_features([], tmp_path / "f.parquet") == 0
    assert len(ArticleTable.load(tmp_path / "f.parquet")) == 0


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    pq.write_table(articles([]).drop_columns(["subtitle"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: no column 'subtitle'"):
        build_article_features([tmp_path / "a.parquet"], tmp_path / "f.parquet")
