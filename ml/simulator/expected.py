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

EXPECTED: dict[tuple[str, str], dict[str, tuple[float, float]]] = {
    ("tabloid", "tiny"): {
        "gini_15_min": (0.25247, 0.0057),
        "top_5_share_15_min": (0.61269, 0.0062),
        "front_page_share": (0.69979, 0.0033),
        "clicks_per_impression": (1.0039, 0.00051),
        "inview_median": (9.5, 0.53),
        "clicked_age_median_hours": (9.4661, 0.58),
        "popular_15_inview_auc": (0.6553, 0.012),
        "personal_inview_auc": (0.71669, 0.01),
        "oracle_inview_auc": (0.86769, 0.0068),
        "popular_15_recall@20": (0.6379, 0.021),
        "personal_recall@20": (0.70495, 0.019),
        "clicks_per_day": (2423, 56),
        "clicked_articles_15_min": (15.461, 0.28),
    },
    ("tabloid", "demo"): {
        "gini_15_min": (0.57286, 0.0031),
        "top_5_share_15_min": (0.44114, 0.0078),
        "lifecycle_median_hours": (23.093, 1.5),
        "lifecycle_peak_minutes": (41.333, 16),
        "front_page_share": (0.70144, 0.00053),
        "clicks_per_impression": (1.004, 9.7e-05),
        "inview_median": (9.3333, 0.52),
        "clicked_age_median_hours": (4.5698, 0.3),
        "popular_15_inview_auc": (0.70942, 0.0073),
        "personal_inview_auc": (0.74876, 0.0063),
        "oracle_inview_auc": (0.8467, 0.003),
        "popular_15_recall@20": (0.75642, 0.015),
        "personal_recall@20": (0.81292, 0.013),
        "clicks_per_day": (30479, 3e02),
        "clicked_articles_15_min": (62.528, 1.1),
    },
}
"""Mean and standard deviation over seeds, by (preset, size), as `make calibrate` prints them."""
