"""Figures that document 1 publishes for EB-NeRD, with the tables they stand in.

Belongs here: numbers quoted beside ours. Does not belong here: anything measured by this system.
"""

from dataclasses import dataclass

DATASET = "ebnerd"
SOURCE = "document 1 (SNeRT, thesis)"
"""All figures below are of EB-NeRD, 100,000 impressions (Sec. 5.1)."""


@dataclass(frozen=True, slots=True)
class Published:
    """One published value: `metric` and `protocol` name ours that is nearest to it; `model` is the document's name."""

    rq: str
    protocol: str
    metric: str
    model: str
    value: float
    table: str


FIGURES = (
    Published("rq1", "thesis", "recall@20", "Most Popular", 0.707, "Tab. 5.2"),
    Published("rq1", "thesis", "ndcg@20", "Most Popular", 0.299, "Tab. 5.2"),
    Published("rq1", "thesis", "recall@20", "SNeRT", 0.770, "Tab. 5.2"),
    Published("rq1", "thesis", "ndcg@20", "SNeRT", 0.323, "Tab. 5.2"),
    Published("rq2", "in_view", "auc", "Most Popular", 0.7166, "Tab. 5.3"),
    Published("rq2", "in_view", "auc", "SNeRT", 0.7222, "Tab. 5.3"),
    Published("rq2", "in_view", "auc", "Own cross-encoder", 0.7570, "Tab. 5.3"),
    Published("rq2", "in_view", "auc", "Transformer cross-encoder", 0.7713, "Tab. 5.3"),
    Published("rq2", "in_view", "auc", "Ensemble", 0.8220, "Tab. 5.3"),
    Published("rq3", "thesis", "ild", "Most Popular", 0.037, "Tab. 5.4"),
    Published("rq3", "thesis", "serendipity", "Most Popular", 0.043, "Tab. 5.4"),
    Published("rq3", "thesis", "novelty", "Most Popular", 13.133, "Tab. 5.4"),
    Published("rq3", "thesis", "coverage", "Most Popular", 0.1131, "Tab. 5.4"),
    Published("rq3", "thesis", "ild", "SNeRT", 0.040, "Tab. 5.4"),
    Published("rq3", "thesis", "serendipity", "SNeRT", 0.045, "Tab. 5.4"),
    Published("rq3", "thesis", "novelty", "SNeRT", 13.203, "Tab. 5.4"),
    Published("rq3", "thesis", "coverage", "SNeRT", 0.1381, "Tab. 5.4"),
)

CATEGORIES = {
    "Most Popular": {
        "Entertainment": 0.1960,
        "News": 0.2933,
        "Sport": 0.1581,
        "Music": 0.0828,
        "Crime": 0.0744,
        "Private Finance": 0.0801,
        "Misc.": 0.1154,
    },
    "SNeRT": {
        "Entertainment": 0.2143,
        "News": 0.2619,
        "Sport": 0.1613,
        "Music": 0.0751,
        "Crime": 0.1086,
        "Private Finance": 0.0878,
        "Misc.": 0.0910,
    },
}
"""Tab. A.6: share of recommendations by category, as Ekstra Bladet assigns them."""


def label(dataset: str) -> str:
    """How to head the published figures in a report on `dataset`."""
    if dataset == DATASET:
        return "EB-NeRD large, as published; comparable only with a run on that bundle"
    return "EB-NeRD, as published: another dataset, not comparable in level"


@dataclass(frozen=True, slots=True)
class Described:
    """One figure by which the document describes EB-NeRD itself: `measure` names ours that is nearest to it."""

    measure: str
    value: float
    where: str


DATASET_FIGURES = (
    Described("clicks", 251e6, "Sec. 3.1, user-article interactions of the whole dataset"),
    Described("articles", 125e3, "Sec. 3.1, about"),
    Described("readers", 1.1e6, "Sec. 3.1"),
    Described("gini", 0.918, "Sec. 3.2.2"),
    Described("top_5_share", 0.425, "Sec. 3.2.2"),
    Described("top_5_share", 0.4222, "Sec. 5.2.1"),
    Described("lifecycle_median_hours", 5.3, "Sec. 3.2.1"),
    Described("lifecycle_median_hours_1000", 5.3, "Sec. 3.2.1; the 1,000 clicks are those of Fig. A.2"),
    Described("lifecycle_peak_minutes", 10, "Sec. 3.2.1, about"),
    Described("front_page_share", 0.71, "Sec. 3.2.2, citing its reference [13]"),
)
