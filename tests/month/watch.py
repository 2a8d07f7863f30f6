"""Ticks and runs as Dagster's storage tells them, waited for.

Belongs here: reading Dagster. Does not belong here: what they ought to be.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg

from tests.month.deployment import DATASET, Deployment, wait_for

SCHEDULE, SENSOR = f"{DATASET}_nightly", f"{DATASET}_landing"
_RAN = re.compile(r"^(?P<of>[^:]+): (?P<ran>\d+) partitions ran, (?P<fresh>\d+) were fresh$")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run of the operation did: partitions it had to touch and those that were fresh, by night or drop."""

    run_id: str
    status: str
    seconds: float
    parts: tuple[tuple[str, int, int], ...]
    lines: tuple[str, ...]


class Watch:
    """Looks into the storage of a deployment, which stays open."""

    def __init__(self, deployment: Deployment) -> None:
        self.instance = dg.DagsterInstance.from_config(str(deployment.folder / "dagster"))

    def ready(self) -> bool:
        """Whether the daemon knows schedule and sensor."""
        return {SCHEDULE, SENSOR} <= {state.instigator_name for state in self.instance.all_instigator_state()}

    def ticks(self, name: str) -> list[Any]:
        """Finished ticks of a schedule or sensor, newest first."""
        state = next(s for s in self.instance.all_instigator_state() if s.instigator_name == name)
        found = self.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1000)
        return [t.tick_data for t in found if t.status.name != "STARTED"]

    def tick_at(self, moment: datetime) -> Any:
        """The schedule's tick of that moment, waited for."""
        return wait_for(
            f"tick of {moment}",
            lambda: next((t for t in self.ticks(SCHEDULE) if t.timestamp == moment.timestamp()), None),
        )

    def of_drop(self, day: str, after: float) -> Ran:
        """The run that took the drop of `day` in, started since `after`, once it has ended."""
        return self.ended(wait_for(f"a run of the drop {day}", lambda: self._newest({"newsrec/drop": day}, after)))

    def ended(self, run_id: str) -> Ran:
        """The run, once it has ended."""
        wait_for(f"the end of run {run_id}", lambda: self.is_over(run_id))
        record = self.instance.get_run_records(dg.RunsFilter(run_ids=[run_id]))[0]
        lines = tuple(e.user_message for e in self.instance.all_logs(run_id) if e.user_message and not e.dagster_event)
        parts = tuple((m["of"], int(m["ran"]), int(m["fresh"])) for m in map(_RAN.match, lines) if m)
        seconds = (record.end_time or 0.0) - record.create_timestamp.timestamp()
        return Ran(run_id, record.dagster_run.status.name, seconds, parts, lines)

    def is_over(self, run_id: str) -> bool:
        """Whether the run has ended."""
        run = self.instance.get_run_by_id(run_id)
        return run is not None and run.is_finished

    def children(self, run_id: str) -> list[dg.DagsterRun]:
        """Runs that the run started."""
        return list(self.instance.get_runs(dg.RunsFilter(tags={"newsrec/parent_run": run_id})))

    def lines_below(self, run_id: str) -> Iterator[str]:
        """Log lines of the runs that the run started."""
        for child in self.children(run_id):
            yield from (e.user_message for e in self.instance.all_logs(child.run_id) if e.user_message)

    def open_runs(self) -> list[str]:
        """Ids of runs that have not ended."""
        return [r.run_id for r in self.instance.get_runs() if not r.is_finished]

    def _newest(self, tags: dict[str, str], after: float) -> str | None:
        records = self.instance.get_run_records(dg.RunsFilter(tags=tags), limit=1)
        fresh = [r for r in records if r.create_timestamp.timestamp() >= after]
        return fresh[0].dagster_run.run_id if fresh else None
