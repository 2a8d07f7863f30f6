"""dagster-daemon with the calendar as its scheduler's clock: `python -m tests.month.daemon run -w workspace.yaml`.

Belongs here: the one replacement. Everything else is Dagster's own daemon: its sensors, run queue, monitoring and
backfills keep real time.
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.month.calendar import FILE

LOOK_SECONDS = 1.0


def give_calendar(scheduler: Any, file: Path) -> None:
    """Let Dagster's module of schedules read its time from `file`, and look at it every second."""
    for name in ("get_current_datetime", "get_current_timestamp", "_get_next_scheduler_iteration_time"):
        if not callable(getattr(scheduler, name, None)):
            raise SystemExit(f"this Dagster's scheduler has no {name}: tests.month.daemon must be looked at")

    def now(tz: str = "UTC") -> datetime:
        assert tz == "UTC"
        return datetime.fromisoformat(file.read_text()).astimezone(UTC)

    scheduler.get_current_datetime = now
    scheduler.get_current_timestamp = lambda: now().timestamp()
    scheduler._get_next_scheduler_iteration_time = lambda start: start + LOOK_SECONDS


def main() -> None:
    """Dagster's daemon command."""
    from dagster._daemon.cli import main as daemon
    from dagster._scheduler import scheduler

    give_calendar(scheduler, Path(os.environ[FILE]))
    daemon()


if __name__ == "__main__":
    sys.exit(main())
