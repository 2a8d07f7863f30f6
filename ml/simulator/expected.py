"""What a simulated log should show: targets, and what the frozen model gives at each size.

Belongs here: numbers to hold a report against. Does not belong here: computing them (`check`), measuring what to
expect (`calibrate`, whose output `EXPECTED` is).
"""

from typing import NamedTuple


class Target(NamedTuple):
    """A range that `large` of the preset `tabloid` aims at, and where it comes from."""

    low: float
    high: float
    source: str


TARGETS = {
    "gini_15_min": Target(0.888, 0.948, "document 1, Eq. A.3, Fig. 3.2: .918"),
    "top_5_share_15_min": Target(0.385, 0.465, "document 1, Sec. 3.2.2: .425"),
    "lifecycle_median_hours": Target(4.3, 6.3, "document 1, Sec. 3.2.1: 5.3 h"),
    "lifecycle_peak_minutes": Target(5, 15, "document 1, Fig. 3.1: about 10 min"),
    "front_page_share": Target(0.67, 0.75, "document 1, Sec. 3.2.2: 71 %"),
    "clicks_per_impression": Target(1.003, 1.005, "ours: about 1.004"),
    "inview_median": Target(7, 12, "ours"),
    "clicked_age_median_hours": Target(3, 5, "ours: about 4 h"),
    "popular_15_inview_auc": Target(0.70, 0.73, "ours"),
    "oracle_inview_auc": Target(0.80, 0.86, "ours"),
}
"""In order of importance: where two conflict, the earlier one is kept."""

EXPECTED: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
"""Mean and standard deviation over seeds, by (preset, size)."""
