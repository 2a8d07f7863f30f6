"""A random log behind the as-of door, for benchmarks that need no real one.

Belongs here: sizes and random draws. Does not belong here: logs with a meaning (`ml.simulator`).
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from ml.articles import NUMERIC, ArticleTable
from ml.asof import AsOf
from ml.clock import MS_PER_DAY
from ml.content import Content
from ml.datasets import dataset
from ml.log import Catalogue, Clicks, Impressions
from ml.popularity import Popularity
from ml.schema import CONTEXT

_DATASET = "simulated"
_INVIEW = 10


@dataclass(frozen=True, slots=True)
class World:
    """How much there is: `dim` of the body vectors; impressions exist for the last `shown_days` of the `days`."""

    articles: int
    clicks: int
    days: int
    dim: int
    shown_days: int = 7

    @property
    def start(self) -> int:
        """First millisecond of the log."""
        known = dataset(_DATASET)
        return known.clock.start(known.first_day)

    @property
    def end(self) -> int:
        """First millisecond after the log."""
        known = dataset(_DATASET)
        return known.clock.start(known.first_day + timedelta(days=self.days))


def random_world(world: World, seed: int = 0) -> AsOf:
    """The log: Zipf-like popularity, ages of about half a day, 40 clicks a reader, sessions of one day, in-view lists
    of ten that hold their click."""
    rng = np.random.default_rng(seed)
    catalogue = _catalogue(rng, world)
    clicks = _clicks(rng, world, catalogue)
    content = {"body": _vectors(rng, world)}
    popularity = Popularity.build(clicks.article, clicks.time, world.articles)
    numeric = rng.random((world.articles, len(NUMERIC)), dtype=np.float32)
    articles = ArticleTable(
        catalogue.article_id, catalogue.category, rng.integers(0, 2, world.articles).astype(np.int8), numeric
    )
    shown = _impressions(rng, world, clicks)
    return AsOf(dataset(_DATASET), catalogue, clicks, shown, popularity, content, articles)


def _catalogue(rng: np.random.Generator, world: World) -> Catalogue:
    """A third of the articles is older than the log."""
    first = world.start - (world.end - world.start) // 2
    published = np.sort(rng.integers(first, world.end, world.articles))
    return Catalogue(np.arange(world.articles) * 3 + 5, published, rng.integers(0, 20, world.articles).astype(np.int32))


def _clicks(rng: np.random.Generator, world: World, catalogue: Catalogue) -> Clicks:
    n = world.clicks
    time = np.sort(rng.integers(world.start, world.end, n))
    age = rng.exponential(MS_PER_DAY / 2, n).astype(np.int64)
    article = np.maximum(np.searchsorted(catalogue.published, time - age) - 1, 0)
    article = np.minimum(article, (world.articles * rng.random(n) ** 0.2).astype(np.int64)).astype(np.int32)
    user = rng.integers(0, max(1, n // 40), n)
    order = np.argsort(user, kind="stable")
    user, article, time = user[order], article[order], time[order]
    impression = np.where(time >= world.end - world.shown_days * MS_PER_DAY, np.arange(n), -1)
    read = rng.exponential(40, n).astype(np.float32)
    context = np.zeros((n, len(CONTEXT)), dtype=np.int32)
    return Clicks(user, article, time, read, (time - world.start) // MS_PER_DAY, impression, context)


def _impressions(rng: np.random.Generator, world: World, clicks: Clicks) -> Impressions:
    """One for every click that names one: the clicked article and nine that were clicked at about that time."""
    row = np.flatnonzero(clicks.impression >= 0)
    row = row[np.argsort(clicks.time[row], kind="stable")]
    n, time = len(row), clicks.time[row]
    near = np.clip(np.arange(n)[:, None] + rng.integers(-2000, 2000, (n, _INVIEW)), 0, max(n - 1, 0))
    article = clicks.article[row][near]
    article[:, 0] = clicks.article[row]
    clicked = article == article[:, :1]
    offsets = np.arange(n + 1, dtype=np.int64) * _INVIEW
    return Impressions(
        clicks.impression[row], clicks.user[row], time, clicks.session[row], clicks.context[row], offsets,
        article.ravel(), clicked.ravel(),
    )  # fmt: skip


def _vectors(rng: np.random.Generator, world: World) -> Content:
    """One version an article, known from the beginning."""
    vectors = rng.standard_normal((world.articles, world.dim), dtype=np.float32)
    return Content.static(np.arange(world.articles), vectors, world.articles)
