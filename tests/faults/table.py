"""The ledger of a run of the fault suite: fault x promise x outcome, with trials.

Belongs here: counting and Markdown. Does not belong here: faults.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

READERS = "readers see the old or the new version whole"
NOTHING_LOST = "nothing published is lost"
NEXT_RUN = "the next run repairs or names the damage"
NO_RUNNING = "no MLflow run stays RUNNING"
SAME_BYTES = "what it ends with is bit-identical to an undisturbed run"
SLOTS = "the slot is free within 5 s, never more trainers than slots"
PROMISES = (READERS, NOTHING_LOST, NEXT_RUN, NO_RUNNING, SAME_BYTES, SLOTS)


@dataclass(slots=True)
class Table:
    """Trials by (fault, promise, kept or broken), kills, faults that could not be tried, and what each breach was."""

    trials: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def enter(self, fault: str, promise: str, breaches: Iterable[str]) -> None:
        """One trial of one promise: kept where `breaches` is empty."""
        said = list(breaches)
        self.trials[(fault, promise, not said)] += 1
        self.broken += [f"{fault}: {promise}: {line}" for line in said]

    def _cell(self, fault: str, promise: str) -> str:
        """Trials that kept the promise, of how many; empty where it is not one of this fault."""
        kept, broken = (
            sum(n for (f, p, held), n in self.trials.items() if fault in (f, "all") and p == promise and held is want)
            for want in (True, False)
        )
        return f"{kept} of {kept + broken}" if kept + broken else ""

    def text(self) -> str:
        """Markdown."""
        rows = ["| fault | " + " | ".join(PROMISES) + " |", "|---|" + "---:|" * len(PROMISES)]
        for fault in (*dict.fromkeys(f for f, _, _ in self.trials), "all"):
            rows.append("| " + " | ".join((fault, *(self._cell(fault, promise) for promise in PROMISES))) + " |")
        kills = ", ".join(f"{n} {name}" for name, n in self.kills.items())
        lines = ["\n".join(rows), f"Processes killed with SIGKILL at random moments: {self.kills.total()} ({kills})."]
        lines += [f"Not tried: {fault}: {why}." for fault, why in self.skipped.items()]
        if self.notes:
            rows = ["| what was seen after the fault | times |", "|---|---:|"]
            lines.append("\n".join([*rows, *(f"| {name} | {n} |" for name, n in sorted(self.notes.items()))]))
        return "\n\n".join(lines)
