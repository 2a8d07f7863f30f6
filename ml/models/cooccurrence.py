"""Co-occurrence: what was clicked in one session with the reader's last article, alone or plus popularity.

Belongs here: ranking by co-clicks of the last click. Does not belong here: how pairs are found and counted
(`ml.coclicks`).
"""

import numpy as np

from ml.asof import AsOf
from ml.clock import minute_start
from ml.log import Cases
from ml.models.base import Model, case_of
from ml.popularity import WINDOWS

WINDOW_MINUTES = 240
"""Pairs of the last four hours: of the definitions tried on Globo the one that meets the reference (docs/globo.md)."""

POPULARITY_MINUTES = 15


class Cooccurrence(Model):
    """Counts the pairs of the last article; cases without history score 0 everywhere."""

    name = "cooccurrence"

    def catalogue_scores(self, asof: AsOf, time_ms: int, cases: Cases) -> np.ndarray:
        """Pair counts of every available article with each case's last click."""
        n_rows = int(asof.available(np.array([time_ms]))[0])
        return asof.coclicks.catalogue_counts(*_last_pairs(asof, cases), n_rows)

    def candidate_scores(self, asof: AsOf, cases: Cases, offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Pair counts of each candidate with its case's last click."""
        return asof.coclicks.candidate_counts(*_last_pairs(asof, cases), offsets, rows)


class CooccurrencePopular(Model):
    """Share of the last article's pairs plus share of all clicks of the last 15 minutes."""

    name = "cooccurrence_popular"

    def catalogue_scores(self, asof: AsOf, time_ms: int, cases: Cases) -> np.ndarray:
        """Sum of the two shares for every available article."""
        n_rows = int(asof.available(np.array([time_ms]))[0])
        lo, hi = _last_pairs(asof, cases)
        popular = asof.catalogue_counts(time_ms, n_rows)[:, _COLUMN]
        total = asof.totals(cases.time)[:, _COLUMN]
        return sum_of_shares(
            asof.coclicks.catalogue_counts(lo, hi, n_rows), (hi - lo)[:, None], popular[None, :], total[:, None]
        )

    def candidate_scores(self, asof: AsOf, cases: Cases, offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Sum of the two shares for each candidate."""
        owner = case_of(offsets)
        lo, hi = _last_pairs(asof, cases)
        popular = asof.counts(cases.time[owner], rows[:, None])[:, 0, _COLUMN]
        total = asof.totals(cases.time)[:, _COLUMN]
        together = asof.coclicks.candidate_counts(lo, hi, offsets, rows)
        return sum_of_shares(together, (hi - lo)[owner], popular, total[owner])


_COLUMN = WINDOWS.index(POPULARITY_MINUTES)


def sum_of_shares(together: np.ndarray, pairs: np.ndarray, clicks: np.ndarray, total: np.ndarray) -> np.ndarray:
    """`together / pairs + clicks / total` in float32, each share 0 where its total is 0; shapes broadcast."""
    pair_share = together / np.maximum(pairs, 1).astype(np.float32)
    click_share = clicks.astype(np.float32) / np.maximum(total, 1).astype(np.float32)
    return pair_share + click_share


def last_article(article: np.ndarray, cases: Cases) -> np.ndarray:
    """Catalogue row of the last history click of each case, int32 [B], -1 without history."""
    if not len(article):
        return np.full(len(cases), -1, dtype=np.int32)
    return np.where(cases.stop > cases.first, article[np.maximum(cases.stop - 1, 0)], -1).astype(np.int32)


def _last_pairs(asof: AsOf, cases: Cases) -> tuple[np.ndarray, np.ndarray]:
    """Pair ranges [lo, hi) of each case's last click, known before the case's minute began."""
    last = last_article(asof.clicks.article, cases)
    return asof.coclicks.window(minute_start(cases.time), last, WINDOW_MINUTES)
