"""The month's course: a night for each drop, and nights on which something happens.

Belongs here: the order of things and the plain night. Does not belong here: what is done to the deployment on a special
night (`incidents`, `requests`), the audit at the end (`audit`).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from tests.month.calendar import Calendar
from tests.month.deliveries import PUBLISHED_DAYS, SIMULATED, Publisher, day_number
from tests.month.deployment import Deployment, Missed, wait_for
from tests.month.lake import Snapshot
from tests.month.ledger import Ledger, Night
from tests.month.watch import Ran, Watch


@dataclass
class Month:
    """A deployment with its publisher, calendar and ledger. `delivered`: when each drop was put into the landing
    folder, by the machine's clock."""

    deployment: Deployment
    publisher: Publisher
    calendar: Calendar
    watch: Watch
    ledger: Ledger
    delivered: dict[date, float] = field(default_factory=dict)

    @classmethod
    def begin(cls, deployment: Deployment, days: int, seed: int, ledger: Ledger) -> "Month":
        """The published bundle is there, the daemon runs, the calendar stands before the first night."""
        publisher = Publisher.begin(deployment.folder, deployment.log, days, seed)
        calendar = Calendar(deployment.folder / "calendar", SIMULATED.clock)
        month = cls(deployment, publisher, calendar, Watch(deployment), ledger)
        calendar.move(calendar.arrival(day_number(PUBLISHED_DAYS - 1)))
        deployment.start()
        wait_for("schedule and sensor known to the daemon", month.watch.ready)
        ledger.tell("the daemon is there")
        return month

    def deliver(self, day: date) -> None:
        """Put the drop of `day` into the landing folder, unless it is there."""
        if day not in self.delivered:
            self.delivered[day] = time.time()
            self.publisher.drop(day, self.calendar.arrival(day))

    def arrive(self, day: date) -> str:
        """Deliver, and wait until the sensor's run has taken the drop in; in words."""
        self.deliver(day)
        ran = self.watch.of_drop(str(day), self.delivered[day])
        if ran.status != "SUCCESS":
            raise Missed(f"the run of the drop {day} ended as {ran.status}: {ran.lines[-1] if ran.lines else ''}")
        made = Snapshot.of(self.deployment.lake).made_by(f"landing {ran.run_id}")
        return f"{day} ({made} partitions made in {ran.seconds:.0f} s)"

    def launched(self, day: date) -> str | None:
        """Let the night after the drop of `day` come; the run that its tick asked for, None where it skipped."""
        self.calendar.move(self.calendar.night(day) + timedelta(seconds=1))
        return self.run_of(day)

    def run_of(self, day: date) -> str | None:
        """The run that the tick of that night asked for, None where it skipped."""
        tick = self.watch.tick_at(self.calendar.night(day))
        if tick.status.name == "FAILURE":
            raise Missed(f"the tick of {self.calendar.night(day)} failed: {tick.error.message.strip()}")
        return str(tick.run_ids[0]) if tick.run_ids else None

    def why_skipped(self, day: date) -> str:
        """The reason of a tick that asked for no run."""
        return str(self.watch.tick_at(self.calendar.night(day)).skip_reason)

    def finish(self, day: date, arrived: str, run_id: str | None, outcome: str = "") -> Ran | None:
        """Wait until the night is over, and enter it."""
        name = f"{self.calendar.night(day):%d %b}"
        if run_id is None:
            self.ledger.enter(Night(name, arrived, f"skipped: {self.why_skipped(day)}"))
            return None
        ran = self.watch.ended(run_id)
        made = Snapshot.of(self.deployment.lake).made_by(f"nightly {run_id}")
        nights = ", ".join(of.removeprefix("night of ") for of, _, _ in ran.parts)
        touched, fresh = (sum(p[n] for p in ran.parts) for n in (1, 2))
        said = outcome or (f"ran night of {nights}" if ran.status == "SUCCESS" else ran.status.lower())
        self.ledger.enter(Night(name, arrived, said, made, max(touched - made, 0), fresh, ran.seconds))
        return ran

    def night(self, day: date, arrived: str, ahead: date | None = None) -> Ran:
        """A night that has to run and to succeed. The drop of the day `ahead` arrives while it is at work."""
        run_id = self.launched(day)
        if run_id is None:
            raise Missed(f"the night after {day} did nothing: {self.why_skipped(day)}")
        if ahead is not None:
            wait_for("the night's first run", lambda: self.watch.children(run_id) or self.watch.is_over(run_id))
            self.deliver(ahead)
        ran = self.finish(day, arrived, run_id)
        if ran is None or ran.status != "SUCCESS":
            raise Missed(f"the night after {day} ended as {ran.status if ran else 'nothing'}")
        return ran

    def first_night(self, ahead: date | None) -> None:
        """The published bundle alone: the newest night of an empty lake."""
        self.night(day_number(PUBLISHED_DAYS - 1), f"the bundle, {PUBLISHED_DAYS} days", ahead)

    def plain(self, days: Sequence[date], ahead: date | None) -> None:
        """Nights on which nothing happens but a drop; the one after them is `ahead`."""
        for day, following in zip(days, [*days[1:], ahead], strict=True):
            ran = self.night(day, self.arrive(day), following)
            self.in_order(ran, [day])

    def in_order(self, ran: Ran, days: Sequence[date], event: str = "") -> None:
        """A run must have gone through the nights of `days` in order; an `event` says so in the ledger."""
        went, wanted = [of for of, _, _ in ran.parts], [f"night of {d}" for d in days]
        if event:
            self.ledger.check(event, "the nights run in order", went == wanted, ", ".join(went))
        elif went != wanted:
            raise Missed(f"run {ran.run_id} went through {went} instead of {wanted}")
