"""Validation inside training: Recall@20 and NDCG@20 over the whole catalogue, AUC in view.

Belongs here: choosing the validation cases once and measuring a model on them. Does not belong here: early stopping
(`ml.train`), the evaluation that reports quote (`ml.evaluate`). Scores come from the model's own scoring, the code
that predictions use.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ml.asof import AsOf
from ml.batches import target_cases
from ml.clock import minute_of
from ml.log import Cases
from ml.metrics import RankedLists, auc, ndcg_at, recall_at
from ml.models.base import Model
from ml.predict import sample_minutes

TOP = 20


@dataclass(frozen=True, slots=True)
class Validation:
    """What is measured: next clicks of whole sampled minutes (`cases` in order of time, `target` int32 catalogue rows)
    and impressions with a click (`shown` cases; articles of impression i are `rows[offsets[i]:offsets[i + 1]]`)."""

    cases: Cases
    target: np.ndarray
    shown: Cases
    offsets: np.ndarray
    rows: np.ndarray
    clicked: np.ndarray

    @classmethod
    def choose(cls, asof: AsOf, targets: np.ndarray, budget: int, seed: int) -> "Validation":
        """From the validation clicks at rows `targets`: whole minutes in random order until `budget` cases, and at most
        `budget` impressions of the same span, evenly spaced."""
        time = asof.clicks.time[targets]
        kept = targets[np.isin(minute_of(time), sample_minutes(time, budget, seed))]
        kept = kept[np.argsort(asof.clicks.time[kept], kind="stable")]
        span = (int(time.min()), int(time.max())) if len(time) else (0, -1)
        return cls(target_cases(asof, kept), asof.clicks.article[kept], *_impressions(asof, span, budget))

    def measure(self, asof: AsOf, model: Model) -> dict[str, float]:
        """`recall@20`, `ndcg@20` (protocol `thesis`: nothing excluded), `auc`; NaN where nothing can be measured."""
        rank = self._ranks(asof, model)
        found = {
            "recall@20": float(recall_at(rank, TOP).mean()) if len(rank) else float("nan"),
            "ndcg@20": float(ndcg_at(rank, TOP).mean()) if len(rank) else float("nan"),
            "auc": float("nan"),
        }
        if len(self.shown):
            scores = model.candidate_scores(asof, self.shown, self.offsets, self.rows)
            found["auc"] = float(auc(RankedLists.rank(self.clicked, scores, self.offsets)).mean())
        return found

    def _ranks(self, asof: AsOf, model: Model) -> np.ndarray:
        """Rank of each case's target among all available articles, ties to the newer article; 0 where unavailable."""
        ranks = np.zeros(len(self.cases), dtype=np.int64)
        minute = minute_of(self.cases.time)
        edges = np.flatnonzero(np.diff(minute, prepend=-1, append=np.iinfo(np.int64).max))
        for start, stop in pairwise(edges):
            index = np.arange(start, stop)
            scores = model.catalogue_scores(asof, int(self.cases.time[start]), self.cases.take(index))
            target = self.target[index]
            known = np.flatnonzero(target < scores.shape[1])
            own = scores[known, target[known]][:, None]
            newer = np.arange(scores.shape[1]) > target[known][:, None]
            ranks[index[known]] = 1 + np.sum((scores[known] > own) | ((scores[known] == own) & newer), axis=1)
        return ranks


def _impressions(asof: AsOf, span: tuple[int, int], budget: int) -> tuple[Cases, np.ndarray, np.ndarray, np.ndarray]:
    """Cases, offsets, rows and labels of impressions within `span` that show a clicked and an unclicked article."""
    shown = asof.impressions
    lo, hi = np.searchsorted(shown.time, [span[0], span[1] + 1])
    owner = np.repeat(np.arange(len(shown)), np.diff(shown.offsets))
    usable = shown.article >= 0
    items = np.bincount(owner[usable], minlength=len(shown))
    clicks = np.bincount(owner[usable & shown.clicked], minlength=len(shown))
    fit = np.flatnonzero((clicks > 0) & (clicks < items))
    fit = fit[(fit >= lo) & (fit < hi)]
    if len(fit) > budget:
        fit = fit[np.linspace(0, len(fit) - 1, budget).astype(np.int64)]
    keep = usable & np.isin(owner, fit)
    offsets = np.r_[0, np.cumsum(items[fit])].astype(np.int64)
    cases = asof.cases(shown.user[fit], shown.time[fit], session=shown.session[fit])
    return cases, offsets, shown.article[keep], shown.clicked[keep]
