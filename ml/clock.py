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


def _offset(time: datetime) -> int:
    """Offset from UTC in ms of a time with a zone."""
    offset = time.utcoffset()
    assert offset is not None
    return int(offset.total_seconds() * 1000)
