"""Co-click pairs as of t against a count by hand."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import coclicks
from ml.clock import MS_PER_MINUTE
from ml.coclicks import LOOKBACK, CoClicks, pairs, session_starts
from tests.ml.worlds import sorted_clicks

MINUTE = MS_PER_MINUTE


def counted(clicks: coclicks.Clicks, article: int, before: int, minutes: int) -> Counter[int]:
    """Partners of an article in pairs known in [before - minutes, before), pair by pair."""
    found: Counter[int] = Counter()
    for j in range(len(clicks)):
        for i in range(max(0, j - LOOKBACK), j):
            same = clicks.user[i] == clicks.user[j] and np.all(clicks.session[i:j] == clicks.session[j])
            known = before - minutes * MINUTE <= clicks.time[j] < before
            a, b = int(clicks.article[i]), int(clicks.article[j])
            if same and known and a != b:
                found[b] += a == article
                found[a] += b == article
    return +found


CLICK = st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 40), st.integers(0, 1))


@given(st.lists(CLICK, max_size=40), st.integers(0, 45), st.integers(1, 30))
@settings(max_examples=150, deadline=None)
def test_counts_equal_those_by_hand(log: list[tuple[int, int, int, int]], before: int, minutes: int) -> None:
    user, article, time, session = np.array(log, dtype=np.int64).reshape(-1, 4).T
    clicks = sorted_clicks(user, article, time * MINUTE, session=session)
    known = CoClicks.build(clicks, 6)
    now, asked = np.full(7, before * MINUTE), np.arange(-1, 6, dtype=np.int32)
    lo, hi = known.window(now, asked, minutes)
    dense = known.catalogue_counts(lo, hi, 6)
    expected = np.zeros((7, 6))
    for a in range(6):
        for partner, n in counted(clicks, a, before * MINUTE, minutes).items():
            expected[a + 1, partner] = n
    assert np.array_equal(dense, expected)
    assert np.array_equal(hi - lo, expected.sum(axis=1))
    assert np.array_equal(known.catalogue_counts(lo, hi, 3), expected[:, :3])
    offsets = np.arange(8) * 7
    rows = np.tile(np.arange(-1, 6), 7).astype(np.int32)
    chosen = known.candidate_counts(lo, hi, offsets, rows).reshape(7, 7)
    assert np.all(chosen[:, 0] == 0) and np.array_equal(chosen[:, 1:], expected)


def test_a_session_by_hand() -> None:
    clicks = sorted_clicks([1] * 4, [3, 4, 3, 5], np.arange(4) * MINUTE, session=[0, 0, 0, 7])
    assert session_starts(clicks).tolist() == [0, 0, 0, 3]
    first, second, since = pairs(clicks.article, clicks.time, session_starts(clicks), LOOKBACK)
    assert list(zip(first, second, since // MINUTE, strict=True)) == [(3, 4, 1), (4, 3, 2)]
    known = CoClicks.build(clicks, 6)
    assert known.offsets.tolist() == [0, 0, 0, 0, 2, 4, 4]
    assert known.partner.tolist() == [4, 4, 3, 3] and (known.time // MINUTE).tolist() == [1, 2, 1, 2]


def test_a_pair_is_not_known_at_its_own_millisecond() -> None:
    clicks = sorted_clicks([1, 1], [0, 1], [1000, 2000], session=[0, 0])
    known = CoClicks.build(clicks, 2)
    lo, hi = known.window(np.array([2000, 2001]), np.array([0, 0]), 60)
    assert (hi - lo).tolist() == [0, 1]


def test_endless_sessions_stay_linear() -> None:
    n = 3000
    clicks = sorted_clicks(np.ones(n), np.arange(n) % 500, np.arange(n) * 1000, session=np.zeros(n))
    assert len(CoClicks.build(clicks, 500).partner) == 2 * (n * LOOKBACK - LOOKBACK * (LOOKBACK + 1) // 2)


def test_no_clicks() -> None:
    known = CoClicks.build(sorted_clicks([], [], [], session=[]), 3)
    assert known.offsets.tolist() == [0, 0, 0, 0]
    assert not known.catalogue_counts(*known.window(np.array([5]), np.array([1]), 60), 3).any()
