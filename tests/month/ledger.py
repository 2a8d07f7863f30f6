"""The ledger of a month: nights, events, numbers; what was promised beside what was seen.

Belongs here: collecting and Markdown. Does not belong here: judging.
"""

import os
import sys
import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Night:
    """One tick of the schedule: the calendar's night, what had arrived, what came of it; partitions that were made,
    that came out unchanged when looked at, that were fresh; seconds from the tick to the end of its run."""

    night: str
    arrived: str
    outcome: str
    made: int = 0
    unchanged: int = 0
    fresh: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Ledger:
    """What was told by event, in order; promises that were `missed`; the machine's load after each night."""

    started: float = field(default_factory=time.monotonic)
    nights: list[Night] = field(default_factory=list)
    events: dict[str, list[str]] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    def tell(self, line: str) -> None:
        """Progress, on standard error."""
        print(f"{time.monotonic() - self.started:7.0f} s  {line}", file=sys.stderr, flush=True)

    def enter(self, night: Night) -> None:
        """A night that is over."""
        self.nights.append(night)
        self.loads.append(os.getloadavg()[0])
        self.tell(
            f"{night.night}: {night.arrived}: {night.outcome}: {night.made} made, {night.unchanged} unchanged, "
            f"{night.fresh} fresh, {night.seconds:.0f} s"
        )

    def note(self, event: str, line: str) -> None:
        """A fact of an event."""
        self.events.setdefault(event, []).append(line)
        self.tell(f"{event}: {line}")

    def check(self, event: str, claim: str, holds: bool, seen: str = "") -> None:
        """A promise, and whether it was kept."""
        line = f"{claim}{f': {seen}' if seen else ''}"
        self.note(event, f"{'held' if holds else '**MISSED**'}: {line}")
        if not holds:
            self.missed.append(f"{event}: {line}")

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.started

    def text(self) -> str:
        """Markdown."""
        rows = ["| night | arrived | tick | made | unchanged | fresh | s |", "|---|---|---|---:|---:|---:|---:|"]
        for n in self.nights:
            cells = (n.night, n.arrived, n.outcome, n.made, n.unchanged, n.fresh, f"{n.seconds:.0f}")
            rows.append("| " + " | ".join(map(str, cells)) + " |")
        return "\n".join(["## Nights", "", *rows, "", self.told(2)])

    def told(self, level: int) -> str:
        """The events alone, under headings of this level."""
        lines: list[str] = []
        for event, told in self.events.items():
            lines += [f"{'#' * level} {event}", "", *(f"- {line}" for line in told), ""]
        return "\n".join(lines)
