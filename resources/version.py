"""One published version: a folder of read-only files with their manifest.

Belongs here: reading a version and checking it against its manifest. Does not belong here: which version is
current and how one comes to be (`resources.lake`).
"""

import hashlib
import json
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from ml.errors import LakeError
from resources.manifest import FORMAT, MANIFEST, canonical, content_digest, file_digest
from resources.ref import Ref


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
    numbers. A file is hashed once a process for as long as its size, times and place stay."""
    for entry in version.manifest["files"]:
        path = version.path / entry["name"]
        try:
            facts = path.stat()
            found = _digest_once(path, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)
        except OSError as error:
            raise LakeError(f"{version.ref}: {path} cannot be read ({error.strerror}): run again") from error
        if found != entry["sha256"]:
            raise LakeError(
                f"{version.ref}: the bytes of {path} differ from what was published: remove that file and run again, "
                f"which makes it anew"
            )


@lru_cache(maxsize=65_536)
def _digest_once(path: Path, *_: int) -> str:
    return file_digest(path)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """The manifest in `folder` and the sha256 hex of its bytes. Raises LakeError when it is missing or damaged."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        manifest = json.loads(data)
        sound = manifest["format"] == FORMAT and canonical(manifest) == data
        sound = sound and manifest["content"] == content_digest(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LakeError(f"{path} is missing or damaged ({error}): materialise this partition again") from error
    if not sound:
        raise LakeError(f"{path} was changed after it was written: materialise this partition again")
    return manifest, hashlib.sha256(data).hexdigest()


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
