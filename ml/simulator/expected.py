"""What a simulated log should show: targets, and what the frozen model gives at each size.

Belongs here: numbers to hold a report against. Does not belong here: computing them (`check`), measuring what to
expect (`calibrate`, whose output `EXPECTED` is), printing (`compare`).
"""

import math
from typing import NamedTuple

from ml.simulator.seeds import seeds_of

CONFIDENCE = 0.999
"""A report judges some fifteen figures at once: with 95 % every other sound bundle would have one outside."""


class Range(NamedTuple):
    """From `low` to `high`, both included."""

    low: float
    high: float


class Target(NamedTuple):
    """A range that `TARGETED` aims at, and where it comes from."""

    range: Range
    source: str


class Measured(NamedTuple):
    """What the bundles of `seeds` (as in `11-13,20`) showed: mean and standard deviation by figure."""

    seeds: str
    figures: dict[str, tuple[float, float]]

    def band(self, name: str) -> Range | None:
        """Where the figure of one more seed lies with probability `CONFIDENCE`, None where it was not measured: the
        mean, give or take the quantile of Student's t for so many seeds times the deviation between seeds and that of
        the mean. No figure is below 0."""
        from scipy.stats import t

        if name not in self.figures:
            return None
        (mean, deviation), n = self.figures[name], len(seeds_of(self.seeds))
        reach = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation * math.sqrt(1 + 1 / n)
        return Range(max(mean - reach, 0.0), mean + reach)


TARGETED = ("tabloid", "large")
"""Preset and size whose figures the targets are of."""

TARGETS = {
    "gini_15_min": Target(Range(0.888, 0.948), "document 1, Eq. A.3, Fig. 3.2: .918"),
    "top_5_share_15_min": Target(Range(0.385, 0.465), "document 1, Sec. 3.2.2: .425"),
    "lifecycle_median_hours": Target(Range(4.3, 6.3), "document 1, Sec. 3.2.1: 5.3 h"),
    "lifecycle_peak_minutes": Target(Range(5, 15), "document 1, Fig. 3.1: about 10 min"),
    "front_page_share": Target(Range(0.67, 0.75), "document 1, Sec. 3.2.2: 71 %"),
    "clicks_per_impression": Target(Range(1.003, 1.005), "ours: about 1.004"),
    "inview_median": Target(Range(7, 12), "ours"),
    "clicked_age_median_hours": Target(Range(3, 5), "ours: about 4 h"),
    "popular_15_inview_auc": Target(Range(0.70, 0.73), "ours"),
    "oracle_inview_auc": Target(Range(0.80, 0.86), "ours"),
}
"""In order of importance: where two conflict, the earlier one is kept."""

EXPECTED: dict[tuple[str, str], Measured] = {
    ("tabloid", "tiny"): Measured(
        "11-40",
        {
            "gini_15_min": (0.25434, 0.00671),
            "top_5_share_15_min": (0.61259, 0.00673),
            "front_page_share": (0.70046, 0.00416),
            "clicks_per_impression": (1.0039, 0.000416),
            "inview_median": (9.4333, 0.504),
            "clicked_age_median_hours": (10.047, 1.1),
            "popular_15_inview_auc": (0.65918, 0.0129),
            "personal_inview_auc": (0.71825, 0.0117),
            "oracle_inview_auc": (0.87008, 0.00664),
            "popular_15_recall@20": (0.64163, 0.0268),
            "personal_recall@20": (0.70865, 0.0261),
            "clicks_per_day": (2437.9, 57.7),
            "clicked_articles_15_min": (15.515, 0.244),
        },
    ),
    ("tabloid", "demo"): Measured(
        "11-22",
        {
            "gini_15_min": (0.57164, 0.00337),
            "top_5_share_15_min": (0.43997, 0.00634),
            "lifecycle_median_hours": (22.568, 1.74),
            "lifecycle_peak_minutes": (32.833, 16),
            "front_page_share": (0.70137, 0.000504),
            "clicks_per_impression": (1.004, 0.000107),
            "inview_median": (9.3333, 0.492),
            "clicked_age_median_hours": (4.5969, 0.217),
            "popular_15_inview_auc": (0.70632, 0.00679),
            "personal_inview_auc": (0.74746, 0.00528),
            "oracle_inview_auc": (0.84572, 0.00291),
            "popular_15_recall@20": (0.7505, 0.0152),
            "personal_recall@20": (0.80754, 0.0128),
            "clicks_per_day": (30304, 300),
            "clicked_articles_15_min": (62.398, 0.829),
        },
    ),
    ("tabloid", "small"): Measured(
        "11-14",
        {
            "gini_15_min": (0.69503, 0.00207),
            "top_5_share_15_min": (0.41784, 0.00511),
            "lifecycle_median_hours": (13.221, 0.961),
            "lifecycle_peak_minutes": (25.5, 7.62),
            "front_page_share": (0.7011, 0.000946),
            "clicks_per_impression": (1.004, 4.65e-05),
            "inview_median": (9.5, 0.577),
            "clicked_age_median_hours": (4.4647, 0.102),
            "popular_15_inview_auc": (0.70142, 0.00289),
            "personal_inview_auc": (0.74625, 0.00243),
            "oracle_inview_auc": (0.83829, 0.00154),
            "popular_15_recall@20": (0.74675, 0.0168),
            "personal_recall@20": (0.80812, 0.0118),
            "clicks_per_day": (92530, 347),
            "clicked_articles_15_min": (110.41, 1.16),
        },
    ),
    ("regional", "tiny"): Measured(
        "11-40",
        {
            "gini_15_min": (0.15705, 0.0049),
            "top_5_share_15_min": (0.48069, 0.00634),
            "front_page_share": (0.70046, 0.00415),
            "clicks_per_impression": (1.0039, 0.000416),
            "inview_median": (9.3667, 0.49),
            "clicked_age_median_hours": (24.9, 0.953),
            "popular_15_inview_auc": (0.60132, 0.00887),
            "personal_inview_auc": (0.72707, 0.00794),
            "oracle_inview_auc": (0.88859, 0.00399),
            "popular_15_recall@20": (0.38705, 0.0223),
            "personal_recall@20": (0.5466, 0.0199),
            "clicks_per_day": (2437.7, 57.8),
            "clicked_articles_15_min": (20.009, 0.343),
        },
    ),
    ("regional", "demo"): Measured(
        "11-22",
        {
            "gini_15_min": (0.42406, 0.0036),
            "top_5_share_15_min": (0.23134, 0.00407),
            "lifecycle_median_hours": (57.77, 4.11),
            "lifecycle_peak_minutes": (36.083, 23.9),
            "front_page_share": (0.70139, 0.0005),
            "clicks_per_impression": (1.004, 0.000107),
            "inview_median": (9.3333, 0.492),
            "clicked_age_median_hours": (9.1517, 0.355),
            "popular_15_inview_auc": (0.65575, 0.00527),
            "personal_inview_auc": (0.75821, 0.00357),
            "oracle_inview_auc": (0.8786, 0.00203),
            "popular_15_recall@20": (0.42263, 0.0121),
            "personal_recall@20": (0.6675, 0.0127),
            "clicks_per_day": (30301, 300),
            "clicked_articles_15_min": (105.64, 0.868),
        },
    ),
}
"""Mean and standard deviation over seeds, by (preset, size), as `make calibrate` prints them."""
