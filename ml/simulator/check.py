"""Does a bundle look like a newspaper? Its statistics, and how well simple rankings do on it.

Belongs here: `report` and its figures, computed from the files of a bundle, the oracle among them. Does not
belong here: evaluation of models (`ml.evaluate`); what the model's constants are (`config`).

Rankings are strict: a prediction in minute m knows the clicks of minutes before m. "Personal" adds the reader's
true interests to popularity, so that its distance to popularity alone is the room there is for personal models.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml.clock import MS_PER_DAY, MS_PER_HOUR, minute_of
from ml.errors import DataError
from ml.oracle import Oracle
from ml.simulator.world import stream

WINDOW = 15
TOP = 20
LONG_WINDOW = 60
MATCH = 4.0
"""Weight of true interest beside log popularity in the personal ranking."""


@dataclass(frozen=True, slots=True)
class Log:
    """All clicks of a bundle by time: `time` (ms), `article` rows of `article_id` and `published` (ms), int64; and the
    validation impressions: `shown` flat rows with `offsets`, `clicked` the first clicked row, `user`, `at` (ms)."""

    time: np.ndarray
    article: np.ndarray
    article_id: np.ndarray
    published: np.ndarray
    impression: np.ndarray
    user: np.ndarray
    at: np.ndarray
    page: np.ndarray
    offsets: np.ndarray
    shown: np.ndarray
    clicks: np.ndarray
    clicked: np.ndarray


def _ms(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    return column.cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy()


def _load(root: Path) -> Log:
    """Reads a bundle: earlier clicks from the validation histories, later ones from the validation behaviors."""
    paths = [root / name for name in ("articles.parquet", "validation/behaviors.parquet", "validation/history.parquet")]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path} is missing: {root} is no complete bundle")
    articles = pq.read_table(paths[0], columns=["article_id", "published_time"])
    behaviors, history = pq.read_table(paths[1]), pq.read_table(paths[2])
    ids = articles.column("article_id").to_numpy().astype(np.int64)
    shown = behaviors.column("article_ids_inview").combine_chunks()
    clicked = behaviors.column("article_ids_clicked").combine_chunks()
    clicks = clicked.value_lengths().to_numpy()
    first = np.concatenate([[0], np.cumsum(clicks)])[:-1]
    at = _ms(behaviors.column("impression_time"))
    before = history.column("impression_time_fixed").combine_chunks().flatten()
    time = np.concatenate([_ms(before), np.repeat(at, clicks)])
    article = np.concatenate(
        [history.column("article_id_fixed").combine_chunks().flatten().to_numpy(), clicked.flatten().to_numpy()]
    )
    order = np.argsort(time, kind="stable")
    return Log(
        time[order],
        np.searchsorted(ids, article[order]),
        ids,
        _ms(articles.column("published_time")),
        behaviors.column("impression_id").to_numpy().astype(np.int64),
        behaviors.column("user_id").to_numpy().astype(np.int64),
        at,
        behaviors.column("article_id").is_valid().to_numpy(),
        np.concatenate([[0], np.cumsum(shown.value_lengths().to_numpy())]),
        np.searchsorted(ids, shown.flatten().to_numpy()),
        clicks,
        np.searchsorted(ids, clicked.flatten().to_numpy()[first]),
    )


def _top_share(log: Log, top: int = 5) -> float:
    """Share of clicks that falls on the `top` most clicked articles of each quarter of an hour."""
    quarter = minute_of(log.time) // WINDOW
    pair, counts = np.unique(quarter * len(log.article_id) + log.article, return_counts=True)
    window = pair // len(log.article_id)
    order = np.lexsort((-counts, window))
    _, first = np.unique(window[order], return_index=True)
    place = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
    return float(counts[order][place < top].sum() / counts.sum())


def _lifecycle_hours(log: Log, least: int = 20) -> float:
    """Median hours from publication to 90 % of an article's clicks, of articles seen from their first minute on for a
    day at least, with `least` clicks."""
    order = np.argsort(log.article, kind="stable")
    rows, first, counts = np.unique(log.article[order], return_index=True, return_counts=True)
    last = log.time[order][first + np.ceil(0.9 * counts).astype(np.int64) - 1]
    published = log.published[rows]
    whole = (counts >= least) & (published >= log.time[0]) & (published <= log.time[-1] - MS_PER_DAY)
    return float(np.median((last - published)[whole]) / MS_PER_HOUR) if whole.any() else float("nan")


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


def _inview(log: Log, oracle: Oracle, sample: int) -> dict[str, float]:
    """In-view AUC of popularity, of it with interest, and of the true probabilities, on impressions with one click."""
    single = np.flatnonzero(log.clicks == 1)
    chosen = np.sort(stream(0, 9).permutation(single)[:sample])
    offsets, articles, truth = oracle.inview(log.impression[chosen])
    rows = np.searchsorted(log.article_id, articles)
    owner = np.repeat(np.arange(len(chosen)), np.diff(offsets))
    positive = rows == log.clicked[chosen][owner]
    span = int(minute_of(log.time[-1])) + 2
    keys = np.sort(log.article * span + minute_of(log.time))
    ask = rows * span + minute_of(log.at[chosen])[owner]
    short, long = (np.searchsorted(keys, ask) - np.searchsorted(keys, ask - window) for window in (WINDOW, LONG_WINDOW))
    age = np.maximum(log.at[chosen][owner] - log.published[rows], 0) / 60_000
    interests = oracle.interests[np.searchsorted(oracle.user, log.user[chosen])]
    match = (interests[owner] * oracle.topics[rows]).sum(axis=1)
    rankings = {
        "popular_15_inview_auc": short,
        "personal_inview_auc": _personal(short, long, age, match),
        "oracle_inview_auc": truth,
    }
    return {name: _auc(s[positive], s, offsets, positive) for name, s in rankings.items()}


def _recall(log: Log, oracle: Oracle, sample: int) -> dict[str, float]:
    """Recall@20 over the whole catalogue of popularity, and of popularity with interest, on validation clicks."""
    chosen = np.sort(stream(0, 10).permutation(len(log.at))[:sample])
    interests = oracle.interests[np.searchsorted(oracle.user, log.user[chosen])]
    now = minute_of(log.at[chosen]) * 60_000
    first, middle, last = (np.searchsorted(log.time, now - w * 60_000) for w in (LONG_WINDOW, WINDOW, 0))
    available = np.searchsorted(log.published, now)
    hits = np.zeros((len(chosen), 2), dtype=bool)
    for i, target in enumerate(log.clicked[chosen].tolist()):
        size = available[i]
        short, long = (np.bincount(log.article[a[i] : last[i]], minlength=size)[:size] for a in (middle, first))
        age = (now[i] - log.published[:size]) / 60_000
        personal = _personal(short, long, age, oracle.topics[:size] @ interests[i])
        for column, scores in enumerate((short, personal)):
            hits[i, column] = target in size - 1 - np.argsort(-scores[::-1], kind="stable")[:TOP]
    return {"popular_15_recall@20": float(hits[:, 0].mean()), "personal_recall@20": float(hits[:, 1].mean())}


def report(out: Path, impressions: int = 20_000, clicks: int = 2_000) -> tuple[dict[str, float], str]:
    """Figures of the bundle at `out`, by name, and the same as a text table.

    Rankings are measured on at most `impressions` in-view lists and `clicks` next clicks of the validation days, always
    the same ones. Raises DataError if the bundle is incomplete or has no oracle.
    """
    log = _load(Path(out))
    oracle = Oracle.open(out)
    figures = {
        "clicks_per_day": len(log.time) / max(round((log.time[-1] - log.time[0]) / MS_PER_DAY), 1),
        "clicks_per_impression": float(log.clicks.mean()),
        "inview_median": float(np.median(np.diff(log.offsets))),
        "top_5_share_15_min": _top_share(log),
        "lifecycle_median_hours": _lifecycle_hours(log),
        "front_page_share": float(1 - log.page.mean()),
        **_inview(log, oracle, impressions),
        **_recall(log, oracle, clicks),
    }
    width = max(map(len, figures))
    return figures, "\n".join(f"{name:<{width}}  {value:>12,.4f}" for name, value in figures.items())
