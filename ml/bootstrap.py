"""Confidence intervals of means over test cases, resampled by reader.

Belongs here: the bootstrap and its estimators. Does not belong here: the metrics themselves (`ml.metrics`).

Cases of one reader are not independent, so that whole readers are drawn with replacement. A mean over the cases of
a resample is a ratio of two sums over readers. Intervals hold 95 %, between percentiles of the resamples. The same
seed and readers give the same draws, whatever is measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from ml.metrics import coverage

LEVEL = 0.95
RESAMPLES = 1000
_DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval: from `n` cases of `readers` readers; `left_out` cases had no value.

    `value` is NaN without a case; `low` and `high` are NaN with fewer than two readers.
    """

    value: float
    low: float
    high: float
    n: int
    readers: int
    left_out: int

    def to_json(self) -> dict[str, float | int | None]:
        """`value`, `low`, `high` (null where undefined), `n`, `readers`, `left_out`.

        Rounded to 12 decimals, below which the order of a sum decides.
        """
        numbers = {name: getattr(self, name) for name in ("value", "low", "high")}
        rounded = {name: round(x, 12) if np.isfinite(x) else None for name, x in numbers.items()}
        return rounded | {"n": self.n, "readers": self.readers, "left_out": self.left_out}


def means(values: np.ndarray, reader: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> list[Interval]:
    """Mean over cases of each column of `values` float [N, M] with its interval; `reader` int64 [N]. NaNs are left
    out."""
    return ratios(values, np.ones(np.shape(values)), reader, seed, resamples)


def paired_means(
    values: np.ndarray, baseline: np.ndarray, reader: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> list[Interval]:
    """Mean of `values - baseline` (float [N, M], the same cases) per column; cases that lack either are left out."""
    return means(np.asarray(values) - np.asarray(baseline), reader, seed, resamples)


def ratios(
    above: np.ndarray, below: np.ndarray, reader: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> list[Interval]:
    """Sum of `above` over sum of `below` (float [N, M]) per column; cases with NaN in either are left out."""
    from scipy.sparse import csr_matrix

    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    valid = ~(np.isnan(above) | np.isnan(below))
    readers, owner = np.unique(reader, return_inverse=True)
    by_reader = csr_matrix((np.ones(len(owner)), owner, np.arange(len(owner) + 1)), (len(owner), len(readers))).T
    sums = by_reader @ np.hstack([np.where(valid, above, 0.0), np.where(valid, below, 0.0)])
    clusters = np.sum((by_reader @ valid.astype(np.float64)) > 0, axis=0)
    columns = above.shape[1]
    drawn = np.concatenate([weights @ sums for weights in draws(len(readers), seed, resamples)])
    low, high = percentiles(_divide(drawn[:, :columns], drawn[:, columns:]))
    total = sums.sum(axis=0)
    value = _divide(total[:columns], total[columns:])
    low[clusters < 2] = high[clusters < 2] = np.nan
    counts = zip(valid.sum(axis=0).tolist(), clusters.tolist(), strict=True)
    return [
        Interval(float(value[j]), float(low[j]), float(high[j]), n, c, len(valid) - n)
        for j, (n, c) in enumerate(counts)
    ]


def union_share(
    items: np.ndarray, reader: np.ndarray, size: int, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Distinct `items` over `size`, where reader `reader[v]` received `items[v]` (int64 [V], one entry per item of a
    list).

    A resample holds only about 63 % of the readers and so reaches fewer items than all of them do: percentiles would
    miss the value. The interval is therefore the value and 1.96 standard deviations of the resamples to either side,
    within 0 and 1.
    """
    readers = np.unique(reader)
    drawn = _drawn_unions(items, reader, readers, seed, resamples) / size
    interval = _normal(coverage(items, size), drawn, len(readers))
    return replace(interval, low=max(interval.low, 0.0), high=min(interval.high, 1.0))


def paired_union_share(
    items: np.ndarray,
    reader: np.ndarray,
    baseline_items: np.ndarray,
    baseline_reader: np.ndarray,
    size: int,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """`union_share` of one model less that of a baseline, both under the same draws of readers."""
    readers = np.union1d(reader, baseline_reader)
    ours = _drawn_unions(items, reader, readers, seed, resamples)
    theirs = _drawn_unions(baseline_items, baseline_reader, readers, seed, resamples)
    value = (len(np.unique(items)) - len(np.unique(baseline_items))) / size
    return _normal(value, (ours - theirs) / size, len(readers))


def _normal(value: float, drawn: np.ndarray, readers: int) -> Interval:
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * float(drawn.std()) if readers > 1 else float("nan")
    return Interval(value, value - half, value + half, readers, readers, 0)


def _drawn_unions(items: np.ndarray, reader: np.ndarray, readers: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Number of distinct items that the readers of each resample received; float64 [resamples]."""
    from scipy.sparse import csr_matrix

    ids, row = np.unique(items, return_inverse=True)
    once = np.ones(len(items), dtype=np.float32)
    received = csr_matrix((once, (row, np.searchsorted(readers, reader))), (len(ids), len(readers)))
    chosen = ((weights > 0).astype(np.float32).T for weights in draws(len(readers), seed, resamples))
    return np.concatenate([np.sum((received @ block) > 0, axis=0) for block in chosen]).astype(np.float64)


def draws(readers: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each of `readers` is drawn, float64 [b, readers], in blocks that add up to `resamples` rows."""
    rng = np.random.default_rng(seed)
    block = max(1, _DRAWS_AT_ONCE // max(readers, 1))
    for begin in range(0, resamples, block):
        rows = min(block, resamples - begin)
        drawn = rng.integers(0, readers, (rows, readers)) if readers else np.zeros((rows, 0), dtype=np.int64)
        flat = (drawn + np.arange(rows)[:, None] * readers).ravel()
        yield np.bincount(flat, minlength=rows * readers).reshape(rows, readers).astype(np.float64)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below != 0)


def percentiles(estimates: np.ndarray) -> np.ndarray:
    """Bounds of the central 95 % along the first axis, [2, ...]; resamples without a value do not count."""
    tail = 100 * (1 - LEVEL) / 2
    bounds = np.full((2, *np.shape(estimates)[1:]), np.nan)
    measured = ~np.isnan(estimates).all(axis=0)
    bounds[:, measured] = np.nanpercentile(estimates[:, measured], [tail, 100 - tail], axis=0)
    return bounds
