"""Looking after a bucket: what nobody names, and damage on either side.

Belongs here: sweeping and repairing. Does not belong here: the daily giving and taking (`resources.bucket.mirror`).
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from resources.bucket.head import OBJECTS, Entry
from resources.bucket.mirror import Mirror
from resources.bucket.store import BucketAway, BucketError
from resources.manifest import file_digest
from resources.staging import temporary_folder


def sweep(mirror: Mirror, folders: Iterable[str] = ("",), age: timedelta = timedelta(days=1)) -> int:
    """Remove objects of these folders of the lake (names that end in a slash; "": all) that no head names and that are
    older than `age`, and the parts of uploads that did not end; how many objects. Processes killed on machines that
    never came back left them. With a short age no other machine may be publishing. The lake's place for moving versions
    must be held."""
    limit, swept = datetime.now(UTC) - age, 0
    for folder in folders:
        vain = {key for key, changed in mirror.store.ages(OBJECTS + folder).items() if changed <= limit}
        mirror.catch_up()
        for unit in mirror.memory.units():
            vain -= mirror.memory.seen(unit).keys
        mirror.store.abort_uploads(OBJECTS + folder, limit)
        mirror.store.delete(vain)
        swept += len(vain)
    return swept


def repair(mirror: Mirror) -> tuple[list[str], list[str]]:
    """Compare every byte of folder and bucket with its sha256 and put the sound one in the place of a damaged one: what
    was repaired, and what is damaged in both, one line each. The lake's place for moving versions must be held."""
    repaired: list[str] = []
    lost: list[str] = []
    for unit in mirror.memory.units():
        folder = mirror.root / unit
        files = mirror.memory.seen(unit).files
        here = {path for path, entry in files.items() if not _sound(folder / path, entry)}
        with temporary_folder(mirror.root / ".staging") as scratch:
            there = {path for path, entry in files.items() if not _fetched(mirror, entry, scratch / "object")}
        lost += [f"{unit}/{path}: damaged in the folder and in the bucket" for path in sorted(here & there)]
        if here - there:
            _take(mirror, unit, here - there)
            repaired += [f"{unit}/{path}: taken from the bucket" for path in sorted(here - there)]
        if there - here:
            with mirror.changing(unit, again=there - here):
                pass
            repaired += [f"{unit}/{path}: given to the bucket again" for path in sorted(there - here)]
    return repaired, lost


def _take(mirror: Mirror, unit: str, paths: set[str]) -> None:
    mirror.take(unit, lambda path, _: path in paths)


def _sound(path: Path, entry: Entry) -> bool:
    return path.is_file() and path.stat().st_size == entry.bytes and file_digest(path) == entry.sha256


def _fetched(mirror: Mirror, entry: Entry, path: Path) -> bool:
    try:
        mirror.fetch(entry, path)
    except BucketAway:
        raise
    except BucketError:
        return False
    return True
