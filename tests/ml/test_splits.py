"""Spans of the named splits."""

from datetime import date, timedelta

import pytest

from ml.clock import MS_PER_DAY, DayClock
from ml.errors import UsageError
from ml.splits import ROLLING, THESIS, split

CLOCK = DayClock(7, "Europe/Copenhagen")
DAY = date(2023, 5, 25)


def test_rolling_fits_on_nothing_from_the_day_on():
    spans = ROLLING.spans(CLOCK, DAY)
    start = CLOCK.start(DAY)
    assert spans["train"] == (start - 7 * MS_PER_DAY, start - MS_PER_DAY // 4)
    assert spans["validation"] == (start - MS_PER_DAY // 4, start)
    assert spans["test"] == (start, start + MS_PER_DAY)
    assert ROLLING.fit_end(CLOCK, DAY) == start
    assert (ROLLING.test_days, ROLLING.end_days) == ([0], 1)


def test_thesis_validates_on_the_first_day_and_tests_on_the_rest_of_the_week():
    spans = THESIS.spans(CLOCK, DAY)
    start = CLOCK.start(DAY)
    assert spans["train"] == (start - 7 * MS_PER_DAY, start)
    assert spans["validation"] == (start, start + MS_PER_DAY)
    assert spans["test"] == (start + MS_PER_DAY, start + 7 * MS_PER_DAY)
    assert (THESIS.test_days, THESIS.end_days) == ([1, 2, 3, 4, 5, 6], 7)


@pytest.mark.parametrize("name", ["rolling", "thesis", "lag_1", "lag_6"])
def test_spans_follow_each_other_and_fitting_ends_before_testing(name):
    known = split(name)
    spans = known.spans(CLOCK, DAY)
    assert spans["train"][1] <= spans["validation"][0]
    assert spans["validation"][1] <= spans["test"][0]
    assert known.fit_end(CLOCK, DAY) <= spans["test"][0]


@pytest.mark.parametrize("name", ["", "weekly", "lag_0", "lag_x", "lag_100"])
def test_unknown_names_are_refused_with_the_known_ones(name):
    with pytest.raises(UsageError, match="rolling, thesis or lag_K"):
        split(name)


def test_the_default_day_leaves_a_full_test_span():
    days = [DAY + timedelta(days=i) for i in range(9)]
    assert ROLLING.last_day_with_full_test(days) == days[-1]
    assert THESIS.last_day_with_full_test(days) == days[2]
    with pytest.raises(UsageError, match="no full test span"):
        THESIS.last_day_with_full_test(days[:3])
