"""Drops and corrections that were taken in, without a reader's rows.

Belongs here: the copies below `<lake>/.landing`. Does not belong here: taking in (`resources.landing`); drops in the
data root, which are not the lake's.

What was delivered keeps its digests in the landing ledger. The files without the reader lie in a folder of their own
from then on; a line *erased* names it, with the digests of what it holds. That line is the act: before it the old files
count, after it the new ones, and folders that no line names are removed.
"""

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from ml.durable import sync_folder
from resources import ledger
from resources.drops import files_digest
from resources.erasure import rows
from resources.erasure.book import Readers, Request
from resources.lake import Lake
from resources.manifest import file_digest
from resources.splits import KEY_DIGITS
from resources.staging import temporary_folder

HOME, FILES = ".landing", "files"
ERASED = "erased"


@dataclass(frozen=True, slots=True)
class Kept:
    """Where the files of a delivery lie, and the sha256 of those that differ from what was delivered."""

    folder: str
    digests: Mapping[str, str] = field(default_factory=dict)


def kept_files(records: Sequence[Mapping[str, Any]], delivery: Mapping[str, Any]) -> Kept:
    """Where the files of a delivery (its record) lie now, by the landing ledger's records."""
    found = Kept(files_digest(delivery["files"])[:KEY_DIGITS], delivery.get("kept", {}))
    for record in records:
        if record["kind"] == ERASED and record["was"] == found.folder:
            found = Kept(record["folder"], record["files"])
    return found


def holding(lake: Path, dataset: str, readers: Readers) -> Counter[str]:
    """Rows of the readers in kept files, by path relative to the lake."""
    found: Counter[str] = Counter()
    for path in sorted((lake / HOME / dataset).glob(f"*/{FILES}/**/*")):
        if path.is_file() and (total := rows.find(path, readers).total):
            found[path.relative_to(lake).as_posix()] = total
    return found


def erase(lake: Path, dataset: str, readers: Readers, request: Request, at: str) -> int:
    """Rewrite every kept file that holds the readers' rows, and remove what no line names; the rows that went."""
    home, went = lake / HOME / dataset, 0
    if not home.is_dir():
        return 0
    with Lake(lake).changing(f"{HOME}/{dataset}"), FileLock(home / "lock", is_singleton=True):
        for book in sorted(p.parent for p in home.glob(f"*/{ledger.LEDGER}")):
            for folder in _current(book):
                went += _rewrite(lake, book, folder, readers, request, at)
            _remove_unnamed(lake, book)
    return went


def _current(book: Path) -> list[Path]:
    records = [e.record for e in ledger.entries(book / ledger.LEDGER)]
    names = [kept_files(records, r).folder for r in records if r["kind"] in ("drop", "correction")]
    return [book / FILES / name for name in dict.fromkeys(names)]


def _rewrite(lake: Path, book: Path, folder: Path, readers: Readers, request: Request, at: str) -> int:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if not any(rows.find(p, readers).total for p in files):
        return 0
    went, digests = 0, {}
    target = folder.with_name(f"{folder.name.split('.')[0]}.{request.name}")
    with temporary_folder(lake / ".staging") as staged:
        for path in files:
            fresh = staged / "files" / path.relative_to(folder)
            fresh.parent.mkdir(parents=True, exist_ok=True)
            removed = rows.strip(path, readers, fresh)
            went += removed.total
            if not removed.total:
                shutil.copyfile(path, fresh)
            with fresh.open("rb") as stream:
                os.fsync(stream.fileno())
            sync_folder(fresh.parent)
            digests[path.relative_to(folder).as_posix()] = file_digest(fresh)
        if target.exists():
            target.rename(staged / "before")  # a killed attempt left it, and no line names it
        (staged / "files").rename(target)
        sync_folder(target.parent)
    line = {"kind": ERASED, "request": request.name, "was": folder.name, "folder": target.name, "files": digests}
    ledger.append(book / ledger.LEDGER, {**line, "at": at})
    return went


def _remove_unnamed(lake: Path, book: Path) -> None:
    named = {p.name for p in _current(book)}
    with temporary_folder(lake / ".staging") as trash:
        for path in sorted((book / FILES).glob("*")):
            if path.name not in named:
                path.rename(trash / path.name)
