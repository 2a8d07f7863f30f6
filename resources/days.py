"""Which rows make a day: a pure function of the bundle, the drops taken in, and the corrections.

Belongs here: on time, late, outside; which pieces of which delivery make a raw day. Does not belong here: how
deliveries come to be (`resources.landing`) and the bytes of a merged day (`ml.readers.merge`).

The rules, for a row of day d in the drop of day D that arrived at A:

- d after D: `outside_drop`. A drop tells of its day and of those before.
- d = D: kept, however late the drop is: a day that nobody delivered cannot have closed. If the bundle holds d already,
  the next rule decides.
- otherwise kept if A is not after the close of d (end of d + watermark), else `late`.
- d was corrected before the drop was taken in: `late`. A corrected day holds the correction's event rows alone.

None of this asks in which order drops were taken in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from ml.clock import MS_PER_HOUR, DayClock
from ml.readers.base import Reader
from ml.readers.merge import QUARANTINE, Listing, Piece, count_rows

BUNDLE = "bundle"
Verdict = Literal["kept", "late", "outside"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A drop or a correction that was taken in, as number `number` of the ledger. `files`: sha256 by delivered name;
    `placed`: name in the reader's layout by delivered name; `split`: its rows cut into days."""

    kind: Literal["drop", "correction"]
    number: int
    day: date
    arrived: int
    watermark_hours: float
    files: Mapping[str, str]
    placed: Mapping[str, str]
    split: Path

    @property
    def label(self) -> str:
        """What its files are called where rows come from: `landing/<day>` or `correction/<day>.<number>`."""
        return f"landing/{self.day}" if self.kind == "drop" else f"correction/{self.day}.{self.number}"

    @property
    def sources(self) -> dict[str, str]:
        """sha256 by labelled name."""
        return {f"{self.label}/{name}": sha256 for name, sha256 in self.files.items()}

    @property
    def days(self) -> list[date]:
        """Days that its rows fall on, in order."""
        return days_in(self.split)

    def piece(
        self, folder: Path, files: Literal["all", "events", "articles", "quarantine"], reason: str | None
    ) -> Piece:
        """Rows of this delivery."""
        names = {self.placed[name]: f"{self.label}/{name}" for name in self.files}
        return Piece(folder, self.label, files, reason, names)


@dataclass(frozen=True, slots=True)
class Log:
    """All that makes the days of a dataset: the bundle's split, and the deliveries in the ledger's order."""

    clock: DayClock
    bundle: Path
    deliveries: Sequence[Delivery]

    @property
    def corrections(self) -> dict[date, Delivery]:
        """The correction that stands, by day."""
        return {d.day: d for d in self.deliveries if d.kind == "correction"}

    @property
    def drops(self) -> list[Delivery]:
        """The drops, by day."""
        return sorted((d for d in self.deliveries if d.kind == "drop"), key=lambda d: d.day)

    def verdict(self, drop: Delivery, day: date) -> Verdict:
        """Whether the rows of `day` in `drop` count."""
        if day > drop.day:
            return "outside"
        correction = self.corrections.get(day)
        if correction is not None and correction.number < drop.number:
            return "late"
        own = day == drop.day and not (self.bundle / str(day)).is_dir()
        closes = self.clock.end(day) + round(drop.watermark_hours * MS_PER_HOUR)
        return "kept" if own or drop.arrived <= closes else "late"

    def days(self) -> list[date]:
        """Days with rows, in order."""
        kept = {day for drop in self.drops for day in drop.days if self.verdict(drop, day) == "kept"}
        return sorted({*days_in(self.bundle), *kept, *self.corrections})

    def late_rows(self, drop: Delivery, reader: Reader) -> int:
        """Event rows of `drop` that came after their day had closed."""
        late = [day for day in drop.days if self.verdict(drop, day) == "late"]
        return sum(count_rows(drop.split / str(day), reader.derived_files) for day in late)

    def pieces(self, day: date) -> list[Piece]:
        """What makes the raw `day`, in order; only the bundle's own pieces where no delivery touches it."""
        correction = self.corrections.get(day)
        rest: Literal["all", "articles"] = "all" if correction is None else "articles"
        found = []
        if (self.bundle / str(day)).is_dir():
            found.append(Piece(self.bundle / str(day), BUNDLE, rest))
        for drop in self.drops:
            if day in drop.days and self.verdict(drop, day) == "kept":
                found.append(drop.piece(drop.split / str(day), rest, None))
            if drop.day == day:
                found += self._aside(drop, [d for d in drop.days if self.verdict(drop, d) != "kept"])
        if correction is not None:
            found.append(correction.piece(correction.split / str(day), "all", None))
            found += self._aside(correction, [d for d in correction.days if d != day])
        bundled = days_in(self.bundle)
        if bundled and day == bundled[0] and (self.bundle / QUARANTINE).is_file():
            found.append(Piece(self.bundle, BUNDLE, "quarantine"))
        return found

    def _aside(self, delivery: Delivery, days: Sequence[date]) -> list[Piece]:
        """What the delivery's own day takes of rows of other `days`: articles known by then, and the rest held back."""
        outside = "outside_drop" if delivery.kind == "drop" else "outside_correction"
        found = []
        for day in days:
            folder = delivery.split / str(day)
            if day > delivery.day:
                found.append(delivery.piece(folder, "all", outside))
            else:
                found.append(delivery.piece(folder, "events", "late" if delivery.kind == "drop" else outside))
                found.append(delivery.piece(folder, "articles", None))
        if (delivery.split / QUARANTINE).is_file():
            found.append(delivery.piece(delivery.split, "quarantine", None))
        return found

    def listed_in(self, day: date) -> list[Listing]:
        """The article rows that stand in raw days up to `day`. A row that lies in a day only because its article
        appears there stands as long as the day's events do."""
        listed = [(self.bundle / str(d), d, d not in self.corrections) for d in days_in(self.bundle) if d <= day]
        for drop in (d for d in self.drops if d.day <= day):
            for d in (d for d in drop.days if d <= drop.day):
                kept = self.verdict(drop, d) == "kept"
                listed.append((drop.split / str(d), d if kept else drop.day, kept and d not in self.corrections))
        for correction in (c for c in self.corrections.values() if c.day <= day):
            own = [d for d in correction.days if d <= correction.day]
            listed += [(correction.split / str(d), correction.day, d == correction.day) for d in own]
        return [Listing(folder, None if stand else self.clock.end(where)) for folder, where, stand in listed]


def days_in(split: Path) -> list[date]:
    """The days of a split's folders, in order."""
    return sorted(date.fromisoformat(p.name) for p in split.iterdir() if p.is_dir())
