"""Minutes, days and local time against Python's own calendar."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ml.clock import DayClock, minute_of, minute_start

TIMES = st.integers(1_500_000_000_000, 1_800_000_000_000)
CLOCKS = st.builds(DayClock, st.integers(0, 23), st.sampled_from(["Europe/Copenhagen", "America/Sao_Paulo", "UTC"]))


@given(TIMES)
def test_the_minute_of_t_began_at_or_before_t(t):
    assert minute_start(np.array([t]))[0] <= t < minute_start(np.array([t]))[0] + 60_000
    assert minute_of(np.array([t]))[0] == t // 60_000


@given(CLOCKS, TIMES)
def test_every_time_lies_in_exactly_its_day(clock, t):
    day = clock.day_of(t)
    assert clock.start(day) <= t < clock.end(day)


@given(CLOCKS, st.lists(TIMES, min_size=1, max_size=5))
def test_local_minutes_follow_daylight_saving(clock, times):
    found = clock.local_minutes(np.array(times))
    for t, minute in zip(times, found, strict=True):
        local = datetime.fromtimestamp(t / 1000, UTC).astimezone(ZoneInfo(clock.timezone))
        assert minute == local.weekday() * 1440 + local.hour * 60 + local.minute
