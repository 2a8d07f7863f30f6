"""What is counted while a span's days pass: ages of clicks, readers, the catalogue's growth, categories, impressions.

Belongs here: counts over a stream of days. Does not belong here: windows and lives (`ml.popularity_skew`,
`ml.lifecycle`), and how counts become figures (`ml.analysis.measure`).
"""

from typing import Any

import numpy as np

from ml.analysis.log import Articles, DayClicks, Shown
from ml.clock import MS_PER_HOUR, MS_PER_MINUTE, DayClock
from ml.lifecycle import UNKNOWN
from ml.popularity_skew import Step

OLDEST = 60 * 1440
"""Ages from this many minutes on are counted as one."""

HOURS = 168
LIST = 20
"""Length of the Most Popular lists of Fig. 5.1."""


class ClickAges:
    """How old, in whole minutes since publication, the clicked articles were."""

    def __init__(self, published_ms: np.ndarray) -> None:
        """`published_ms` int64 [A], -1 where unknown."""
        self._published = published_ms
        self.by_minute = np.zeros(OLDEST + 1, dtype=np.int64)
        self.before_publication = self.unknown = 0

    def add(self, clicks: DayClicks) -> float | None:
        """Count a day; gives the median age of its clicks in minutes, None where no click has one."""
        published = self._published[clicks.rows]
        known = published != UNKNOWN
        ages = (clicks.time_ms[known] - published[known]) // MS_PER_MINUTE
        self.unknown += int((~known).sum())
        self.before_publication += int((ages < 0).sum())
        ages = ages[ages >= 0]
        self.by_minute += np.bincount(np.minimum(ages, OLDEST), minlength=OLDEST + 1)
        return float(np.median(ages)) if len(ages) else None

    def quantile(self, q: float) -> int | None:
        """The smallest age in minutes that at least the share `q` of clicks do not exceed; `OLDEST` means that or
        more, None that no click has an age."""
        below = np.cumsum(self.by_minute)
        return int(np.searchsorted(below, q * below[-1])) if below[-1] else None

    def younger(self, minutes: int) -> float | None:
        """Share of clicks on articles younger than `minutes`."""
        total = int(self.by_minute.sum())
        return float(self.by_minute[:minutes].sum() / total) if total else None


class Readers:
    """Clicks by reader, and by hour of the publisher's local week."""

    def __init__(self, clock: DayClock) -> None:
        self._clock = clock
        self._ids = np.zeros(0, dtype=np.int64)
        self.clicks = np.zeros(0, dtype=np.int64)
        self.by_hour = np.zeros(HOURS, dtype=np.int64)
        self.hours = np.zeros(HOURS, dtype=np.int64)

    def add(self, clicks: DayClicks) -> tuple[int, int]:
        """Count a day; gives how many readers clicked on it and how many of them had not in the days before."""
        today, counts = np.unique(clicks.user, return_counts=True)
        ids = np.union1d(self._ids, today)
        merged = np.zeros(len(ids), dtype=np.int64)
        merged[np.searchsorted(ids, self._ids)] = self.clicks
        merged[np.searchsorted(ids, today)] += counts
        new = len(ids) - len(self._ids)
        self._ids, self.clicks = ids, merged
        self.by_hour += np.bincount(self._local_hours(clicks.time_ms), minlength=HOURS)
        self.hours += np.bincount(
            self._local_hours(np.arange(clicks.start_ms, clicks.end_ms, MS_PER_HOUR)), minlength=HOURS
        )
        return len(today), new

    def _local_hours(self, time_ms: np.ndarray) -> np.ndarray:
        return self._clock.local_minutes(time_ms) // 60


class Growth:
    """The catalogue day by day, one row a day."""

    def __init__(self, articles: Articles) -> None:
        self._published = np.sort(articles.published_ms[articles.published_ms != UNKNOWN])
        self._clicked = np.zeros(len(articles), dtype=bool)

    def add(self, clicks: DayClicks) -> dict[str, Any]:
        """Articles published on the day and up to its end, clicked on it, and clicked for the first time."""
        before, upto = np.searchsorted(self._published, [clicks.start_ms, clicks.end_ms])
        clicked = np.unique(clicks.rows)
        new = int((~self._clicked[clicked]).sum())
        self._clicked[clicked] = True
        return {
            "published": int(upto - before),
            "catalogue": int(upto),
            "articles_clicked": len(clicked),
            "articles_clicked_first": new,
        }


class Categories:
    """Clicks, places in view, and places of the 20 most popular articles, by category (`Articles.by_category`)."""

    def __init__(self, articles: Articles) -> None:
        self._articles = articles
        self.clicks, self.inview, self.popular = (np.zeros(len(articles.names) + 1) for _ in range(3))

    def add(self, clicks: DayClicks) -> None:
        """Count a day's clicks."""
        self.clicks += self._articles.by_category(clicks.rows)

    def shown(self, shown: Shown) -> None:
        """Count what was in view."""
        self.inview += self._articles.by_category(self._articles.rows(shown.article_id))

    def step(self, step: Step) -> None:
        """Count the list that Most Popular (Eq. A.5, strict) gives to every click of the step's minute."""
        if step.total and len(step.following):
            self.popular += len(step.following) * self._articles.by_category(step.leaders(LIST))


class Impressions:
    """Impressions by length of the list in view, and their clicks."""

    def __init__(self) -> None:
        self.by_length = np.zeros(1, dtype=np.int64)
        self.clicks = self.without_click = 0
        self._made: set[str] = set()

    def add(self, shown: Shown) -> None:
        """Count a batch."""
        lengths = np.bincount(shown.inview, minlength=len(self.by_length))
        lengths[: len(self.by_length)] += self.by_length
        self.by_length = lengths
        self.clicks += int(shown.clicked.sum())
        self.without_click += int((shown.clicked == 0).sum())
        self._made |= shown.made

    @property
    def made(self) -> str:
        """How the lists that nobody was shown were made; empty where there is none."""
        return "; ".join(sorted(self._made))

    @property
    def total(self) -> int:
        """All impressions."""
        return int(self.by_length.sum())
