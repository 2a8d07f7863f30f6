"""The log itself: sessions, front page, in-view lists, clicks and reading times, block by block.

Belongs here: the generative model of a day (docs/simulator.md, sections 3 to 5), vectorised over the readers who
act in the same block of a few minutes. Does not belong here: what articles and readers are (`world`), files
(`write`).
"""

from dataclasses import dataclass

import numpy as np

from ml.simulator.config import BEHAVIOUR, DATASET, MAX_INVIEW, REMEMBERED, Size
from ml.simulator.text import TOPICS
from ml.simulator.world import (
    READING_HOURS,
    WEEKDAYS,
    Articles,
    Readers,
    draw_articles,
    draw_readers,
    draw_seconds,
    drift,
    stream,
)

EVENT = np.dtype(
    [
        ("time", np.int64),
        ("start", np.int64),
        ("session", np.int64),
        ("user", np.int32),
        ("page", np.int32),
        ("read", np.float32),
        ("scroll", np.float32),
        ("mood", np.int8),
        ("device", np.int8),
    ]
)
"""An impression to come: `time` and `start` of its session in seconds, reader row, and the article page that it
appears on (`page` -1: the front page) with that page's reading time and scroll depth."""


@dataclass(frozen=True, slots=True)
class DayLog:
    """What happened in one day, by time: `event` EVENT [n]; `rows` int32 [n, MAX_INVIEW] article rows in the order
    shown, -1 beyond the list; `probability` float32 beside them, the true click probabilities; `clicked` int32 [n, 2]
    article rows, the second -1 unless two were clicked; `read`, `scroll` (NaN unknown) of the clicked article and
    `browse`, the time on the list, float32 [n] seconds."""

    event: np.ndarray
    rows: np.ndarray
    probability: np.ndarray
    clicked: np.ndarray
    read: np.ndarray
    scroll: np.ndarray
    browse: np.ndarray

    def __len__(self) -> int:
        return len(self.event)

    @classmethod
    def joined(cls, parts: "list[DayLog]") -> "DayLog":
        """All parts in order of time; equal times stay in the order in which they were drawn."""
        columns = [np.concatenate([getattr(part, name) for part in parts]) for name in DayLog.__slots__]
        order = np.argsort(columns[0]["time"], kind="stable")
        return cls(*(column[order] for column in columns))


@dataclass(frozen=True, slots=True)
class FrontPage:
    """What may be shown in one block: article `rows` int32 [P] and the part of their exposure (a log weight, float32
    [P]) that does not change with age or reader."""

    rows: np.ndarray
    base: np.ndarray


def log_life(age_minutes: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """Log attraction of an article of some age: a rise within minutes, then exponential decay; -inf before age 0."""
    age = np.maximum(age_minutes, 0)
    with np.errstate(divide="ignore"):
        return np.log(-np.expm1(-age / np.float32(BEHAVIOUR.rise_minutes))) - age / tau


class Play:
    """The simulation between two days: call `day(0)`, `day(1)`, … in order."""

    def __init__(self, size: Size, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.articles: Articles = draw_articles(size, seed)
        self.readers: Readers = draw_readers(size, seed)
        self.interests = self.readers.interests
        self._activity = np.cumsum(self.readers.activity)
        self._read = np.full((size.readers, REMEMBERED), -1, dtype=np.int32)
        self._read_count = np.zeros(size.readers, dtype=np.int64)
        self._last_start = np.zeros(size.readers, dtype=np.int64)
        self._feedback = np.zeros(len(self.articles), dtype=np.float64)
        self._sessions = 0
        self._pending = np.zeros(0, dtype=EVENT)

    def day(self, index: int) -> DayLog:
        """Everything that readers see and click on the log's day `index`."""
        rng = stream(self.seed, 3, index)
        if index:
            self.interests = drift(self.interests, rng)
        begin = self.size.day_start(index)
        end = self.size.day_start(index + 1)
        sessions = self._sessions_of(begin, rng)
        step = 60 * self.size.block_minutes
        starts = np.searchsorted(sessions["time"], np.arange(begin, end + step, step))
        parts = [_empty_log()]
        for block, block_start in enumerate(range(begin, end, step)):
            self._pending = np.concatenate([self._pending, sessions[starts[block] : starts[block + 1]]])
            parts.extend(self._block(block_start, min(block_start + step, end), rng))
        return DayLog.joined(parts)

    def _sessions_of(self, begin: int, rng: np.random.Generator) -> np.ndarray:
        """First impressions of the sessions that start in the day from `begin` on, by time."""
        weekday = int(DATASET.clock.local_minutes(np.array([begin * 1000]))[0]) // 1440
        mean = self.size.clicks_per_day / BEHAVIOUR.mean_clicks * WEEKDAYS[weekday] * rng.lognormal(0.0, 0.05)
        count = int(rng.poisson(mean))
        events = np.zeros(count, dtype=EVENT)
        events["time"] = draw_seconds(READING_HOURS, begin, count, rng)
        at = np.searchsorted(self._activity, rng.random(count) * self._activity[-1], side="right")
        events["user"] = at.clip(max=self.size.readers - 1)
        events = self._apart(events)
        count = len(events)
        events["start"] = events["time"]
        events["session"] = self._sessions + np.arange(count)
        self._sessions += count
        events["page"] = -1
        cumulative = np.cumsum(self.interests[events["user"]], axis=1)
        mood = (cumulative < rng.random((count, 1)) * cumulative[:, -1:]).sum(axis=1)
        events["mood"] = mood.clip(max=len(TOPICS) - 1)
        other = rng.choice(np.array([1, 2, 3], dtype=np.int8), count, p=[0.3, 0.6, 0.1])
        events["device"] = np.where(rng.random(count) < 0.85, self.readers.device[events["user"]], other)
        return events

    def _apart(self, events: np.ndarray) -> np.ndarray:
        """The sessions (sorted by time) that start late enough after the one before of the same reader."""
        order = np.argsort(events["user"], kind="stable")
        user, time = events["user"][order], events["time"][order]
        before = np.where(np.append(-1, user[:-1]) == user, np.append(0, time[:-1]), self._last_start[user])
        keep = np.zeros(len(events), dtype=bool)
        keep[order] = time - before >= BEHAVIOUR.between_sessions
        np.maximum.at(self._last_start, events["user"], events["time"])
        return events[keep]

    def _block(self, begin: int, end: int, rng: np.random.Generator) -> list[DayLog]:
        """Plays a block: the next impressions of all sessions together, then the ones after them, until none is left
        before `end`."""
        self._feedback *= 0.5 ** ((end - begin) / 60 / BEHAVIOUR.feedback_half_life)
        page = self._front_page(begin, end, rng)
        parts = []
        while True:
            due = self._pending["time"] < end
            if not due.any():
                break
            events = self._pending[due]
            log = self._impressions(events, page, rng)
            following = self._next_events(log, rng)
            self._pending = np.concatenate([self._pending[~due], following])
            parts.append(log)
        for log in parts:
            np.add.at(self._feedback, log.clicked[:, 0], 1.0)
        return parts

    def _front_page(self, begin: int, end: int, rng: np.random.Generator) -> FrontPage:
        """The articles that editors show in [begin, end): the strongest of recent days, what appears in the block, and
        some of the archive."""
        articles = self.articles
        first, now, last = np.searchsorted(articles.published, [begin - 4 * 86_400, begin, end])
        share = self._feedback / max(self._feedback.sum(), 1.0)
        feedback = BEHAVIOUR.exposure_feedback * np.log1p(200 * share)
        base = (BEHAVIOUR.exposure_quality * articles.quality + feedback).astype(np.float32)
        recent = np.arange(first, now)
        age = ((begin + end) / 2 - articles.published[recent]) / 60
        strength = base[recent] + BEHAVIOUR.exposure_life * log_life(age, articles.tau[recent])
        strength += BEHAVIOUR.exposure_breaking * articles.breaking[recent] * np.exp(-age / BEHAVIOUR.breaking_minutes)
        front = recent[np.argsort(-strength, kind="stable")[: BEHAVIOUR.front_page]]
        tail = rng.integers(0, max(now, 1), BEHAVIOUR.tail)
        rows = np.unique(np.concatenate([front, np.arange(now, last), tail])).astype(np.int32)
        return FrontPage(rows, base[rows])

    def _impressions(self, events: np.ndarray, page: FrontPage, rng: np.random.Generator) -> DayLog:
        """In-view lists, true click probabilities, clicks and reading times of `events`."""
        count = len(events)
        mood = np.float32(BEHAVIOUR.session_mood)
        wanted = (1 - mood) * self.interests[events["user"]]
        wanted[np.arange(count), events["mood"]] += mood
        match = wanted @ self.articles.topics[page.rows].T
        shown, length = self._shown(events, page, match, rng)
        rows = page.rows[shown]
        match = np.take_along_axis(match, shown, axis=1)
        absent = np.arange(MAX_INVIEW) >= length[:, None]
        rows[absent] = -1
        utility = np.where(absent, -np.inf, self._utility(events, rows, match))
        probability = np.exp(utility - utility.max(axis=1, keepdims=True))
        probability /= probability.sum(axis=1, keepdims=True)
        rank = np.where(absent, -np.inf, utility - _log_exponential(utility.shape, rng))
        order = np.argsort(-rank, axis=1)[:, :2]
        clicked = np.take_along_axis(rows, order, axis=1)
        clicked[rng.random(count) >= BEHAVIOUR.second_click, 1] = -1
        liking = np.take_along_axis(match, order[:, :1], axis=1)[:, 0]
        read, scroll = _reading(liking, self.articles.quality[clicked[:, 0]], rng)
        browse = np.rint(rng.lognormal(2.6, 0.7, count)).clip(1, 300).astype(np.float32)
        self._remember(events["user"], clicked)
        return DayLog(events, rows, probability.astype(np.float32), clicked, read, scroll, browse)

    def _shown(
        self, events: np.ndarray, page: FrontPage, match: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the front page int64 [n, MAX_INVIEW] in the order shown, and lengths int64 [n] of the lists: a
        draw without replacement by exposure (Gumbel top-k), in random order."""
        articles = self.articles
        age = ((events["time"][:, None] - articles.published[page.rows]) / 60).astype(np.float32)
        life = BEHAVIOUR.exposure_life * log_life(age, articles.tau[page.rows])
        breaking = articles.breaking[page.rows]
        life[:, breaking] += BEHAVIOUR.exposure_breaking * np.exp(-age[:, breaking] / BEHAVIOUR.breaking_minutes)
        weight = np.maximum(page.base + life, BEHAVIOUR.tail_floor) + BEHAVIOUR.exposure_match * match
        weight[age <= 0] = -np.inf
        key = weight - _log_exponential(weight.shape, rng)
        best = np.argpartition(-key, MAX_INVIEW - 1, axis=1)[:, :MAX_INVIEW]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(key, best, axis=1), axis=1), axis=1)
        length = np.rint(rng.lognormal(np.log(9.5), 0.4, len(events))).astype(np.int64).clip(5, MAX_INVIEW)
        length = np.minimum(length, (weight > -np.inf).sum(axis=1))
        place = rng.random(best.shape) + (np.arange(MAX_INVIEW) >= length[:, None])
        return np.take_along_axis(best, np.argsort(place, axis=1), axis=1), length

    def _utility(self, events: np.ndarray, rows: np.ndarray, match: np.ndarray) -> np.ndarray:
        """What makes a reader click: quality, freshness, interest, price, and not having read it; float32 [n, L]."""
        articles = self.articles
        user = events["user"]
        age = ((events["time"][:, None] - articles.published[rows]) / 60).astype(np.float32)
        life = np.maximum(BEHAVIOUR.click_life * log_life(age, articles.tau[rows]), BEHAVIOUR.life_floor)
        breaking = articles.breaking[rows] * np.exp(-np.maximum(age, 0) / BEHAVIOUR.breaking_minutes)
        price = np.where(self.readers.subscriber[user], BEHAVIOUR.premium_open, BEHAVIOUR.premium_locked)
        known = (self._read[user][:, None, :] == rows[:, :, None]).any(axis=2)
        utility = BEHAVIOUR.click_quality * articles.quality[rows] + life + BEHAVIOUR.click_match * match
        utility += BEHAVIOUR.click_breaking * breaking + price[:, None] * articles.premium[rows]
        return utility + BEHAVIOUR.read_before * known

    def _remember(self, user: np.ndarray, clicked: np.ndarray) -> None:
        """Adds clicks to what the readers have read (each reader appears once)."""
        for column in range(clicked.shape[1]):
            new = clicked[:, column] >= 0
            who = user[new]
            self._read[who, self._read_count[who] % REMEMBERED] = clicked[new, column]
            self._read_count[who] += 1

    def _next_events(self, log: DayLog, rng: np.random.Generator) -> np.ndarray:
        """The impressions that follow in the same sessions: after browsing and reading, on the front page or below the
        article just read."""
        count = len(log)
        events = log.event.copy()
        events["time"] += (log.browse + log.read).astype(np.int64) + rng.integers(1, 10, count)
        below = rng.random(count) < 0.3
        events["page"] = np.where(below, log.clicked[:, 0], -1)
        events["read"] = log.read
        events["scroll"] = log.scroll
        goes_on = rng.random(count) < BEHAVIOUR.next_click
        return events[goes_on & (events["time"] - events["start"] < BEHAVIOUR.session_seconds)]


def _log_exponential(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Log of exponential draws, finite, float32: a log weight minus it ranks by weight (Gumbel trick)."""
    return np.log(np.maximum(rng.standard_exponential(shape, dtype=np.float32), np.float32(1e-30)))


def _empty_log() -> DayLog:
    """A log of nothing."""
    lists = np.zeros((0, MAX_INVIEW))
    seconds = np.zeros(0, dtype=np.float32)
    clicked = np.zeros((0, 2), dtype=np.int32)
    rows, probability = lists.astype(np.int32), lists.astype(np.float32)
    return DayLog(np.zeros(0, dtype=EVENT), rows, probability, clicked, seconds, seconds, seconds)


def _reading(match: np.ndarray, quality: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Reading time (whole seconds) and scroll depth (percent, NaN where not measured) of clicked articles, float32."""
    log_mean = np.log(16.0) + 1.6 * match + 0.25 * quality
    read = np.rint(rng.lognormal(log_mean, 0.9)).clip(1, 900)
    depth = 100 * -np.expm1(-read / 30) + rng.normal(0.0, 18.0, len(read))
    scroll = np.where(rng.random(len(read)) < 0.15, np.nan, np.rint(depth).clip(0, 100))
    return read.astype(np.float32), scroll.astype(np.float32)
