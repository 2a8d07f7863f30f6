"""The figures of an analysis, drawn from its tables.

Belongs here: what each figure shows and how it is captioned. Does not belong here: how lines and bars are drawn
(`ml.figures`) and the numbers themselves (`ml.analysis.measure`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ml.analysis.measure import IN_VIEW, IN_VIEW_MADE, Analysis
from ml.figures import Panel, category_bars, panels
from ml.synthetic import MARK

MOST_CATEGORIES = 12
MOST_DENSITIES = 6
FIRST_HOURS = 2
REST = "all others"
AGES = {1.0: "1 min", 10.0: "10 min", 60.0: "1 h", 240.0: "4 h", 1440.0: "1 d", 10080.0: "7 d", 43200.0: "30 d"}


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure: its title, the SVG, what it shows, and the tables that hold its numbers."""

    title: str
    svg: str
    caption: str
    tables: tuple[str, ...]


def drawings(found: Analysis) -> list[Drawing]:
    """All figures that the analysis has numbers for, in the order of the page."""
    return [drawing for draw in _DRAW for drawing in draw(found)]


def _columns(table: pa.Table) -> dict[str, np.ndarray]:
    return {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}


def _lifecycle(found: Analysis) -> Iterator[Drawing]:
    if "lifecycle" not in found.tables:
        return
    columns = _columns(found.tables["lifecycle"])
    age, popularity, clicks = columns["age_minutes"], columns["popularity"], columns["clicks"]
    first = age < FIRST_HOURS * 60
    positive = np.where(popularity > 0, popularity, np.nan)
    shown = [
        Panel(
            f"First {FIRST_HOURS} hours", "minutes since publication", "relative popularity",
            {"": (age[first], popularity[first])},
        ),
        Panel(
            "First day, logarithmic", "hours since publication", "relative popularity", {"": (age / 60, positive)},
            ylog=True,
        ),
        Panel("Clicks by minute of life", "minutes since publication", "clicks", {"": (age[first], clicks[first])}),
    ]  # fmt: skip
    caption = (
        "Mean over articles of their share of all clicks in the 15 minutes before (Eq. A.2), by age; right: clicks in "
        "each minute of their lives. Document 1, Fig. 3.1: a peak at about 10 minutes, then an exponential decline."
    )
    yield Drawing("Article lifecycle (Fig. 3.1)", panels("lifecycle", shown, width=3.7), caption, ("lifecycle",))


def _lorenz(found: Analysis) -> Iterator[Drawing]:
    if "lorenz" not in found.tables:
        return
    at, clicks, sigma = (column[::5] for column in _columns(found.tables["lorenz"]).values())
    value = found.report["measures"]["gini"]["value"]
    curve = f"mean of timesteps, Gini {value:.3f}"
    lines = {curve: (at, clicks), "equal shares": (at, at)}
    panel = Panel("", "share of articles", "share of clicks", lines, {curve: sigma}, ("equal shares",))
    caption = (
        "Cumulative share of the clicks in 15 minutes over the clicked articles, least clicked first, averaged over "
        "all timesteps, with one standard deviation. Document 1, Fig. 3.2: Gini 0.918. A window with few clicks cannot "
        "be as unequal as one with many: compare levels only between logs with alike clicks in 15 minutes."
    )
    yield Drawing("Lorenz curve (Fig. 3.2)", panels("lorenz", [panel], 5.2, 3.6), caption, ("lorenz",))


def _lifespans(found: Analysis) -> Iterator[Drawing]:
    if "lifespan_density" not in found.tables or not len(found.tables["lifespan_density"]):
        return
    columns = _columns(found.tables["lifespan_density"])
    order = found.tables["lifespans_by_category"].column("category").to_pylist()
    drawn = [name for name in order if (columns["category"] == name).any()][:MOST_DENSITIES]
    hours, density = columns["hours"], columns["density"]
    lines = {n: (hours[columns["category"] == n], density[columns["category"] == n]) for n in drawn}
    least = found.report["lifespans_by_category"]["least_clicks"]
    panel = Panel("", "lifespan in hours", "density", lines)
    sizes = found.report["lifespans_by_category"]["articles"]
    caption = (
        f"Kernel density of the hours to 90 % of clicks; articles with at least {least:,} clicks and 24 hours of data, "
        f"the {len(drawn)} categories with most of them. Articles by least clicks: "
        + ", ".join(f"{int(n):,}: {a:,}" for n, a in sizes.items())
        + ". Document 1 takes 1,000."
    )
    names = ("lifespans_by_category", "lifespan_density", "lifespans")
    yield Drawing("Lifespans by category (Fig. A.2)", panels("lifespans", [panel], 7.2, 3.3), caption, names)


def _categories(found: Analysis) -> Iterator[Drawing]:
    if "categories" not in found.tables:
        return
    columns = _columns(found.tables["categories"])
    names = columns["category"].tolist()
    series: dict[str, dict[str, float]] = {}
    for column, label in _SHARES.items():
        if column in columns:
            shares = dict(zip(names[:MOST_CATEGORIES], columns[column].tolist(), strict=False))
            rest = float(columns[column][MOST_CATEGORIES:].sum())
            series[label] = shares | ({REST: rest} if len(names) > MOST_CATEGORIES else {})
    in_view = _SHARES[IN_VIEW_MADE if IN_VIEW_MADE in columns else IN_VIEW]
    caption = (
        f"Shares of clicks, of articles published in the span, of places {in_view}, and of the 20 places of Most "
        "Popular. "
        "Document 1, Fig. 5.1 and Tab. A.6, gives the last one for EB-NeRD in broader categories (below)."
    )
    drawing = category_bars("categories", series)
    yield Drawing("Category distribution (Fig. 5.1)", drawing, caption, ("categories",))


_SHARES = {
    "clicks": "clicks",
    "published": "published",
    IN_VIEW: "in view",
    IN_VIEW_MADE: f"in view{MARK}",
    "most_popular": "Most Popular",
}


def _days(found: Analysis) -> Iterator[Drawing]:
    columns = _columns(found.tables["days"])
    day = columns["day"].astype("datetime64[D]")
    at = (day - day[0]).astype(int)
    every = max(1, -(-len(at) // 6))
    ticks = {float(a): f"{d.item():%d %b}" for a, d in zip(at[::every], day[::every], strict=True)}
    catalogue = {
        "published or first seen": (at, columns["published"]),
        "clicked": (at, columns["articles_clicked"]),
        "clicked for the first time": (at, columns["articles_clicked_first"]),
    }
    grown = [
        Panel("Articles a day", "", "articles", catalogue, ticks=ticks),
        Panel("Catalogue", "", "articles", {"": (at, columns["catalogue"])}, ticks=ticks),
    ]
    caption = "Articles known up to the end of each day, and the day's own. On the log's first day everything is new."
    yield Drawing("Catalogue growth", panels("growth", grown), caption, ("days",))
    people = {"readers": (at, columns["readers"]), "for the first time": (at, columns["readers_first"])}
    active = [
        Panel("Readers a day", "", "readers", people, ticks=ticks),
        Panel("Clicks a day", "", "clicks", {"": (at, columns["clicks"])}, ticks=ticks),
        _week(found),
    ]
    caption = (
        "Readers with a click, those not seen earlier in the span, and clicks by hour of the publisher's local time."
    )
    names = ("days", "rhythm", "clicks_per_reader")
    yield Drawing("Reader activity", panels("readers", active, width=3.7), caption, names)


def _week(found: Analysis) -> Panel:
    """Clicks an hour by hour of the day, working days and the weekend; an hour the span lacks is a gap."""
    columns = _columns(found.tables["rhythm"])
    lines = {}
    for label, chosen in (("Monday to Friday", columns["weekday"] <= 5), ("weekend", columns["weekday"] > 5)):
        clicks, hours = (columns[c][chosen].reshape(-1, 24).sum(axis=0) for c in ("clicks", "hours_covered"))
        lines[label] = (np.arange(24), np.where(hours > 0, clicks / np.maximum(hours, 1), np.nan))
    return Panel("Clicks an hour", "local hour", "clicks", lines, ticks={float(h): str(h) for h in range(0, 24, 4)})


def _freshness(found: Analysis) -> Iterator[Drawing]:
    if "click_ages" not in found.tables:
        return
    columns = _columns(found.tables["click_ages"])
    closed = np.isfinite(columns["to_minutes"])
    at, share = columns["to_minutes"][closed], columns["share_up_to"][closed]
    lines = {"": (at, share)}
    ticks = {minutes: text for minutes, text in AGES.items() if minutes <= at.max()}
    panel = Panel("", "age of the clicked article", "share of clicks up to that age", lines, xlog=True, ticks=ticks)
    caption = "Share of clicks on articles no older than that when they were clicked."
    yield Drawing("Freshness of clicks", panels("freshness", [panel], 6.4, 3.1), caption, ("click_ages",))


_DRAW = (_lifecycle, _lorenz, _lifespans, _categories, _days, _freshness)
