"""A poisoned copy of a log: many fake events from a time on, which must change nothing that is known at that time."""

from dataclasses import replace

import numpy as np

from ml.articles import ArticleTable
from ml.asof import AsOf
from ml.clock import MS_PER_DAY, MS_PER_MINUTE, minute_start
from ml.content import Content
from ml.log import Catalogue, Clicks, Impressions
from ml.popularity import Popularity
from ml.schema import CONTEXT

NEW_ARTICLES = 40
NEW_READERS = 50


def poisoned(asof: AsOf, time_ms: int, seed: int = 0, n_events: int = 4000) -> AsOf:
    """A copy of `asof` with events that a prediction at `time_ms` must not know.

    What was published from `time_ms` on is published at once, and new articles with it (row numbers stay). Half of the
    `n_events` clicks are at `time_ms` itself or in the two minutes after it, the others in the two days after; by
    known and new readers, in running and new sessions, many on the articles that were clicked last. New readers also
    click between the start of the minute and `time_ms`: no count may hold them. Each click has an impression. Read
    times that were not known by then are other ones, and every article's vectors change in the next minute.
    """
    rng = np.random.default_rng([seed, time_ms])
    catalogue = _catalogue(rng, asof.catalogue, time_ms)
    clicks, impressions = _events(rng, asof, catalogue, time_ms, n_events)
    n = len(catalogue)
    return AsOf(
        asof.dataset,
        catalogue,
        clicks,
        impressions,
        Popularity.build(clicks.article, clicks.time, n),
        {family: _content(rng, asof.content(family), n, time_ms) for family in asof.families},
        _articles(rng, asof.articles, catalogue),
    )


def _catalogue(rng: np.random.Generator, known: Catalogue, time_ms: int) -> Catalogue:
    before = int(np.searchsorted(known.published, time_ms))
    later = len(known) - before + NEW_ARTICLES
    published = time_ms + np.sort(rng.integers(0, MS_PER_MINUTE, later))
    published[0] = time_ms
    return Catalogue(
        np.concatenate([known.article_id, known.article_id.max(initial=0) + 1 + np.arange(NEW_ARTICLES)]),
        np.concatenate([known.published[:before], published]),
        np.concatenate([known.category, rng.integers(0, 6, NEW_ARTICLES).astype(np.int32)]),
    )


def _events(
    rng: np.random.Generator, asof: AsOf, catalogue: Catalogue, time_ms: int, n: int
) -> tuple[Clicks, Impressions]:
    """All clicks and impressions, the old and the fake ones, in order."""
    begin = int(minute_start(np.array(time_ms)))
    later = np.where(rng.random(n) < 0.5, 2 * MS_PER_MINUTE, 2 * MS_PER_DAY)
    time = np.concatenate([time_ms + rng.integers(0, later), rng.integers(begin, time_ms + 1, n // 10)])
    time[: n // 10] = time_ms
    strangers = int(asof.clicks.user.max(initial=0)) + 1 + rng.integers(0, NEW_READERS, len(time))
    readers = np.concatenate([asof.clicks.user, strangers])
    user = np.where(np.arange(len(time)) < n, rng.choice(readers, len(time)), strangers)
    latest = asof.clicks.article[np.argsort(asof.clicks.time, kind="stable")][-50:]
    article = rng.integers(0, len(catalogue), len(time)).astype(np.int32)
    if len(latest):
        article = np.where(rng.random(len(time)) < 0.5, rng.choice(latest, len(time)), article).astype(np.int32)
    last = np.minimum(np.searchsorted(asof.clicks.user, user, side="right") - 1, len(asof.clicks) - 1)
    session = np.where((last >= 0) & (rng.random(len(time)) < 0.5), asof.clicks.session[last], 10**6)
    ids = 1 + max(asof.impressions.impression.max(initial=0), asof.clicks.impression.max(initial=0))
    impression = ids + np.arange(len(time))
    context = np.full((len(time), len(CONTEXT)), -1, dtype=np.int32)
    read = rng.exponential(60, len(time)).astype(np.float32)
    fake = Clicks(user, article, time, read, session, impression, context)
    return _merged(rng, asof.clicks, fake, time_ms), _shown(rng, asof.impressions, fake, catalogue)


def _merged(rng: np.random.Generator, known: Clicks, fake: Clicks, time_ms: int) -> Clicks:
    with np.errstate(invalid="ignore"):
        unread = known.time + known.read_time.astype(np.float64) * 1000 > time_ms
    read = np.where(unread, known.read_time + rng.exponential(60, len(known)).astype(np.float32), known.read_time)
    known = replace(known, read_time=read)
    columns = [np.concatenate([getattr(known, name), getattr(fake, name)]) for name in Clicks.__slots__]
    order = np.lexsort((columns[1], columns[2], columns[0]))
    return Clicks(*(column[order] for column in columns))


def _shown(rng: np.random.Generator, known: Impressions, fake: Clicks, catalogue: Catalogue) -> Impressions:
    """The known impressions and one for each fake click, of five articles."""
    order = np.lexsort((fake.impression, fake.time))
    article = rng.integers(0, len(catalogue), (len(fake), 5)).astype(np.int32)
    article[:, 2] = fake.article
    offsets = np.concatenate([known.offsets, known.offsets[-1] + 5 * np.arange(1, len(fake) + 1)])
    clicked = np.tile(np.array([False, False, True, False, False]), len(fake))
    joined = Impressions(
        np.concatenate([known.impression, fake.impression[order]]),
        np.concatenate([known.user, fake.user[order]]),
        np.concatenate([known.time, fake.time[order]]),
        np.concatenate([known.session, fake.session[order]]),
        np.concatenate([known.context, fake.context[order]]),
        offsets,
        np.concatenate([known.article, article[order].ravel()]),
        np.concatenate([known.clicked, clicked]),
    )
    return _by_time(joined)


def _by_time(shown: Impressions) -> Impressions:
    order = np.lexsort((shown.impression, shown.time))
    size = np.diff(shown.offsets)[order]
    offsets = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    cell = np.arange(offsets[-1]) + np.repeat(shown.offsets[:-1][order] - offsets[:-1], size)
    return Impressions(
        shown.impression[order],
        shown.user[order],
        shown.time[order],
        shown.session[order],
        shown.context[order],
        offsets,
        shown.article[cell],
        shown.clicked[cell],
    )


def _content(rng: np.random.Generator, known: Content, n_articles: int, time_ms: int) -> Content:
    owner = np.repeat(np.arange(len(known.offsets) - 1), np.diff(known.offsets))
    next_minute = int(minute_start(np.array(time_ms))) + MS_PER_MINUTE
    vectors = rng.normal(size=(n_articles, known.dim)).astype(np.float32)
    return Content.versions(
        np.concatenate([owner, np.arange(n_articles)]),
        np.concatenate([known.since, np.full(n_articles, next_minute)]),
        np.concatenate([known.vectors, vectors]),
        n_articles,
    )


def _articles(rng: np.random.Generator, known: ArticleTable, catalogue: Catalogue) -> ArticleTable:
    new = len(catalogue) - len(known)
    numeric = rng.gamma(2.0, 10.0, size=(new, known.numeric.shape[1])).astype(np.float32)
    return ArticleTable(
        catalogue.article_id,
        catalogue.category,
        np.concatenate([known.premium, rng.integers(-1, 2, new).astype(np.int8)]),
        np.concatenate([known.numeric, numeric]),
    )
