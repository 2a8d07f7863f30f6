"""A small random log in memory, for tests of everything that asks the as-of door."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from ml.articles import NUMERIC, ArticleTable
from ml.asof import AsOf
from ml.clock import MS_PER_DAY, MS_PER_MINUTE
from ml.content import ALWAYS, Content
from ml.datasets import dataset
from ml.log import Catalogue, Clicks, Impressions
from ml.popularity import Popularity
from ml.schema import CONTEXT

START_MS = int(datetime(2023, 5, 18, 7, tzinfo=UTC).timestamp()) * 1000
"""First millisecond of every tiny world: the start of a day of the dataset `simulated`."""

DIM = 8
GAP_MS = 30 * MS_PER_MINUTE


def tiny_world(
    seed: int = 0,
    n_users: int = 200,
    n_articles: int = 150,
    days: int = 4,
    with_impressions: bool = True,
    with_content: bool = True,
) -> AsOf:
    """A random log of `days` days from `START_MS`: about 15 clicks a reader, in sessions, mostly on recent articles; a
    fifth of the articles is there from the beginning, the others are published on the way.

    Reader ids are 1000, 1007, ...; article ids are not in catalogue order. Every click has an impression when there
    are impressions; `body` vectors (static) and `coclick` vectors (a version a day) when there is content.
    """
    rng = np.random.default_rng(seed)
    catalogue = _catalogue(rng, n_articles, days)
    clicks = _clicks(rng, catalogue, n_users, days)
    impressions = no_impressions()
    if with_impressions:
        clicks, impressions = _impressions(rng, catalogue, clicks)
    content = _content(rng, catalogue, days) if with_content else {}
    return AsOf(
        dataset("simulated"),
        catalogue,
        clicks,
        impressions,
        Popularity.build(clicks.article, clicks.time, n_articles),
        content,
        _articles(rng, catalogue),
    )


def end_ms(days: int = 4) -> int:
    """First millisecond after a world of so many days."""
    return START_MS + days * MS_PER_DAY


def no_impressions() -> Impressions:
    """An empty table of impressions."""
    none = np.zeros(0, dtype=np.int64)
    context = np.zeros((0, len(CONTEXT)), dtype=np.int32)
    return Impressions(
        none, none, none, none, context, np.zeros(1, dtype=np.int64), np.zeros(0, np.int32), np.zeros(0, bool)
    )


def sorted_clicks(
    user: np.ndarray,
    article: np.ndarray,
    time: np.ndarray,
    session: np.ndarray | None = None,
    read_time: np.ndarray | None = None,
    impression: np.ndarray | None = None,
) -> Clicks:
    """Clicks in order of (user, time, article); without `session`, sessions end at gaps of 30 minutes."""
    user, time = np.asarray(user, dtype=np.int64), np.asarray(time, dtype=np.int64)
    article = np.asarray(article, dtype=np.int32)
    order = np.lexsort((article, time, user))
    user, article, time = user[order], article[order], time[order]
    if session is None:
        same = np.concatenate([[False], user[1:] == user[:-1]]) if len(user) else np.zeros(0, dtype=bool)
        gap = np.concatenate([[0], np.diff(time)]) if len(user) else np.zeros(0, dtype=np.int64)
        opened = np.cumsum(same & (gap >= GAP_MS))
        begin = np.maximum.accumulate(np.where(same, 0, np.arange(len(user))))
        session = opened - opened[begin] if len(user) else opened
    else:
        session = np.asarray(session, dtype=np.int64)[order]
    read = np.full(len(user), np.nan, np.float32) if read_time is None else np.asarray(read_time, np.float32)[order]
    shown = np.full(len(user), -1, np.int64) if impression is None else np.asarray(impression, np.int64)[order]
    return Clicks(user, article, time, read, session, shown, np.full((len(user), len(CONTEXT)), -1, np.int32))


def _catalogue(rng: np.random.Generator, n_articles: int, days: int) -> Catalogue:
    published = START_MS + rng.integers(0, days * MS_PER_DAY, n_articles)
    published[: n_articles // 5] = START_MS - rng.integers(1, 2 * MS_PER_DAY, n_articles // 5)
    category = rng.integers(-1, 6, n_articles).astype(np.int32)
    return Catalogue(rng.permutation(n_articles).astype(np.int64) + 5000, np.sort(published), category)


def _clicks(rng: np.random.Generator, catalogue: Catalogue, n_users: int, days: int) -> Clicks:
    sessions = n_users * 6
    size = 1 + rng.poisson(1.5, sessions)
    owner = np.repeat(np.arange(sessions), size)
    start = START_MS + MS_PER_MINUTE + rng.integers(0, days * MS_PER_DAY - 40 * MS_PER_MINUTE, sessions)
    time = start[owner] + rng.integers(0, 25 * MS_PER_MINUTE, len(owner))
    user = 1000 + 7 * rng.integers(0, n_users, sessions)[owner]
    available = catalogue.available(time)
    back = rng.geometric(min(0.9, 20 / len(catalogue)), len(owner)) - 1
    article = np.where(back < available, available - 1 - back, rng.integers(0, available))
    read = np.where(rng.random(len(owner)) < 0.8, rng.exponential(60, len(owner)), np.nan)
    return sorted_clicks(user, article, time, read_time=read)


def _impressions(rng: np.random.Generator, catalogue: Catalogue, clicks: Clicks) -> tuple[Clicks, Impressions]:
    """Clicks with ids, and their impressions: some hold two clicks of the reader that were made soon after each other;
    a tenth of the impressions is repeated without a click."""
    n = len(clicks)
    soon = (clicks.user[1:] == clicks.user[:-1]) & (np.diff(clicks.time) < 5 * MS_PER_MINUTE)
    soon &= clicks.article[1:] < catalogue.available(clicks.time[:-1])
    joins = np.concatenate([[False], soon & (rng.random(n - 1) < 0.5)])
    joins[1:] &= ~joins[:-1]
    group = np.cumsum(~joins) - 1
    first = np.flatnonzero(~joins)
    idle = rng.integers(0, len(first), len(first) // 10)
    owner = np.concatenate([np.arange(len(first)), idle])
    impression = 10_000 + rng.permutation(len(owner)).astype(np.int64)
    time = clicks.time[first][owner] + (np.arange(len(owner)) >= len(first))
    shown, clicked = [], []
    for i, g in enumerate(owner):
        own = clicks.article[np.searchsorted(group, g) : np.searchsorted(group, g, side="right")]
        others = rng.choice(catalogue.available(time[i : i + 1])[0], size=rng.integers(4, 9))
        articles = rng.permutation(np.unique(np.concatenate([others, own]))).astype(np.int32)
        shown.append(articles)
        clicked.append(np.isin(articles, own) & (i < len(first)))
    order = np.lexsort((impression, time))
    offsets = np.concatenate([[0], np.cumsum([len(shown[i]) for i in order])]).astype(np.int64)
    context = np.full((len(order), len(CONTEXT)), -1, dtype=np.int32)
    article, hit = (np.concatenate([part[i] for i in order]) for part in (shown, clicked))
    user, session = clicks.user[first][owner][order], clicks.session[first][owner][order]
    session[::4] = -1  # not every source knows
    return replace(clicks, impression=impression[group]), Impressions(
        impression[order], user, time[order], session, context, offsets, article, hit
    )


def _content(rng: np.random.Generator, catalogue: Catalogue, days: int) -> dict[str, Content]:
    n = len(catalogue)
    rows = np.sort(rng.choice(n, size=n * 9 // 10, replace=False))
    body = Content.static(rows, rng.normal(size=(len(rows), DIM)).astype(np.float32), n)
    since = np.concatenate([np.full(n, START_MS + day * MS_PER_DAY) for day in range(1, days)] or [np.full(n, ALWAYS)])
    owner = np.tile(np.arange(n), max(days - 1, 1))
    known = catalogue.published[owner] < since
    known |= since == ALWAYS
    vectors = rng.normal(size=(len(owner), DIM)).astype(np.float32)
    return {"body": body, "coclick": Content.versions(owner[known], since[known], vectors[known], n)}


def _articles(rng: np.random.Generator, catalogue: Catalogue) -> ArticleTable:
    n = len(catalogue)
    numeric = rng.gamma(2.0, 10.0, size=(n, len(NUMERIC))).astype(np.float32)
    numeric[rng.random(n) < 0.1] = np.nan
    return ArticleTable(catalogue.article_id, catalogue.category, rng.integers(-1, 2, n).astype(np.int8), numeric)
