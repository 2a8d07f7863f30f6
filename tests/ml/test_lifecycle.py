"""Lifespans against sorted lists, popularity by age against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.clock import MS_PER_DAY, MS_PER_HOUR, MS_PER_MINUTE
from ml.lifecycle import AgeTally, Lifespans, covered, needed
from ml.popularity_skew import WINDOW, SlidingWindow

PUBLISHED = np.array([0, 90_000, 600_000, -1], dtype=np.int64)
CLICKS = st.lists(st.tuples(st.integers(0, 40 * MS_PER_MINUTE - 1), st.integers(0, 3)), max_size=150)


def arrays(clicks):
    return tuple(np.array([c[i] for c in clicks], dtype=np.int64) for i in (0, 1))


@given(st.integers(0, 10**12))
def test_ninety_percent_is_the_smallest_count_that_reaches_it(clicks):
    k = int(needed(np.array([clicks]))[0])
    assert 10 * k >= 9 * clicks and (k == 0 or 10 * (k - 1) < 9 * clicks)


def test_a_life_by_hand():
    """Ten clicks at 1..10 minutes: the ninth completes 90 %; a click before publication is none of its life."""
    spans = Lifespans(np.array([1000]))
    time = np.array([500, *(1000 + m * MS_PER_MINUTE for m in range(1, 11))])
    rows = np.zeros(11, dtype=np.int64)
    spans.count(time, rows)
    spans.follow(time, rows)
    assert spans.clicks.tolist() == [10] and spans.milliseconds.tolist() == [9 * MS_PER_MINUTE]


@given(CLICKS, st.integers(0, 40))
def test_lifespans_against_sorted_lists(clicks, cut):
    spans = Lifespans(PUBLISHED)
    spans.count(*arrays(clicks))
    early = sorted(c for c in clicks if c[0] < cut * MS_PER_MINUTE)
    spans.follow(*arrays(early))
    spans.follow(*arrays(sorted(c for c in clicks if c[0] >= cut * MS_PER_MINUTE)))
    for article, published in enumerate(PUBLISHED.tolist()):
        times = sorted(t for t, a in clicks if a == article and t >= published >= 0)
        assert spans.clicks[article] == len(times)
        expected = times[math.ceil(len(times) * 9 / 10) - 1] - published if times else -1
        assert spans.milliseconds[article] == expected


def test_the_final_day_is_not_covered():
    end = 10 * MS_PER_DAY
    published = np.array([-1, MS_PER_DAY - 1, MS_PER_DAY, end - MS_PER_DAY, end - MS_PER_DAY + 1])
    assert covered(published, MS_PER_DAY, end).tolist() == [False, False, True, True, False]


@given(CLICKS)
def test_popularity_by_age_against_a_plain_loop(clicks):
    """Article 1's first appearance stands in for its publication: a click at that millisecond is no popularity."""
    included, first_seen, minutes = np.array([True, True, True, False]), np.array([False, True, False, False]), 30
    clicks = [*clicks, (90_000, 1), (90_000, 2), (90_000, 0)]
    tally = AgeTally(PUBLISHED, included, first_seen, minutes)
    window = SlidingWindow(4, 0)
    time, rows = arrays(sorted(clicks))
    tally.click(time, rows)
    for step in window.steps(time, rows, 40 * MS_PER_MINUTE):
        tally.add(step)
    found = tally.result()
    shares, clicked = [[] for _ in range(minutes)], [0] * minutes
    for minute in range(WINDOW, 40):
        inside = [(t, a) for t, a in clicks if minute - WINDOW <= t // MS_PER_MINUTE < minute]
        for article in (0, 1, 2) if inside else ():
            age = (minute * MS_PER_MINUTE - int(PUBLISHED[article])) // MS_PER_MINUTE
            if 0 <= age < minutes:
                own = sum(a == article and (t, a) != (90_000, 1) for t, a in inside)
                shares[age].append(own / len(inside))
    for t, article in clicks:
        age = (t - int(PUBLISHED[article])) // MS_PER_MINUTE
        if article < 3 and 0 <= age < minutes and (t, article) != (90_000, 1):
            clicked[age] += 1
    assert found.articles.tolist() == [len(s) for s in shares]
    assert found.clicks.tolist() == clicked
    np.testing.assert_allclose(found.popularity, [np.mean(s) if s else np.nan for s in shares], atol=1e-12)


def test_the_peak_of_a_known_rise_and_fall():
    """One article published at 00:20 that takes all clicks of its 6th to 9th minute, another read steadily."""
    published = np.array([20 * MS_PER_MINUTE, -1])
    steady = [(m * MS_PER_MINUTE + 5, 1) for m in range(120)]
    burst = [((20 + m) * MS_PER_MINUTE + s, 0) for m in (6, 7, 8) for s in range(50)]
    time, rows = arrays(sorted(steady + burst))
    tally = AgeTally(published, np.array([True, False]), np.zeros(2, dtype=bool), 90)
    for step in SlidingWindow(2, 0).steps(time, rows, 2 * MS_PER_HOUR):
        tally.add(step)
    assert tally.result().peak == 9
    assert tally.result().popularity[9] == pytest.approx(150 / 165)


def test_no_included_articles_no_curve():
    tally = AgeTally(np.array([5, -1]), np.zeros(2, dtype=bool), np.zeros(2, dtype=bool), 10)
    for step in SlidingWindow(2, 0).steps(np.array([1]), np.array([0]), MS_PER_HOUR):
        tally.add(step)
    assert tally.result().peak is None and np.isnan(tally.result().popularity).all()
