"""Benchmark of the baselines on Globo.com: ours against figures that an independent script measured.

Belongs here: `newsrec bench globo_baselines`, the protocol and sample of those figures. Does not belong here: the
models (`ml.models`), exclusions (`ml.predict`) and metrics, which are those of every evaluation.

The reference: protocol `in_session` on 9 October 2017 (00:00-24:00 UTC), a 5 % sample of 8,069 targets that is not
published. Its windows are continuous and end just before the click, where the models' end with the last completed
minute: the only thing that is special here. Whether chance alone explains the differences is asked of all rows at once
(`agreement`), since they share their targets.
"""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
from scipy.stats import chi2

from ml import schema
from ml.articles import NUMERIC, ArticleTable
from ml.asof import AsOf
from ml.bootstrap import means
from ml.clock import MS_PER_DAY, MS_PER_MINUTE
from ml.datasets import dataset
from ml.errors import UsageError
from ml.log import Cases, Catalogue, Clicks, Impressions, int_array
from ml.metrics import ndcg_at, recall_at
from ml.models.cooccurrence import POPULARITY_MINUTES, WINDOW_MINUTES, last_article, sum_of_shares
from ml.popularity import Popularity
from ml.predict import PROTOCOLS, Targets, excluded_rows, targets_of
from ml.readers.globo import GloboReader
from ml.topk import top_k

SAMPLE = {"quick": 20, "paper": 1}
"""Every n-th target in order of time; `paper`: the whole day."""

REFERENCE = {
    "popular_1440": (0.361, 0.151),
    "popular_240": (0.555, 0.254),
    "popular_60": (0.615, 0.309),
    "popular_15": (0.634, 0.323),
    "cooccurrence": (0.620, 0.326),
    "cooccurrence_popular": (0.662, 0.347),
}
"""Recall@20 and NDCG@20 of the independent script."""

SHORTER = "popular_210"
"""Most popular over 3.5 hours, held against the reference's row of 4 hours (docs/globo.md)."""

REFERENCE_TARGETS = 8_069

_DAY_START = int(datetime(2017, 10, 9, tzinfo=UTC).timestamp()) * 1000
_K = 20
_CHUNK = 256


def bench_globo_baselines(size: str = "quick", root: Path | None = None) -> dict[str, Any]:
    """Recall@20 and NDCG@20 of the six baselines with their 95 % intervals (clustered by reader), beside the reference,
    and `agreement`: the probability of differences as large as these, for the six rows, without the row of 4 hours,
    and with 3.5 hours in its place.

    `root`: the folder that holds `clicks/`. `size`: `quick` or `paper`. UsageError for another size or no folder.
    """
    if size not in SAMPLE:
        raise UsageError(f"unknown size {size!r}: choose one of {', '.join(SAMPLE)}")
    if root is None:
        raise UsageError("globo_baselines measures on the Globo.com log: give its folder with --data-root")
    asof = _open(root)
    targets = _sample(asof, SAMPLE[size])
    rank = {name: np.zeros(len(targets), dtype=np.int64) for name in (*REFERENCE, SHORTER)}
    for chunk in range(0, len(targets), _CHUNK):
        part = targets.take(np.arange(chunk, min(chunk + _CHUNK, len(targets))))
        excluded = excluded_rows(asof, part.cases, "in_session")
        for name, scores in _scores(asof, part.cases):
            hit = top_k(scores, _K, *excluded)[0] == asof.clicks.article[part.target][:, None]
            rank[name][chunk : chunk + _CHUNK] = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)
    results = []
    for m, metric in enumerate((recall_at, ndcg_at)):
        values = np.stack([metric(rank[name], _K) for name in REFERENCE], axis=1)
        for name, interval in zip(REFERENCE, means(values, targets.cases.user), strict=True):
            results.append(_row(name, ("recall@20", "ndcg@20")[m], interval.to_json(), REFERENCE[name][m]))
    hits = {name: recall_at(found, _K) for name, found in rank.items()}
    others = [name for name in REFERENCE if name != "popular_240"]
    agreement = {
        "all six rows": agreement_p(hits, list(REFERENCE), targets.cases.user),
        "without the row of 4 hours": agreement_p(hits, others, targets.cases.user),
        "3.5 hours for the row of 4": agreement_p(hits, [*others, SHORTER], targets.cases.user),
    }
    described = {"targets": len(targets), "readers": len(np.unique(targets.cases.user)), "every": SAMPLE[size]}
    return {"bench": "globo_baselines", "size": described, "results": results, "agreement": agreement}


def agreement_p(hits: dict[str, np.ndarray], names: list[str], reader: np.ndarray) -> float:
    """Probability that a sample of readers with the reference's number of targets differs from the day's recalls at
    least as much as the reference does, all `names` taken together (Hotelling; the day's share is taken to be that of
    `hits`, float64 [N] by name; `reader` int64 [N] the clusters)."""
    values = np.stack([hits[name] for name in names], axis=1)
    mean = values.mean(axis=0)
    _, owner = np.unique(reader, return_inverse=True)
    sums = np.zeros((owner.max() + 1, len(names)))
    np.add.at(sums, owner, values - mean)
    covariance = sums.T @ sums / (len(values) * REFERENCE_TARGETS)
    away = np.array([REFERENCE["popular_240" if name == SHORTER else name][0] for name in names]) - mean
    return float(chi2.sf(away @ np.linalg.solve(covariance, away), len(names)))


def _row(name: str, metric: str, interval: dict[str, Any], reference: float) -> dict[str, Any]:
    row = {"name": f"{name} {metric}", "ours": interval["value"], "reference": reference}
    row |= {"ratio": interval["value"] / reference, "unit": metric, "low": interval["low"], "high": interval["high"]}
    return row


def _open(root: Path) -> AsOf:
    """The log up to the end of the test day."""
    known, reader = dataset("globo"), GloboReader()
    with tempfile.TemporaryDirectory() as folder:
        days = [d for d in reader.split(root, known, Path(folder)) if known.clock.start(d) < _DAY_START + MS_PER_DAY]
        table = pa.concat_tables([reader.tables(Path(folder) / str(d), known, d).clicks for d in days])
    user, time, article, session = (
        int_array(table, c) for c in (schema.USER_ID, schema.CLICK_TIME, schema.ARTICLE_ID, schema.SESSION_ID)
    )
    order = np.lexsort((article, time, user))
    order = order[time[order] < _DAY_START + MS_PER_DAY]
    user, time, article, session = user[order], time[order], article[order], session[order]
    catalogue = _catalogue(article, time)
    n, a = len(user), len(catalogue)
    unknown = np.full((n, len(schema.CONTEXT)), -1, dtype=np.int32)
    clicks = Clicks(
        user, catalogue.rows(article), time, np.full(n, np.nan, np.float32), session, np.full(n, -1), unknown
    )
    blank = np.full((a, len(NUMERIC)), np.nan, dtype=np.float32)
    articles = ArticleTable(catalogue.article_id, catalogue.category, np.full(a, -1, np.int8), blank)
    popularity = Popularity.build(clicks.article, clicks.time, a)
    return AsOf(known, catalogue, clicks, Impressions.load([], catalogue), popularity, {}, articles)


def _catalogue(article: np.ndarray, time: np.ndarray) -> Catalogue:
    """Articles by their first click."""
    ids, owner = np.unique(article, return_inverse=True)
    first = np.full(len(ids), np.iinfo(np.int64).max)
    np.minimum.at(first, owner, time)
    order = np.lexsort((ids, first))
    return Catalogue(ids[order], first[order], np.full(len(ids), -1, dtype=np.int32))


def _sample(asof: AsOf, every: int) -> Targets:
    """The eligible targets of the day in order of time, one of `every`."""
    targets = targets_of(asof, (_DAY_START, _DAY_START + MS_PER_DAY))
    eligible = np.flatnonzero(targets.eligible[:, PROTOCOLS.index("in_session")])
    order = np.argsort(targets.cases.time[eligible], kind="stable")
    return targets.take(eligible[order][::every])


def _scores(asof: AsOf, cases: Cases) -> Iterator[tuple[str, np.ndarray]]:
    """Name and scores float32 [B, A] of each baseline; articles that nobody has clicked before are out of reach."""
    n = len(asof.catalogue)
    unseen = asof.catalogue.published[None, :] >= cases.time[:, None]
    times = np.sort(asof.clicks.time)
    popular = {}
    for minutes in (1440, 240, 210, 60, 15):
        lo, hi = np.searchsorted(times, cases.time - minutes * MS_PER_MINUTE), np.searchsorted(times, cases.time)
        popular[minutes] = _sliding_counts(asof.time_sorted_articles, lo, hi, n)
        yield f"popular_{minutes}", np.where(unseen, -np.inf, popular[minutes])
    last = last_article(asof.clicks.article, cases)
    lo, hi = asof.coclicks.window(cases.time, last, WINDOW_MINUTES)
    together = asof.coclicks.catalogue_counts(lo, hi, n)
    yield "cooccurrence", np.where(unseen, -np.inf, together)
    recent = popular[POPULARITY_MINUTES]
    summed = sum_of_shares(together, (hi - lo)[:, None], recent, recent.sum(axis=1, keepdims=True))
    yield "cooccurrence_popular", np.where(unseen, -np.inf, summed)


@nb.njit(cache=True)
def _sliding_counts(article: np.ndarray, lo: np.ndarray, hi: np.ndarray, n: int) -> np.ndarray:
    """Clicks by article, float32 [B, n], in the ranges [lo, hi) of the time-sorted log; both ascend."""
    counts = np.zeros((len(lo), n), np.float32)
    for b in range(len(lo)):
        added, dropped = lo[b], lo[b]
        if b > 0:
            counts[b] = counts[b - 1]
            added, dropped = hi[b - 1], lo[b - 1]
        for e in range(added, hi[b]):
            counts[b, article[e]] += 1
        for e in range(dropped, lo[b]):
            counts[b, article[e]] -= 1
    return counts
