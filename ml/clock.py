"""One clock for all rooms: minutes, days and the publisher's local time.

Belongs here: conversions between milliseconds, minutes, partition days and local times. Does not belong
here: what may be known at a time (`ml.asof`).

Minute m of time t is floor(t / 60 s); a prediction at t may know what happened before m began.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

MS_PER_MINUTE = 60_000
MS_PER_HOUR = 3_600_000
MS_PER_DAY = 86_400_000
_SLOT = 900_000
"""ms between looks at a zone's offset: all changes since 1972 fall on whole quarters of an hour."""


def minute_of(time_ms: np.ndarray) -> np.ndarray:
    """Minute index m = floor(t / 60 s) of times in ms; any shape, int64."""
    return np.asarray(time_ms, dtype=np.int64) // MS_PER_MINUTE


def minute_start(time_ms: np.ndarray) -> np.ndarray:
    """Time in ms at which the minute of `time_ms` began: what happened before it may be known."""
    return minute_of(time_ms) * MS_PER_MINUTE


@dataclass(frozen=True, slots=True)
class DayClock:
    """Days of one dataset: day D runs from D 00:00 UTC + `offset_hours` for 24 hours, also where daylight saving
    changes: no hour is in two days or in none. Hours and weekdays are those of `timezone`.

    >>> clock = DayClock(offset_hours=7, timezone="Europe/Copenhagen")
    >>> clock.day_of(clock.start(date(2023, 5, 18)))
    datetime.date(2023, 5, 18)
    >>> clock.day_of(clock.start(date(2023, 5, 18)) - 1)
    datetime.date(2023, 5, 17)
    """

    offset_hours: int
    timezone: str

    def start(self, day: date) -> int:
        """First millisecond of `day`, since the epoch."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return int(midnight.timestamp()) * 1000 + self.offset_hours * MS_PER_HOUR

    def end(self, day: date) -> int:
        """First millisecond after `day`."""
        return self.start(day) + MS_PER_DAY

    def day_of(self, time_ms: int) -> date:
        """The day that holds the millisecond `time_ms`."""
        shifted = (time_ms - self.offset_hours * MS_PER_HOUR) // MS_PER_DAY
        return date(1970, 1, 1) + timedelta(days=int(shifted))

    def local_minutes(self, time_ms: np.ndarray) -> np.ndarray:
        """Minutes since Monday 00:00 of the publisher's local time (0..10079) for times in ms; daylight saving kept."""
        time_ms = np.asarray(time_ms, dtype=np.int64)
        zone = ZoneInfo(self.timezone)
        slots, inverse = np.unique(time_ms // _SLOT, return_inverse=True)
        offsets = [_offset(datetime.fromtimestamp(int(s) * _SLOT // 1000, zone)) for s in slots]
        shift = np.array(offsets, dtype=np.int64) // MS_PER_MINUTE
        minutes = time_ms // MS_PER_MINUTE + shift[inverse].reshape(time_ms.shape)
        return (minutes + 3 * 1440) % (7 * 1440)  # 1970-01-01 was a Thursday


@dataclass(frozen=True, slots=True)
class LocalTimes:
    """Local times turned into instants: `time` int64 ms since the epoch; `ambiguous`, `nonexistent` bool, where the
    rule of `from_local` had to decide. All of the shape of the input."""

    time: np.ndarray
    ambiguous: np.ndarray
    nonexistent: np.ndarray


def from_local(local_ms: np.ndarray, timezone: str) -> LocalTimes:
    """Instants of local times of `timezone` (an IANA name), given as ms since 1970-01-01 00:00 on the local clock.

    The rule, for logs that say no offset: a time that the clock showed twice (autumn) is the earlier of the two
    instants; a time that it skipped (spring) is read with the offset before the change, so it lands after the gap by
    as much as it lies in it. That is PEP 495 with fold=0. Both are marked, so that they can be counted.

    >>> noon = np.array([1_684_411_200_000])  # 2023-05-18 12:00 on the wall
    >>> int(from_local(noon, "Europe/Copenhagen").time[0])  # 10:00 UTC
    1684404000000
    """
    local_ms = np.asarray(local_ms, dtype=np.int64)
    zone = ZoneInfo(timezone)
    slots, inverse = np.unique(local_ms // _SLOT, return_inverse=True)
    walls = [datetime(1970, 1, 1, tzinfo=zone) + timedelta(milliseconds=int(s) * _SLOT) for s in slots]
    first = np.array([_offset(w) for w in walls], dtype=np.int64)
    second = np.array([_offset(w.replace(fold=1)) for w in walls], dtype=np.int64)
    spread = {"time": local_ms - first[inverse].reshape(local_ms.shape)}
    marks = {"ambiguous": first > second, "nonexistent": first < second}
    return LocalTimes(**spread, **{k: m[inverse].reshape(local_ms.shape) for k, m in marks.items()})


def _offset(time: datetime) -> int:
    """Offset from UTC in ms of a time with a zone."""
    offset = time.utcoffset()
    assert offset is not None
    return int(offset.total_seconds() * 1000)
