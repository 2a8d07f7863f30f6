"""The dataset's source files: where they are, what their bytes are, and the raw days that they make.

Belongs here: data roots, fingerprints, raw days of bundle, drops and corrections together. Does not belong here:
parsing (`ml.readers`), taking in (`resources.landing`), and which rows make a day (`resources.days`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from ml.datasets import Dataset
from ml.errors import DataError
from ml.readers import reader
from ml.readers.account import Account, read_account
from ml.readers.merge import QUARANTINE, listed_articles, merge_day
from ml.readers.strays import Stray
from resources.days import BUNDLE, Log, days_in
from resources.drops import LANDING, Drop
from resources.erasure.rows import left_out
from resources.landing import Landing
from resources.manifest import digest
from resources.places import REPOSITORY
from resources.splits import Splits

ORACLE = "oracle"


def sealed_folder(root: Path) -> Path | None:
    """The sealed `oracle/` folder of a simulated bundle at `root`, None where it has none. Nothing in it is opened."""
    path = root / ORACLE
    return path if path.is_dir() else None


def no_progress(_message: str) -> None:
    """For callers who do not watch."""


@dataclass(frozen=True, slots=True)
class RawDay:
    """The raw rows of one day: its parquet files, and sha256 by name of the source files that they come from. `merged`
    is the digest of the files where more than the bundle makes the day, else None. `erased`: rows of erased readers
    that were left out, by request. `accounts`: what became of the rows of each delivery whose rows without a day this
    day holds (the bundle's first day, the day of a drop or correction) when it was cut into days."""

    files: tuple[Path, ...]
    sources: Mapping[str, str]
    merged: str | None
    erased: Mapping[str, int]
    accounts: Mapping[str, Account] = field(default_factory=dict)

    @property
    def recipe(self) -> dict[str, object]:
        """What determines the day's bytes, beside the readers' source."""
        more: dict[str, object] = {"merged": self.merged} if self.merged else {}
        more |= {"erased": sorted(self.erased)} if self.erased else {}
        return {"sources": dict(self.sources), **more}


class DatasetSource:
    """`lake`: root of the lake, below which the caches and what was taken in lie. `roots`: data root by dataset name; a
    dataset without one is read from `data/<name>` in the repository. `watermark_hours`: for drops taken in from now on;
    default: the dataset's."""

    def __init__(
        self, lake: Path, roots: Mapping[str, Path] | None = None, watermark_hours: float | None = None
    ) -> None:
        self._lake = Path(lake).absolute()
        self._roots = dict(roots or {})
        self._watermark_hours = watermark_hours
        self._splits = Splits(self._lake)

    def root(self, dataset: Dataset) -> Path:
        """The folder that holds the dataset. Raises DataError when there is none."""
        path = self._roots.get(dataset.name, REPOSITORY / "data" / dataset.name)
        if not path.is_dir():
            raise DataError(
                f"no folder {path} for dataset {dataset.name}: give --data-root, or NEWSREC_DATA_ROOT with "
                f"NEWSREC_DATASET={dataset.name}"
            )
        return path.absolute()

    def fingerprint(self, dataset: Dataset) -> dict[str, str]:
        """sha256 by relative name of all source files: those of the bundle, of drops and of corrections. A file is
        hashed again only when its size or modification time has changed."""
        found = self._bundle(dataset)
        for delivery in self.landing(dataset).log().deliveries:
            found |= delivery.sources
        return found

    def _bundle(self, dataset: Dataset) -> dict[str, str]:
        """sha256 by relative name of the published files, which the landing folder is no part of."""
        root = self.root(dataset)
        files = reader(dataset.reader).sources(root)
        return self._splits.hashes(root, [p for p in files if p.relative_to(root).parts[0] != LANDING])

    def strays(self, dataset: Dataset) -> list[Stray]:
        """Entries of the data root that are not read."""
        return reader(dataset.reader).strays(self.root(dataset))

    def oracle(self, dataset: Dataset) -> Path | None:
        """The simulator's sealed `oracle/` folder, None where the source has none."""
        return sealed_folder(self.root(dataset))

    def oracle_digest(self, dataset: Dataset) -> str | None:
        """Digest of the oracle's files, None where there are none."""
        path = self.oracle(dataset)
        return (
            digest(self._splits.hashes(path, (p for p in path.rglob("*") if p.is_file()))) if path is not None else None
        )

    def landing(self, dataset: Dataset) -> Landing:
        """The drops and corrections of the dataset."""
        hours = dataset.watermark_hours if self._watermark_hours is None else self._watermark_hours
        return Landing(self._lake, self._splits, dataset, self.root(dataset), self._bundle(dataset), hours)

    def take(self, dataset: Dataset, who: str) -> list[Drop]:
        """Takes in the complete drops; all drops as they stand then. Until the next call, days do not change."""
        return self.landing(dataset).take(who)

    def days(self, dataset: Dataset, progress: Callable[[str], None] = no_progress) -> list[date]:
        """The days that hold data, in order. Raises DataError when there is none."""
        days = self._log(dataset, progress).days()
        if not days:
            raise DataError(f"{self.root(dataset)} holds no row of {dataset.first_day} to {dataset.last_day}")
        return days

    def split(self, dataset: Dataset, progress: Callable[[str], None] = no_progress) -> dict[date, Path]:
        """The folder of raw rows of each day: cut from the bundle in one pass, or merged where drops and corrections
        have a part in the day."""
        log = self._log(dataset, progress)
        return {day: self._folder(dataset, log, day) for day in log.days()}

    def raw_day(self, dataset: Dataset, day: date, progress: Callable[[str], None] = no_progress) -> RawDay:
        """One day's raw rows. Raises DataError for a day without data."""
        log = self._log(dataset, progress)
        days = log.days()
        if day not in days:
            covered = f"it covers {days[0]} to {days[-1]}" if days else "it has no day with data"
            raise DataError(
                f"{dataset.name}: the log has no data on {day}; {covered}: "
                "choose a day in that span or point the data root at a log that holds it"
            )
        pieces = log.pieces(day)
        deliveries, erased = {piece.delivery for piece in pieces}, left_out(piece.folder for piece in pieces)
        folder = self._folder(dataset, log, day)
        files = sorted(folder.glob("*.parquet"))
        accounts = {BUNDLE: read_account(log.bundle)} if day in days_in(log.bundle)[:1] else {}
        sources = self._bundle(dataset) if BUNDLE in deliveries else {}
        for delivery in log.deliveries:
            if delivery.label in deliveries:
                sources |= delivery.sources
                accounts |= {delivery.label: read_account(delivery.split)} if delivery.day == day else {}
        if deliveries == {BUNDLE}:
            if accounts:
                files += log.bundle.glob(QUARANTINE)
            return RawDay(tuple(files), sources, None, erased, accounts)
        return RawDay(tuple(files), sources, digest(self._splits.hashes(folder, files)), erased, accounts)

    def correct(self, dataset: Dataset, day: date, folder: Path, why: str, who: str) -> dict[str, object]:
        """Replaces `day` by the rows in `folder` (see `Landing.correct`); what the day was made of before."""
        before = self.raw_day(dataset, day)
        content = digest(sorted(self._splits.hashes(f.parent, [f])[f.name] for f in before.files))
        replaces: dict[str, object] = {"sources": dict(before.sources), "content": content}
        self.landing(dataset).correct(day, folder, why, who, replaces)
        return replaces

    def _log(self, dataset: Dataset, progress: Callable[[str], None]) -> Log:
        self._splits.cut(dataset, self.root(dataset), self._bundle(dataset), progress)
        return self.landing(dataset).log()

    def _folder(self, dataset: Dataset, log: Log, day: date) -> Path:
        """The folder of the day's raw rows, merged first where that has not been done."""
        pieces = log.pieces(day)
        if {piece.delivery for piece in pieces} == {BUNDLE}:
            return log.bundle / str(day)
        said = [[p.folder.parent.name, p.folder.name, p.delivery, p.files, p.reason, dict(p.names)] for p in pieces]
        listed = log.listed_in(day)
        what = {"pieces": said, "listed": [[x.folder.parent.name, x.folder.name, x.before] for x in listed]}
        layout = reader(dataset.reader)
        return self._splits.made(dataset, what, lambda out: merge_day(pieces, layout, listed_articles(listed), out))
