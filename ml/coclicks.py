"""Known co-click pairs as of t: which articles were clicked together in a session, and since when that is known.

Belongs here: pairs of clicks in one session, and their counts over a window that ends at t. Does not belong here:
rankings made of them (`ml.models.cooccurrence`) and article vectors made of them (`ml.coclick_vectors`).
"""

from dataclasses import dataclass

import numba as nb
import numpy as np

from ml.clock import MS_PER_MINUTE
from ml.log import Clicks

LOOKBACK = 20
"""A click is paired with at most this many clicks before it: sessions of crawlers would grow quadratically."""


@dataclass(frozen=True, slots=True)
class CoClicks:
    """Pairs by article, in order of time: article a was clicked in a session together with `partner[e]`, known since
    `time[e]` (ms, the later of the two clicks), for e in [`offsets[a]`, `offsets[a + 1]`).

    `offsets` int64 [A + 1], `time` int64 [E], `partner` int32 [E] (catalogue rows). Pairs are symmetric: each is
    stored under both of its articles.
    """

    offsets: np.ndarray
    time: np.ndarray
    partner: np.ndarray

    @classmethod
    def build(cls, clicks: Clicks, n_articles: int) -> "CoClicks":
        """All pairs of different articles in one session of one reader, at most `LOOKBACK` clicks apart."""
        starts = session_starts(clicks)
        first, second, time = pairs(clicks.article, clicks.time, starts, LOOKBACK)
        order = np.argsort(time, kind="stable")
        first, second, time = first[order], second[order], time[order]
        owner = np.stack([first, second], axis=1).reshape(-1)
        partner = np.stack([second, first], axis=1).reshape(-1)
        by_owner = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=n_articles)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(offsets, np.repeat(time, 2)[by_owner], partner[by_owner].astype(np.int32))

    def window(self, before_ms: np.ndarray, article: np.ndarray, minutes: int) -> tuple[np.ndarray, np.ndarray]:
        """Ranges [lo, hi) int64 [B] of the pairs of `article` (int32 [B], -1: none) known in the `minutes` before
        `before_ms` (int64 [B]; the pair of that very millisecond is not known)."""
        return _window(self.offsets, self.time, before_ms, article.astype(np.int64), minutes * MS_PER_MINUTE)

    def catalogue_counts(self, lo: np.ndarray, hi: np.ndarray, n_rows: int) -> np.ndarray:
        """How often each of the first `n_rows` articles is a partner in the ranges [lo, hi): float32 [B, n_rows]."""
        return _catalogue_counts(self.partner, lo, hi, n_rows)

    def candidate_counts(self, lo: np.ndarray, hi: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The same for chosen articles, `rows[offsets[b]:offsets[b + 1]]` of range b; float32 [V], 0 for row -1."""
        return _candidate_counts(self.partner, lo, hi, offsets, rows.astype(np.int64), len(self.offsets) - 1)


def session_starts(clicks: Clicks) -> np.ndarray:
    """First row of the session of each click, int64 [N]: consecutive rows of one reader with one session id."""
    position = np.arange(len(clicks))
    if not len(clicks):
        return position
    new = (clicks.user[1:] != clicks.user[:-1]) | (clicks.session[1:] != clicks.session[:-1])
    return np.maximum.accumulate(np.where(np.concatenate([[True], new]), position, 0))


@nb.njit(cache=True)
def pairs(
    article: np.ndarray, time: np.ndarray, starts: np.ndarray, lookback: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(earlier article, later article, time of the later click) of the clicks of a session that are at most
    `lookback` rows apart and of different articles; in order of the later click's row."""
    n = 0
    for j in range(len(article)):
        for i in range(max(starts[j], j - lookback), j):
            n += article[i] != article[j]
    first, second, since = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int64)
    n = 0
    for j in range(len(article)):
        for i in range(max(starts[j], j - lookback), j):
            if article[i] != article[j]:
                first[n], second[n], since[n] = article[i], article[j], time[j]
                n += 1
    return first, second, since


@nb.njit(cache=True)
def _window(
    offsets: np.ndarray, time: np.ndarray, before: np.ndarray, article: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    lo, hi = np.zeros(len(before), np.int64), np.zeros(len(before), np.int64)
    for b in range(len(before)):
        if article[b] >= 0:
            start, stop = offsets[article[b]], offsets[article[b] + 1]
            lo[b] = start + np.searchsorted(time[start:stop], before[b] - width)
            hi[b] = start + np.searchsorted(time[start:stop], before[b])
    return lo, hi


@nb.njit(cache=True)
def _catalogue_counts(partner: np.ndarray, lo: np.ndarray, hi: np.ndarray, n_rows: int) -> np.ndarray:
    counts = np.zeros((len(lo), n_rows), np.float32)
    for b in range(len(lo)):
        for e in range(lo[b], hi[b]):
            if partner[e] < n_rows:
                counts[b, partner[e]] += 1
    return counts


@nb.njit(cache=True)
def _candidate_counts(
    partner: np.ndarray, lo: np.ndarray, hi: np.ndarray, offsets: np.ndarray, rows: np.ndarray, n_articles: int
) -> np.ndarray:
    dense = np.zeros(n_articles, np.float32)
    counts = np.zeros(len(rows), np.float32)
    for b in range(len(lo)):
        for e in range(lo[b], hi[b]):
            dense[partner[e]] += 1
        for v in range(offsets[b], offsets[b + 1]):
            if rows[v] >= 0:
                counts[v] = dense[rows[v]]
        for e in range(lo[b], hi[b]):
            dense[partner[e]] = 0
    return counts
