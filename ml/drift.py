"""Drift over days: popularity skew, category mix, catalogue turnover, and the population stability index of features.

Belongs here: measures of one day against the days before it. Does not belong here: pages (`ml.drift_page`) and metrics
of models (`ml.evaluate`).

PSI of a feature: sum over bins of (p - q) ln(p / q), p the day's shares and q those of the reference, here the
`REFERENCE_DAYS` days before: what a model as of that day was trained on. Bins are the reference's deciles, with one
more for unknown values; categories are their own bins. Half a click is added to every bin, so that no share is 0.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np

from ml.articles import NUMERIC
from ml.asof import AsOf
from ml.clock import minute_start
from ml.features import raw_dynamic
from ml.popularity import WINDOWS
from ml.popularity_skew import TOP, gini, top_share
from ml.splits import TRAIN_DAYS

REFERENCE_DAYS = TRAIN_DAYS
BINS = 10
SAMPLE = 50_000
"""Clicks of a day whose features are compared: an even sample."""
DYNAMIC = ("age", *(f"clicks_{w}min" for w in WINDOWS), *(f"share_{w}min" for w in WINDOWS))
CATEGORY = "category"
Json = dict[str, Any]


def psi(reference: np.ndarray, values: np.ndarray, bins: int = BINS) -> float:
    """Population stability index of `values` against `reference` (float, NaN unknown, any lengths > 0).

    >>> round(psi(np.array([0.0, 1.0] * 50), np.array([0.0, 1.0] * 20)), 12)
    0.0
    """
    known = reference[~np.isnan(reference)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1])) if len(known) else np.zeros(0)
    p, q = (_counts(np.where(np.isnan(v), len(edges) + 1, np.searchsorted(edges, v)), len(edges) + 2)
            for v in (values, reference))  # fmt: skip
    return _index(p, q)


def psi_of_codes(reference: np.ndarray, codes: np.ndarray) -> float:
    """The same for categories: `reference` and `codes` int of any values, each value a bin."""
    names, place = np.unique(np.concatenate([reference, codes]), return_inverse=True)
    q, p = (_counts(part, len(names)) for part in (place[: len(reference)], place[len(reference) :]))
    return _index(p, q)


def _counts(bins: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(bins.astype(np.int64), minlength=size).astype(np.float64)


def _index(p: np.ndarray, q: np.ndarray) -> float:
    """PSI of two vectors of counts; bins that are empty in both are left out."""
    used = (p > 0) | (q > 0)
    p, q = p[used] + 0.5, q[used] + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((p - q) * np.log(p / q)))


@dataclass(frozen=True, slots=True)
class Drift:
    """One row a day: `days` (clicks, readers, articles, skew, turnover); `mix` (share of clicks by day and category id,
    -1 unknown); `features` (PSI by day and feature)."""

    days: list[Json]
    mix: list[Json]
    features: list[Json]


def drift(asof: AsOf, first: date, last: date) -> Drift:
    """Of the days `first`..`last` with clicks in `asof`, which must hold them. Days before `first` serve as reference
    where they have clicks; a day without such has no PSI and no turnover, and stands with null."""
    log, clock = asof.clicks, asof.clock
    days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    order = np.argsort(log.time, kind="stable")
    time = log.time[order]

    def clicks_of(start: date, stop: date) -> np.ndarray:
        return order[np.searchsorted(time, clock.start(start)) : np.searchsorted(time, clock.start(stop))]

    found = Drift([], [], [])
    for day in days:
        now = clicks_of(day, day + timedelta(days=1))
        if not len(now):
            continue
        before = clicks_of(day - timedelta(days=REFERENCE_DAYS), day)
        yesterday = clicks_of(day - timedelta(days=1), day)
        found.days.append({"day": str(day), **_day(asof, day, now, yesterday)})
        found.mix.extend({"day": str(day), **row} for row in _mix(asof.catalogue.category[log.article[now]]))
        if len(before):
            found.features.extend({"day": str(day), **row} for row in _features(asof, before, now))
    return found


def _day(asof: AsOf, day: date, now: np.ndarray, yesterday: np.ndarray) -> Json:
    rows, counts = np.unique(asof.clicks.article[now], return_counts=True)
    old = np.unique(asof.clicks.article[yesterday])
    start = asof.clock.start(day)
    fresh = asof.catalogue.published[asof.clicks.article[now]] >= start
    published = np.searchsorted(asof.catalogue.published, [start, asof.clock.end(day)])
    turnover = {
        "articles_new_since_yesterday": float(np.mean(~np.isin(rows, old))),
        "clicks_on_articles_not_clicked_yesterday": float(np.mean(~np.isin(asof.clicks.article[now], old))),
        "jaccard_with_yesterday": len(np.intersect1d(rows, old)) / len(np.union1d(rows, old)),
    }
    return {
        "clicks": len(now),
        "readers": len(np.unique(asof.clicks.user[now])),
        "articles": len(rows),
        "published": int(published[1] - published[0]),
        "gini": gini(counts),
        f"top_{TOP}_share": top_share(counts),
        "clicks_on_articles_of_the_day": float(np.mean(fresh)),
        **(turnover if len(old) else dict.fromkeys(turnover)),
    }


def _mix(category: np.ndarray) -> list[Json]:
    ids, counts = np.unique(category, return_counts=True)
    return [{"category_id": int(i), "share": float(c / len(category))} for i, c in zip(ids, counts, strict=True)]


def _features(asof: AsOf, reference: np.ndarray, now: np.ndarray) -> list[Json]:
    """PSI of every feature that the data know: dynamic ones as of each click's minute, metadata, category."""
    then, today = (_values(asof, _even(clicks)) for clicks in (reference, now))
    rows = [
        {"feature": name, "psi": psi(then[name], today[name])}
        for name in then
        if not (np.isnan(then[name]).all() and np.isnan(today[name]).all())
    ]
    category = [asof.catalogue.category[asof.clicks.article[clicks]] for clicks in (reference, now)]
    if any((c >= 0).any() for c in category):
        rows.append({"feature": CATEGORY, "psi": psi_of_codes(*category)})
    return rows


def _values(asof: AsOf, clicks: np.ndarray) -> dict[str, np.ndarray]:
    """Features of the clicked articles by name, float64 [n], as models read them before scaling."""
    rows, at = asof.clicks.article[clicks], minute_start(asof.clicks.time[clicks])
    dynamic = raw_dynamic(asof, at, rows[:, None])[:, 0].astype(np.float64)
    numeric = asof.articles.numeric[rows].astype(np.float64)
    return dict(zip((*DYNAMIC, *NUMERIC), np.hstack([dynamic, numeric]).T, strict=True))


def _even(clicks: np.ndarray) -> np.ndarray:
    return clicks[np.linspace(0, len(clicks) - 1, min(len(clicks), SAMPLE)).astype(np.int64)]
