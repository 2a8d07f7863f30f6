"""Stored predictions read back: top lists by protocol, scored impressions, the test span.

Belongs here: the files of a predictions folder as arrays. Does not belong here: writing them (`ml.predict`) and
measuring them (`ml.evaluate`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml import schema
from ml.errors import DataError
from ml.log import int_array
from ml.metrics import RankedLists
from ml.parquet import read_table
from ml.strangers import read_object

PROTOCOLS = ("thesis", "unread", "in_session")
CASE = "case"
TARGET_AGE = "target_age_minutes"
CASES = pa.schema(
    [
        pa.field(CASE, pa.int64(), nullable=False),
        pa.field(schema.USER_ID, pa.int64(), nullable=False),
        pa.field(schema.CLICK_TIME, schema.TIME, nullable=False),
        pa.field(schema.ARTICLE_ID, pa.int64(), nullable=False),
        pa.field("history", pa.int32(), nullable=False),
        *(pa.field(name, pa.bool_(), nullable=False) for name in PROTOCOLS),
        pa.field("available", pa.int32(), nullable=False),
        pa.field(TARGET_AGE, pa.float32(), nullable=False),
    ]
)
TOP_LISTS = pa.schema(
    [
        pa.field(CASE, pa.int64(), nullable=False),
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("articles", pa.list_(pa.int64()), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
    ]
)
IN_VIEW = pa.schema(
    [
        pa.field(schema.IMPRESSION_ID, pa.int64(), nullable=False),
        pa.field(schema.USER_ID, pa.int64(), nullable=False),
        pa.field(schema.CLICK_TIME, schema.TIME, nullable=False),
        pa.field("articles", pa.list_(pa.int64()), nullable=False),
        pa.field("clicked", pa.list_(pa.bool_()), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
        pa.field(schema.SYNTHETIC, pa.string()),
    ]
)
"""Files of a predictions folder: `cases.parquet`, `top.parquet`, `inview.parquet`."""

_SPAN = ("dataset", "start_ms", "end_ms", "minutes", "catalogue_available")


@dataclass(frozen=True, slots=True)
class TopLists:
    """The stored lists of one protocol, in order of case: `articles` int64 [V] ragged by `offsets` int64 [N + 1];
    `keys` (`case`, `user_id`, `time`, and `article_id` of the target) int64 [N]; `available` bool [N], whether the
    target was old enough to be recommended."""

    keys: dict[str, np.ndarray]
    articles: np.ndarray
    offsets: np.ndarray
    available: np.ndarray

    @property
    def reader(self) -> np.ndarray:
        """Reader of each list, int64 [N]."""
        return self.keys[schema.USER_ID]

    def reader_of_articles(self) -> np.ndarray:
        """Reader of each recommended article, int64 [V]."""
        return np.repeat(self.reader, np.diff(self.offsets))

    @classmethod
    def read(cls, predictions: Path, protocol: str, k: int | None = None) -> "TopLists":
        """The lists (their first `k` places) of the cases eligible under `protocol`; DataError when one is missing."""
        names = [CASE, schema.USER_ID, schema.CLICK_TIME, schema.ARTICLE_ID]
        wanted = schema.some(CASES, *names, TARGET_AGE, *PROTOCOLS)
        cases = read_columns(predictions / "cases.parquet", wanted)
        cases = cases.filter(cases.column(protocol)).sort_by(CASE)
        wanted = schema.some(TOP_LISTS, CASE, "protocol", "articles")
        top = read_columns(predictions / "top.parquet", wanted, pc.field("protocol") == protocol).sort_by(CASE)
        keys = {name: int_array(cases, name) for name in names}
        if not np.array_equal(keys[CASE], int_array(top, CASE)):
            raise DataError(f"{predictions / 'top.parquet'}: not one list for each {protocol} case: predict anew")
        offsets, articles = _ragged(top, "articles")
        if k is not None:
            place = np.arange(len(articles)) - np.repeat(offsets[:-1], np.diff(offsets))
            articles = articles[place < k]
            offsets = np.concatenate([[0], np.cumsum(np.minimum(np.diff(offsets), k))])
        age = cases.column(TARGET_AGE).to_numpy(zero_copy_only=False)
        return cls(keys, articles, offsets, age > 0)


@dataclass(frozen=True, slots=True)
class InViewLists:
    """Scored impressions in stored order: `keys` (`impression_id`, `user_id`, `time`) int64 [I]; `articles` int64 and
    `clicked` bool [V] ragged by `offsets` int64 [I + 1]; `ranked` by score."""

    keys: dict[str, np.ndarray]
    articles: np.ndarray
    clicked: np.ndarray
    offsets: np.ndarray
    ranked: RankedLists

    @classmethod
    def read(cls, predictions: Path) -> "InViewLists":
        """From `inview.parquet`: no rows where the dataset has no impressions. DataError when a column is missing."""
        names = [schema.IMPRESSION_ID, schema.USER_ID, schema.CLICK_TIME]
        wanted = schema.some(IN_VIEW, *names, "articles", "clicked", "scores")
        table = read_columns(predictions / "inview.parquet", wanted)
        lists = [_ragged(table, name) for name in ("articles", "clicked", "scores")]
        offsets, (articles, clicked, scores) = lists[0][0], (values for _, values in lists)
        if not all(np.array_equal(offsets, own) for own, _ in lists):
            raise DataError(f"{predictions / 'inview.parquet'}: lists of unequal length: predict anew")
        if np.isnan(scores).any():
            raise DataError(f"{predictions / 'inview.parquet'}: a score is no number: predict anew")
        keys = {name: int_array(table, name) for name in names}
        return cls(keys, articles, clicked, offsets, RankedLists.rank(clicked, scores, offsets))

    def ranked_by(self, offsets: np.ndarray, articles: np.ndarray, scores: np.ndarray) -> "InViewLists":
        """The same impressions ranked by other `scores` of the same articles, which may stand in another order.

        Raises DataError when an impression holds other articles.
        """
        ours, theirs = (np.lexsort((a, _owner(o))) for a, o in ((self.articles, self.offsets), (articles, offsets)))
        if not (np.array_equal(offsets, self.offsets) and np.array_equal(self.articles[ours], articles[theirs])):
            raise DataError("the oracle's impressions hold other articles than those in view: is it of another bundle?")
        aligned = np.empty(len(scores))
        aligned[ours] = scores[theirs]
        ranked = RankedLists.rank(self.clicked, aligned, self.offsets)
        return InViewLists(self.keys, self.articles, self.clicked, self.offsets, ranked)


def read_span(predictions: Path) -> dict[str, Any]:
    """`span.json` of a predictions folder; DataError when it is missing or incomplete."""
    path = predictions / "span.json"
    span = read_object(path, "predict anew")
    missing = [name for name in _SPAN if name not in span]
    if missing:
        raise DataError(f"{path}: no entry {missing[0]!r}: predict anew")
    if not all(isinstance(span[name], int) for name in ("start_ms", "end_ms", "catalogue_available")):
        raise DataError(f"{path}: times and counts are whole numbers: predict anew")
    return span


def read_columns(path: Path, columns: Sequence[str] | pa.Schema, keep: pc.Expression | None = None) -> pa.Table:
    """Columns of a parquet file, rows filtered by `keep`; DataError when it is missing, damaged, or lacks a column."""
    table = read_table(path, columns, "materialise what wrote it anew")
    return table if keep is None else table.filter(keep)


def _owner(offsets: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _ragged(table: pa.Table, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Offsets int64 [I + 1] and flat values of a list column."""
    lists = table.column(column).combine_chunks()
    if lists.null_count or lists.flatten().null_count:
        raise DataError(f"predictions hold a null in the lists of {column}: predict anew")
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.concatenate([[0], np.cumsum(lengths)]), lists.flatten().to_numpy(zero_copy_only=False)
