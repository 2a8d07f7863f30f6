"""How long articles live (document 1, Sec. 3.2.1, Eq. A.4) and how popular they are at an age (Fig. 3.1).

Belongs here: lifespans and popularity by age, from streams of clicks. Does not belong here: reading clicks, windows
(`ml.popularity_skew`), figures and tables (`ml.analysis`).

The lifecycle L(a) is the time from publication to the click that completes 90 % of all clicks from publication on.
Articles count whose life the data covers: published inside the span and at least 24 hours before its end.
"""

from dataclasses import dataclass

import numpy as np

from ml.clock import MS_PER_DAY, MS_PER_MINUTE
from ml.popularity_skew import WINDOW, Step

UNKNOWN = -1


def needed(clicks: np.ndarray) -> np.ndarray:
    """How many of `clicks` (int, any shape) make up 90 %, rounded up without floating point.

    >>> needed(np.array([1, 9, 10, 11, 20])).tolist()
    [1, 9, 9, 10, 18]
    """
    return (9 * np.asarray(clicks, dtype=np.int64) + 9) // 10


def covered(published_ms: np.ndarray, start_ms: int, end_ms: int) -> np.ndarray:
    """Which articles' lives the span [start, end) covers: published in it, not in its last 24 hours (App. A.2.1);
    `published_ms` int64 [A], -1 where unknown. bool [A]."""
    return (published_ms >= start_ms) & (published_ms <= end_ms - MS_PER_DAY)


class Lifespans:
    """L(a) of every article, in two passes over the same clicks: `count` all of them in any order, then `follow` them
    in order of time. Exact to the millisecond, with a few numbers an article. Clicks before an article's publication
    are no part of its life (Eq. A.4 sums from t_0 on), nor are those on articles without a known one.
    """

    def __init__(self, published_ms: np.ndarray) -> None:
        """`published_ms` int64 [A], -1 where unknown."""
        self._published = published_ms
        self.clicks = np.zeros(len(published_ms), dtype=np.int64)
        self._seen = np.zeros(len(published_ms), dtype=np.int64)
        self._span = np.full(len(published_ms), UNKNOWN, dtype=np.int64)

    def count(self, time_ms: np.ndarray, rows: np.ndarray) -> None:
        """First pass: `time_ms` int64 [N], article `rows` int [N], in any order."""
        self.clicks += np.bincount(rows[self._alive(time_ms, rows)], minlength=len(self.clicks))

    def follow(self, time_ms: np.ndarray, rows: np.ndarray) -> None:
        """Second pass: the same, ascending in time within and across calls."""
        alive = self._alive(time_ms, rows)
        time_ms, rows = time_ms[alive], rows[alive]
        order = np.argsort(rows, kind="stable")
        touched, first, counts = np.unique(rows[order], return_index=True, return_counts=True)
        missing = needed(self.clicks[touched]) - self._seen[touched]
        done = (missing > 0) & (missing <= counts)
        article = touched[done]
        self._span[article] = time_ms[order[first[done] + missing[done] - 1]] - self._published[article]
        self._seen[touched] += counts

    @property
    def milliseconds(self) -> np.ndarray:
        """L(a) in ms, int64 [A]; -1 where an article has no click."""
        return self._span

    def _alive(self, time_ms: np.ndarray, rows: np.ndarray) -> np.ndarray:
        published = self._published[rows]
        return (published != UNKNOWN) & (time_ms >= published)


@dataclass(frozen=True, slots=True)
class AgeCurve:
    """Popularity by age in minutes, [H] each: `popularity` float64, the mean of p_t(a) (Eq. A.2) over the `articles`
    int64 that are that old at a timestep; `clicks` int64, clicks of these articles in that minute of their life."""

    popularity: np.ndarray
    articles: np.ndarray
    clicks: np.ndarray

    @property
    def peak(self) -> int | None:
        """Age in minutes at which mean relative popularity is highest; None without any."""
        known = np.nan_to_num(self.popularity)
        return int(np.argmax(known)) if known.any() else None


class AgeTally:
    """Adds up `AgeCurve` for the articles that `included` marks, up to an age of `minutes`.

    At the start of minute m an article's age is the whole minutes since its publication; it counts at every age that a
    timestep with clicks sees, with p = 0 where nobody clicked it. Where an article's first appearance stands in for its
    publication, clicks at that very time are no sign of popularity but make its age: they are left out of its numbers.
    A day's clicks have to be given (`click`) before its timesteps (`add`).
    """

    def __init__(self, published_ms: np.ndarray, included: np.ndarray, first_seen: np.ndarray, minutes: int) -> None:
        """`published_ms` int64 [A]; `included` and `first_seen` bool [A]."""
        self._published, self._included, self._minutes = published_ms, included, minutes
        self._first_seen = first_seen
        self._births = np.zeros(len(published_ms), dtype=np.int64)
        born = -(-published_ms[included] // MS_PER_MINUTE)
        self._base = int(born.min()) if len(born) else 0
        self._born = np.bincount(born - self._base) if len(born) else np.zeros(1, dtype=np.int64)
        self._popularity = np.zeros(minutes)
        self._articles = np.zeros(minutes, dtype=np.int64)
        self._clicks = np.zeros(minutes, dtype=np.int64)

    def add(self, step: Step) -> None:
        """One more timestep; one without clicks defines no relative popularity and is left out."""
        if step.total == 0:
            return
        ages = (step.minute * MS_PER_MINUTE - self._published[step.rows]) // MS_PER_MINUTE
        kept = self._included[step.rows] & (ages >= 0) & (ages < self._minutes)
        recent = step.minute - self._published[step.rows] // MS_PER_MINUTE <= WINDOW
        counts = step.counts - recent * self._births[step.rows]
        np.add.at(self._popularity, ages[kept], counts[kept] / step.total)
        newest = step.minute - self._base
        oldest = max(newest - self._minutes + 1, 0)
        alive = self._born[oldest : newest + 1][::-1] if newest >= 0 else self._born[:0]
        youngest = max(newest - len(self._born) + 1, 0)
        self._articles[youngest : youngest + len(alive)] += alive

    def click(self, time_ms: np.ndarray, rows: np.ndarray) -> None:
        """Clicks, `time_ms` int64 [N] and article `rows` int [N]: each belongs to a minute of its article's life."""
        birth = self._first_seen[rows] & (time_ms == self._published[rows])
        self._births += np.bincount(rows[birth], minlength=len(self._births))
        time_ms, rows = time_ms[~birth], rows[~birth]
        ages = (time_ms - self._published[rows]) // MS_PER_MINUTE
        kept = self._included[rows] & (ages >= 0) & (ages < self._minutes)
        self._clicks += np.bincount(ages[kept], minlength=self._minutes)

    def result(self) -> AgeCurve:
        """The curve so far."""
        with np.errstate(invalid="ignore"):
            return AgeCurve(self._popularity / self._articles, self._articles.copy(), self._clicks.copy())
