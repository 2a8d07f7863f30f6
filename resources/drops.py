"""What lies in a landing folder: drops, their completion marker, and whether a drop is what its marker says.

Belongs here: `landing/<day>/` on disk, read and written. Does not belong here: what was taken in from it
(`resources.landing`) and which rows count (`resources.days`).
"""

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from ml.datasets import Dataset
from ml.durable import sync_folder, write_flushed
from ml.errors import DataError, LakeError, UsageError
from ml.strangers import one_line
from resources.manifest import DIGEST, canonical, check_file_name, digest
from resources.staging import temporary_folder

LANDING = "landing"
MARKER = "_COMPLETE"
MARKER_BYTES = 1 << 20
FIRST_YEAR, LAST_YEAR = 1900, 2099
"""Arrivals that a marker can tell of; also where the file's own time stands in."""

_BLOCK = 1 << 20
State = Literal["incomplete", "malformed", "complete", "changed", "taken"]
Hashes = Callable[[Path, list[Path]], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Drop:
    """A folder in `landing/`. `state`: *incomplete* has no marker yet; *malformed* is refused for the reason `why`;
    *complete* can be taken in; *taken* was; *changed* was taken in with other files than it holds now. `files`: sha256
    by name; `arrived` in ms since the epoch; `rows`, `late`: event rows of a taken drop, and those of closed days."""

    name: str
    path: Path
    day: date | None
    state: State
    why: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    arrived: int | None = None
    rows: int | None = None
    late: int | None = None

    def refused(self, why: str) -> "Drop":
        """The same drop, malformed."""
        return replace(self, state="malformed", why=why)

    @property
    def line(self) -> str:
        """What is to be said of it in one line."""
        counts = "" if self.rows is None else f", {self.rows:,} rows, {self.late or 0:,} of them late"
        return f"{LANDING}/{self.name}: {self.state}{counts}{f': {self.why}' if self.why else ''}"


def find_drops(root: Path, dataset: Dataset, hashes: Hashes, now_ms: int) -> list[Drop]:
    """All drops below `root`, by name, each incomplete, malformed or complete. Names that start with a dot are the
    writer's own and left out. Raises DataError when the landing folder itself leads elsewhere."""
    from ml.readers.files import inside

    landing = root / LANDING
    if not landing.exists() and not landing.is_symlink():
        return []
    if landing.is_symlink() or not inside(root, landing).is_dir():
        raise DataError(f"{landing} is no folder of its own: replace the link or file by a folder")
    paths = sorted(p for p in landing.iterdir() if not p.name.startswith("."))
    return [_judge(Drop(shown(p.name), p, None, "complete"), dataset, hashes, now_ms) for p in paths]


def _judge(drop: Drop, dataset: Dataset, hashes: Hashes, now_ms: int) -> Drop:
    try:
        day = date.fromisoformat(drop.name)
    except ValueError:
        return drop.refused("is not named YYYY-MM-DD: rename it, or move it away")
    drop = replace(drop, day=day)
    if str(day) != drop.name or not dataset.first_day <= day <= dataset.last_day:
        span = f"{dataset.first_day} to {dataset.last_day}"
        remedy = "name a later last_day in its log.toml, or move it away" if dataset.declared else "move it away"
        return drop.refused(f"is no day of {dataset.name}, whose days are {span}: {remedy}")
    try:
        files = list(walk_files(drop.path))
        marker = drop.path / MARKER
        if marker not in files:
            return replace(drop, state="incomplete", why=f"no {MARKER} yet, left alone")
        return _read(drop, marker, [p for p in files if p != marker], hashes, now_ms)
    except DataError as error:
        return drop.refused(str(error).replace(f"{drop.path}/", ""))
    except OSError as error:
        where = shown(str(error.filename or drop.path)).replace(f"{drop.path}/", "")
        return drop.refused(
            f"{where} cannot be read ({error.strerror or error}): make it readable, or deliver it again"
        )


def _read(drop: Drop, marker: Path, files: list[Path], hashes: Hashes, now_ms: int) -> Drop:
    said = read_marker(marker)
    if not files:
        raise DataError("holds no file beside the marker: deliver the day's files")
    found = hashes(drop.path, files)
    if said.files is not None:
        _compare(drop.path, said.files, found)
    arrived = said.arrived if said.arrived is not None else _modified(marker)
    if arrived > now_ms:
        raise DataError(f"{MARKER} says that it arrived at {iso(arrived)}, which is yet to come: set the clock right")
    return replace(drop, files=found, arrived=arrived)


def _modified(marker: Path) -> int:
    """When the marker was written, in ms. Raises DataError for a year that `iso` cannot say."""
    seconds = marker.stat().st_mtime_ns // 1_000_000_000
    try:
        year = datetime.fromtimestamp(seconds, UTC).year
    except (ValueError, OverflowError, OSError):
        year = 0
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise DataError(f"{MARKER} was not written in the years {FIRST_YEAR} to {LAST_YEAR}: write it anew")
    return marker.stat().st_mtime_ns // 1_000_000


def _compare(folder: Path, said: Mapping[str, Mapping[str, Any]], found: Mapping[str, str]) -> None:
    """Raises DataError for the first difference between the marker and the files."""
    for name in sorted(said.keys() | found.keys()):
        if name not in found:
            raise DataError(f"{name} is named by {MARKER} but is not there: deliver it")
        if name not in said:
            raise DataError(f"{name} is not named by {MARKER}: remove it, or write the marker anew")
        if said[name].get("sha256", found[name]).lower() != found[name]:
            raise DataError(f"{name} has other bytes than {MARKER} says: deliver it again")
        rows = said[name].get("rows")
        if rows is not None and rows != rows_of(folder / name):
            raise DataError(f"{name} has {rows_of(folder / name)} rows, {MARKER} says {rows}: write the marker anew")


@dataclass(frozen=True, slots=True)
class Marker:
    """What a completion marker says: files ({sha256, rows}, either may lack, by name; None: nothing said) and the time
    of arrival."""

    files: Mapping[str, Mapping[str, Any]] | None
    arrived: int | None


def read_marker(path: Path) -> Marker:
    """The marker; an empty one says nothing. Raises DataError for anything that is no marker."""
    if path.stat().st_size > MARKER_BYTES:
        raise DataError(f"{MARKER} is larger than {MARKER_BYTES} bytes: it is no marker")
    data = path.read_bytes()
    if not data.strip():
        return Marker(None, None)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _not_understood("", "it is no JSON") from error
    _require("", value, _is_object, "it is no JSON object")
    files, arrived = value.get("files"), value.get("arrived")
    if files is not None:
        _require("files", files, _is_object, "it should hold an object by file name")
        for name, entry in files.items():
            _require_entry(name, entry)
    return Marker(files, None if arrived is None else _instant(arrived))


def _require_entry(name: str, entry: Any) -> None:
    """Raises DataError where the marker says of a file what it cannot say."""
    try:
        check_file_name(name)
    except LakeError as error:
        raise _not_understood(f"files.{one_line(name, 120)}", "it is no file name for the lake") from error
    _require(f"files.{name}", entry, _is_object, 'it should be an object, as {"sha256": HEX, "rows": N}')
    sha256, rows = entry.get("sha256", "0" * 64), entry.get("rows", 0)
    hexadecimal = isinstance(sha256, str) and DIGEST.fullmatch(sha256.lower()) is not None
    _require(f"files.{name}.sha256", sha256, lambda _: hexadecimal, "it should be 64 hexadecimal digits")
    _require(f"files.{name}.rows", rows, lambda n: type(n) is int and n >= 0, "it should be a whole number from 0 up")


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _require(key: str, value: Any, fits: Callable[[Any], bool], what: str) -> None:
    if not fits(value):
        raise _not_understood(key, what if not key else f"{what}, not {one_line(repr(value), 80)}")


def _not_understood(key: str, what: str) -> DataError:
    """The error about a marker; `key` is the one that is wrong, empty for the whole."""
    remedy = "correct it, or leave that key out" if key else f"leave {MARKER} empty, or see docs/landing.md"
    return DataError(f"{MARKER} cannot be understood{key and f', key {key}'}: {what}: {remedy}")


def _instant(text: object) -> int:
    """A time of arrival in ms. Raises DataError for what is none."""
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        time = None
    shown_text = one_line(repr(text), 80)
    if time is None:
        raise _not_understood("arrived", f"{shown_text} is no time as 2023-05-22T09:00:00+02:00")
    if time.tzinfo is None:
        raise _not_understood("arrived", f"{shown_text} has no time zone, as in 2023-05-22T09:00:00+02:00")
    if not FIRST_YEAR <= time.year <= LAST_YEAR:
        raise _not_understood("arrived", f"{shown_text} is not in the years {FIRST_YEAR} to {LAST_YEAR}")
    return int(time.timestamp() * 1000)


def walk_files(folder: Path) -> Iterator[Path]:
    """All files below `folder`, by name. Raises DataError for links, for what is neither file nor folder, and for names
    that the lake cannot hold."""
    if folder.is_symlink() or not folder.is_dir():
        raise DataError("is a link or no folder: deliver a folder of files")
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            raise DataError(f"{shown(str(path))} is a link: deliver the file itself")
        if path.is_dir():
            yield from walk_files(path)
        elif path.is_file():
            try:
                check_file_name(path.name)
            except LakeError as error:
                raise DataError(str(error)) from error
            yield path
        else:
            raise DataError(f"{shown(str(path))} is neither a file nor a folder: remove it")


def rows_of(path: Path) -> int:
    """Rows of a parquet file, lines after the header of a CSV file, lines of any other; blank lines are none. Raises
    DataError when the file is damaged or expands to more than a hundred times its size."""
    from ml.readers.files import DAMAGE, unreadable

    try:
        if path.suffix == ".parquet":
            return int(pq.read_metadata(path).num_rows)
        lines = _lines_of(path)
        return lines - 1 if ".csv" in path.suffixes and lines else lines
    except DAMAGE as error:
        raise unreadable(path, error) from error


def _lines_of(path: Path) -> int:
    """Lines with anything before their line break, read a block at a time, however long they are."""
    from ml.readers.files import Expands
    from ml.readers.text import most_decoded

    most, decoded, lines, within = most_decoded(path), 0, 0, False
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            decoded += len(block)
            if decoded > most:
                raise Expands(most)
            first, *others = block.split(b"\n")
            within = within or bool(first.strip(b"\r"))
            for line in others:
                lines += within
                within = bool(line.strip(b"\r"))
    return lines + within


def copy_file(source: Path, target: Path) -> str:
    """Copies the bytes of a file that is no link, flushed to disk; their sha256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror}): deliver it again") from error
    hashed = hashlib.sha256()
    with os.fdopen(handle, "rb") as reading, target.open("wb") as writing:
        while block := reading.read(1 << 20):
            hashed.update(block)
            writing.write(block)
        writing.flush()
        os.fsync(writing.fileno())
    return hashed.hexdigest()


def land(source: Path, root: Path, day: date, now_ms: int) -> Path:
    """Makes the files of the folder `source` the complete drop `landing/<day>/` below `root`, all or nothing.

    The drop appears under its name when all files and the marker are on disk; where `source` is that folder already,
    only the marker is written. The same files landed again change nothing. Raises UsageError where the drop is there
    with other files, DataError for links and the like.
    """
    files = [p for p in walk_files(source) if p.name != MARKER]
    if not files:
        raise DataError(f"{source} holds no file: choose the folder that holds the day's files")
    target = root / LANDING / str(day)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.parent.is_symlink() or target.is_symlink():
        raise DataError(f"{target} is a link: replace it by a folder")
    here = target.is_dir() and target.samefile(source)
    with temporary_folder(target.parent / ".staging") as folder:
        copies = folder / str(day)
        copies.mkdir()
        entries = {}
        for path in files:
            name = path.relative_to(source).as_posix()
            sha256 = _sha256(path) if here else copy_file(path, copies / name)
            entries[name] = {"sha256": sha256, "rows": rows_of(path), "bytes": path.stat().st_size}
        if (target / MARKER).exists():
            return _landed_again(target, entries)
        marker = copies / MARKER
        write_flushed(marker, canonical({"day": str(day), "arrived": iso(now_ms), "files": entries}) + b"\n")
        if here:
            marker.replace(target / MARKER)
            sync_folder(target)
        else:
            for path in copies.rglob("*"):
                if path.is_dir():
                    sync_folder(path)
            sync_folder(copies)
            _move(copies, target)
        sync_folder(target.parent)
    return target


def _landed_again(target: Path, entries: Mapping[str, Mapping[str, Any]]) -> Path:
    there = {p.relative_to(target).as_posix(): _sha256(p) for p in walk_files(target) if p.name != MARKER}
    if there != {name: entry["sha256"] for name, entry in entries.items()}:
        raise UsageError(
            f"{target} is a complete drop with other files: `newsrec correct` replaces a day that was taken in; remove "
            "the drop if it was not"
        )
    return target


def _move(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError as error:
        raise UsageError(
            f"{target} is there without {MARKER}: complete it with `newsrec land {target}`, or remove it"
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def shown(name: str) -> str:
    """A file name as it can be printed: bytes that are no UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def files_digest(files: Mapping[str, str]) -> str:
    """What identifies the files of a drop: sha256 over names and digests."""
    return digest(dict(files))


def iso(time_ms: int) -> str:
    """A time as ISO text in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
