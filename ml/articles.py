"""Static article attributes: the metadata features of Tab. A.5 (document 1), counted from text, and their table.

Belongs here: what is known of an article whatever the time (category, premium, counts over its text), and the
catalogue order. Does not belong here: scaling (`ml.features`), embeddings (`ml.content`), anything that moves
with time (`ml.asof`).
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml import schema
from ml.log import int_array
from ml.parquet import read_batches, read_table

SENTIMENT = "sentiment_score"
TEXT_COLUMNS = (
    "body_word_count",
    "body_sentence_count",
    "body_unique_ratio",
    "body_exclamation_count",
    "body_comma_count",
    "body_digit_ratio",
    "title_word_count",
    "subtitle_word_count",
    "body_avg_token_len",
    "body_avg_sentence_len",
)
NUMERIC = (SENTIMENT, *TEXT_COLUMNS)
"""Numeric metadata in the order of `ArticleTable.numeric`'s columns."""

ARTICLE_FEATURES = pa.schema(
    [
        pa.field(schema.ARTICLE_ID, pa.int64(), nullable=False),
        pa.field(schema.PUBLISHED, schema.TIME, nullable=False),
        pa.field("category_id", pa.int32()),
        pa.field("category", pa.string()),
        pa.field("premium", pa.int8(), nullable=False),
        *(pa.field(name, pa.float32()) for name in NUMERIC),
    ]
)
"""One row an article, sorted by (published, article_id): row number = catalogue row. `premium` is 1, 0 or -1
(unknown); numbers are null where the text is absent or blank."""

_WORD = r"[\p{L}\p{N}_]+"
_NOT_WORD = r"[^\p{L}\p{N}_]+"
_END = r"[.!?…]+[\"'”»)\]]*"
_SENTENCE_END = _END + r"(\s|$)"
_CLOSED = _END + "$"
_ROWS_AT_ONCE = 8192
_ANEW = "rebuild the articles of that day"


@dataclass(frozen=True, slots=True)
class ArticleTable:
    """Static attributes by catalogue row: `article_id` int64 [A]; `category` int32 [A] and `premium` int8 [A], -1
    unknown; `numeric` float32 [A, 11] in the order of `NUMERIC`, NaN unknown."""

    article_id: np.ndarray
    category: np.ndarray
    premium: np.ndarray
    numeric: np.ndarray

    def __len__(self) -> int:
        return len(self.article_id)

    @classmethod
    def load(cls, path: Path) -> "ArticleTable":
        """From `article_features` parquet. Raises DataError naming the column that is missing."""
        names = [n for n in ARTICLE_FEATURES.names if n not in (schema.PUBLISHED, "category")]
        table = read_table(path, schema.some(ARTICLE_FEATURES, *names), "rebuild article_features")
        numeric = [table.column(n).to_numpy(zero_copy_only=False).astype(np.float32) for n in NUMERIC]
        return cls(
            int_array(table, schema.ARTICLE_ID),
            int_array(table, "category_id", np.int32),
            int_array(table, "premium", np.int8),
            np.stack(numeric, axis=1),
        )


def build_article_features(article_files: list[Path], out: Path) -> int:
    """Write `article_features` (schema `ARTICLE_FEATURES`) from daily `articles` parquet files; the number of rows.

    An article that occurs more than once keeps the row published earliest, among equals the one modified last, then
    the one in the later file. Text is read a few thousand rows at a time. Raises DataError naming the file that lacks
    a column.
    """
    keep = _chosen_rows(article_files)
    parts = [ARTICLE_FEATURES.empty_table()]
    for path, rows in zip(article_files, keep, strict=True):
        start = 0
        for batch in read_batches(path, _ROWS_AT_ONCE, schema.ARTICLES.names, _ANEW):
            stop = start + batch.num_rows
            here = rows[(rows >= start) & (rows < stop)] - start
            if len(here):
                parts.append(article_features(batch.take(pa.array(here))))
            start = stop
    table = pa.concat_tables(parts).sort_by([(schema.PUBLISHED, "ascending"), (schema.ARTICLE_ID, "ascending")])
    pq.write_table(table, out, compression="zstd")
    return table.num_rows


def article_features(articles: pa.Table) -> pa.Table:
    """The features of the articles of one table (schema `ARTICLES`), in the same order, schema `ARTICLE_FEATURES`."""
    counts = text_features(*(articles.column(name).combine_chunks() for name in ("title", "subtitle", "body")))
    columns = {
        schema.ARTICLE_ID: articles.column(schema.ARTICLE_ID),
        schema.PUBLISHED: articles.column(schema.PUBLISHED).cast(schema.TIME),
        "category_id": articles.column("category_id").cast(pa.int32()),
        "category": articles.column("category").cast(pa.string()),
        "premium": articles.column("premium").cast(pa.int8()).fill_null(-1),
        SENTIMENT: articles.column(SENTIMENT).cast(pa.float32()),
        **counts,
    }
    return pa.table(columns, schema=ARTICLE_FEATURES)


def text_features(title: pa.Array, subtitle: pa.Array, body: pa.Array) -> dict[str, pa.Array]:
    """The ten text statistics of Tab. A.5 by name, float32, null where the text is null, blank or has no word.

    A word is a run of letters, digits or underscores in any script; a sentence ends with `.`, `!`, `?` or `…` before a
    space or the end (so `3.5` does not end one), and the rest of the text after the last end counts as one more.
    """
    body = _no_blank(body)
    words = _nullable(pc.count_substring_regex(body, _WORD))
    ends = pc.count_substring_regex(body, _SENTENCE_END)
    closed = pc.match_substring_regex(pc.utf8_rtrim_whitespace(body), _CLOSED)
    sentences = pc.add(ends, pc.invert(closed).cast(pa.int32()))
    digits = pc.count_substring_regex(body, r"\p{Nd}")
    letters, distinct = _token_statistics(body)
    columns = {
        "body_word_count": words,
        "body_sentence_count": sentences,
        "body_unique_ratio": _ratio(distinct, words),
        "body_exclamation_count": pc.count_substring(body, "!"),
        "body_comma_count": pc.count_substring(body, ","),
        "body_digit_ratio": _ratio(digits, pc.utf8_length(body)),
        "title_word_count": pc.count_substring_regex(_no_blank(title), _WORD),
        "subtitle_word_count": pc.count_substring_regex(_no_blank(subtitle), _WORD),
        "body_avg_token_len": _ratio(letters, words),
        "body_avg_sentence_len": _ratio(words, sentences),
    }
    return {name: pc.cast(column, pa.float32()) for name, column in columns.items()}


def _no_blank(text: pa.Array) -> pa.Array:
    text = text.cast(pa.large_string())
    blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(text)), 0)
    return pc.if_else(blank, pa.scalar(None, pa.large_string()), text)


def _nullable(counts: pa.Array) -> pa.Array:
    return pc.if_else(pc.greater(counts, 0), counts, pa.scalar(None, counts.type))


def _ratio(above: pa.Array, below: pa.Array) -> pa.Array:
    return pc.divide(pc.cast(above, pa.float64()), pc.cast(below, pa.float64()))


def _token_statistics(body: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Characters in words, and distinct words whatever their case, of each text; int64, 0 where there is none."""
    lists = pc.split_pattern_regex(pc.utf8_lower(body), _NOT_WORD)
    owner = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    token = pc.list_flatten(lists)
    length = pc.utf8_length(token).to_numpy(zero_copy_only=False).astype(np.int64)
    code = token.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    letters = np.bincount(owner, weights=length, minlength=len(body)).astype(np.int64)
    word = length > 0
    pairs = np.unique(owner[word] * (code.max(initial=0) + 1) + code[word])
    distinct = np.bincount(pairs // (code.max(initial=0) + 1), minlength=len(body))
    return pa.array(letters), pa.array(distinct)


def _chosen_rows(article_files: list[Path]) -> list[np.ndarray]:
    """For each file the row numbers to keep, ascending."""
    keys, sizes = [], []
    for number, path in enumerate(article_files):
        names = (schema.ARTICLE_ID, schema.PUBLISHED, schema.MODIFIED)
        table = read_table(path, schema.some(schema.ARTICLES, *names), _ANEW)
        rows = np.arange(table.num_rows)
        times = [int_array(table, name) for name in (schema.PUBLISHED, schema.MODIFIED)]
        keys.append(np.stack([int_array(table, schema.ARTICLE_ID), times[0], -times[1], -np.full(len(rows), number)]))
        sizes.append(table.num_rows)
    if not keys:
        return []
    article, published, modified, number = np.concatenate(keys, axis=1)
    order = np.lexsort((number, modified, published, article))
    first = order[np.r_[True, np.diff(article[order]) != 0]] if len(order) else order
    starts = np.r_[0, np.cumsum(sizes)]
    return [np.sort(first[(first >= a) & (first < b)]) - a for a, b in pairwise(starts)]
