"""The newspaper and its readers before the first click: what is drawn once.

Belongs here: latent properties of articles and readers, and the rhythms of the day. Does not belong here:
what happens minute by minute (`play`), files (`write`).
"""

from dataclasses import dataclass

import numpy as np

from ml.simulator.config import DATASET, Behaviour, Size
from ml.simulator.text import CATEGORIES, PLACES, TOPICS

SECONDS_PER_DAY = 86_400
READING_HOURS = np.array(
    [1.2, 0.6, 0.4, 0.3, 0.5, 1.5, 3.5, 5.0, 5.2, 5.0, 5.0, 5.2, 5.8, 5.2,
     4.8, 5.0, 5.4, 5.4, 5.2, 5.6, 6.2, 6.4, 5.0, 2.8]
)  # fmt: skip
"""Relative number of sessions that start in each local hour of the day."""
PUBLISHING_HOURS = np.array(
    [1.0, 0.5, 0.4, 0.4, 0.8, 2.5, 5.0, 6.0, 6.5, 6.5, 6.5, 6.5,
     6.5, 6.5, 6.0, 6.0, 6.0, 5.5, 5.0, 5.0, 5.0, 4.5, 3.0, 1.8]
)  # fmt: skip
"""Relative number of articles published in each local hour of the day."""
WEEKDAYS = np.array([1.0, 1.02, 1.0, 1.05, 1.0, 0.85, 0.92])
"""Relative number of sessions, Monday first."""


def stream(seed: int, *path: int) -> np.random.Generator:
    """The random numbers of one part of the simulation: they depend on (seed, path) alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *path])))


def draw_seconds(hours: np.ndarray, first: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` sorted seconds since the epoch in the 24 hours from `first` on, by the local rhythm `hours` (24)."""
    minutes = first + 60 * np.arange(1440, dtype=np.int64)
    local = DATASET.clock.local_minutes(minutes * 1000) % 1440
    clock = np.append(hours, hours[0])
    weight = np.interp(local, 60 * np.arange(25), clock)
    drawn = np.searchsorted(np.cumsum(weight / weight.sum()), rng.random(count), side="right").clip(max=1439)
    return np.sort(minutes[drawn] + rng.integers(0, 60, count))


@dataclass(frozen=True, slots=True)
class Articles:
    """Articles in order of publication. `article_id`, `published` (seconds) int64 [A]; `topics` float32 [A, K] mixture;
    `topic`, `category` (code) int16 [A]; `quality`, `tau` (minutes) float32 [A]; `breaking`, `premium` bool [A];
    `tone` float32 [A] in [-1, 1]; `place` int8 [A], row of `text.PLACES`, -1 nowhere in particular."""

    article_id: np.ndarray
    published: np.ndarray
    topics: np.ndarray
    topic: np.ndarray
    category: np.ndarray
    quality: np.ndarray
    tau: np.ndarray
    breaking: np.ndarray
    premium: np.ndarray
    tone: np.ndarray
    place: np.ndarray

    def __len__(self) -> int:
        return len(self.article_id)


@dataclass(frozen=True, slots=True)
class Readers:
    """Readers in order of `user_id` (int64 [N]). `activity` float64 [N], sums to 1; `interests` float32 [N, K] as of
    the first day; `device` int8, `subscriber`, `sso` bool, `gender`, `postcode`, `age` int8 (-1 unknown) [N]; `home`
    int8 [N], the row of `text.PLACES` where they live."""

    user_id: np.ndarray
    activity: np.ndarray
    interests: np.ndarray
    device: np.ndarray
    subscriber: np.ndarray
    sso: np.ndarray
    gender: np.ndarray
    postcode: np.ndarray
    age: np.ndarray
    home: np.ndarray

    def __len__(self) -> int:
        return len(self.user_id)


def topic_weights() -> np.ndarray:
    """Shares of the topics among articles and, on average, among readers' interests; float64 [K]."""
    weights = np.array([topic.weight for topic in TOPICS], dtype=np.float64)
    return weights / weights.sum()


def draw_dirichlet(alpha: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` draws from a Dirichlet distribution, float32 [count, K]; rows too small to scale become one topic."""
    gammas = rng.standard_gamma(alpha, (count, len(alpha))) + 1e-12
    return (gammas / gammas.sum(axis=1, keepdims=True)).astype(np.float32)


def _publication(size: Size, rng: np.random.Generator) -> np.ndarray:
    """Sorted seconds of publication: the archive, two days of warm-up, and the log's days."""
    warm = 2
    old = size.archive - warm * size.articles_per_day
    begin = size.day_start(-warm)
    parts = [rng.integers(begin - size.archive_days * SECONDS_PER_DAY, begin, old)]
    for day in range(-warm, size.days):
        parts.append(draw_seconds(PUBLISHING_HOURS, size.day_start(day), size.articles_per_day, rng))
    return np.sort(np.concatenate(parts))


def draw_articles(size: Size, seed: int, behaviour: Behaviour) -> Articles:
    """The articles of a bundle (docs/simulator.md, section 1)."""
    rng = stream(seed, 1)
    published = _publication(size, rng)
    count = len(published)
    topic = rng.choice(len(TOPICS), count, p=topic_weights())
    rest = draw_dirichlet(np.full(len(TOPICS), 0.15), count, rng)
    topics = (1 - behaviour.main_topic) * rest
    topics[np.arange(count), topic] += behaviour.main_topic
    quality = behaviour.quality_scale * rng.standard_normal(count).clip(-3.0, 3.0)
    breaking = rng.random(count) < behaviour.breaking_share
    tau = np.array([t.tau_minutes for t in TOPICS])[topic]
    tau = behaviour.life_scale * tau * rng.lognormal(0.0, behaviour.life_spread, count)
    code = np.array([CATEGORIES[t.category] for t in TOPICS], dtype=np.int16)
    tone = np.tanh(np.array([t.tone for t in TOPICS])[topic] + rng.normal(0.0, 0.5, count))
    return Articles(
        9_600_000 + np.cumsum(rng.integers(1, 9, count)),
        published,
        topics.astype(np.float32),
        topic.astype(np.int16),
        code[topic],
        quality.astype(np.float32),
        np.where(breaking, 0.6 * tau, tau).astype(np.float32),
        breaking,
        rng.random(count) < np.where(breaking, 0.0, 0.14),
        tone.astype(np.float32),
        np.where(rng.random(count) < behaviour.local_share, rng.integers(0, len(PLACES), count), -1).astype(np.int8),
    )


def draw_readers(size: Size, seed: int, behaviour: Behaviour) -> Readers:
    """The readers of a bundle (docs/simulator.md, section 2)."""
    rng = stream(seed, 2)
    count = size.readers
    user_id = np.sort(10_000 + rng.choice(4 * count, count, replace=False))
    activity = rng.lognormal(0.0, behaviour.activity_sigma, count)
    known = rng.random(count) < 0.06
    return Readers(
        user_id.astype(np.int64),
        activity / activity.sum(),
        draw_dirichlet(behaviour.interest_concentration * topic_weights(), count, rng),
        rng.choice(np.array([1, 2, 3], dtype=np.int8), count, p=[0.28, 0.65, 0.07]),
        rng.random(count) < behaviour.subscribers,
        rng.random(count) < 0.4,
        np.where(known, rng.integers(0, 2, count), -1).astype(np.int8),
        np.where(known, rng.integers(0, 5, count), -1).astype(np.int8),
        np.where(known, 10 * rng.integers(2, 8, count), -1).astype(np.int8),
        rng.integers(0, len(PLACES), count).astype(np.int8),
    )


def drift(interests: np.ndarray, rng: np.random.Generator, behaviour: Behaviour) -> None:
    """Interests one day later, in place: a few readers (`interest_drift`) find a topic that takes a Beta(1, c) share of
    their interest. With topics drawn by their weights, Dirichlet(c weights) stays the distribution of interests
    (Sethuraman's stick-breaking), so readers become neither more alike nor more peaked. `interests` float32 [N, K]."""
    who = np.flatnonzero(rng.random(len(interests)) < behaviour.interest_drift)
    topic = rng.choice(len(TOPICS), len(who), p=topic_weights())
    share = (1 - rng.random(len(who)) ** (1 / behaviour.interest_concentration)).astype(np.float32)
    interests[who] *= 1 - share[:, None]
    interests[who, topic] += share
