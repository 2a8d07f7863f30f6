"""The popularity tensor P[φ(t), ι(a), :] of document 1 (App. A.3), exact and sparse.

Belongs here: counting clicks in windows that end at a minute, of articles and in all, and the file that holds them.
Does not belong here: what may be asked of it at a time (`ml.asof`), scaling (`ml.features`), timing
(`ml.benchmarks.popularity`).

The dense tensor has a cell for every minute, article and window. Here every article keeps the minutes in which it was
clicked and its clicks up to each of them; a window's count is the difference of two places found by binary search. The
kernels run in one thread and release the GIL: they are safe to call from several threads at once.
"""

from dataclasses import dataclass
from pathlib import Path

import numba as nb
import numpy as np
from safetensors.numpy import load_file, save_file

from ml.clock import minute_of
from ml.errors import DataError
from ml.tensors import Layout, load_tensors

WINDOWS = (1, 5, 15, 60, 120, 240, 1440)
"""Window lengths in minutes, the order of the tensor's last axis (document 1, Sec. 3.3)."""

_LONGEST = 100 * 366 * 1440
_WIDTHS = np.array(WINDOWS, dtype=np.int64)
_DTYPES = {
    "base": np.int64,
    "offsets": np.int64,
    "minutes": np.int32,
    "cumulative": np.int32,
    "total_minutes": np.int32,
    "total_cumulative": np.int64,
}
_LAYOUTS = {name: Layout(f"I{8 * np.dtype(kind).itemsize}", (None,)) for name, kind in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Popularity:
    """Clicks by article and minute. Article a was clicked in minutes `base + minutes[offsets[a]:offsets[a + 1]]`
    (ascending), `cumulative` clicks up to and including each; all articles in `base + total_minutes`.

    `offsets` int64 [A + 1]; `minutes`, `cumulative` int32 [C], one entry for each (article, minute) with a click;
    `total_minutes` int32 [U]; `total_cumulative` int64 [U].

    >>> p = Popularity.build(np.array([0, 1, 1]), np.array([0, 60_000, 119_999]), n_articles=2)
    >>> p.counts(np.array([120_000]), np.array([[0, 1]]))[0].tolist()
    [[0, 1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2, 2]]
    """

    base: int
    offsets: np.ndarray
    minutes: np.ndarray
    cumulative: np.ndarray
    total_minutes: np.ndarray
    total_cumulative: np.ndarray

    @property
    def n_articles(self) -> int:
        """Number of articles A."""
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.offsets, self.minutes, self.cumulative, self.total_minutes, self.total_cumulative)
        return sum(a.nbytes for a in arrays)

    @classmethod
    def build(cls, article: np.ndarray, time_ms: np.ndarray, n_articles: int) -> "Popularity":
        """From clicks in any order: `article` int [N] rows, `time_ms` int64 [N].

        Linear in N and the log's minutes. Raises DataError for a row outside the catalogue.
        """
        article = np.ascontiguousarray(article, dtype=np.int32)
        if len(article) and (article.min() < 0 or article.max() >= n_articles):
            raise DataError(f"clicks on article rows outside 0..{n_articles - 1}: rebuild article_features")
        minute = minute_of(time_ms)
        base, last = (int(minute.min()), int(minute.max())) if len(minute) else (0, 0)
        if last - base > _LONGEST:
            raise DataError(f"clicks lie {(last - base) // 525_600} years apart: their times are wrong, rebuild clicks")
        relative = (minute - base).astype(np.int32)
        totals = np.bincount(relative)
        total_minutes = np.flatnonzero(totals)
        total_cumulative = np.cumsum(totals[total_minutes], dtype=np.int64)
        cells = _cells(article, relative, n_articles)
        return cls(base, *cells, total_minutes.astype(np.int32), total_cumulative)

    def counts(self, time_ms: np.ndarray, rows: np.ndarray, paper_window: bool = False) -> np.ndarray:
        """Clicks of article `rows[b, k]` in every window that ends before the minute of `time_ms[b]`: minutes
        [m - w, m - 1] (Eq. A.12, strict). int32 [B, K, 7]; 0 for rows < 0 or beyond the catalogue.

        `paper_window`: minutes [m - w + 1, m] as in Eq. A.11, the whole current minute included, which looks ahead.
        """
        rows = np.ascontiguousarray(rows, dtype=np.int32)
        out = np.empty((*rows.shape, len(WINDOWS)), dtype=np.int32)
        _counts(self.offsets, self.minutes, self.cumulative, self._ends(time_ms, paper_window), rows, _WIDTHS, out)
        return out

    def catalogue_counts(self, time_ms: int, n_rows: int, paper_window: bool = False) -> np.ndarray:
        """The same for the first `n_rows` articles at one time: int32 [n_rows, 7]."""
        return self.counts(np.array([time_ms]), np.arange(n_rows, dtype=np.int32)[None], paper_window)[0]

    def totals(self, time_ms: np.ndarray, paper_window: bool = False) -> np.ndarray:
        """Clicks of all articles in the same windows, the column sums c of Eq. A.13; int64 [B, 7]."""
        ends = self._ends(time_ms, paper_window)
        before = np.concatenate([[0], self.total_cumulative])
        upto = before[np.searchsorted(self.total_minutes, ends)]
        return upto[:, None] - before[np.searchsorted(self.total_minutes, ends[:, None] - _WIDTHS)]

    def shares(self, time_ms: np.ndarray, rows: np.ndarray, paper_window: bool = False) -> np.ndarray:
        """`counts` over `totals` (Eq. A.13), 0 where nobody clicked; float32 [B, K, 7]."""
        totals = np.maximum(self.totals(time_ms, paper_window), 1)
        return (self.counts(time_ms, rows, paper_window) / totals[:, None]).astype(np.float32)

    def save(self, path: Path) -> None:
        """One safetensors file; the same clicks give the same bytes."""
        arrays = {name: np.ascontiguousarray(getattr(self, name), dtype) for name, dtype in _DTYPES.items()}
        save_file({**arrays, "base": np.array([self.base], dtype=np.int64)}, path)

    @classmethod
    def load(cls, path: Path) -> "Popularity":
        """From a file of `save`. Raises DataError naming the file and what is wrong with it."""
        arrays = load_tensors(path, _LAYOUTS, load_file, "rebuild popularity_tensor")
        fault = _fault(arrays)
        if fault:
            raise DataError(f"{path}: {fault}: rebuild popularity_tensor")
        return cls(int(arrays["base"][0]), *(arrays[name] for name in list(_DTYPES)[1:]))

    def _ends(self, time_ms: np.ndarray, paper_window: bool) -> np.ndarray:
        """First minute after the windows, relative to `base`, int64 [B]."""
        return minute_of(time_ms) - self.base + (1 if paper_window else 0)


def _fault(arrays: dict[str, np.ndarray]) -> str | None:
    """What makes `arrays` no popularity tensor; None if nothing."""
    offsets, minutes, cumulative = (arrays[n] for n in ("offsets", "minutes", "cumulative"))
    cells = len(minutes)
    if len(arrays["base"]) != 1 or not len(offsets) or offsets[0] != 0 or offsets[-1] != cells:
        return "offsets do not span the click minutes"
    if np.any(np.diff(offsets) < 0):
        return "offsets are not ascending"
    if len(cumulative) != cells or len(arrays["total_minutes"]) != len(arrays["total_cumulative"]):
        return "minutes and counts differ in length"
    inside = np.ones(max(cells - 1, 0), dtype=bool)
    starts = offsets[1:-1]
    inside[starts[(starts > 0) & (starts < cells)] - 1] = False
    for name, steps in (
        ("minutes", np.diff(minutes)[inside]),
        ("cumulative", np.diff(cumulative)[inside]),
        ("total_minutes", np.diff(arrays["total_minutes"])),
        ("total_cumulative", np.diff(arrays["total_cumulative"])),
    ):
        if np.any(steps <= 0):
            return f"{name} are not ascending"
    firsts = offsets[:-1][np.diff(offsets) > 0]
    for name, first, least in (
        ("minutes", minutes[firsts], 0),
        ("cumulative", cumulative[firsts], 1),
        ("total_minutes", arrays["total_minutes"][:1], 0),
        ("total_cumulative", arrays["total_cumulative"][:1], 1),
    ):
        if np.any(first < least):
            return f"{name} begin below {least}"
    if not -(2**40) < arrays["base"][0] < 2**40:
        return "minutes begin outside all time"
    return None


@nb.njit(cache=True, nogil=True)
def _cells(article: np.ndarray, minute: np.ndarray, n_articles: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(offsets, distinct minutes, clicks up to each) by article: two counting sorts, by minute, then by article."""
    n = len(article)
    last = 0
    for i in range(n):
        last = max(last, minute[i])
    place = np.zeros(last + 2, np.int64)
    for i in range(n):
        place[minute[i] + 1] += 1
    place = np.cumsum(place)
    in_time = np.empty(n, np.int32)
    at = np.empty(n, np.int32)
    for i in range(n):
        p = place[minute[i]]
        place[minute[i]] += 1
        in_time[p] = article[i]
        at[p] = minute[i]
    latest = np.full(n_articles, -1, np.int32)
    offsets = np.zeros(n_articles + 1, np.int64)
    for i in range(n):
        a = in_time[i]
        if latest[a] != at[i]:
            latest[a] = at[i]
            offsets[a + 1] += 1
    offsets = np.cumsum(offsets)
    stop = offsets[:-1].copy()
    minutes = np.empty(offsets[-1], np.int32)
    cumulative = np.empty(offsets[-1], np.int32)
    for i in range(n):
        a = in_time[i]
        e = stop[a] - 1
        if e < offsets[a]:
            minutes[e + 1], cumulative[e + 1] = at[i], 1
            stop[a] += 1
        elif minutes[e] == at[i]:
            cumulative[e] += 1
        else:
            minutes[e + 1], cumulative[e + 1] = at[i], cumulative[e] + 1
            stop[a] += 1
    return offsets, minutes, cumulative


@nb.njit(cache=True, nogil=True)
def _counts(
    offsets: np.ndarray,
    minutes: np.ndarray,
    cumulative: np.ndarray,
    ends: np.ndarray,
    rows: np.ndarray,
    widths: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill out[b, k, :]: the windows of rows[b, k] that end before minute ends[b]."""
    n_articles = len(offsets) - 1
    for b in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            row = rows[b, k]
            if row < 0 or row >= n_articles:
                out[b, k, :] = 0
                continue
            first = offsets[row]
            place = _first_at_least(minutes, first, offsets[row + 1], ends[b])
            upto = cumulative[place - 1] if place > first else 0
            for w in range(len(widths)):
                place = _gallop_back(minutes, first, place, ends[b] - widths[w])
                out[b, k, w] = upto - (cumulative[place - 1] if place > first else 0)


@nb.njit(cache=True, nogil=True, inline="always")
def _first_at_least(minutes: np.ndarray, lo: int, hi: int, minute: int) -> int:
    """First place in [lo, hi) whose minute is >= `minute`; hi if there is none."""
    while lo < hi:
        middle = (lo + hi) >> 1
        if minutes[middle] < minute:
            lo = middle + 1
        else:
            hi = middle
    return lo


@nb.njit(cache=True, nogil=True, inline="always")
def _gallop_back(minutes: np.ndarray, lo: int, hi: int, minute: int) -> int:
    """The same, found in steps that double backwards from hi: most windows begin close to their end."""
    step = 1
    right = hi
    while right > lo and minutes[right - 1] >= minute:
        right = max(lo, right - step)
        step *= 2
        if minutes[right] < minute:
            return _first_at_least(minutes, right + 1, hi, minute)
        hi = right
    return right
