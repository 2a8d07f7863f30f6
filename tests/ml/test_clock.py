"""Minutes, days and local time against Python's own calendar."""

from datetime import UTC, date, datetime, timedelta
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


COPENHAGEN = DayClock(7, "Europe/Copenhagen")
NO_SAVING = DayClock(3, "America/Sao_Paulo")
"""No daylight saving since 2019; 2023 has none."""
SPRING, AUTUMN = date(2023, 3, 26), date(2023, 10, 29)


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize("changed", [SPRING, AUTUMN])
@pytest.mark.parametrize("clock", [COPENHAGEN, NO_SAVING])
def test_days_have_24_hours_and_follow_each_other_where_the_clock_changes(clock, changed):
    for day in (changed - timedelta(days=1), changed, changed + timedelta(days=1)):
        assert clock.end(day) - clock.start(day) == 24 * 3_600_000
        assert clock.end(day) == clock.start(day + timedelta(days=1))
        assert clock.day_of(clock.start(day)) == clock.day_of(clock.end(day) - 1) == day


@pytest.mark.parametrize(
    ("clock", "time", "weekday", "hour", "minute"),
    [
        (COPENHAGEN, "2023-03-26 00:59", 6, 1, 59),  # the last minute of winter time, a Sunday
        (COPENHAGEN, "2023-03-26 01:00", 6, 3, 0),
        (COPENHAGEN, "2023-03-26 07:00", 6, 9, 0),  # the day's start: 9 in summer time
        (COPENHAGEN, "2023-03-25 07:00", 5, 8, 0),  # and 8 the day before
        (COPENHAGEN, "2023-03-26 22:00", 0, 0, 0),  # Monday begins an hour earlier in UTC
        (COPENHAGEN, "2023-10-29 00:30", 6, 2, 30),
        (COPENHAGEN, "2023-10-29 01:30", 6, 2, 30),  # the same local minute, an hour later
        (COPENHAGEN, "2023-10-29 02:00", 6, 3, 0),
        (COPENHAGEN, "2023-10-29 23:00", 0, 0, 0),
        (NO_SAVING, "2023-03-26 03:00", 6, 0, 0),
        (NO_SAVING, "2023-10-29 03:00", 6, 0, 0),
        (NO_SAVING, "2023-10-30 02:59", 6, 23, 59),
        (DayClock(0, "Australia/Lord_Howe"), "2023-09-30 15:30", 6, 2, 30),  # half an hour of saving, at half past
        (DayClock(0, "Australia/Lord_Howe"), "2023-09-30 15:29", 6, 1, 59),
        (DayClock(0, "Asia/Kathmandu"), "2023-05-01 18:15", 1, 0, 0),
    ],
)
def test_local_weekday_and_hour_on_change_over_days(clock, time, weekday, hour, minute):
    assert clock.local_minutes(np.array([utc(time)]))[0] == weekday * 1440 + hour * 60 + minute


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
