"""A span of days of a log: its articles as rows of a catalogue, and its clicks and impressions one day at a time.

Belongs here: reading the canonical tables (`ml.schema`). Does not belong here: anything measured on them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from ml import schema
from ml.clock import MS_PER_DAY
from ml.datasets import Dataset
from ml.errors import DataError
from ml.lifecycle import UNKNOWN, covered
from ml.log import int_array
from ml.parquet import read_batches, read_table

BATCH = 131_072
"""Impressions read at once."""


@dataclass(frozen=True, slots=True)
class SpanFiles:
    """The tables that an analysis reads: of the span's days with data `clicks` and `impressions`, of all days from the
    log's first on `articles`. Every path is the parquet file of that day's canonical table."""

    dataset: Dataset
    articles: Mapping[date, Path]
    clicks: Mapping[date, Path]
    impressions: Mapping[date, Path]

    def __post_init__(self) -> None:
        if not self.clicks:
            raise DataError(f"{self.dataset.name}: no day of the span holds data: choose days that the log covers")

    @property
    def days(self) -> list[date]:
        """The span's days with data, in order."""
        return sorted(self.clicks)

    @property
    def start_ms(self) -> int:
        """First millisecond of the span."""
        return self.dataset.clock.start(self.days[0])

    @property
    def end_ms(self) -> int:
        """First millisecond after the span."""
        return self.dataset.clock.end(self.days[-1])

    @property
    def log_start_ms(self) -> int:
        """First millisecond of the log's first day."""
        return self.dataset.clock.start(min(self.articles))

    def click_days(self, columns: Sequence[str]) -> Iterator[tuple[date, pa.Table]]:
        """The clicks of each day, sorted by time, with `columns` only."""
        for day in self.days:
            yield day, read_table(self.clicks[day], schema.some(schema.CLICKS, *columns))


@dataclass(frozen=True, slots=True)
class Articles:
    """The catalogue of a span, in order of publication: `article_id`, `published_ms` int64 [A] (-1 unknown),
    `first_seen` bool [A] (its first appearance stands in for a publication time), `category` int32 [A] into `names`
    (-1 unknown). Clicked articles that no day lists, `unlisted` of them, come last with nothing known. `by_id` int64
    [A]: the rows in order of their ids."""

    article_id: np.ndarray
    published_ms: np.ndarray
    first_seen: np.ndarray
    category: np.ndarray
    names: tuple[str, ...]
    unlisted: int
    by_id: np.ndarray

    def __len__(self) -> int:
        return len(self.article_id)

    @classmethod
    def read(cls, files: SpanFiles) -> "Articles":
        """From the days' articles and the ids of the span's clicks."""
        columns = [schema.ARTICLE_ID, schema.PUBLISHED, "published_is_first_seen", "category_id", "category"]
        wanted = schema.some(schema.ARTICLES, *columns)
        parts = [pl.from_arrow(read_table(files.articles[day], wanted)) for day in sorted(files.articles)]
        listed = pl.concat([part for part in parts if isinstance(part, pl.DataFrame)])
        listed = listed.unique(schema.ARTICLE_ID, keep="first", maintain_order=True)
        listed = listed.sort(schema.PUBLISHED, schema.ARTICLE_ID)
        known = listed[schema.ARTICLE_ID].to_numpy()
        clicked = [int_array(table, schema.ARTICLE_ID) for _, table in files.click_days([schema.ARTICLE_ID])]
        extra = np.unique(np.concatenate([np.setdiff1d(ids, known) for ids in clicked]))
        names, category = _categories(listed)
        article_id = np.concatenate([known, extra])
        return cls(
            article_id=article_id,
            published_ms=np.concatenate([listed[schema.PUBLISHED].dt.epoch("ms").to_numpy(), extra * 0 + UNKNOWN]),
            first_seen=np.concatenate([listed["published_is_first_seen"].to_numpy(), np.zeros(len(extra), dtype=bool)]),
            category=np.concatenate([category, np.full(len(extra), UNKNOWN, dtype=np.int32)]),
            names=names,
            unlisted=len(extra),
            by_id=np.argsort(article_id, kind="stable"),
        )

    def covered(self, files: SpanFiles) -> np.ndarray:
        """Articles whose life the span covers (`ml.lifecycle.covered`), bool [A]. Those whose first appearance stands
        in for publication count only from the log's second day on: on the first day everything appears first."""
        late = self.published_ms >= files.log_start_ms + MS_PER_DAY
        return covered(self.published_ms, files.start_ms, files.end_ms) & (~self.first_seen | late)

    def rows(self, article_id: np.ndarray) -> np.ndarray:
        """Rows of `article_id` int64 [N], int64 [N]; -1 for ids that the catalogue lacks."""
        if not len(self):
            return np.full(len(article_id), UNKNOWN)
        where = np.searchsorted(self.article_id, article_id, sorter=self.by_id)
        found = self.by_id[np.minimum(where, len(self) - 1)]
        return np.where(self.article_id[found] == article_id, found, UNKNOWN)

    def by_category(self, rows: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """How many of `rows` (or what weight of them) fall in each category: float64 [len(names) + 1], the last one
        those of unknown category or article."""
        codes = np.where(rows == UNKNOWN, UNKNOWN, self.category[rows]) if len(self) else rows
        codes = np.where(codes == UNKNOWN, len(self.names), codes)
        return np.bincount(codes, weights, minlength=len(self.names) + 1).astype(np.float64)


def _categories(listed: pl.DataFrame) -> tuple[tuple[str, ...], np.ndarray]:
    """The categories' names, sorted, and each article's place among them, int32, -1 where it has none. An id stands in
    for a missing name."""
    named = pl.when(pl.col("category").str.strip_chars() != "").then(pl.col("category"))
    numbered = pl.lit("category ") + pl.col("category_id").cast(pl.String)
    labels = listed.select(pl.coalesce(named, numbered).alias("label"))["label"].to_list()
    names = sorted({label for label in labels if label is not None})
    place = {name: code for code, name in enumerate(names)} | {None: UNKNOWN}
    return tuple(names), np.array([place[label] for label in labels], dtype=np.int32)


@dataclass(frozen=True, slots=True)
class DayClicks:
    """Clicks of one day in order of time: `time_ms`, article `rows` and `user` int64 [N]."""

    day: date
    start_ms: int
    end_ms: int
    time_ms: np.ndarray
    rows: np.ndarray
    user: np.ndarray


def days_of_clicks(files: SpanFiles, articles: Articles) -> Iterator[DayClicks]:
    """The span's clicks, one day at a time."""
    clock = files.dataset.clock
    for day, table in files.click_days([schema.CLICK_TIME, schema.ARTICLE_ID, schema.USER_ID]):
        rows = articles.rows(int_array(table, schema.ARTICLE_ID))
        times, users = (int_array(table, name) for name in (schema.CLICK_TIME, schema.USER_ID))
        yield DayClicks(day, clock.start(day), clock.end(day), times, rows, users)


@dataclass(frozen=True, slots=True)
class Shown:
    """Some impressions: how many articles were in view and how many clicked, int64 [I], the ids in view, flat, and the
    ways in which lists that nobody was shown were `made`."""

    inview: np.ndarray
    clicked: np.ndarray
    article_id: np.ndarray
    made: frozenset[str]


def impressions_of(path: Path) -> Iterator[Shown]:
    """The impressions of one day, a batch at a time."""
    for batch in read_batches(path, BATCH, [schema.INVIEW, schema.CLICKED, schema.SYNTHETIC]):
        columns = (batch[name].combine_chunks() for name in (schema.INVIEW, schema.CLICKED, schema.SYNTHETIC))
        inview, clicked, made = columns
        yield Shown(
            _flat(inview.value_lengths()),
            _flat(clicked.value_lengths()),
            _flat(inview.flatten()),
            frozenset(filter(None, made.unique().to_pylist())),
        )


def _flat(column: pa.Array) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False).astype(np.int64)
