"""The check of a log against its dataset's contract, without keeping anything: what `newsrec validate` reports.

Belongs here: running a reader over a whole log in a temporary folder, and gathering what it holds back. Does not belong
here: rules (the readers have them), checks of files and columns (`ml.readers.breaches`), printing.

Memory is bounded as in a run: pieces of a file, and one day's tables.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml import schema
from ml.datasets import Dataset
from ml.errors import DataError
from ml.readers import Reader, reader
from ml.readers.breaches import Breach, Severity, refusal
from ml.readers.own_log import LOG_FILE

EXAMPLES = 5
TABLES = ("articles", "clicks", "impressions")
_SHOWN = 240
_ROW = re.compile(r"^(.*):([0-9]+)$")

REMEDIES: Mapping[str, tuple[str, str]] = {
    "null_id": ("ids", "give every row its ids; leave rows without them out"),
    "negative_id": ("ids", "ids are whole numbers from 0 up"),
    "id_too_large": ("ids", "ids go up to 2^63-1: map them to smaller numbers"),
    "zero_impression_id": ("impression_id", "number impressions from 1"),
    "code_out_of_range": ("codes", "codes are whole numbers from 0 to 2^31-1; leave unknown ones empty"),
    "null_time": ("time", "give every row its time"),
    "unknowable_local_time": ("times", "write times with a zone, best UTC: local ones repeat or skip an hour"),
    "unparsable_time": ("time", "write it as 11/9/2019 2:14:46 PM"),
    "unparsable_id": ("ids", "write ids as U13740 (reader), N55689 (article) and 17 (impression)"),
    "unparsable_candidates": ("impressions", "write candidates as N55689-1 N35729-0, all of a row with their label"),
    "wrong_number_of_cells": ("", "write every row with all cells of its file, tabs between them"),
    "unparsable": ("", "write whole numbers"),
    "not_utf8": ("", "write the file as UTF-8"),
    "line_too_long": ("", "a row is longer than 4 MiB: is a line break missing?"),
    "outside_days": ("time", "name the log's days (first_day, last_day), or correct the clock"),
    "outside_day": ("time", "correct the clock"),
    "after_log_end": ("time", "nothing to do: what comes after the log's last day is not used"),
    "never_shown": ("article_id", "nothing to do: an article that never appears has no day"),
    "empty_inview": ("inview", "leave out impressions that showed nothing"),
    "clicked_not_in_view": ("clicked", "list what was clicked among what was shown"),
    "duplicate_impression_id": ("impression_id", "give every impression an id of its own"),
    "duplicate_article_id": ("article_id", "keep one row an article, the newest"),
    "history_lengths_differ": ("history", "the lists of a history are of one length"),
}
"""Column and remedy by the readers' reasons."""


@dataclass(slots=True)
class LogReport:
    """What was found: `tables` has, for each, `rows_in`, `published`, `quarantined`, `duplicates` and `before_days`
    (held back before any day could take it); `days` are those with rows."""

    dataset: str
    root: str
    files: list[str] = field(default_factory=list)
    days: list[date] = field(default_factory=list)
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    breaches: list[Breach] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing breaks the contract; warnings do not."""
        return not any(b.severity == "error" for b in self.breaches)

    def to_json(self) -> dict[str, Any]:
        """Plain values, errors first."""
        ordered = sorted(self.breaches, key=lambda b: b.severity)
        return {
            "dataset": self.dataset,
            "root": self.root,
            "clean": self.clean,
            "files": self.files,
            "days": [str(d) for d in self.days],
            "tables": self.tables,
            "errors": [b.to_json() for b in ordered if b.severity == "error"],
            "warnings": [b.to_json() for b in ordered if b.severity == "warning"],
        }


@dataclass(slots=True)
class _Tally:
    """Held-back rows by (table, reason): how many, in which files, and a few of them."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    files: dict[tuple[str, str], dict[str, None]] = field(default_factory=dict)
    examples: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, rows: pa.Table) -> None:
        """Adds rows of a quarantine table (schema `QUARANTINE`)."""
        for row in rows.to_pylist():
            place = _ROW.match(row["source"])
            file = place[1] if place else row["source"]
            key = (row["table"], row[schema.REASON])
            self.counts[key] += 1
            self.files.setdefault(key, {})[file] = None
            some = self.examples.setdefault(key, [])
            if len(some) < EXAMPLES:
                some.append({"file": file, "row": int(place[2]) if place else None, "value": _short(row["row"])})

    def breaches(self, expected: frozenset[str]) -> Iterator[Breach]:
        """One finding for each: a warning where published files are known for it."""
        for key in sorted(self.counts):
            _table, reason = key
            column, remedy = REMEDIES.get(reason, ("", "correct these rows, or leave them out"))
            first, *more = self.files[key]
            file = first + (f" and {len(more)} more files" if more else "")
            severity: Severity = "warning" if reason in expected else "error"
            yield Breach(severity, reason, file, column, self.counts[key], remedy, self.examples[key])


def check_log(root: Path, dataset: Dataset, progress: Callable[[str], None] | None = None) -> LogReport:
    """Checks files, columns and types, then, unless these refuse it, every row. Raises nothing for a bad log."""
    layout = reader(dataset.reader)
    report = LogReport(dataset.name, str(root))
    report.breaches = layout.breaches(root)
    try:
        report.files = [p.relative_to(root).as_posix() for p in layout.sources(root)]
    except DataError as error:
        if report.clean:
            report.breaches.append(refusal(error, root))
    if not report.clean:
        return report
    with TemporaryDirectory(prefix="newsrec-validate-") as folder:
        try:
            _dry_pass(layout, root, dataset, Path(folder), report, progress)
        except DataError as error:
            report.breaches.append(refusal(error, root))
    return report


def undeclared(root: Path, dataset: str, error: DataError) -> LogReport:
    """The report on a log whose own declaration cannot be had, for the reason `error`: files and columns, no rows."""
    report = LogReport(dataset, str(root), breaches=reader(dataset).breaches(root))
    if report.clean or LOG_FILE in str(error):
        report.breaches.append(refusal(error, root))
    return report


def _dry_pass(
    layout: Reader, root: Path, dataset: Dataset, out: Path, report: LogReport, progress: Callable[[str], None] | None
) -> None:
    report.days = layout.split(root, dataset, out, progress)
    tally, notes = _Tally(), dict.fromkeys(("duplicates", "negative_read_time", "scroll", "twice_in_view"), 0)
    for rows in _quarantined(out / "quarantine.parquet"):
        tally.add(rows)
    before = {name: sum(n for (t, _), n in tally.counts.items() if t == name) for name in TABLES}
    report.tables = {name: {"before_days": before[name]} for name in TABLES}
    for day in report.days:
        tables = layout.tables(out / str(day), dataset, day)
        tally.add(tables.quarantine)
        for name, counts in tables.counts.items():
            for figure, n in counts.items():
                report.tables[name][figure] = report.tables[name].get(figure, 0) + n
        notes["scroll"] += _outside(tables.clicks[schema.SCROLL], 0, 100)
        notes["twice_in_view"] += _repeated(tables.impressions[schema.INVIEW])
    report.breaches += [*tally.breaches(layout.expected), *_noted(report, notes), *_gaps(report.days)]


def _quarantined(path: Path) -> Iterator[pa.Table]:
    if path.is_file():
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1_024):
                yield pa.Table.from_batches([batch])


def _noted(report: LogReport, notes: Mapping[str, int]) -> Iterator[Breach]:
    """What is published in spite of it."""
    clicks = report.tables["clicks"]
    found = [
        ("unknown_read_time", "read_time", clicks.get("negative_read_time", 0), "negative ones are taken as unknown"),
        ("scroll_out_of_range", "scroll_percentage", notes["scroll"], "write percent, 0 to 100"),
        ("twice_in_view", "inview", notes["twice_in_view"], "list an article once in a list"),
    ]
    for name in TABLES:
        found.append((f"duplicate_{name}", "", report.tables[name].get("duplicates", 0), "exact copies are dropped"))
    for kind, column, count, remedy in found:
        if count:
            yield Breach("warning", kind, "", column, count, remedy)


def _gaps(days: list[date]) -> list[Breach]:
    """Days without a row between the first and the last."""
    known = set(days)
    span = [days[0] + timedelta(days=i) for i in range((days[-1] - days[0]).days + 1)]
    missing = [d for d in span if d not in known]
    if not missing:
        return []
    examples = [{"value": str(d)} for d in missing[:EXAMPLES]]
    return [Breach("warning", "day_without_rows", "", "time", len(missing), "is a delivery missing?", examples)]


def _outside(values: pa.ChunkedArray, low: float, high: float) -> int:
    outside = pc.or_(pc.less(values, low), pc.greater(values, high))
    return int(pc.sum(outside).as_py() or 0)


def _repeated(lists: pa.ChunkedArray) -> int:
    """Lists that hold something twice."""
    return sum(1 for items in lists.to_pylist() if len(set(items)) < len(items))


def _short(row: str) -> str:
    """A row as JSON, without its empty cells, cut to a line."""
    try:
        cells = {k: v for k, v in json.loads(row).items() if v is not None}
        text = json.dumps(cells, ensure_ascii=False)
    except ValueError:
        text = row
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
