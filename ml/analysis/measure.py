"""The analysis of one span: every tally filled, every figure and table made.

Belongs here: the two passes over the days, and which filter, number and reason each figure has. Does not belong here:
definitions (`ml.popularity_skew`, `ml.lifecycle`), counts (`ml.analysis.tallies`), the page (`ml.analysis.page`).

A figure that a log's columns do not allow is left out with its reason.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from ml import published, synthetic
from ml.analysis.log import Articles, SpanFiles, days_of_clicks, impressions_of
from ml.analysis.tallies import LIST, OLDEST, Categories, ClickAges, Growth, Impressions, Readers
from ml.clock import MS_PER_HOUR
from ml.lifecycle import UNKNOWN, AgeTally, Lifespans
from ml.popularity_skew import GRID, TOP, WINDOW, SkewTally, SlidingWindow, gini
from ml.synthetic import SYNTHETIC

Json = dict[str, Any]
Progress = Callable[[str], None]
Tables = dict[str, pa.Table]

LIFE_MINUTES = 1440
"""How far the curve of Fig. 3.1 goes: every covered article has data for at least as long."""

LEAST_CLICKS = (1000, 100, 20)
"""Fig. A.2 takes articles with 1,000 clicks; a log too small for that is drawn with the next number."""

LEAST_ARTICLES = 30
"""Fewer articles than that make no distribution by category."""

LEAST_IN_CATEGORY = 5
IN_VIEW, IN_VIEW_MADE = "in_view", "in_view_synthetic"
"""Column of the shares of places in view; the latter of lists that nobody was shown."""

NO_CATEGORIES = "no article of the log has a category"
QUANTILES = (0.25, 0.5, 0.75)
HORIZONS = {"1_h": 60, "4_h": 240, "24_h": 1440, "7_d": 10080}


@dataclass(frozen=True, slots=True)
class Analysis:
    """`report`: what analysis.json holds. `tables`: the numbers behind each figure, by name."""

    report: Json
    tables: Tables


@dataclass(slots=True)
class _Counted:
    """All tallies of a span, filled."""

    files: SpanFiles
    articles: Articles
    covered: np.ndarray
    lives: Lifespans
    curve: AgeTally
    skew: SkewTally
    ages: ClickAges
    readers: Readers
    categories: Categories
    impressions: Impressions
    days: list[Json]


def analyse(files: SpanFiles, progress: Progress = lambda _: None) -> Analysis:
    """Measures the span that `files` cover. Two passes over the clicks and one over the impressions, a day at a time.
    Raises DataError for clicks out of order."""
    counted = _count(files, progress)
    report: Json = {
        "dataset": files.dataset.name,
        "simulated": files.dataset.synthetic,
        SYNTHETIC: counted.impressions.made,
        "span": _span(files),
        "notes": _notes(counted),
        "published": {"source": published.SOURCE, "label": published.label(files.dataset.name)},
        "filters": _FILTERS,
        "measures": {},
        "left_out": dict(_NEVER),
    }
    tables: Tables = {}
    for part in (_sizes, _inequality, _life, _spans_by_category, _categories, _reader_activity, _freshness, _shown):
        part(counted, report, tables)
    for figure in published.DATASET_FIGURES:
        if figure.measure in report["measures"]:
            entry = {"value": figure.value, "where": figure.where}
            report["measures"][figure.measure]["published"].append(entry)
    return Analysis(report, tables)


def _count(files: SpanFiles, progress: Progress) -> _Counted:
    articles = Articles.read(files)
    included = articles.covered(files)
    counted = _Counted(
        files=files,
        articles=articles,
        covered=included,
        lives=Lifespans(articles.published_ms),
        curve=AgeTally(articles.published_ms, included, articles.first_seen, LIFE_MINUTES),
        skew=SkewTally(TOP),
        ages=ClickAges(articles.published_ms),
        readers=Readers(files.dataset.clock),
        categories=Categories(articles),
        impressions=Impressions(),
        days=[],
    )
    for clicks in days_of_clicks(files, articles):
        counted.lives.count(clicks.time_ms, clicks.rows)
    window, growth = SlidingWindow(len(articles), files.start_ms), Growth(articles)
    for clicks in days_of_clicks(files, articles):
        progress(f"{clicks.day}: {len(clicks.rows):,} clicks")
        counted.lives.follow(clicks.time_ms, clicks.rows)
        counted.curve.click(clicks.time_ms, clicks.rows)
        counted.categories.add(clicks)
        for step in window.steps(clicks.time_ms, clicks.rows, clicks.end_ms):
            counted.skew.add(step)
            counted.curve.add(step)
            counted.categories.step(step)
        readers, new = counted.readers.add(clicks)
        row = {"day": clicks.day, "clicks": len(clicks.rows), "readers": readers, "readers_first": new}
        counted.days.append(row | growth.add(clicks) | {"median_age_minutes": counted.ages.add(clicks)})
    for day in sorted(files.impressions):
        for shown in impressions_of(files.impressions[day]):
            counted.impressions.add(shown)
            counted.categories.shown(shown)
    return counted


_FILTERS = {
    "windows": f"at the start of every minute, the {WINDOW} completed minutes before it; only those inside the span; "
    "articles without a click in a window are not in it (Fig. 3.2), and windows without any click are left out",
    "band": "one standard deviation over timesteps at each share of articles",
    "lifecycle": "time from publication to the click that completes 90 % of an article's clicks from publication to "
    "the span's end (Eq. A.4); articles published inside the span and at least 24 hours before its end",
    "lifecycle by category": "of these, articles with at least 1,000 clicks (Fig. A.2)",
    "most popular": f"the {LIST} articles with most clicks in the {WINDOW} completed minutes, counted once for each "
    "click of the minute that follows",
    "first appearance": "where an article's publication time is unknown its first appearance stands in; such articles "
    "count for lifecycles only from the log's second day on",
}

_NEVER = {
    "front_page_share": "the canonical tables do not say from which page a click came",
}


def _span(files: SpanFiles) -> Json:
    days = files.days
    missing = (days[-1] - days[0]).days + 1 - len(days)
    return {"first_day": str(days[0]), "last_day": str(days[-1]), "days": len(days), "days_without_data": missing} | {
        name: datetime.fromtimestamp(ms / 1000, UTC).isoformat()
        for name, ms in (("start", files.start_ms), ("end", files.end_ms))
    }


def _notes(counted: _Counted) -> list[str]:
    articles, found = counted.articles, [counted.files.dataset.note]
    standing_in = int(articles.first_seen.sum())
    if standing_in:
        found.append(
            f"{standing_in:,} of {len(articles):,} articles have no publication time: their first appearance stands in "
            "for it, so their age, lifecycle and place in the catalogue's growth are counted from there. An article "
            "clicked once then lives 0 hours by construction; Fig. 3.1 leaves these first clicks out."
        )
    if counted.impressions.made:
        found.append(
            synthetic.note("What is said of impressions and of categories in view rests", counted.impressions.made)
        )
    if articles.unlisted:
        found.append(f"{articles.unlisted:,} clicked articles are in no article table up to the span's end.")
    if counted.ages.before_publication:
        found.append(f"{counted.ages.before_publication:,} clicks precede their article's publication.")
    return [note for note in found if note]


def _measure(report: Json, name: str, label: str, value: float | None, unit: str, basis: str) -> None:
    known = None if value is None or not math.isfinite(value) else value
    report["measures"][name] = {"label": label, "value": known, "unit": unit, "basis": basis, "published": []}


def _sizes(counted: _Counted, report: Json, tables: Tables) -> None:
    """How much there is, and the catalogue and readers day by day."""
    rows = counted.days
    clicked = sum(row["articles_clicked_first"] for row in rows)
    grown = float(np.median([row["published"] for row in rows]))
    _measure(report, "clicks", "clicks", sum(row["clicks"] for row in rows), "count", "in the span")
    _measure(report, "readers", "readers", len(counted.readers.clicks), "count", "with a click in the span")
    _measure(report, "articles", "articles", len(counted.articles), "count", "known up to the span's end")
    _measure(report, "articles_clicked", "articles clicked", clicked, "count", "in the span")
    _measure(
        report,
        "published_per_day",
        "articles published or first seen a day",
        grown,
        "count",
        f"median of {len(rows)} days",
    )
    tables["days"] = pa.table({name: [row[name] for row in rows] for name in rows[0]})


def _inequality(counted: _Counted, report: Json, tables: Tables) -> None:
    """Fig. 3.2: the averaged Lorenz curve, its band, Gini, and how much the most popular take."""
    skew = counted.skew.result()
    names = {
        "gini": ("Gini of clicks in 15 minutes (Eq. A.3)", skew.gini, "share"),
        "top_5_share": ("share of the five most popular articles in 15 minutes", skew.top_share, "share"),
        "top_5_share_pooled": ("the same, windows weighted by their clicks", skew.top_share_pooled, "share"),
        "top_5_share_next": ("share of the next minute's clicks on these five", skew.next_share, "share"),
        "clicks_per_window": ("clicks in 15 minutes", skew.clicks_per_window, "count"),
        "articles_per_window": ("articles clicked in 15 minutes", skew.articles_per_window, "count"),
    }
    if not skew.steps:
        report["left_out"] |= dict.fromkeys(names, f"no {WINDOW} minutes of the span hold a click")
        return
    basis = f"mean of {skew.steps:,} timesteps" + (f", {skew.empty:,} without clicks left out" if skew.empty else "")
    for name, (label, value, unit) in names.items():
        _measure(report, name, label, value, unit, basis)
    report["measures"]["top_5_share_pooled"]["basis"] = "all clicks in all these windows"
    report["measures"]["top_5_share_next"]["basis"] = "all clicks of the minutes that follow a window"
    report["gini_sigma"] = skew.gini_sigma
    tables["lorenz"] = pa.table({"articles": GRID, "clicks": skew.curve, "sigma": skew.sigma})


def _life(counted: _Counted, report: Json, tables: Tables) -> None:
    """Fig. 3.1: popularity by age, and the median lifecycle of all covered articles and of the paper's."""
    clicks, hours = counted.lives.clicks, counted.lives.milliseconds / MS_PER_HOUR
    if not (counted.covered & (clicks > 0)).any():
        why = "no clicked article was published inside the span and 24 hours before its end"
        report["left_out"] |= dict.fromkeys(("lifecycle_median_hours", "lifecycle_peak_minutes"), why)
        return
    medians = {}
    for least in (1, *sorted(LEAST_CLICKS)):
        chosen = hours[counted.covered & (clicks >= least)]
        medians[least] = {"articles": len(chosen), "hours": float(np.median(chosen)) if len(chosen) else None}
        least_label = f"median lifecycle, articles with at least {least:,} click{'s' if least > 1 else ''}"
        name = "lifecycle_median_hours" if least == 1 else f"lifecycle_median_hours_{least}"
        _measure(report, name, least_label, medians[least]["hours"], "hours", f"{len(chosen):,} articles")
    curve = counted.curve.result()
    basis = f"mean relative popularity of {int(counted.covered.sum()):,} articles by minute of age"
    _measure(report, "lifecycle_peak_minutes", "age of highest relative popularity", curve.peak, "minutes", basis)
    busiest = int(np.argmax(curve.clicks))
    _measure(
        report,
        "busiest_minute",
        "minute of life with most clicks",
        busiest,
        "minutes",
        f"{curve.clicks.sum():,} clicks",
    )
    ages = np.arange(LIFE_MINUTES)
    columns = {"age_minutes": ages, "popularity": curve.popularity, "articles": curve.articles, "clicks": curve.clicks}
    tables["lifecycle"] = pa.table(columns)
    rows = np.flatnonzero(counted.covered & (clicks > 0))
    tables["lifespans"] = pa.table(
        {
            "article_id": counted.articles.article_id[rows],
            "category": _names(counted, rows),
            "clicks": clicks[rows],
            "hours": hours[rows],
        }
    )


def _names(counted: _Counted, rows: np.ndarray) -> list[str | None]:
    names = counted.articles.names
    return [names[code] if code != UNKNOWN else None for code in counted.articles.category[rows].tolist()]


def _spans_by_category(counted: _Counted, report: Json, tables: Tables) -> None:
    """Fig. A.2: how long articles of each category live."""
    if not counted.articles.names:
        report["left_out"]["lifespans_by_category"] = NO_CATEGORIES
        return
    clicks, hours = counted.lives.clicks, counted.lives.milliseconds / MS_PER_HOUR
    known = counted.covered & (counted.articles.category != UNKNOWN)
    enough = {least: int((known & (clicks >= least)).sum()) for least in LEAST_CLICKS}
    least = next((n for n, articles in enough.items() if articles >= LEAST_ARTICLES), None)
    if least is None:
        found = f"{enough[LEAST_CLICKS[-1]]} covered articles have {LEAST_CLICKS[-1]} clicks"
        report["left_out"]["lifespans_by_category"] = f"only {found}: fewer than {LEAST_ARTICLES}"
        return
    report["lifespans_by_category"] = {"least_clicks": least, "articles": {str(n): a for n, a in enough.items()}}
    rows: list[Json] = []
    groups: dict[str, np.ndarray] = {}
    for code, name in enumerate(counted.articles.names):
        chosen = hours[known & (clicks >= least) & (counted.articles.category == code)]
        if len(chosen):
            quartiles = dict(zip(("hours_25", "hours_50", "hours_75"), np.quantile(chosen, QUANTILES), strict=True))
            rows.append({"category": name, "least_clicks": least, "articles": len(chosen)} | quartiles)
            groups[name] = chosen
    rows.sort(key=lambda row: (-row["articles"], row["category"]))
    tables["lifespans_by_category"] = pa.Table.from_pylist(rows)
    tables["lifespan_density"] = _density({row["category"]: groups[row["category"]] for row in rows})


def _density(groups: dict[str, np.ndarray]) -> pa.Table:
    """Kernel density of lifespans in hours, for groups large enough and not all alike (Scott's bandwidth)."""
    from scipy.stats import gaussian_kde

    every = np.concatenate(list(groups.values()))
    at = np.linspace(0, max(float(np.quantile(every, 0.98)), 1.0), 200)
    drawn = {n: h for n, h in groups.items() if len(h) >= LEAST_IN_CATEGORY and np.ptp(h) > 0}
    return pa.table(
        {
            "category": [name for name in drawn for _ in at],
            "hours": np.tile(at, len(drawn)),
            "density": np.concatenate([at[:0], *(gaussian_kde(hours)(at) for hours in drawn.values())]),
        }
    )


def _categories(counted: _Counted, report: Json, tables: Tables) -> None:
    """Fig. 5.1: what is clicked, published, shown, and what Most Popular would recommend, by category."""
    articles, tally = counted.articles, counted.categories
    if not articles.names:
        report["left_out"]["categories"] = NO_CATEGORIES
        return
    inside = (articles.published_ms >= counted.files.start_ms) & (articles.published_ms < counted.files.end_ms)
    counts = {
        "clicks": tally.clicks,
        "published": articles.by_category(np.flatnonzero(inside)),
        IN_VIEW_MADE if counted.impressions.made else IN_VIEW: tally.inview,
        "most_popular": tally.popular,
    }
    order = np.argsort(-tally.clicks, kind="stable")
    names = [*articles.names, "unknown"]
    kept = [code for code in order.tolist() if any(c[code] for c in counts.values())]
    columns: dict[str, Any] = {"category": [names[code] for code in kept]}
    columns |= {name: c[kept] / c.sum() for name, c in counts.items() if c.sum()}
    tables["categories"] = pa.table(columns)


def _reader_activity(counted: _Counted, report: Json, tables: Tables) -> None:
    """Clicks by reader and by hour of the week."""
    clicks, readers = counted.readers.clicks, counted.readers
    basis = f"{len(clicks):,} readers"
    if len(clicks):
        _measure(report, "clicks_per_reader", "clicks per reader, median", float(np.median(clicks)), "count", basis)
        _measure(report, "clicks_per_reader_mean", "clicks per reader, mean", float(clicks.mean()), "count", basis)
        _measure(report, "gini_readers", "Gini of clicks by reader", gini(clicks), "share", basis)
        _measure(report, "one_click_readers", "readers with one click", float((clicks == 1).mean()), "share", basis)
        low = 2 ** np.arange(int(clicks.max()).bit_length(), dtype=np.int64)
        binned = np.bincount(np.searchsorted(low, clicks, side="right") - 1, minlength=len(low))
        tables["clicks_per_reader"] = pa.table({"from": low, "to": 2 * low - 1, "readers": binned})
    week = np.arange(len(readers.by_hour))
    with np.errstate(invalid="ignore"):
        per_hour = np.where(readers.hours > 0, readers.by_hour / np.maximum(readers.hours, 1), np.nan)
    tables["rhythm"] = pa.table(
        {
            "weekday": week // 24 + 1,
            "hour": week % 24,
            "clicks": readers.by_hour,
            "hours_covered": readers.hours,
            "clicks_per_hour": pa.array(per_hour, from_pandas=True),
        }
    )


def _freshness(counted: _Counted, report: Json, tables: Tables) -> None:
    """How old clicked articles are."""
    ages = counted.ages
    total = int(ages.by_minute.sum())
    if not total:
        report["left_out"]["click_age_median_hours"] = "no click is on an article with a known publication time"
        return
    basis = f"{total:,} clicks" + (f", {ages.unknown:,} of unknown age left out" if ages.unknown else "")
    for q in QUANTILES:
        name = "click_age_median_hours" if q == 0.5 else f"click_age_hours_{round(q * 100)}"
        label = "median age of clicked articles" if q == 0.5 else f"{q:.0%} quantile of the age of clicked articles"
        minutes = ages.quantile(q)
        _measure(report, name, label, None if minutes is None else minutes / 60, "hours", basis)
    for name, minutes in HORIZONS.items():
        label = f"clicks on articles younger than {name.replace('_', ' ')}"
        _measure(report, f"younger_than_{name}", label, ages.younger(minutes), "share", basis)
    edges = np.unique(np.concatenate([np.arange(60), np.round(np.geomspace(60, OLDEST, 120)).astype(np.int64)]))
    clicks = np.add.reduceat(ages.by_minute, edges)
    upto = np.append(edges[1:], OLDEST + 1)
    tables["click_ages"] = pa.table(
        {
            "from_minutes": edges,
            "to_minutes": pa.array(np.where(upto > OLDEST, np.nan, upto), from_pandas=True),
            "clicks": clicks,
            "share_up_to": np.cumsum(clicks) / total,
        }
    )


def _shown(counted: _Counted, report: Json, tables: Tables) -> None:
    """Impressions: how long the lists in view are, and how often they are clicked."""
    found = counted.impressions
    if not found.total:
        report["left_out"]["impressions"] = "the span holds no impressions"
        return
    basis = f"{found.total:,} {synthetic.marked('impressions', found.made)}"
    median = int(np.searchsorted(np.cumsum(found.by_length), found.total / 2))
    measured = {
        "clicks_per_impression": ("clicks per impression", found.clicks / found.total, "number"),
        "inview_median": ("articles in view, median", median, "count"),
        "without_click": ("impressions without a click", found.without_click / found.total, "share"),
    }
    for name, (label, value, unit) in measured.items():
        _measure(report, name, synthetic.marked(label, found.made), value, unit, basis)
    lengths = np.flatnonzero(found.by_length)
    columns = {"articles": lengths, "impressions": found.by_length[lengths]}
    tables["inview"] = pa.table(columns | {SYNTHETIC: pa.array([found.made or None] * len(lengths), pa.string())})
