"""The check of a log against its dataset's contract, without keeping anything: what `newsrec validate` reports.

Belongs here: running a reader over a whole log in a temporary folder, past files that it would stop at, and gathering
what it holds back. Does not belong here: rules (the readers have them), checks of files and columns
(`ml.readers.breaches`), adding up rows (`ml.log_rows`), printing.

Memory is bounded as in a run: pieces of a file, and one day's tables.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml.assumed_log import assumed_dataset, said_zone
from ml.datasets import OWN, Dataset
from ml.errors import DataError
from ml.log_rows import EXAMPLES, HeldBack, LogRows, of_files, short
from ml.readers import Reader, reader
from ml.readers.account import Rows, read_account
from ml.readers.breaches import NAIVE, Breach, Severity, misnamed, refusal, relative, unreadable_file
from ml.readers.canonical import COPIES
from ml.readers.files import frame, printable
from ml.readers.merge import RAW_TABLES, Piece, count_rows
from ml.readers.own_log import LOG_FILE
from ml.readers.ranges import UNSET
from ml.readers.remarks import Remark, added
from ml.readers.rules import SOURCE
from ml.readers.span import AFTER, remote_days

Progress = Callable[[str], None]
_TOO_LATE = "correct the clock: too few rows lie so far after all others to be of the log"
REMOTE = "far_from_all_others"
_REMOTE = (
    "published, as a run cannot tell whether a clock is off: correct it, or leave the rows out; of an own log, "
    f"first_day and last_day in {LOG_FILE} keep them out. Nothing to do if the log is so"
)
_ROW = re.compile(r"^(.*):([0-9]+)$")
_NO_IDS = np.zeros(0, dtype=np.int64)

REMEDIES: Mapping[str, tuple[str, str]] = {
    "null_id": ("ids", "give every row its ids; leave rows without them out"),
    "negative_id": ("ids", "ids are whole numbers from 0 up"),
    "id_too_large": ("ids", "ids go up to 2^63-1, of MIND's impressions below 10^9: map them to smaller numbers"),
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
    "line_too_long": ("", "a row is longer than 1 MiB: is a line break missing?"),
    "outside_days": ("time", "correct the clock"),
    "outside_day": ("time", "correct the clock"),
    "before_log_start": ("time", "correct the clock: too few rows lie so far before all others to be of the log"),
    "after_log_end": ("time", "nothing to do: what comes after the log's last day is not used"),
    "never_shown": ("article_id", "nothing to do: an article that never appears has no day"),
    "out_of_range": ("", "write values that fit the column's type"),
    "oversized_text": ("", "leave out texts of more than 1 MiB"),
    "oversized_list": ("", "leave out lists of more than 100,000 items"),
    "oversized_line": ("", "a row is longer than 1 MiB: is a line break missing?"),
    "wrong_number_of_fields": ("", "write every row with all fields of its file"),
    "unbalanced_quotes": ("", "close every quote within its line"),
    "time_out_of_range": ("times", "write times of the years 1900 to 2099"),
    "implausible_time": ("times", "write times of the years 1900 to 2099"),
    "empty_inview": ("inview", "leave out impressions that showed nothing"),
    "clicked_not_in_view": ("clicked", "list what was clicked among what was shown"),
    "duplicate_impression_id": ("impression_id", "give every impression an id of its own"),
    "duplicate_click": ("time", "write a click once: of rows with one reader, article and time one is published"),
    "duplicate_article_id": ("article_id", "keep one row an article, the newest"),
    "history_lengths_differ": ("history", "the lists of a history are of one length"),
}
"""Column and remedy by the readers' reasons."""

REMARKS: Mapping[str, str] = {
    UNSET: "such a value is taken as unknown (null); docs/hostile_input.md has every column's range",
    COPIES: "exact copies are dropped",
    "twice_in_view": "list an article once in a list",
    "clicked_unknown": "taken as nothing clicked; write an empty list where that is meant",
    "nothing_clicked": "nothing to do where nothing was clicked: such a list is not ranked (RQ2)",
    "click_before_publication": "kept: the article's first appearance stands in for its publication; correct the clock",
    "shown_before_publication": "kept: the article's first appearance stands in for its publication; correct the clock",
    "unlisted_article": "nothing to do if that is meant: its first appearance stands in; else add it to the articles",
    "impression_missing": "the link is taken as unknown; bring the impression along, or leave impression_id empty",
    "impression_of_another_reader": "the link is taken as unknown; name the reader's own impression, or leave it empty",
    "clicked_without_a_row": "kept; `clicked` adds no click: write every click to the clicks, too",
    "article_not_in_impression": "the link is taken as unknown; name the impression that showed the article",
}
"""Remedy by the reasons of remarks."""


@dataclass(slots=True)
class LogReport:
    """What was found.

    `files`: those whose rows were read, with what became of these up to the days; `tables` has, for each, `rows_in`,
    `published`, `quarantined`, `duplicates`, with rows_in = published + quarantined + duplicates, and further figures
    (`ml.log_rows`); `days` are those with rows. `left_out`: files that were not read for what is wrong with them;
    `assumed`: what was taken for granted instead of what the log says; `stops`: whether a run would stop at this log;
    `not_read`: entries that belong to no layout, one line each.
    """

    dataset: str
    root: str
    files: dict[str, Rows] = field(default_factory=dict)
    days: list[date] = field(default_factory=list)
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    breaches: list[Breach] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    stops: bool = False
    not_read: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing breaks the contract; warnings do not."""
        return not any(b.severity == "error" for b in self.breaches)

    def stop_at(self, found: Iterable[Breach]) -> None:
        """Adds findings; a run stops at those that are errors."""
        for breach in found:
            self.breaches.append(breach)
            self.stops |= breach.severity == "error"

    def to_json(self) -> dict[str, Any]:
        """Plain values, errors first."""
        plain = {name: getattr(self, name) for name in ("dataset", "root", "clean", "stops", "left_out", "assumed")}
        return plain | {
            "files": {name: asdict(rows) for name, rows in self.files.items()},
            "days": [str(d) for d in self.days],
            "tables": self.tables,
            "errors": [b.to_json() for b in self.breaches if b.severity == "error"],
            "warnings": [b.to_json() for b in self.breaches if b.severity == "warning"],
            "not_read": self.not_read,
        }


def check_log(root: Path, dataset: Dataset, progress: Progress | None = None) -> LogReport:
    """Checks files, columns and types, then every row of the files in which nothing of that is wrong. Raises nothing
    for a bad log."""
    layout, report = reader(dataset.reader), LogReport(dataset.name, str(root))
    left_out = _check_files(root, layout, report, dataset.naive_zone)
    if any(b.kind == NAIVE for b in report.breaches):
        dataset = replace(dataset, naive_zone="UTC")
        report.assumed.append("times without a zone are UTC")
    _check_rows(root, layout, dataset, report, left_out, progress)
    report.left_out = sorted(relative(path, root) for path in left_out)
    return report


def check_undeclared(root: Path, error: DataError, progress: Progress | None = None) -> LogReport:
    """The same of an own log whose declaration cannot be had, for the reason `error`: its rows are checked by what is
    assumed in its place (`ml.assumed_log`)."""
    layout, report = reader(OWN), LogReport(OWN, str(root))
    left_out = _check_files(root, layout, report, said_zone(root))
    found = _assumed(root, layout, report, left_out)
    if found is not None:
        dataset, report.assumed = found
        report.dataset = dataset.name
        _check_rows(root, layout, dataset, report, left_out, progress)
    report.left_out = sorted(relative(path, root) for path in left_out)
    if str(error).startswith(printable(root / LOG_FILE)):
        report.stop_at([refusal(error, root, root / LOG_FILE, f"correct {LOG_FILE} by docs/own_log.md")])
    elif not any(b.file and b.file in str(error) for b in report.breaches if b.severity == "error"):
        said = refusal(error, root)
        report.stop_at([] if said in report.breaches else [said])
    return report


def _check_files(root: Path, layout: Reader, report: LogReport, zone: str) -> set[Path]:
    """Adds what is wrong with files, names and columns; the files whose rows cannot be read for it. `zone`: that of
    times without one, empty where these are refused."""
    report.stop_at(layout.breaches(root))
    wrong = {b.file for b in report.breaches if b.severity == "error"}
    try:
        named, found = layout.named(root), layout.strays(root)
    except DataError:
        return set()  # the breaches say so
    left_out = {path for path in named if relative(path, root) in wrong}
    if not zone:
        report.stop_at(b for path in named if path not in left_out for b in layout.naive_times(root, path))
    report.breaches += [misnamed(stray) for stray in found if stray.meant]
    report.not_read = [stray.line for stray in found if not stray.meant]
    try:
        artifacts = layout.artifact_vectors(root).values()
    except DataError:
        return left_out
    for path in artifacts:
        report.breaches += _unreadable(partial(layout.vectors_of, path, _NO_IDS), root, path)
    return left_out


def _unreadable(read: Callable[[], object], root: Path, path: Path) -> list[Breach]:
    """The DataError of `read`, if it raises one, as a finding about the file."""
    try:
        read()
    except DataError as error:
        return [unreadable_file(error, root, path)]
    return []


def _assumed(root: Path, layout: Reader, report: LogReport, left_out: set[Path]) -> tuple[Dataset, list[str]] | None:
    """What the log is taken for, and which of that is assumed; None where no click can be read."""
    for _ in range(2):
        try:
            return assumed_dataset(root, left_out)
        except DataError:
            if not _leave_out(root, layout, "UTC", report, left_out):
                break
    return None


def _leave_out(root: Path, layout: Reader, zone: str, report: LogReport, left_out: set[Path]) -> bool:
    """Reads all files that are not `left_out` to the end, and leaves out those that are damaged. Whether any is."""
    before = len(left_out)
    for path in _sources(root, layout, left_out):
        found = _unreadable(partial(layout.read_through, path, zone), root, path)
        report.stop_at(found)
        left_out |= {path} if found else set()
    return len(left_out) > before


def _sources(root: Path, layout: Reader, left_out: set[Path]) -> list[Path]:
    """The files to read; none where those that are left make no log."""
    try:
        return layout.sources(root, left_out)
    except DataError:
        return []


def _check_rows(
    root: Path, layout: Reader, dataset: Dataset, report: LogReport, left_out: set[Path], progress: Progress | None
) -> None:
    """Adds what is wrong with rows, and the account of all. Files at which the reader stops are left out, too."""
    while _sources(root, layout, left_out):
        with TemporaryDirectory(prefix="newsrec-validate-") as folder:
            out = Path(folder)
            try:
                days = layout.split(root, dataset, out, progress, left_out)
                _add_rows(out, days, layout, dataset, report)
                break
            except DataError as error:
                if not _leave_out(root, layout, dataset.naive_zone, report, left_out):
                    report.stop_at([refusal(error, root)])
                    _add_held_back(out, layout, dataset, report)
                    break


def _add_rows(out: Path, days: list[date], layout: Reader, dataset: Dataset, report: LogReport) -> None:
    """Adds the rows of a log that was cut into `days` in `out`."""
    rows, remarks = LogRows(read_account(out)), list[Remark]()
    for held_back in _quarantined(out):
        rows.hold_back(held_back)
    for day in days:
        tables = layout.tables(out / str(day), dataset, day)
        rows.add(tables)
        remarks = added([*remarks, *tables.remarks])
    report.days, report.tables, report.files = days, rows.figures(), of_files(rows.account)
    report.breaches += [*_held_back(rows.held_back, dataset, layout.expected), *_remarked(remarks, rows.copies)]
    if not report.stops:
        report.breaches += [*_gaps(days), *_in_doubt(out, days, layout)]
    report.breaches += [
        Breach("error", "rows_unaccounted", where, "", lost, "this is no fault of the log: report it")
        for where, lost in rows.lost().items()
    ]


def _add_held_back(out: Path, layout: Reader, dataset: Dataset, report: LogReport) -> None:
    """Adds what was held back of a log that was refused in the end."""
    rows = LogRows(read_account(out))
    for held_back in _quarantined(out):
        rows.hold_back(held_back)
    report.files = of_files(rows.account)
    report.breaches += _held_back(rows.held_back, dataset, layout.expected)


def _quarantined(out: Path) -> Iterator[pa.Table]:
    path = out / "quarantine.parquet"
    if path.is_file():
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1_024):
                yield pa.Table.from_batches([batch])


def _held_back(found: HeldBack, dataset: Dataset, expected: frozenset[tuple[str, str]]) -> Iterator[Breach]:
    """One finding for each table, reason and file: a warning where published files are known for it."""
    for key in sorted(found.counts):
        table, reason, file = key
        column, remedy = REMEDIES.get(reason, ("", "correct these rows, or leave them out"))
        if reason == "outside_days":
            remedy = f"{remedy}; {_days_of(dataset)}"
        severity: Severity = "warning" if (table, reason) in expected else "error"
        if reason == AFTER and severity == "error":
            remedy = _TOO_LATE
        yield Breach(severity, reason, file, column, found.counts[key], remedy, found.examples[key], table)


def _days_of(dataset: Dataset) -> str:
    """Which days a dataset has, and who says so."""
    days = f"the log's days are {dataset.first_day} to {dataset.last_day}"
    return f"{days}: name others in {LOG_FILE} (first_day, last_day)" if dataset.declared else days


def _remarked(remarks: Iterable[Remark], copies: Mapping[str, int]) -> Iterator[Breach]:
    """What is published in spite of it, a warning for each file; `copies`: of article rows, by file, of which remarks
    tell once for each day that a row lies in."""
    said = {(r.table, r.reason, r.column, r.file): r for r in remarks}
    for file, count in copies.items():
        key = ("articles", COPIES, "", file)
        said[key] = replace(said.get(key, Remark(*key, count, ())), count=count)
    for r in (r for r in said.values() if r.count):
        kind = f"duplicate_{r.table}" if r.reason == COPIES else r.reason
        examples = []
        for source, value in r.examples:
            place = _ROW.match(source)
            examples.append({"file": r.file, "row": int(place[2]) if place else None, "value": short(value)})
        yield Breach("warning", kind, r.file, r.column, r.count, REMARKS[r.reason], examples, r.table)


def _in_doubt(out: Path, days: list[date], layout: Reader) -> list[Breach]:
    """Rows so far from all others, as this log goes, that their clock may be off: too few of a small log to tell."""
    rows = {day.toordinal(): count_rows(out / str(day), layout.derived_files) for day in days}
    found: dict[str, Breach] = {}
    for number, silence in remote_days(rows).items():
        day = date.fromordinal(number)
        for table, sources in _sources_of(out / str(day), layout):
            for source in sources:
                place = _ROW.match(source)
                file = place[1] if place else source
                said = {"file": file, "row": int(place[2]) if place else None}
                said["value"] = f"{day}, beyond {silence:,} days without a row"
                breach = found.setdefault(file, Breach("warning", REMOTE, file, "time", 0, _REMOTE, [], table))
                few = [*breach.examples, *([said] if len(breach.examples) < EXAMPLES else [])]
                found[file] = replace(breach, count=breach.count + 1, examples=few)
    return list(found.values())


def _sources_of(folder: Path, layout: Reader) -> Iterator[tuple[str, list[str]]]:
    """The table and sources of the events in each file of a raw day."""
    for path in Piece(folder, "", "events").paths(layout.derived_files):
        rows = frame(path, [SOURCE])[SOURCE].cast(str)
        yield RAW_TABLES.get(path.stem, path.stem), [str(source) for source in rows.to_list()]


def _gaps(days: list[date]) -> list[Breach]:
    """Days without a row between the first and the last."""
    known = set(days)
    span = [days[0] + timedelta(days=i) for i in range((days[-1] - days[0]).days + 1)]
    missing = [d for d in span if d not in known]
    if not missing:
        return []
    examples = [{"value": str(d)} for d in missing[:EXAMPLES]]
    return [Breach("warning", "day_without_rows", "", "time", len(missing), "is a delivery missing?", examples)]
