"""Spans of days: which partition holds them, which weeks they have, what is refused."""

from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.datasets import DATASETS
from ml.errors import UsageError
from pipeline.analyse import span, weeks
from resources.bindings import RunSettings

GLOBO = DATASETS["globo"]
DAYS = GLOBO.days[:11]


def ref(found):
    ((stage, day, model),) = found.goal
    return stage.ref(GLOBO, day, RunSettings(span_days=found.days), model)


def test_all_days_by_default():
    found = span(GLOBO, DAYS, None, None)
    assert str(ref(found)) == "globo/dataset_analysis/2017-10-12.all"
    assert span(GLOBO, DAYS, DAYS[0], DAYS[-1]) == found


def test_a_range_is_named_by_its_length_and_the_day_after_it():
    found = span(GLOBO, DAYS, date(2017, 10, 3), date(2017, 10, 5))
    assert str(ref(found)) == "globo/dataset_analysis/2017-10-06.3d"
    assert ref(found).command == "newsrec analyse --dataset globo --from 2017-10-03 --to 2017-10-05"
    assert ref(span(GLOBO, DAYS, None, None)).command == "newsrec analyse --dataset globo --to 2017-10-11"


@pytest.mark.parametrize(
    ("first", "last"),
    [(date(2017, 9, 30), None), (None, date(2017, 10, 12)), (date(2017, 10, 5), date(2017, 10, 4))],
)
def test_days_outside_the_data_are_refused(first, last):
    with pytest.raises(UsageError, match="2017-10-01 to 2017-10-11"):
        span(GLOBO, DAYS, first, last)


@given(st.integers(1, 60))
def test_weeks_are_whole_adjacent_and_end_with_the_span(n):
    days = [date(2023, 1, 1) + timedelta(days=i) for i in range(n)]
    whole = span(GLOBO, days, None, None)
    if n < 7:
        with pytest.raises(UsageError, match="no whole week"):
            weeks(whole)
        return
    found = weeks(whole)
    assert len(found) == n // 7 and found[-1].last == days[-1]
    assert all(w.days == 7 for w in found)
    assert all((b.first - a.last).days == 1 for a, b in pairwise(found))
