"""In-view lists for logs that have clicks only: the clicked article among others that co-occurred in time (document 3,
Sec. 1). Nobody was shown these lists: they are marked synthetic wherever they go.

Belongs here: drawing the lists of one day. Does not belong here: the choice to have any (`ml.datasets`), what is
measured on them (`ml.evaluate`).

What is used for the list of a click in minute m of a day:

- candidates: the articles of the day's clicks in the minutes [m - window, m - 1], so nothing of the click's own minute
  or later; each of them is known and available at the click. Before the first window of a day is full, it is shorter.
- left out: every article that the reader clicks on that day, before or after, since the others must be unclicked.
- `popularity` draws without replacement in proportion to clicks in the window, `uniform` among its distinct articles.
- the places of a list are shuffled; the draw depends on the seed and the minute alone.

A click without candidates gets no list; one with few gets a shorter list. Both are counted. Clicks bear no id of these
impressions, so that no model is trained on them as in-view negatives.
"""

import numpy as np
import pyarrow as pa

from ml import schema
from ml.clock import MS_PER_DAY, minute_of
from ml.datasets import SyntheticInView
from ml.log import int_array

_ROUNDS = 4
_IDS_A_DAY = 2**32


def synthesise(clicks: pa.Table, choice: SyntheticInView) -> tuple[pa.Table, dict[str, int]]:
    """Impressions (schema `IMPRESSIONS`, sorted, one click each) for canonical `clicks` of one day, and how many
    `clicks` and `lists` there are, lists that are `short`, and clicks `without_candidates`.

    Impression ids are 2^32 times the day since 1970 of the first click, plus the row of the click from 1.
    """
    time, user = int_array(clicks, schema.CLICK_TIME), int_array(clicks, schema.USER_ID)
    ids, article = np.unique(int_array(clicks, schema.ARTICLE_ID), return_inverse=True)
    reader = np.unique(user, return_inverse=True)[1]
    read = np.unique(reader * len(ids) + article)
    minute = minute_of(time)
    owners, shown = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for now in np.unique(minute):
        first, stop = np.searchsorted(minute, [now, now + 1])
        lo = np.searchsorted(minute, now - choice.window_minutes)
        pool = article[lo:first]
        if choice.synthesise == "uniform":
            pool = np.unique(pool)
        if not len(pool):
            continue
        rng = np.random.Generator(np.random.Philox(key=[choice.seed, int(now)]))
        rows = np.arange(first, stop)
        where, others = _draw(rng, pool, reader[rows] * len(ids), read, choice.length - 1)
        some = np.unique(where)
        owner, items = np.r_[rows[some], rows[where]], np.r_[article[rows[some]], others]
        order = np.lexsort((rng.random(len(owner)), owner))
        owners.append(owner[order])
        shown.append(items[order])
    return _table(clicks, ids, article, np.concatenate(owners), np.concatenate(shown), choice)


def _draw(
    rng: np.random.Generator, pool: np.ndarray, base: np.ndarray, read: np.ndarray, need: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each of B clicks up to `need` distinct articles of `pool` (int64, repeats weigh), drawn one after another
    without replacement among those whose key `base[b] + article` is not in `read` (sorted): click and article of each,
    int64 [V], in order of click."""
    drawn = pool[rng.integers(0, len(pool), (len(base), _ROUNDS * need))]
    fresh = _first_of_row(drawn) & ~np.isin(base[:, None] + drawn, read)
    taken = fresh & (np.cumsum(fresh, axis=1) <= need)
    where, column = np.nonzero(taken)
    found = drawn[where, column]
    distinct, weight = np.unique(pool, return_counts=True)
    more: list[tuple[np.ndarray, np.ndarray]] = [(where, found)]
    for b in np.flatnonzero(taken.sum(axis=1) < need):
        left = ~np.isin(base[b] + distinct, read) & ~np.isin(distinct, found[where == b])
        turn = rng.exponential(size=int(left.sum())) / weight[left]
        rest = distinct[left][np.argsort(turn, kind="stable")][: need - int(taken[b].sum())]
        more.append((np.full(len(rest), b), rest))
    where, found = (np.concatenate(parts) for parts in zip(*more, strict=True))
    order = np.argsort(where, kind="stable")
    return where[order], found[order]


def _first_of_row(values: np.ndarray) -> np.ndarray:
    """Whether each value [B, D] is the first of its kind in its row."""
    order = np.argsort(values, axis=1, kind="stable")
    ranked = np.take_along_axis(values, order, axis=1)
    first = np.ones(values.shape, dtype=bool)
    first[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    out = np.empty_like(first)
    np.put_along_axis(out, order, first, axis=1)
    return out


def _table(
    clicks: pa.Table,
    ids: np.ndarray,
    article: np.ndarray,
    owner: np.ndarray,
    shown: np.ndarray,
    choice: SyntheticInView,
) -> tuple[pa.Table, dict[str, int]]:
    """See `synthesise`: `owner` (click row) and `shown` (article code) of every place, in order."""
    rows, size = np.unique(owner, return_counts=True)
    day = int_array(clicks, schema.CLICK_TIME)[:1].sum() // MS_PER_DAY
    offsets = pa.array(np.r_[0, np.cumsum(size)].astype(np.int32))
    kept = clicks.take(pa.array(rows))
    columns = {
        schema.IMPRESSION_ID: pa.array(day * _IDS_A_DAY + rows + 1, pa.int64()),
        schema.INVIEW: pa.ListArray.from_arrays(offsets, pa.array(ids[shown], pa.int64())),
        schema.CLICKED: pa.ListArray.from_arrays(
            pa.array(np.arange(len(rows) + 1, dtype=np.int32)), pa.array(ids[article[rows]], pa.int64())
        ),
        schema.SYNTHETIC: pa.array([str(choice)] * len(rows), pa.string()),
    }
    table = pa.table(
        [columns[f.name] if f.name in columns else kept[f.name] for f in schema.IMPRESSIONS], schema=schema.IMPRESSIONS
    )
    figures = {
        "clicks": len(clicks),
        "lists": len(rows),
        "short": int(np.sum(size < choice.length)),
        "without_candidates": len(clicks) - len(rows),
    }
    return table, figures
