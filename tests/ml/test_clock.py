"""Minutes, days and local time against Python's own calendar."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.clock import DayClock, minute_of, minute_start

TIMES = st.integers(1_500_000_000_000, 1_800_000_000_000)
CLOCKS = st.builds(
    DayClock,
    st.integers(0, 23),
    st.sampled_from(["Europe/Copenhagen", "America/Sao_Paulo", "UTC", "Australia/Lord_Howe"]),
)


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


@pytest.mark.parametrize(
    ("zone", "changes"),
    [
        ("Europe/Copenhagen", ["2023-03-26T01:00", "2023-10-29T01:00"]),
        ("America/New_York", ["2023-03-12T07:00", "2023-11-05T06:00"]),
        ("Australia/Lord_Howe", ["2023-04-01T15:00", "2023-09-30T15:30"]),
    ],
)
def test_every_minute_around_both_changes_of_the_clocks(zone, changes):
    clock = DayClock(7, zone)
    for change in changes:
        moment = datetime.fromisoformat(change).replace(tzinfo=UTC)
        around = [moment + timedelta(minutes=m) for m in range(-180, 180)]
        found = clock.local_minutes(np.array([int(t.timestamp()) * 1000 for t in around]))
        local = [t.astimezone(ZoneInfo(zone)) for t in around]
        assert found.tolist() == [t.weekday() * 1440 + t.hour * 60 + t.minute for t in local]
        assert len({t.utcoffset() for t in local}) == 2
