"""A unit of the lake: what lies in its folder, and its head, which names what the bucket has of it.

Belongs here: names, files with their digests, the head's form. Does not belong here: moving them
(`resources.bucket.mirror`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from ml.errors import LakeError, UsageError
from resources.bucket.store import BucketError
from resources.lineage.archive import partitions
from resources.manifest import MANIFEST, canonical, check_file_name
from resources.ref import Ref
from resources.version import digest_once, read_manifest

FORMAT = 1
HEADS, OBJECTS = "heads/", "objects/"
BOOKS = (".erasures", ".landing/*", ".logs", ".gc", "*/.champion")
STAYS_HERE = {"lock", "key", "key.new"}
"""Files that no other machine gets: locks, and the key of the list of erased readers, which is kept apart from it."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"\.?[A-Za-z0-9_][A-Za-z0-9_.-]*")
Contents = dict[str, tuple[str, int]]
"""sha256 and bytes by path relative to a unit's folder."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a unit: the object that holds its bytes, their sha256 and number."""

    key: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Head:
    """All files of a unit by relative path. `token` is that of the change that put it, `etag` is "" where there is
    none in the bucket."""

    unit: str
    token: str = ""
    files: Mapping[str, Entry] = field(default_factory=dict)
    etag: str = ""

    @property
    def key(self) -> str:
        """The head's own key."""
        return f"{HEADS}{self.unit}.json"

    @property
    def keys(self) -> set[str]:
        """Keys of all objects that it names."""
        return {entry.key for entry in self.files.values()}

    def data(self) -> bytes:
        """Canonical JSON."""
        files = {p: {"key": e.key, "sha256": e.sha256, "bytes": e.bytes} for p, e in self.files.items()}
        return canonical({"format": FORMAT, "unit": self.unit, "token": self.token, "files": files})


def read_head(unit: str, data: bytes, etag: str) -> Head:
    """The head in `data`. Raises BucketError for anything that is not one of this unit, and for paths or keys that lead
    out of it."""
    try:
        value = json.loads(data)
        files = {str(p): Entry(str(e["key"]), str(e["sha256"]), int(e["bytes"])) for p, e in value["files"].items()}
        sound = value["format"] == FORMAT and value["unit"] == unit and is_unit(unit)
        for path, entry in files.items():
            sound = sound and _inside(PurePosixPath(path)) and not (is_book(unit) and path in STAYS_HERE)
            sound = sound and entry.key.startswith(f"{OBJECTS}{unit}/") and bool(_SHA256.fullmatch(entry.sha256))
        token = str(value["token"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise BucketError(f"{HEADS}{unit}.json in the bucket is damaged: restore it from a backup of the bucket")
    return Head(unit, token, files, etag)


def units(lake: Path) -> Iterator[str]:
    """Every unit of a lake that holds something."""
    yield from (str(ref) for ref in partitions(lake))
    for pattern in BOOKS:
        for path in sorted(lake.glob(pattern)):
            name = path.relative_to(lake).as_posix()
            if names(lake, name):
                yield name


def is_book(unit: str) -> bool:
    """Whether a unit is a book of the lake, else it is a partition."""
    return unit.startswith(".") or "/." in unit


def names(lake: Path, unit: str) -> set[str]:
    """What can come and go in a unit: the files of a book; versions and files beside them of a partition."""
    folder = lake / unit
    if not folder.is_dir():
        return set()
    found = folder.rglob("*") if is_book(unit) else folder.iterdir()
    return {
        p.relative_to(folder).as_posix()
        for p in found
        if not p.name.startswith(".") and p.name not in STAYS_HERE and not (is_book(unit) and p.is_dir())
    }


def belongs(path: str, name: str) -> bool:
    """Whether a file of a unit is, or lies in, what is called `name`."""
    return path == name or path.startswith(f"{name}/")


def contents(lake: Path, unit: str) -> Contents:
    """The unit's files. Those of a version are what its manifest says; a version without a sound one is left out."""
    found: Contents = {}
    for name in names(lake, unit):
        path = lake / unit / name
        if path.is_file():
            found[name] = (digest_once(path), path.stat().st_size)
        else:
            found |= {f"{name}/{inner}": entry for inner, entry in _version(path).items()}
    return found


def _version(folder: Path) -> Contents:
    try:
        manifest, digest = read_manifest(folder)
        listed = {check_file_name(f["name"]): (str(f["sha256"]), int(f["bytes"])) for f in manifest["files"]}
    except LakeError:
        return {}
    return {**listed, MANIFEST: (digest, (folder / MANIFEST).stat().st_size)}


def is_unit(name: str) -> bool:
    """Whether something that is given and taken is called so: a partition, or one of the books. Never what leads
    out."""
    parts = name.split("/")
    if not all(_PART.fullmatch(part) for part in parts):
        return False
    if is_book(name):
        return any(len(parts) == book.count("/") + 1 and fnmatchcase(name, book) for book in BOOKS)
    try:
        return str(Ref.parse(name)) == name
    except UsageError:
        return False


def _inside(path: PurePosixPath) -> bool:
    """Whether a relative path stays inside, and out of hidden places."""
    hidden = any(part.startswith(".") for part in path.parts)
    return bool(path.parts) and not path.is_absolute() and not hidden and "\0" not in str(path)
