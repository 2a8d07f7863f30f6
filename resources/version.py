"""One published version: a folder of read-only files with their manifest.

Belongs here: reading a version and checking it against its manifest. Does not belong here: which version is
current and how one comes to be (`resources.lake`).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from ml.errors import DamagedLake, LakeError
from ml.strangers import FORM, MIB, one_line, printable
from resources.manifest import FORMAT, MANIFEST, VERSION, canonical, content_digest, file_digest, shape_fault
from resources.ref import Ref
from resources.untrusted import record_bytes, record_object, require_inside, taking_apart

MANIFEST_BYTES = 16 * MIB
"""Largest manifest that is read: an input takes some 130 bytes."""

ANEW = "remove this version and its pointer, and materialise the partition again"


@dataclass(frozen=True, slots=True)
class Version:
    """`manifest_digest` identifies the version and all that it came from; `content` its bytes alone. `recipe_key` and
    `ledger_head` are those of the publication that last made it current."""

    ref: Ref
    path: Path
    manifest: dict[str, Any] = field(repr=False)
    manifest_digest: str
    recipe_key: str
    ledger_head: str

    @property
    def content(self) -> str:
        """sha256 hex over file names and file digests."""
        return str(self.manifest["content"])

    @property
    def rows(self) -> dict[str, int] | None:
        """Rows by file, where the stage counted them."""
        return self.manifest["rows"]

    def file(self, name: str) -> Path:
        """Path of the file `name`. Raises LakeError when the version has none of that name."""
        names = [f["name"] for f in self.manifest["files"]]
        if name not in names:
            raise LakeError(f"{self.ref} has no file {name!r}; it has {', '.join(names) or 'no files'}")
        return self.path / name

    def lost(self) -> list[str]:
        """Names of files that are gone or have another size than was published; their bytes are not read."""
        return [f["name"] for f in self.manifest["files"] if _size(self.path / f["name"]) != f["bytes"]]

    def files(self, glob: str = "*") -> list[Path]:
        """Paths of the files whose name matches `glob`, sorted by name."""
        return [self.path / f["name"] for f in self.manifest["files"] if fnmatchcase(f["name"], glob)]


def require_sound(version: Version) -> None:
    """Raises LakeError where a byte of the version differs from what was published: an input that changed makes no
    numbers."""
    for entry in version.manifest["files"]:
        path = version.path / entry["name"]
        try:
            found = digest_once(path)
        except OSError as error:
            raise LakeError(f"{version.ref}: {path} cannot be read ({error.strerror}): run again") from error
        if found != entry["sha256"]:
            raise LakeError(
                f"{version.ref}: the bytes of {path} differ from what was published: remove that file and run again, "
                f"which makes it anew"
            )


def digest_once(path: Path) -> str:
    """sha256 hex of a file's bytes, read once a process for as long as its size, times and place stay."""
    facts = path.stat()
    return _digest_once(path, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)


@lru_cache(maxsize=65_536)
def _digest_once(path: Path, *_: int) -> str:
    return file_digest(path)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """The manifest in `folder` and the sha256 hex of its bytes. Raises LakeError when it is missing or damaged."""
    path = folder / MANIFEST
    data = record_bytes(path, ANEW, MANIFEST_BYTES)
    try:
        manifest = json.loads(data)
        sound = manifest["format"] == FORMAT and canonical(manifest) == data
        sound = sound and manifest["content"] == content_digest(manifest["files"])
    except (*FORM, LakeError) as error:
        raise DamagedLake(f"{printable(path)} is damaged ({one_line(error)}): {ANEW}") from error
    fault = shape_fault(manifest) if sound else "it was changed after it was written"
    if fault:
        raise DamagedLake(f"{printable(path)}: {fault}: {ANEW}")
    return manifest, hashlib.sha256(data).hexdigest()


def read_version(ref: Ref, folder: Path, recipe_key: str, ledger_head: str) -> Version:
    """The version in `folder`, which must be one of `ref`. Raises DamagedLake where manifest or files are not in it."""
    manifest, digest = read_manifest(folder)
    if manifest["ref"] != str(ref) or manifest["content"][: len(folder.name)] != folder.name:
        raise DamagedLake(f"{printable(folder / MANIFEST)} is that of another version: {ANEW}")
    away = linked(folder, manifest)
    if away:
        raise DamagedLake(f"{printable(folder / away[0])} is a link or lies behind one: {ANEW}")
    return Version(ref, folder, manifest, digest, recipe_key, ledger_head)


@dataclass(frozen=True, slots=True)
class Pointer:
    """What `current.json` says: folder, manifest digest, recipe key and ledger line of the current version."""

    version: str
    manifest: str
    recipe_key: str
    ledger: str


def read_pointer(root: Path, path: Path, remedy: str) -> Pointer:
    """The pointer at `path`. Raises DamagedLake where it is damaged, names what is no version, or where it or the
    version lie outside the lake at `root`."""
    found = record_object(path, remedy)
    with taking_apart(path, remedy):
        pointer = Pointer(**found)
        digests = (pointer.manifest, pointer.recipe_key, pointer.ledger)
        if not VERSION.fullmatch(pointer.version) or not all(isinstance(d, str) for d in digests):
            raise ValueError("it names no version")
    require_inside(root, path.parent / pointer.version)
    return pointer


def linked(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Names of the files of a version that are links, or lie in a folder that is one."""
    return [f["name"] for f in manifest["files"] if any(p.is_symlink() for p in _way(folder, f["name"]))]


def _way(folder: Path, name: str) -> Iterator[Path]:
    """The file `name` and the folders between."""
    for part in name.split("/"):
        folder = folder / part
        yield folder


def verify(version: Version) -> list[str]:
    """What differs between the files on disk and the manifest, one line each; [] when all bytes are as published."""
    try:
        _, found_digest = read_manifest(version.path)
    except LakeError as error:
        return [str(error)]
    found = [f"{version.ref}: the manifest was replaced"] if found_digest != version.manifest_digest else []
    listed = {f["name"]: f for f in version.manifest["files"]}
    present = {p.relative_to(version.path).as_posix(): p for p in version.path.rglob("*") if not p.is_dir()}
    found += [f"{version.ref}: {name} is missing" for name in sorted(listed.keys() - present.keys())]
    found += [f"{version.ref}: {name} is not in the manifest" for name in sorted(present.keys() - {*listed, MANIFEST})]
    for name in sorted(listed.keys() & present.keys()):
        if (
            present[name].stat().st_size != listed[name]["bytes"]
            or file_digest(present[name]) != listed[name]["sha256"]
        ):
            found.append(f"{version.ref}: the bytes of {name} differ from its manifest")
    return found
