"""A random log of any size in memory, for benchmarks of what asks the as-of door.

Belongs here: making one with the densities of document 1 (579 clicks a minute on 125,542 articles). Does not belong
here: realistic readers (`ml.simulator`): no figure of quality may rest on this log.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from ml.articles import NUMERIC, ArticleTable
from ml.asof import SESSION_GAP_MS, AsOf
from ml.clock import MS_PER_DAY, MS_PER_MINUTE
from ml.content import Content
from ml.datasets import dataset
from ml.log import Catalogue, Clicks, Impressions
from ml.popularity import Popularity
from ml.schema import CONTEXT

END_MS = int(datetime(2023, 6, 8, 7, tzinfo=UTC).timestamp()) * 1000
"""First millisecond after every world."""

_PUBLISHED_DAYS = 36
_HALF_LIFE_MINUTES = 400
_HOT = 7
_SHOWN = (5, 15)
_CLICKS_PER_READER = 30
_SESSION_CLICKS = 3


@dataclass(frozen=True, slots=True)
class World:
    """Size of a log: `dim` is the length of its body vectors, 0 for none; the clicks of the last `shown_minutes` have
    an impression."""

    articles: int
    clicks_per_minute: int
    minutes: int
    dim: int = 0
    shown_minutes: int = 7 * 24 * 60

    def make(self, seed: int = 0) -> AsOf:
        """Articles published evenly over 36 days; in the last `minutes` of these, clicks on those some hours old, every
        seventh of them in great favour, by readers with sessions of 3 clicks on average. An impression has 5 to 14
        articles."""
        rng = np.random.default_rng(seed)
        published = np.sort(END_MS - rng.integers(1, _PUBLISHED_DAYS * MS_PER_DAY, self.articles))
        category = rng.integers(-1, 20, self.articles).astype(np.int32)
        catalogue = Catalogue(rng.permutation(self.articles).astype(np.int64), published, category)
        clicks = self._clicks(rng, catalogue)
        content = {}
        if self.dim:
            vectors = rng.normal(size=(self.articles, self.dim)).astype(np.float32)
            content["body"] = Content.static(np.arange(self.articles), vectors, self.articles)
        numeric = rng.gamma(2.0, 10.0, (self.articles, len(NUMERIC))).astype(np.float32)
        premium = rng.integers(-1, 2, self.articles).astype(np.int8)
        return AsOf(
            dataset("simulated"),
            catalogue,
            clicks,
            self._impressions(rng, catalogue, clicks),
            Popularity.build(clicks.article, clicks.time, self.articles),
            content,
            ArticleTable(catalogue.article_id, category, premium, numeric),
        )

    def _clicks(self, rng: np.random.Generator, catalogue: Catalogue) -> Clicks:
        """Sorted by (reader, time); the id of a click's impression is its row."""
        n = self.clicks_per_minute * self.minutes
        sessions = n // _SESSION_CLICKS
        owner = np.sort(rng.integers(0, sessions, n))
        reader = rng.integers(0, max(1, n // _CLICKS_PER_READER), sessions)
        begin = END_MS - rng.integers(SESSION_GAP_MS, self.minutes * MS_PER_MINUTE, sessions)
        time = begin[owner] + rng.integers(0, SESSION_GAP_MS, n)
        order = np.lexsort((time, reader[owner]))
        user, time, session = reader[owner][order].astype(np.int64), time[order], owner[order].astype(np.int64)
        context = np.full((n, len(CONTEXT)), -1, dtype=np.int32)
        read = rng.exponential(60, n).astype(np.float32)
        impression = np.where(time >= END_MS - self.shown_minutes * MS_PER_MINUTE, np.arange(n), -1)
        return Clicks(user, _chosen(rng, catalogue, time), time, read, session, impression, context)

    def _impressions(self, rng: np.random.Generator, catalogue: Catalogue, clicks: Clicks) -> Impressions:
        order = np.flatnonzero(clicks.impression >= 0)
        order = order[np.argsort(clicks.time[order], kind="stable")]
        n = len(order)
        length = rng.integers(*_SHOWN, n)
        offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        owner = np.repeat(order, length)
        article = _chosen(rng, catalogue, clicks.time[owner])
        hit = offsets[:-1] + rng.integers(0, length)
        article[hit] = clicks.article[order]
        clicked = article == clicks.article[owner]
        user, time, session = (values[order] for values in (clicks.user, clicks.time, clicks.session))
        named, context = clicks.impression[order], clicks.context[order]
        return Impressions(named, user, time, session, context, offsets, article, clicked)


def _chosen(rng: np.random.Generator, catalogue: Catalogue, time: np.ndarray) -> np.ndarray:
    """An article available at each time, some hours old, six in seven of them those in great favour; int32 [N]."""
    age = rng.exponential(_HALF_LIFE_MINUTES * MS_PER_MINUTE, len(time)).astype(np.int64)
    row = catalogue.available(time - age) - 1
    row = np.where(rng.integers(0, _HOT, len(time)) > 0, row // _HOT * _HOT, row)
    return np.maximum(row, 0).astype(np.int32)
