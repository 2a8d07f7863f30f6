"""Taking in: drops and corrections of one log, kept below the lake, named in an append-only ledger.

Belongs here: what becomes part of a log, when, by whom and why. Does not belong here: the landing folder
(`resources.drops`) and which rows count then (`resources.days`).

`<lake>/.landing/<dataset>/<log>/` holds `ledger.jsonl` and a copy of every file that was taken in, in the reader's
layout; `<log>.refused.json` beside it tells which drops were refused. It is no cache: corrections are
nowhere else. `<log>` stands for the data root's path; a root that was moved as it is takes its folder along. The
ledger's line is the act: killed before it, nothing was taken in.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from ml.datasets import Dataset
from ml.durable import sync_folder
from ml.errors import DataError, LakeError, UsageError
from ml.readers import reader
from ml.readers.merge import count_rows
from resources import ledger
from resources.days import Delivery, Log, days_in
from resources.drops import MARKER, Drop, copy_file, files_digest, find_drops, iso, rows_of, walk_files
from resources.erasure.book import Book
from resources.erasure.deliveries import FILES, HOME, Kept, kept_files
from resources.erasure.rows import strip_folder
from resources.lake import Lake
from resources.manifest import check_file_name, digest
from resources.refusals import Refusals
from resources.splits import KEY_DIGITS, Splits
from resources.staging import temporary_folder
from resources.untrusted import taking_apart

REFUSED = "refused.json"


def now_ms() -> int:
    """The present, in ms."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Staged:
    """Files copied into the reader's layout, checked and cut into days."""

    folder: Path
    files: Mapping[str, str]
    placed: Mapping[str, str]
    split: Path


class _NotStill(DataError):
    """A file that could not be copied as it was found: the next look may find it sound."""


class Landing:
    """The drops and corrections of the log of `dataset` below `root`; `bundle` are the sha256 of its published files
    by name."""

    def __init__(
        self,
        lake: Path,
        splits: Splits,
        dataset: Dataset,
        root: Path,
        bundle: Mapping[str, str],
        watermark_hours: float,
    ) -> None:
        self._lake = lake
        self._splits = splits
        self._dataset = dataset
        self._reader = reader(dataset.reader)
        self._root = root
        self._bundle = dict(bundle)
        self._watermark_hours = watermark_hours
        self._home = lake / HOME / dataset.name
        self._adopt()

    @property
    def _book(self) -> Path:
        return self._home / hashlib.sha256(os.fsencode(self._root.resolve())).hexdigest()[:KEY_DIGITS]

    @property
    def _refusals(self) -> Refusals:
        return Refusals(self._home / f"{self._book.name}.{REFUSED}", self._dataset)

    @property
    def ledger(self) -> Path:
        """The append-only record of all that was taken in."""
        return self._book / ledger.LEDGER

    def log(self) -> Log:
        """The log as it stands. Raises LakeError when the ledger or a kept file was changed."""
        bundle = self._splits.cut(self._dataset, self._root, self._bundle, lambda _: None)
        return Log(self._dataset.clock, bundle, self._deliveries())

    def records(self) -> list[dict[str, Any]]:
        """All lines of the ledger, oldest first."""
        wrong = ledger.problems(self.ledger)
        if wrong:
            raise LakeError(f"{wrong[0]}: restore it from a backup")
        return [entry.record for entry in ledger.entries(self.ledger)]

    def drops(self) -> list[Drop]:
        """Everything in the landing folder, and taken drops that have gone from it, by name. Files that were read to
        the end and refused before are malformed."""
        log = self.log()
        taken = {str(d.day): d for d in log.drops}
        found = find_drops(self._root, self._dataset, self._splits.hashes, now_ms())
        found = [self._known(d, taken[d.name], log) if d.name in taken else self._remembered(d) for d in found]
        gone = taken.keys() - {d.name for d in found}
        for name in gone:
            drop = Drop(name, self._root / "landing" / name, taken[name].day, "complete", files=taken[name].files)
            found.append(
                replace(self._known(drop, taken[name], log), why="its folder is gone, its copy is in the lake")
            )
        return sorted(found, key=lambda d: d.name)

    def _remembered(self, drop: Drop) -> Drop:
        return self._refusals.applied(drop) if drop.state == "complete" else drop

    def _known(self, drop: Drop, delivery: Delivery, log: Log) -> Drop:
        """A drop that was taken in before, beside what it was then."""
        rows = sum(count_rows(delivery.split / str(d), self._reader.derived_files) for d in delivery.days)
        as_taken = replace(
            drop, state="taken", why="", arrived=delivery.arrived, rows=rows, late=log.late_rows(delivery, self._reader)
        )
        if drop.state == "complete" and files_digest(drop.files) == files_digest(delivery.files):
            return as_taken
        if drop.state == "complete":
            return replace(as_taken, state="changed", why="taken in with other files: use `newsrec correct`")
        return replace(as_taken, state="changed", why=f"taken in before; now {drop.state}: {drop.why}")

    def judged(self) -> list[Drop]:
        """As `drops`, and complete ones are read to the end, as taking them in would; nothing is recorded."""
        found = []
        for drop in self.drops():
            if drop.state == "complete":
                try:
                    with self._staged(drop.path, drop.files, drop.day) as staged:
                        drop = replace(drop, rows=self._rows(staged))
                except DataError as error:
                    drop = drop.refused(_short(error, drop))
            found.append(drop)
        return found

    def take(self, who: str) -> list[Drop]:
        """Takes in every complete drop, by day; gives all drops as they stand then. One that cannot be read is
        malformed: it stays where it is, and the others go on; until it is delivered anew it is not read again."""
        refused: dict[str, Drop] = {}
        with self._lock():
            found, stays = self.drops(), []
            for drop in found:
                if drop.state == "complete":
                    try:
                        self._take(drop, who)
                    except DataError as error:
                        refused[drop.name] = drop.refused(_short(error, drop))
                        if not isinstance(error.__cause__, _NotStill):
                            stays.append(refused[drop.name])
            self._refusals.remember(stays, found)
            return [refused.get(d.name, d) for d in self.drops()]

    def _take(self, drop: Drop, who: str) -> None:
        assert drop.day is not None and drop.arrived is not None
        with self._staged(drop.path, drop.files, drop.day) as staged:
            self._keep(
                staged,
                {
                    "kind": "drop",
                    "day": str(drop.day),
                    "arrived": iso(drop.arrived),
                    "watermark_hours": self._watermark_hours,
                    "who": who,
                },
            )

    def check(self, folder: Path, day: date) -> int:
        """Reads the files of `folder` as a delivery of `day` to the end; their event rows. Raises DataError."""
        with self._staged(folder, self._hashes_of(folder), day) as staged:
            return self._rows(staged)

    def correct(self, day: date, folder: Path, why: str, who: str, replaces: Mapping[str, Any]) -> None:
        """Replaces the event rows of `day` by those in `folder`; article rows there replace those of the same id.

        `replaces` says what the day was made of before; it is recorded with who, when, why and the new files' digests.
        Raises UsageError without a reason, DataError for files that cannot be read or have no row of the day.
        """
        if not why.strip():
            raise UsageError("a correction needs a reason: give --why")
        with self._lock(), self._staged(folder, self._hashes_of(folder), day) as staged:
            self._keep(
                staged,
                {
                    "kind": "correction",
                    "day": str(day),
                    "arrived": iso(now_ms()),
                    "watermark_hours": self._watermark_hours,
                    "who": who,
                    "why": why.strip(),
                    "from": str(folder),
                    "replaces": dict(replaces),
                },
            )

    def _hashes_of(self, folder: Path) -> dict[str, str]:
        files = [p for p in walk_files(folder) if p != folder / MARKER]
        if not files:
            raise DataError(f"{folder} holds no file: choose the folder that holds the day's files")
        return self._splits.hashes(folder, files)

    def _keep(self, staged: Staged, record: Mapping[str, Any]) -> None:
        """The files first, then the line that makes them count. Files without a line lie beside a ledger: there an
        erasure finds them."""
        target = self._book / FILES / files_digest(staged.files)[:KEY_DIGITS]
        target.parent.mkdir(parents=True, exist_ok=True)
        if not self.ledger.exists():
            ledger.append(
                self.ledger, {"kind": "opened", "root": str(self._root.resolve()), "bundle": digest(self._bundle)}
            )
            sync_folder(self._book)
        if not target.exists():
            strip_folder(staged.folder, Book(self._lake, self._dataset.name).readers())
            for path in [*(p for p in staged.folder.rglob("*") if p.is_dir()), staged.folder]:
                sync_folder(path)
            staged.folder.rename(target)
            sync_folder(target.parent)
        files = {"files": dict(staged.files), "placed": dict(staged.placed), "rows": self._rows(staged)}
        files |= self._differing(staged, target)
        ledger.append(self.ledger, {**record, **files, "at": iso(now_ms())})

    def _differing(self, staged: Staged, kept: Path) -> dict[str, dict[str, str]]:
        """`kept`: sha256 by name of kept files that are not what was delivered, since erased readers were left out."""
        delivered = {staged.placed[name]: sha256 for name, sha256 in staged.files.items()}
        now = self._splits.hashes(kept, [kept / name for name in delivered])
        return {"kept": now} if now != delivered else {}

    def _rows(self, staged: Staged) -> int:
        days = days_in(staged.split)
        return sum(count_rows(staged.split / str(day), self._reader.derived_files) for day in days)

    @contextmanager
    def _staged(self, source: Path, files: Mapping[str, str], day: date | None) -> Iterator[Staged]:
        """Copies of the files in the reader's layout, cut into days. Raises DataError, with the source's own names,
        for what the reader does not read, for damaged files, and when no row is of `day`."""
        placed = {name: self._reader.place(name) for name in files}
        with temporary_folder(self._lake / ".staging") as folder:
            home = folder / "files"
            try:
                self._copy(source, files, placed, home)
                self._refuse_foreign(home)
                split = self._splits.cut(
                    self._dataset, home, {placed[n]: sha256 for n, sha256 in files.items()}, lambda _: None
                )
            except DataError as error:
                said = self._emptiness(home) or str(error)
                raise DataError(_in_terms_of(said, home, source, placed)) from error
            if not (split / str(day)).is_dir():
                days = days_in(split)
                raise DataError(f"{source} has no row of {day} (its rows are of {days[0]} to {days[-1]})")
            yield Staged(home, files, placed, split)

    def _copy(self, source: Path, files: Mapping[str, str], placed: Mapping[str, str], home: Path) -> None:
        taken: dict[str, str] = {}
        for name, sha256 in files.items():
            if placed[name] in taken:
                raise DataError(f"{source / name} is there twice, also as {taken[placed[name]]}: remove one")
            taken[placed[name]] = name
            try:
                copied = copy_file(source / name, home / placed[name])
            except DataError as error:
                raise _NotStill(str(error)) from error
            if copied != sha256:
                raise _NotStill(f"{source / name} changed while it was read: deliver it again")

    def _refuse_foreign(self, home: Path) -> None:
        """Files that the reader would pass over, those that only a data root has, and vectors, which come with the
        bundle."""
        of_the_root = {home / name for name in self._reader.of_the_root}
        read = set(self._reader.sources(home)) - set(self._reader.artifact_vectors(home).values()) - of_the_root
        foreign = [p for p in walk_files(home) if p not in read]
        if foreign:
            raise DataError(f"{foreign[0]} is no file that a drop of {self._dataset.name} can bring: remove it")

    def _emptiness(self, home: Path) -> str:
        """What is to be said of files that hold no event, where a reader would speak of a data root; else ""."""
        try:
            events = [p for p in self._reader.sources(home) if self._holds_events(home, p)]
            if any(rows_of(p) for p in events):
                return ""
        except DataError:
            return ""
        names = ", ".join(p.name for p in events)
        return f"{home} is empty (no row in {names}): deliver the day's rows; a day without any needs no drop"

    def _holds_events(self, home: Path, path: Path) -> bool:
        try:
            self._reader.require_events(home, [path])
        except DataError:
            return False
        return True

    def _deliveries(self) -> list[Delivery]:
        kinds = ("drop", "correction")
        records = self.records()
        with taking_apart(self.ledger, ledger.RESTORE):
            told = [(n, r, kept_files(records, r)) for n, r in enumerate(records) if r["kind"] in kinds]
            for _, record, kept in told:
                _require_form(record, kept)
        return [self._delivery(*each) for each in told]

    def _delivery(self, number: int, record: Mapping[str, Any], kept: Kept) -> Delivery:
        folder = self._book / FILES / kept.folder
        files = {record["placed"][name]: sha256 for name, sha256 in record["files"].items()} | dict(kept.digests)
        return Delivery(
            kind=record["kind"],
            number=number,
            day=date.fromisoformat(record["day"]),
            arrived=_ms(record["arrived"]),
            watermark_hours=float(record["watermark_hours"]),
            files=record["files"],
            placed=record["placed"],
            split=self._splits.made(
                self._dataset, {"files": files}, lambda out: self._cut_again(folder, files, out, kept)
            ),
        )

    def _cut_again(self, folder: Path, files: Mapping[str, str], out: Path, kept: Kept) -> None:
        """Cuts kept files anew (the split is only a cache), if they still are what the ledger says. Of a delivery that
        told of erased readers alone no day is left."""
        paths = [folder / name for name in files]
        if not all(p.is_file() for p in paths) or self._splits.hashes(folder, paths) != dict(files):
            raise LakeError(f"{folder} no longer holds what {self.ledger} says: restore it from a backup")
        try:
            self._reader.split(folder, self._dataset, out, None)
        except DataError:
            if not kept.digests or any(count_rows(p, ()) for p in out.iterdir() if p.is_dir()):
                raise

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time takes in."""
        self._home.mkdir(parents=True, exist_ok=True)
        changing = Lake(self._lake).changing(f"{HOME}/{self._dataset.name}")
        with changing, FileLock(self._home / "lock", is_singleton=True):
            yield

    def _adopt(self) -> None:
        """Moves the folder of a log with the same bundle whose data root is no longer where it was to this root."""
        if self.ledger.exists() or not self._home.is_dir():
            return
        with self._lock():
            for path in sorted(self._home.glob(f"*/{ledger.LEDGER}")):
                places = [e.record for e in ledger.entries(path) if e.record["kind"] in ("opened", "moved")]
                moved = places[0]["bundle"] == digest(self._bundle) and not Path(places[-1]["root"]).is_dir()
                if moved and not self._book.exists():
                    path.parent.rename(self._book)
                    ledger.append(
                        self.ledger, {"kind": "moved", "root": str(self._root.resolve()), "at": iso(now_ms())}
                    )


def _require_form(record: Mapping[str, Any], kept: Kept) -> None:
    """Raises ValueError for a line about a delivery that would lead out of the book's folder, or says no day or
    time."""
    for name in (kept.folder, *record["files"], *record["placed"].values(), *kept.digests):
        check_file_name(name)
    if record["files"].keys() - record["placed"].keys():
        raise ValueError("a file is placed nowhere")
    date.fromisoformat(record["day"])
    _ms(record["arrived"])
    float(record["watermark_hours"])


def _short(error: DataError, drop: Drop) -> str:
    """The error's text without the path that the drop's name says already."""
    return str(error).replace(f"{drop.path}/", "").replace(f"{drop.path} ", "")


def _in_terms_of(message: str, home: Path, source: Path, placed: Mapping[str, str]) -> str:
    """A reader's message about the copies, told of the delivered files."""
    for name, place in placed.items():
        message = message.replace(str(home / place), str(source / name))
    return message.replace(str(home), str(source))


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
