"""The log itself, day by day: which sessions there are, and their play block by block.

Belongs here: sessions, the order of blocks, threads (docs/simulator.md, section 3). Does not belong here: what
articles and readers are (`world`), the front page (`page`), what happens inside a session (`kernel`), files (`write`).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np

from ml.errors import UsageError
from ml.hashing import mix
from ml.simulator.config import DATASET, MAX_INVIEW, REMEMBERED, TABLOID, Behaviour, Size
from ml.simulator.kernel import EVENT, ROUND, Audience, Law, Library, Played, play
from ml.simulator.page import Page, front_page
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

SHARE = 512
"""Sessions that one thread plays at a time."""


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
        """All parts one after the other."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def of(self, at: np.ndarray) -> "DayLog":
        """The impressions `at` (int64), in that order."""
        return DayLog(*(getattr(self, f.name)[at] for f in fields(DayLog)))


class Play:
    """The simulation between two days: call `day(0)`, `day(1)`, … in order. The number of `workers` (threads; all cores
    by default) changes nothing in what is drawn."""

    def __init__(self, size: Size, seed: int, behaviour: Behaviour = TABLOID, workers: int | None = None) -> None:
        self.size = size
        self.seed = seed
        self.behaviour = behaviour
        self.articles: Articles = draw_articles(size, seed, behaviour)
        self.readers: Readers = draw_readers(size, seed, behaviour)
        self.interests = self.readers.interests.copy()
        self._workers = os.cpu_count() or 1 if workers is None else workers
        if self._workers < 1:
            raise UsageError(f"the number of workers must be positive: {workers}")
        self._law = Law(*(getattr(behaviour, name) for name in Law._fields))
        self._key = np.uint64(mix(np.uint64(seed)))  # compiled code hands back a plain int: its type would depend on it
        self._activity = np.cumsum(self.readers.activity)
        self._read = np.full((size.readers, REMEMBERED), -1, dtype=np.int32)
        self._read_count = np.zeros(size.readers, dtype=np.int32)
        self._last_start = np.zeros(size.readers, dtype=np.int64)
        self._feedback = np.zeros(len(self.articles), dtype=np.float64)
        self._sessions = 0
        self._pending = np.zeros(0, dtype=EVENT)

    def day(self, index: int) -> DayLog:
        """Everything that readers see and click on the log's day `index`."""
        rng = stream(self.seed, 3, index)
        if index:
            drift(self.interests, rng, self.behaviour)
        begin = self.size.day_start(index)
        end = self.size.day_start(index + 1)
        sessions = self._sessions_of(begin, rng)
        step = 60 * self.size.block_minutes
        starts = np.searchsorted(sessions["time"], np.arange(begin, end + step, step))
        library = self._library()
        readers = self.readers
        audience = Audience(self.interests, readers.subscriber, readers.home, self._read, self._read_count)
        parts = [_empty_log()]
        with ThreadPoolExecutor(self._workers) as pool:
            for block, block_start in enumerate(range(begin, end, step)):
                self._pending = np.concatenate([self._pending, sessions[starts[block] : starts[block + 1]]])
                parts.append(self._block(block_start, min(block_start + step, end), library, audience, pool))
        return DayLog.joined(parts)

    def _library(self) -> Library:
        """The articles for the kernel; none is known yet."""
        articles = self.articles
        of_topic = np.argsort(articles.topic, kind="stable").astype(np.int32)
        first = np.searchsorted(articles.topic[of_topic], np.arange(len(TOPICS)))
        columns = (articles.published, articles.quality, articles.tau, articles.premium, articles.topics)
        return Library(*columns, articles.topic, articles.place, of_topic, first, np.zeros(len(TOPICS), np.int64))

    def _sessions_of(self, begin: int, rng: np.random.Generator) -> np.ndarray:
        """First impressions of the sessions that start in the day from `begin` on, by time."""
        weekday = int(DATASET.clock.local_minutes(np.array([begin * 1000]))[0]) // 1440
        mean = self.size.clicks_per_day / self.behaviour.mean_clicks * WEEKDAYS[weekday] * rng.lognormal(0.0, 0.05)
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
        keep[order] = time - before >= self.behaviour.between_sessions
        np.maximum.at(self._last_start, events["user"], events["time"])
        return events[keep]

    def _block(self, begin: int, end: int, library: Library, audience: Audience, pool: ThreadPoolExecutor) -> DayLog:
        """Plays a block: all sessions together, a few impressions each, until none is left before `end`; by time."""
        self._feedback *= 0.5 ** ((end - begin) / 60 / self.behaviour.feedback_half_life)
        page = front_page(self.articles, self._feedback, begin, end, self.behaviour)
        known = np.searchsorted(self.articles.published, begin)
        library.topic_known[:] = np.bincount(self.articles.topic[:known], minlength=len(TOPICS))
        parts = [_empty_log()]
        while True:
            due = self._due(end)
            if not due.any():
                break
            state = self._pending[due]
            out = self._round(state, begin, end, page, library, audience, pool)
            parts.append(_used(out))
            self._pending = np.concatenate([self._pending[~due], state[out.alive]])
        log = DayLog.joined(parts)
        log = log.of(np.lexsort((log.event["session"], log.event["time"])))
        self._feedback += np.bincount(log.clicked[:, 0], minlength=len(self.articles))
        return log

    def _due(self, end: int) -> np.ndarray:
        """Which pending sessions are played next, bool: those with an impression before `end`, and of a reader's the
        first, since what is read in it is remembered in the one after. It ends before that one starts."""
        due = np.flatnonzero(self._pending["time"] < end)
        order = due[np.lexsort((self._pending["session"][due], self._pending["user"][due]))]
        user = self._pending["user"][order]
        first = np.zeros(len(self._pending), dtype=bool)
        first[order[np.append(-1, user[:-1]) != user]] = True
        return first

    def _round(
        self,
        state: np.ndarray,
        begin: int,
        end: int,
        page: Page,
        library: Library,
        audience: Audience,
        pool: ThreadPoolExecutor,
    ) -> Played:
        """The next impressions of the sessions `state`, which moves on."""
        out = _room(len(state))

        def share(first: int) -> None:
            last = min(first + SHARE, len(state))
            play(first, last, state, begin, end, self._key, page, library, audience, self._law, out)

        list(pool.map(share, range(0, len(state), SHARE)))
        return out


def _room(sessions: int) -> Played:
    """Empty places for a round of `sessions`."""
    places = sessions * ROUND
    return Played(
        np.zeros(sessions, np.int32),
        np.zeros(sessions, np.bool_),
        np.empty(places, EVENT),
        np.empty((places, MAX_INVIEW), np.int32),
        np.empty((places, MAX_INVIEW), np.float32),
        np.empty((places, 2), np.int32),
        np.empty(places, np.float32),
        np.empty(places, np.float32),
        np.empty(places, np.float32),
    )


def _used(out: Played) -> DayLog:
    """The places of a round that were used."""
    at = np.flatnonzero((np.arange(ROUND) < out.used[:, None]).ravel())
    return DayLog(*(column[at] for column in out[2:]))


def _empty_log() -> DayLog:
    """A log of nothing."""
    return _used(_room(0))
