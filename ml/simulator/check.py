"""Does a bundle look like a newspaper? Its statistics, and how well simple rankings do on it.

Belongs here: `figures`, computed from the files of a bundle, the oracle among them. Does not belong here: what they
should be (`expected`), the table that holds them against that (`compare`), evaluation of models (`ml.evaluate`).

Rankings are strict: a prediction in minute m knows the clicks of minutes before m. "Personal" adds the reader's
true interests to popularity, so that its distance to popularity alone is the room there is for personal models.
A bundle is read in pieces; eight bytes a click stay in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml.errors import DataError
from ml.oracle import Oracle
from ml.popularity_skew import WINDOW, gini, top_share
from ml.simulator.world import SECONDS_PER_DAY, stream

LONG_WINDOW = 60
TOP = 20
MATCH = 4.0
"""Weight of true interest beside log popularity in the personal ranking."""
LIFECYCLE_CLICKS = 1_000
"""Least clicks of an article whose lifecycle counts (document 1, Fig. A.2)."""
LIFECYCLE_ARTICLES = 10
"""Fewer such articles have no median and no peak worth telling."""
FILES = (
    "articles.parquet",
    *(f"{s}/{name}.parquet" for s in ("train", "validation") for name in ("history", "behaviors")),
)


@dataclass(frozen=True, slots=True)
class Clicks:
    """All clicks of a bundle by time: `time` uint32 seconds since the epoch, `article` int32 rows of `article_id`
    (ascending) and `published` (seconds), int64."""

    time: np.ndarray
    article: np.ndarray
    article_id: np.ndarray
    published: np.ndarray

    @property
    def age(self) -> np.ndarray:
        """Age of the article at each click, float32 minutes."""
        return ((self.time.astype(np.int64) - self.published[self.article]) / 60).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Lists:
    """A sample of validation impressions: `impression`, `user`, `at` (seconds) int64; `clicked` article rows, the first
    of `clicks` clicks."""

    impression: np.ndarray
    user: np.ndarray
    at: np.ndarray
    clicked: np.ndarray
    clicks: np.ndarray


def figures(root: Path, impressions: int = 20_000, clicks: int = 2_000) -> dict[str, float]:
    """Figures of the bundle at `root`, by name.

    Rankings are measured on at most `impressions` in-view lists and `clicks` next clicks of the validation days, always
    the same ones. NaN where a bundle has too few articles for a figure. Raises DataError if the bundle is incomplete or
    has no oracle.
    """
    for name in FILES:
        if not (root / name).is_file():
            raise DataError(f"{root / name} is missing: {root} is no complete bundle")
    oracle = Oracle.open(root)
    log, shares = _load(root)
    lists = _sample(root, log, impressions)
    gini, top, articles = _windows(log)
    hours, minutes, lives = _lifecycle(log)
    recent = slice(int(np.searchsorted(log.time, lists.at.min() - 60 * LONG_WINDOW - 60)), None)
    near = Clicks(log.time[recent], log.article[recent], log.article_id, log.published)
    days = round(float(log.time[-1] - log.time[0]) / SECONDS_PER_DAY)
    return {
        "gini_15_min": gini,
        "top_5_share_15_min": top,
        "lifecycle_median_hours": hours,
        "lifecycle_peak_minutes": minutes,
        "lifecycle_articles": lives,
        **shares,
        "clicked_age_median_hours": float(np.median(log.age)) / 60,
        **_inview(near, lists, oracle),
        **_recall(near, lists, oracle, clicks),
        "clicks_per_day": len(log.time) / max(days, 1),
        "clicked_articles_15_min": articles,
    }


def _seconds(column: pa.Array) -> np.ndarray:
    return column.cast(pa.int64()).to_numpy() // 1_000_000


def _batches(path: Path, *columns: str) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(200_000, columns=list(columns))


def _load(root: Path) -> tuple[Clicks, dict[str, float]]:
    """The clicks of the history before train, of train and of validation; and shares that only behaviors tell."""
    articles = pq.read_table(root / "articles.parquet", columns=["article_id", "published_time"])
    ids = articles.column("article_id").to_numpy().astype(np.int64)
    time, article = [], []
    for batch in _batches(root / "train/history.parquet", "impression_time_fixed", "article_id_fixed"):
        time.append(_seconds(batch.column(0).flatten()).astype(np.uint32))
        article.append(np.searchsorted(ids, batch.column(1).flatten().to_numpy()).astype(np.int32))
    lengths, front, impressions = np.zeros(256, np.int64), 0, 0
    later = 0
    names = ("impression_time", "article_id", "article_ids_clicked", "article_ids_inview", "read_time")
    for split in ("train", "validation"):
        for batch in _batches(root / split / "behaviors.parquet", *names):
            clicked = batch.column(2)
            counts = clicked.value_lengths().to_numpy()
            clicked_at = _seconds(batch.column(0)) + batch.column(4).to_numpy().astype(np.int64)
            time.append(np.repeat(clicked_at, counts).astype(np.uint32))
            article.append(np.searchsorted(ids, clicked.flatten().to_numpy()).astype(np.int32))
            lengths += np.bincount(batch.column(3).value_lengths().to_numpy(), minlength=256)
            front += int(counts[batch.column(1).is_null().to_numpy(zero_copy_only=False)].sum())
            impressions += len(batch)
            later += int(counts.sum())
    when, what = np.concatenate(time), np.concatenate(article)
    order = np.argsort(when, kind="stable")
    log = Clicks(when[order], what[order], ids, _seconds(articles.column("published_time").combine_chunks()))
    shares = {
        "front_page_share": front / later,
        "clicks_per_impression": later / impressions,
        "inview_median": float(np.searchsorted(np.cumsum(lengths), impressions / 2)),
    }
    return log, shares


def _sample(root: Path, log: Clicks, size: int) -> Lists:
    """At most `size` validation impressions."""
    path = root / "validation/behaviors.parquet"
    total = pq.read_metadata(path).num_rows
    chosen = np.sort(stream(0, 9).choice(total, min(size, total), replace=False))
    names = ("impression_id", "user_id", "impression_time", "article_ids_clicked")
    first, parts = 0, []
    for batch in _batches(path, *names):
        inside = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, first + len(batch))] - first
        first += len(batch)
        parts.append(batch.take(pa.array(inside)))
    table = pa.Table.from_batches(parts).combine_chunks()
    clicked = table.column("article_ids_clicked").combine_chunks()
    counts = clicked.value_lengths().to_numpy()
    starts = np.cumsum(counts) - counts
    return Lists(
        table.column("impression_id").to_numpy().astype(np.int64),
        table.column("user_id").to_numpy().astype(np.int64),
        _seconds(table.column("impression_time").combine_chunks()),
        np.searchsorted(log.article_id, clicked.flatten().to_numpy()[starts]),
        counts,
    )


def _windows(log: Clicks) -> tuple[float, float, float]:
    """Over quarters of an hour: Gini of the mean Lorenz curve of the articles clicked in a window (document 1, Eq. A.3
    and Fig. 3.2), mean share of the five most clicked, mean number of articles."""
    quarter = log.time // (60 * WINDOW)
    cuts = np.concatenate([[0], np.flatnonzero(np.diff(quarter)) + 1, [len(quarter)]])
    found = []
    for first, end in pairwise(cuts.tolist()):
        counts = np.bincount(log.article[first:end])
        counts = counts[counts > 0]
        found.append((gini(counts), top_share(counts), len(counts)))
    inequality, share, articles = np.mean(found, axis=0).tolist()
    return inequality, share, articles


def _lifecycle(log: Clicks) -> tuple[float, float, float]:
    """Median hours from publication to 90 % of an article's clicks (document 1, Eq. A.4), and the minute of age with
    the most clicks (five-minute mean), of articles with 1,000 clicks that appeared in the log a day before its end at
    the latest (App. A.2.1, Fig. A.2), NaN where these are too few; and their number."""
    order = np.argsort(log.article, kind="stable")
    rows, first, counts = np.unique(log.article[order], return_index=True, return_counts=True)
    last = log.time[order[first + np.ceil(0.9 * counts).astype(np.int64) - 1]].astype(np.int64)
    published = log.published[rows]
    whole = (published >= log.time[0]) & (published <= int(log.time[-1]) - SECONDS_PER_DAY)
    whole &= counts >= LIFECYCLE_CLICKS
    lives = float(whole.sum())
    if lives < LIFECYCLE_ARTICLES:
        return float("nan"), float("nan"), lives
    chosen = np.zeros(len(log.article_id), dtype=bool)
    chosen[rows[whole]] = True
    age = log.age[chosen[log.article]]
    by_minute = np.bincount(age[age < 180].astype(np.int64), minlength=180)
    peak = np.argmax(np.convolve(by_minute, np.ones(5), mode="valid")) + 2.5
    return float(np.median((last - published)[whole]) / 3600), float(peak), lives


def _auc(positive: np.ndarray, scores: np.ndarray, offsets: np.ndarray, is_positive: np.ndarray) -> float:
    """Mean AUC of lists with one positive each: `scores` flat, `positive` its score per list."""
    owner = np.repeat(np.arange(len(positive)), np.diff(offsets))
    won = (positive[owner] > scores) + 0.5 * (positive[owner] == scores)
    won[is_positive] = 0
    return float(np.mean(np.bincount(owner, won) / (np.diff(offsets) - 1)))


def _personal(short: np.ndarray, long: np.ndarray, age_minutes: np.ndarray, match: np.ndarray) -> np.ndarray:
    """Scores that know popularity over two windows, age, and the reader's true interests; all of one shape."""
    popularity = short + long * (WINDOW / LONG_WINDOW) + 2 * np.exp(-age_minutes / 120) + 0.05
    return np.log(popularity) + MATCH * match


def _inview(log: Clicks, lists: Lists, oracle: Oracle) -> dict[str, float]:
    """In-view AUC of popularity, of it with interest, and of the true probabilities, on impressions with one click."""
    chosen = np.flatnonzero(lists.clicks == 1)
    offsets, articles, truth = oracle.inview(lists.impression[chosen])
    rows = np.searchsorted(log.article_id, articles)
    owner = np.repeat(np.arange(len(chosen)), np.diff(offsets))
    positive = rows == lists.clicked[chosen][owner]
    at = lists.at[chosen]
    span = int(log.time[-1]) // 60 + 2
    keys = np.sort(log.article.astype(np.int64) * span + log.time // 60)
    ask = rows * span + (at // 60)[owner]
    short, long = (np.searchsorted(keys, ask) - np.searchsorted(keys, ask - window) for window in (WINDOW, LONG_WINDOW))
    age = np.maximum(at[owner] - log.published[rows], 0) / 60
    interests = oracle.interests[np.searchsorted(oracle.user, lists.user[chosen])]
    match = (interests[owner] * oracle.topics[rows]).sum(axis=1)
    rankings = {
        "popular_15_inview_auc": short,
        "personal_inview_auc": _personal(short, long, age, match),
        "oracle_inview_auc": truth,
    }
    return {name: _auc(s[positive], s, offsets, positive) for name, s in rankings.items()}


def _recall(log: Clicks, lists: Lists, oracle: Oracle, size: int) -> dict[str, float]:
    """Recall@20 over the whole catalogue of popularity, and of popularity with interest, on validation clicks."""
    chosen = np.sort(stream(0, 10).permutation(len(lists.at))[:size])
    interests = oracle.interests[np.searchsorted(oracle.user, lists.user[chosen])]
    now = lists.at[chosen] // 60 * 60
    first, middle, last = (np.searchsorted(log.time, now - 60 * w) for w in (LONG_WINDOW, WINDOW, 0))
    available = np.searchsorted(log.published, now)
    hits = np.zeros((len(chosen), 2), dtype=bool)
    for i, target in enumerate(lists.clicked[chosen].tolist()):
        size = available[i]
        short, long = (np.bincount(log.article[a[i] : last[i]], minlength=size)[:size] for a in (middle, first))
        age = (now[i] - log.published[:size]) / 60
        personal = _personal(short, long, age, oracle.topics[:size] @ interests[i])
        for column, scores in enumerate((short, personal)):
            hits[i, column] = target in size - 1 - np.argsort(-scores[::-1], kind="stable")[:TOP]
    return {"popular_15_recall@20": float(hits[:, 0].mean()), "personal_recall@20": float(hits[:, 1].mean())}
