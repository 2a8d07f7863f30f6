"""Fuzzing: one damaged source a case, its outcome, and the ledger of all cases.

Belongs here: drawing a case from (seed, number), running a reader on it, judging the outcome. Does not belong here:
what is damaged and what is lost (the other modules).
"""

import json
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
from polars.exceptions import PanicException

from ml.errors import DataError
from ml.readers import DayTables, reader
from pipeline.validate import report_on
from pipeline.validate_text import render
from tests.fuzz import files, lies, lines, tables
from tests.fuzz.source import Lie, Lines, Source, parquet
from tests.fuzz.subjects import SUBJECTS, Subject

Rng = np.random.Generator
OUTCOMES = ("published", "quarantined", "refused", "traceback", "loss")
LIES = {
    "lie: rows": lies.rows,
    "lie: fewer rows everywhere": lies.everything_fewer,
    "lie: sizes and places": lies.sizes,
    "lie: statistics": lies.statistics,
    "lie: page size": lies.page_sizes,
}
UNDAMAGED = "none"
VALIDATED = 10
"""One case of so many is given to `newsrec validate` too."""
TAKEN = {
    UNDAMAGED, "columns in another order", "unknown column", "nulls", "nulls in lists", "extreme values",
    "rows repeated", "ids repeated", "negative ids", "unordered rows", "no rows", "clocks off", "click not in view",
    "lists of unequal length", "other width, unit or zone", "text not UTF-8", "large cell", "lie: statistics",
    "fields missing", "fields too many", "quotes", "Windows line ends", "blank lines", "header only",
    "byte order mark", "link within the root",
}  # fmt: skip
"""Damage that must not stop a log in which any row is left."""
MAY_STOP = (
    "falls in",  # no row is left
    "no row with a time",  # the same of a log that declares itself
    "an artifact has",  # it has no quarantine: it is whole or refused
    "column time is there 2 times",  # the unknown column is called like one of the contract
    "times without a zone",  # what moment they mean, only the log can say
    "is a clock off?",  # a log that names no days cannot be told which clock is
    "a time lies outside the years",  # the same
)
"""What may yet be said of such damage."""
REFUSED = {
    "lie: page size", "lie: fewer rows everywhere", "link out of the root", "relative link out of the root",
    "linked folder", "dangling link", "circular link", "folder for a file", "pipe for a file", "link to a device",
}  # fmt: skip
"""Damage that must stop a log."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case: `what` is one of OUTCOMES, `said` the message, traceback or losses."""

    number: int
    reader: str
    kind: str
    what: str
    said: str = ""


@dataclass(slots=True)
class Ledger:
    """Cases by (reader, kind of damage, outcome), and those that failed: whose outcome is one of `failures`."""

    outcomes: tuple[str, ...] = OUTCOMES
    failures: tuple[str, ...] = ("traceback", "loss")
    title: str = "reader"
    cases: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Enters a case."""
        self.cases[(outcome.reader, outcome.kind, outcome.what)] += 1
        if outcome.what in self.failures:
            self.failed.append(outcome)

    def text(self) -> str:
        """The ledger as two Markdown tables: outcomes by reader (or door), and by kind of damage."""
        return "\n\n".join((self._table(self.title, 0), self._table("damage", 1)))

    def _table(self, title: str, key: int) -> str:
        """Outcomes by one part of the keys of `cases`, and those of all."""
        rows = ["| " + " | ".join((title, "cases", *self.outcomes)) + " |"]
        rows.append("|---|" + "---:|" * (1 + len(self.outcomes)))
        for name in (*sorted({part[key] for part in self.cases}), "all"):
            found = [
                sum(n for part, n in self.cases.items() if name in (part[key], "all") and part[2] == o)
                for o in self.outcomes
            ]
            rows.append("| " + " | ".join(map(str, (name, sum(found), *found))) + " |")
        return "\n".join(rows)


def run(cases: int, seed: int, names: list[str] | None = None, first: int = 0) -> Ledger:
    """Runs the cases numbered from `first` on; they take turns over the readers."""
    ledger, started = Ledger(), time.perf_counter()
    chosen = names or sorted(SUBJECTS)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + cases):
            place = Path(folder) / str(number)
            ledger.add(case(number, seed, chosen[number % len(chosen)], place))
            shutil.rmtree(place)
    ledger.seconds = time.perf_counter() - started
    return ledger


def case(number: int, seed: int, name: str, place: Path) -> Outcome:
    """One case, in the new folder `place`: the same number and seed give the same source."""
    rng = np.random.default_rng([seed, number])
    subject = SUBJECTS[name]
    source = subject.make(rng)
    kind = damage(source, subject, rng)
    root, out = place / "root", place / "out"
    root.mkdir(parents=True)
    source.write(root, rng)
    days: dict[date, DayTables] | None = None
    try:
        found, dataset = reader(subject.reader), subject.dataset(root)
        days = {d: found.tables(out / str(d), dataset, d) for d in found.split(root, dataset, out)}
        for path in found.artifact_vectors(root).values():
            found.vectors_of(path, np.array([100]))
    except DataError as error:
        text = str(error)
        unlike = _check_apart(number, subject, root, refused=days is None)  # an artifact is not the log's
        if unlike:
            return Outcome(number, name, kind, "traceback", unlike)
        plain = text.isprintable() and len(text) < 3_000 and ": " in text
        names_it = any(Path(n).name in text for n in source.files) or str(root) in text
        if kind in TAKEN and not any(said in text for said in MAY_STOP):
            return Outcome(number, name, kind, "loss", f"refused for {kind}: {text}")
        return Outcome(number, name, kind, "refused" if plain and names_it else "traceback", text)
    except (Exception, PanicException):  # noqa: BLE001
        return Outcome(number, name, kind, "traceback", traceback.format_exc())
    unlike = _check_apart(number, subject, root, refused=False)
    if unlike:
        return Outcome(number, name, kind, "traceback", unlike)
    try:
        lost = subject.losses(source, root, out, days)
    except (Exception, PanicException):  # noqa: BLE001
        return Outcome(number, name, kind, "loss", traceback.format_exc())
    if kind in REFUSED:
        lost.append("taken, though it should have been refused")
    if lost:
        return Outcome(number, name, kind, "loss", "; ".join(lost))
    aside = (out / "quarantine.parquet").exists() or any(len(t.quarantine) for t in days.values())
    return Outcome(number, name, kind, "quarantined" if aside else "published")


def _check_apart(number: int, subject: Subject, root: Path, refused: bool) -> str:
    """What is wrong with what `newsrec validate` says of the root, in one case of `VALIDATED`; empty: nothing. It must
    find an error where the reader refuses the log, and refuse it nowhere else."""
    if number // len(SUBJECTS) % VALIDATED:
        return ""
    try:
        report = report_on(root, subject.reader, lambda _: None)
        text = render(report)
        json.dumps(report.to_json()).encode()
    except (Exception, PanicException):  # noqa: BLE001
        return f"newsrec validate: {traceback.format_exc()}"
    if report.stops != refused:
        return f"newsrec validate: the reader {'refuses' if refused else 'takes'} the log, the report says {text}"
    uneven = [
        n for n, t in report.tables.items() if t["rows_in"] != t["published"] + t["quarantined"] + t["duplicates"]
    ]
    uneven += [name for name, rows in report.files.items() if rows.lost]
    if uneven or "rows_unaccounted" in text:
        return f"newsrec validate: rows of {uneven} are not accounted for: {text}"
    unreadable = [line for line in text.splitlines() if not line.isprintable()]
    return f"newsrec validate prints {unreadable[0]!r}" if unreadable else ""


def damage(source: Source, subject: Subject, rng: Rng) -> str:
    """Damages the source in one way, in one case of six in several, in one of forty not at all; gives the kind."""
    if rng.random() < 1 / 40:
        return UNDAMAGED
    several = int(rng.integers(2, 5)) if rng.random() < 1 / 6 else 1
    done: list[str] = []
    while len(done) < several:
        name = sorted(source.files)[int(rng.integers(len(source.files)))]
        kind = _damage_one(source, name, subject, rng)
        if kind is not None:
            done.append(kind)
    return done[0] if several == 1 else "several"


def _damage_one(source: Source, name: str, subject: Subject, rng: Rng) -> str | None:
    """Damages one file; None where what was drawn cannot be applied."""
    content = source.files[name]
    drawn = rng.random()
    if drawn < 0.08:
        kind = _key(files.PLACES, rng)
        source.place_changes = {name: files.PLACES[kind]}  # one a case: a linked folder would hide others
        return kind
    if drawn < 0.2:
        kind = _key(files.BYTES, rng)
        change, state = files.BYTES[kind], int(rng.integers(2**32))
        source.bytes_changes[name] = lambda data: change(data, np.random.default_rng(state))
        return kind
    if isinstance(content, pa.Table) and drawn < 0.35:
        if name in source.bytes_changes or not len(content):
            return None
        kind = _key(LIES, rng)
        lie, state = LIES[kind], int(rng.integers(2**32))
        source.bytes_changes[name] = Lie(lambda data: lie(data, np.random.default_rng(state)))
        return kind
    if isinstance(content, Lines):
        kind = _key(lines.KINDS, rng)
        changed_lines = lines.KINDS[kind](content, rng, subject.separator)
        if changed_lines is None or not changed_lines.lines:
            return None
        source.files[name] = changed_lines
        return kind if content.rows else f"settings: {kind}"
    kind = _key(tables.KINDS, rng)
    try:
        changed = tables.KINDS[kind](content, rng)
        if changed is not None:
            parquet(changed, rng)
    except (pa.ArrowException, KeyError, TypeError):  # an earlier damage left no such column or value
        return None
    if changed is None:
        return None
    source.files[name] = changed
    return kind


def _key(kinds: Iterable[str], rng: Rng) -> str:
    names = sorted(kinds)
    return str(names[int(rng.integers(len(names)))])
