"""Intervals by reader: point estimates, agreement with a plain bootstrap, coverage of the truth."""

import math

import numpy as np
import pytest

from ml import bootstrap
from ml.bootstrap import means, paired_means, paired_union_share, ratios, union_share


def clustered(seed, readers=60, spread=1.0):
    """Values of cases whose readers differ: (values [N], reader [N]); the expectation is 0."""
    rng = np.random.default_rng(seed)
    reader = np.repeat(np.arange(readers) * 7, rng.integers(1, 12, readers))
    level = rng.normal(0, spread, readers)[np.searchsorted(np.arange(readers) * 7, reader)]
    return level + rng.normal(0, 0.3, len(reader)), reader


def plain(values, reader, resamples, seed):
    """The bootstrap written out: draw readers, concatenate their cases, take the mean."""
    rng, ids = np.random.default_rng(seed), np.unique(reader)
    cases = {r: values[reader == r] for r in ids}
    drawn = [np.concatenate([cases[r] for r in rng.choice(ids, len(ids))]).mean() for _ in range(resamples)]
    return np.percentile(drawn, [2.5, 97.5])


def test_point_estimate_is_the_mean_over_cases():
    values, reader = clustered(0)
    both = np.stack([values, values**2], axis=1)
    found = means(both, reader)
    assert [i.value for i in found] == pytest.approx(both.mean(axis=0).tolist(), abs=1e-14)
    assert (found[0].n, found[0].readers, found[0].left_out) == (len(values), 60, 0)


def test_interval_equals_a_bootstrap_written_out():
    values, reader = clustered(1)
    interval = means(values[:, None], reader, resamples=4000)[0]
    expected = plain(values, reader, 4000, seed=8)
    width = expected[1] - expected[0]
    assert (interval.low, interval.high) == pytest.approx(expected.tolist(), abs=0.08 * width)


def test_whole_readers_are_drawn_not_cases():
    values, reader = clustered(2)
    by_reader, by_case = means(values[:, None], reader)[0], means(values[:, None], np.arange(len(values)))[0]
    assert by_reader.high - by_reader.low > 1.5 * (by_case.high - by_case.low)


def test_intervals_hold_the_truth_about_95_times_in_100():
    inside = 0
    for seed in range(200):
        values, reader = clustered(1000 + seed)
        interval = means(values[:, None], reader, seed=seed, resamples=400)[0]
        inside += interval.low <= 0 <= interval.high
    assert 0.89 <= inside / 200 <= 0.985


def test_missing_values_are_left_out_and_counted():
    values, reader = clustered(3)
    holes = values.copy()
    holes[::3] = np.nan
    kept = ~np.isnan(holes)
    interval = means(np.stack([holes, values], axis=1), reader)[0]
    assert interval.value == pytest.approx(values[kept].mean(), abs=1e-14)
    assert (interval.n, interval.left_out) == (kept.sum(), (~kept).sum())
    assert interval.readers == len(np.unique(reader[kept]))


def test_paired_difference_leaves_out_cases_that_either_lacks():
    values, reader = clustered(4)
    base = values - 0.5
    values[:3], base[2:6] = np.nan, np.nan
    interval = paired_means(values[:, None], base[:, None], reader)[0]
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.5, 0.5, 0.5))
    assert interval.left_out == 6


def test_ratio_of_sums():
    values, reader = clustered(5)
    below = np.abs(values) + 1
    interval = ratios(values[:, None], below[:, None], reader)[0]
    assert interval.value == pytest.approx(values.sum() / below.sum(), abs=1e-14)
    assert interval.low < interval.value < interval.high


def test_same_seed_same_interval_in_blocks_or_not(monkeypatch):
    values, reader = clustered(6)
    first = means(values[:, None], reader, seed=3)
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 60 * 17)
    assert means(values[:, None], reader, seed=3) == first
    assert means(values[:, None], reader, seed=4) != first


@pytest.mark.parametrize("n", [0, 3])
def test_fewer_than_two_readers_give_no_bounds(n):
    interval = means(np.ones((n, 1)), np.zeros(n, dtype=np.int64))[0]
    assert math.isnan(interval.low) and math.isnan(interval.high)
    assert interval.to_json() == {
        "value": 1.0 if n else None, "low": None, "high": None, "n": n, "readers": min(n, 1), "left_out": 0
    }  # fmt: skip


def lists_of(seed, readers=80, catalogue=300, k=5):
    rng = np.random.default_rng(seed)
    reader = np.repeat(np.arange(readers), k)
    return (rng.zipf(1.4, len(reader)) % catalogue).astype(np.int64), reader


def test_coverage_interval_is_the_spread_of_resampled_readers():
    items, reader = lists_of(0)
    interval = union_share(items, reader, 300, resamples=2000)
    assert interval.value == len(np.unique(items)) / 300
    rng = np.random.default_rng(9)
    drawn = [len(np.unique(items[np.isin(reader, rng.integers(0, 80, 80))])) / 300 for _ in range(2000)]
    assert (interval.low + interval.high) / 2 == pytest.approx(interval.value)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.06)


def test_coverage_of_everything_stays_within_one():
    items, reader = np.tile(np.arange(10), 5), np.repeat(np.arange(5), 10)
    items[-1] = 0
    interval = union_share(items, reader, 10)
    assert interval.value == interval.high == 1.0


def test_paired_coverage_of_equal_lists_is_nothing():
    items, reader = lists_of(1)
    interval = paired_union_share(items, reader, items, reader, 300)
    assert (interval.value, interval.low, interval.high) == (0, 0, 0)


def test_paired_coverage_is_narrower_than_two_coverages():
    items, reader = lists_of(2)
    more = np.where(np.arange(len(items)) % 10 == 0, items + 300, items)
    paired = paired_union_share(more, reader, items, reader, 300)
    alone = union_share(more, reader, 300)
    assert paired.value == pytest.approx((len(np.unique(more)) - len(np.unique(items))) / 300)
    assert paired.high - paired.low < alone.high - alone.low
    assert paired.low < paired.value < paired.high


def test_coverage_without_lists():
    nothing = np.zeros(0, dtype=np.int64)
    assert union_share(nothing, nothing, 10).to_json()["value"] == 0.0
