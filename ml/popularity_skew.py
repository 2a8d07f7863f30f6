"""How unequally clicks fall on articles: Lorenz curve, Gini, share of the most popular (document 1, App. A.2.1).

Belongs here: windows of 15 minutes that slide over a stream of clicks, and what is measured on each. Does not belong
here: reading clicks, an article's life (`ml.lifecycle`), figures and tables (`ml.analysis`).

A timestep is the start of a minute m; its window is the 15 completed minutes [m - 15, m - 1]. Articles without a click
in the window are not in it (Eq. A.2).
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ml.clock import MS_PER_MINUTE, minute_of
from ml.errors import DataError

WINDOW = 15
"""Minutes of a window (Eq. A.2)."""

TOP = 5
"""The "five most popular articles" of Sec. 3.2.2 and 5.2.1."""

GRID = np.linspace(0, 1, 1001)
"""Where averaged Lorenz curves are kept."""


def lorenz(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Lorenz curve of positive `counts` (int [n], n > 0, any order): cumulative share of articles x and of clicks
    L(x), each float64 [n + 1], from (0, 0) to (1, 1), straight between the points.

    >>> x, share = lorenz(np.array([3, 1]))
    >>> x.tolist(), share.tolist()
    ([0.0, 0.5, 1.0], [0.0, 0.25, 1.0])
    """
    clicks = np.concatenate([[0], np.cumsum(np.sort(counts), dtype=np.int64)])
    return np.arange(len(clicks)) / (len(clicks) - 1), clicks / clicks[-1]


def gini(counts: np.ndarray) -> float:
    """Eq. A.3 for the Lorenz curve of positive `counts` (int [n], n > 0), without rounding to a grid. Between 0 (all
    alike) and 1 - 1/n.

    The coefficient of an averaged curve is the average of the coefficients, since Eq. A.3 is linear in the curve.

    >>> gini(np.array([5, 5])), gini(np.array([3, 1]))
    (0.0, 0.25)
    """
    clicks = np.cumsum(np.sort(counts), dtype=np.int64)
    total, n = int(clicks[-1]), len(clicks)
    return 1 - (2 * int(clicks.sum()) - total) / (n * total)


def top_share(counts: np.ndarray, top: int = TOP) -> float:
    """Share of the clicks that fall on the `top` most clicked of positive `counts` (int [n], n > 0).

    >>> top_share(np.array([1, 4, 3, 2]), top=2)
    0.7
    """
    leaders = counts if len(counts) <= top else np.partition(counts, len(counts) - top)[-top:]
    return float(leaders.sum() / counts.sum())


@dataclass(frozen=True, slots=True)
class Step:
    """One timestep: `minute` m; `rows` int64 [n] ascending and `counts` int32 [n] > 0 of the articles clicked in the 15
    minutes before m; `total` their clicks; `following` int64 [k], the article row of each click in minute m itself."""

    minute: int
    rows: np.ndarray
    counts: np.ndarray
    total: int
    following: np.ndarray

    def leaders(self, top: int) -> np.ndarray:
        """Rows of the `top` most clicked articles, most clicked first; of equals the later row."""
        if not len(self.rows):
            return self.rows
        order = self.counts.astype(np.int64) * (int(self.rows[-1]) + 1) + self.rows
        chosen = np.argpartition(order, len(order) - top)[-top:] if len(order) > top else np.arange(len(order))
        return self.rows[chosen[np.argsort(-order[chosen])]]


class SlidingWindow:
    """Timesteps over clicks that arrive in order of time, piece by piece (a day at a time, say).

    Keeps one count for each of `n_articles` and the clicks of the last 15 minutes. Timesteps are minutes m that are a
    multiple of `every` minutes after the first and have 15 minutes of the stream before them; those whose
    window holds no click come too (with empty rows).
    """

    def __init__(self, n_articles: int, first_ms: int, every: int = 1) -> None:
        self._counts = np.zeros(n_articles, dtype=np.int32)
        self._first = self._next = first_ms // MS_PER_MINUTE
        self._recent: deque[np.ndarray] = deque()
        self._every = every

    def steps(self, time_ms: np.ndarray, rows: np.ndarray, until_ms: int) -> Iterator[Step]:
        """The timesteps of the minutes up to `until_ms` (not itself), given all clicks between the last call's end
        and it: `time_ms` int64 [N] ascending, `rows` int [N]. Raises DataError for clicks out of order."""
        minutes = minute_of(time_ms)
        last = until_ms // MS_PER_MINUTE
        if len(minutes) and (minutes[0] < self._next or minutes[-1] >= last or np.any(np.diff(minutes) < 0)):
            raise DataError("clicks are not in order of time, or lie outside their day: rebuild clicks")
        bounds = np.searchsorted(minutes, np.arange(self._next, last + 1))
        for i, minute in enumerate(range(self._next, last)):
            current = rows[bounds[i] : bounds[i + 1]]
            passed = minute - self._first
            if passed >= WINDOW and passed % self._every == 0:
                active = np.flatnonzero(self._counts)
                counts = self._counts[active]
                yield Step(minute, active, counts, int(counts.sum()), current)
            self._slide(current)
        self._next = max(self._next, last)

    def _slide(self, current: np.ndarray) -> None:
        np.add.at(self._counts, current, 1)
        self._recent.append(current)
        if len(self._recent) > WINDOW:
            np.subtract.at(self._counts, self._recent.popleft(), 1)


@dataclass(frozen=True, slots=True)
class Skew:
    """Averages over timesteps with clicks. `curve` and `sigma` float64 [1001]: mean and standard deviation of L_t(x) at
    `GRID`; `gini` of the mean curve (Eq. A.3) and `gini_sigma` over timesteps; `top_share` of the most popular articles
    among the window's own clicks and `top_share_pooled` weighted by them; `next_share` of the clicks of the following
    minute that fall on the window's most popular articles, which no click helps to choose; NaN without timesteps."""

    steps: int
    empty: int
    clicks_per_window: float
    articles_per_window: float
    curve: np.ndarray
    sigma: np.ndarray
    gini: float
    gini_sigma: float
    top_share: float
    top_share_pooled: float
    next_share: float


class SkewTally:
    """Adds up `Skew` from timesteps."""

    def __init__(self, top: int = TOP) -> None:
        self._top = top
        self._curve, self._square = np.zeros(len(GRID)), np.zeros(len(GRID))
        self._gini: list[float] = []
        self._shares: list[float] = []
        self._empty = self._articles = self._clicks = self._on_top = self._following = self._hits = 0

    def add(self, step: Step) -> None:
        """One more timestep; one without clicks has no curve and is only counted."""
        if step.total == 0:
            self._empty += 1
            return
        at_grid = np.interp(GRID, *lorenz(step.counts))
        self._curve += at_grid
        self._square += at_grid**2
        self._gini.append(gini(step.counts))
        share = top_share(step.counts, self._top)
        self._shares.append(share)
        self._articles += len(step.rows)
        self._clicks += step.total
        self._on_top += round(share * step.total)
        if len(step.following):
            self._following += len(step.following)
            self._hits += int(np.isin(step.following, step.leaders(self._top)).sum())

    def result(self) -> Skew:
        """The averages so far."""
        n = len(self._gini)
        mean = self._curve / n if n else np.full(len(GRID), np.nan)
        variance = np.maximum(self._square / n - mean**2, 0) if n else mean
        return Skew(
            steps=n,
            empty=self._empty,
            clicks_per_window=_ratio(self._clicks, n),
            articles_per_window=_ratio(self._articles, n),
            curve=mean,
            sigma=np.sqrt(variance),
            gini=float(np.mean(self._gini)) if n else float("nan"),
            gini_sigma=float(np.std(self._gini)) if n else float("nan"),
            top_share=float(np.mean(self._shares)) if n else float("nan"),
            top_share_pooled=_ratio(self._on_top, self._clicks),
            next_share=_ratio(self._hits, self._following),
        )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
