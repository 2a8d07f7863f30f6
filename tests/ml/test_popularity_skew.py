"""Lorenz, Gini and the share of the most popular: fractions by hand, brute force, and what always holds."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.clock import MS_PER_MINUTE
from ml.errors import DataError
from ml.popularity_skew import GRID, WINDOW, SkewTally, SlidingWindow, gini, lorenz, top_share

COUNTS = st.lists(st.integers(1, 500), min_size=1, max_size=40)


def test_lorenz_by_hand():
    x, share = lorenz(np.array([5, 1, 2]))
    np.testing.assert_allclose(x, [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(share, [0, 1 / 8, 3 / 8, 1])


def test_gini_by_hand():
    # areas of the trapezoids under (0,0) (1/3,1/8) (2/3,3/8) (1,1): (1/8 + 4/8 + 11/8) / 6 = 1/3
    assert gini(np.array([5, 1, 2])) == pytest.approx(1 - 2 * (1 / 8 + 4 / 8 + 11 / 8) / 6)
    assert gini(np.array([7])) == 0.0
    assert gini(np.array([1, 999_999])) == pytest.approx(1 / 2 - 1 / 10**6, abs=1e-12)


@given(COUNTS)
def test_gini_is_half_the_relative_mean_difference(counts):
    """The textbook's double sum over all pairs, in fractions."""
    pairs = sum(abs(a - b) for a in counts for b in counts)
    assert gini(np.array(counts)) == pytest.approx(float(Fraction(pairs, 2 * len(counts) * sum(counts))), abs=1e-12)


@given(COUNTS, st.integers(1, 9), st.randoms())
def test_order_and_scale_do_not_matter(counts, factor, random):
    shuffled = counts.copy()
    random.shuffle(shuffled)
    assert gini(np.array(shuffled)) == gini(np.array(counts))
    assert gini(np.array(counts) * factor) == pytest.approx(gini(np.array(counts)), abs=1e-12)
    assert top_share(np.array(shuffled)) == top_share(np.array(counts))


@given(st.integers(1, 500), st.integers(1, 40))
def test_equal_shares_have_no_inequality(count, n):
    assert gini(np.full(n, count)) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(np.interp(GRID, *lorenz(np.full(n, count))), GRID, atol=1e-12)


@given(COUNTS)
def test_lorenz_is_convex_below_the_diagonal_and_ends_in_one(counts):
    x, share = lorenz(np.array(counts))
    assert (x[0], share[0], x[-1], share[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(share, 2) >= -1e-12)
    assert np.all(share <= x + 1e-12)


@given(COUNTS, st.integers(1, 8))
def test_top_share_is_that_of_the_sorted_list(counts, top):
    assert top_share(np.array(counts), top) == sum(sorted(counts)[-top:]) / sum(counts)


CLICKS = st.lists(st.tuples(st.integers(0, 40 * MS_PER_MINUTE - 1), st.integers(0, 7)), max_size=120)


def stream(clicks, first, pieces, every=1):
    """All timesteps of `clicks` (time, row), fed in pieces that end at the given minutes."""
    window = SlidingWindow(8, first, every)
    steps, start = [], 0
    for end in pieces:
        part = sorted(c for c in clicks if start <= c[0] < end * MS_PER_MINUTE)
        time, rows = (np.array([c[i] for c in part], dtype=np.int64) for i in (0, 1))
        steps += window.steps(time, rows, end * MS_PER_MINUTE)
        start = end * MS_PER_MINUTE
    return steps


@given(CLICKS, st.lists(st.integers(1, 39), max_size=3))
def test_windows_against_a_plain_count(clicks, cuts):
    steps = stream(clicks, 0, [*sorted(set(cuts)), 40])
    assert [s.minute for s in steps] == list(range(WINDOW, 40))
    for step in steps:
        low, high = (step.minute - WINDOW) * MS_PER_MINUTE, step.minute * MS_PER_MINUTE
        expected = np.bincount([r for t, r in clicks if low <= t < high], minlength=8)
        assert step.rows.tolist() == np.flatnonzero(expected).tolist()
        assert step.counts.tolist() == expected[expected > 0].tolist()
        following = [r for t, r in clicks if high <= t < high + MS_PER_MINUTE]
        assert sorted(step.following.tolist()) == sorted(following)
        ranked = sorted(step.rows.tolist(), key=lambda r: (-expected[r], -r))
        assert step.leaders(3).tolist() == ranked[:3]


@given(CLICKS)
def test_the_tally_against_a_plain_loop(clicks):
    tally = SkewTally(top=2)
    for step in stream(clicks, 0, [13, 40]):
        tally.add(step)
    curves, ginis, shares, on_top, total, hits, following = [], [], [], 0, 0, 0, 0
    for minute in range(WINDOW, 40):
        counts = [0] * 8
        for time, row in clicks:
            counts[row] += minute - WINDOW <= time // MS_PER_MINUTE < minute
        if not sum(counts):
            continue
        positive = sorted(c for c in counts if c)
        xs = [i / len(positive) for i in range(len(positive) + 1)]
        ys = [sum(positive[:i]) / sum(positive) for i in range(len(positive) + 1)]
        curves.append(np.interp(GRID, xs, ys))
        ginis.append(1 - sum((ys[i] + ys[i + 1]) / len(positive) for i in range(len(positive))))
        shares.append(sum(positive[-2:]) / sum(positive))
        on_top, total = on_top + sum(positive[-2:]), total + sum(positive)
        best = sorted(range(8), key=lambda r: (-counts[r], -r))[:2]
        now = [row for time, row in clicks if time // MS_PER_MINUTE == minute]
        hits, following = hits + sum(row in best and counts[row] > 0 for row in now), following + len(now)
    found = tally.result()
    assert (found.steps, found.empty) == (len(curves), 40 - WINDOW - len(curves))
    if not curves:
        assert np.isnan([found.gini, found.top_share, found.next_share]).all()
        return
    np.testing.assert_allclose(found.curve, np.mean(curves, axis=0), atol=1e-12)
    np.testing.assert_allclose(found.sigma, np.std(curves, axis=0), atol=1e-7)
    assert found.gini == pytest.approx(np.mean(ginis), abs=1e-12)
    assert found.top_share == pytest.approx(np.mean(shares))
    assert found.top_share_pooled == pytest.approx(on_top / total)
    np.testing.assert_allclose(found.next_share, hits / following if following else np.nan)


def test_the_averaged_curves_gini_is_the_average_gini():
    """Eq. A.3 applied to the mean curve on the grid agrees with the exact mean of coefficients."""
    random = np.random.default_rng(3)
    tally = SkewTally()
    times = np.sort(random.integers(0, 60 * MS_PER_MINUTE, 5000))
    rows = np.minimum(random.zipf(1.3, 5000), 400) - 1
    for step in SlidingWindow(400, 0).steps(times, rows, 60 * MS_PER_MINUTE):
        tally.add(step)
    found = tally.result()
    assert found.gini == pytest.approx(1 - 2 * np.trapezoid(found.curve, GRID), abs=1e-3)
    assert 0.3 < found.gini < 1


def test_disjoint_windows():
    clicks = [(m * MS_PER_MINUTE, m % 8) for m in range(40)]
    assert [s.minute for s in stream(clicks, 0, [40], every=15)] == [15, 30]


@pytest.mark.parametrize("times", [[5, 3], [-1, 3], [3, 40]])
def test_clicks_out_of_order_are_refused(times):
    time = np.array(times) * MS_PER_MINUTE
    with pytest.raises(DataError, match="order of time"):
        list(SlidingWindow(8, 0).steps(time, np.array([1, 2]), 40 * MS_PER_MINUTE))
