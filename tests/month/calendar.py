"""The month's calendar: where its nights are, and the clock that the scheduler is given.

Belongs here: dates of the month, the file that holds "now". Does not belong here: the daemon (`daemon`).

Only the scheduler reads this clock. It stands still until the script moves it on; all else keeps real time.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from ml.clock import DayClock
from ml.durable import replace_whole

FILE = "MONTH_CALENDAR"
"""Environment variable that names the calendar's file."""
NIGHT, ARRIVAL = time(3, 0), time(9, 30)


@dataclass(frozen=True, slots=True)
class Calendar:
    """The file with the scheduler's time, and the clock of the log whose days are delivered."""

    file: Path
    clock: DayClock

    def now(self) -> datetime:
        """The scheduler's time, UTC."""
        return datetime.fromisoformat(self.file.read_text()).astimezone(UTC)

    def move(self, moment: datetime) -> None:
        """Set the clock, never backwards."""
        if self.file.exists() and moment < self.now():
            raise ValueError(f"the calendar stands at {self.now()}, it cannot go back to {moment}")
        replace_whole(self.file, moment.isoformat().encode())

    def arrival(self, day: date) -> datetime:
        """When the drop of `day` is there: the morning after, when the log's day has ended."""
        return datetime.combine(day + timedelta(days=1), ARRIVAL, ZoneInfo(self.clock.timezone))

    def night(self, day: date) -> datetime:
        """The first night after the drop of `day` has arrived."""
        return datetime.combine(day + timedelta(days=2), NIGHT, ZoneInfo(self.clock.timezone))
