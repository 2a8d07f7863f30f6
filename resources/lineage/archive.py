"""One partition of the lake as it lies on disk, read without trust: damage becomes a finding, not an exception.

Belongs here: pointer, ledger, manifests and tombstones of a partition. Does not belong here: how partitions hang
together (`resources.lineage.graph`) and the bytes of their files (`resources.lineage.check`).
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ml.errors import DamagedLake, LakeError
from ml.strangers import FORM, one_line, printable
from resources.ledger import LEDGER, Entry, entries, problems
from resources.manifest import MANIFEST, canonical, record_fault, shape_fault
from resources.ref import Ref, is_partition
from resources.untrusted import record_bytes, require_inside
from resources.version import ANEW, MANIFEST_BYTES, read_manifest, read_pointer

POINTER = "current.json"
TOMBSTONE = ".erased.json"
SIGNATURE = ".signature.json"
VERSION_DIGITS = 16
_TEXTS = ("ref", "version", "manifest", "at", "request")
_ABOUT = ("format", "ref", "version", "manifest", "inputs", "at", "request")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold: at which partition, of what kind, in words. `broken` is False for a remark."""

    ref: str
    kind: str
    message: str
    broken: bool = True

    def __str__(self) -> str:
        return f"{self.ref}: {self.message}"


@dataclass(frozen=True, slots=True)
class Kept:
    """A version folder: its name, the sha256 of its manifest's bytes ("" where there is none), and the manifest where
    it is sound; else what is wrong with it."""

    name: str
    path: Path
    digest: str
    manifest: dict[str, Any] | None
    fault: str = ""


@dataclass
class Partition:
    """What lies in the folder of `ref`. `versions` by folder name, `tombstones` by manifest digest."""

    ref: Ref
    folder: Path
    versions: dict[str, Kept] = field(default_factory=dict)
    pointer: dict[str, str] | None = None
    ledger: list[Entry] = field(default_factory=list)
    tombstones: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @cached_property
    def by_digest(self) -> dict[str, Kept]:
        """Sound versions by manifest digest."""
        return {kept.digest: kept for kept in self.versions.values() if kept.manifest is not None}

    @cached_property
    def publications(self) -> dict[str, Entry]:
        """The last ledger line of each manifest digest."""
        return {_published(entry)["manifest"]: entry for entry in self.ledger if "manifest" in _published(entry)}

    @property
    def current(self) -> str:
        """Manifest digest that the pointer names; "" without a pointer."""
        return self.pointer["manifest"] if self.pointer else ""

    def version_of(self, digest: str) -> str | None:
        """Folder name that the ledger gives for a manifest digest; None when it never published it."""
        entry = self.publications.get(digest)
        return str(_published(entry)["version"]) if entry else None


def read_partition(root: Path, ref: Ref) -> Partition:
    """Everything in the folder of `ref`; an absent folder gives an empty partition."""
    found = Partition(ref, root / str(ref))
    if not found.folder.is_dir():
        return found
    try:
        require_inside(root, found.folder)
    except DamagedLake as error:
        found.findings.append(Finding(str(ref), "link", str(error)))
        return found
    for path in sorted(found.folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            found.versions[path.name] = _kept(ref, path)
    _read_ledger(found)
    _read_pointer(found)
    for path in sorted(found.folder.glob(f"*{TOMBSTONE}")):
        _read_tombstone(found, path)
    return found


def partitions(root: Path) -> Iterator[Ref]:
    """Every partition folder of a lake, sorted: one that holds a ledger, a pointer or a version."""
    for path in sorted(p for p in root.glob("[a-z]*/[a-z]*/**") if p.is_dir() and 3 <= _depth(root, p) <= 4):
        if (path / LEDGER).exists() or (path / POINTER).exists() or any(path.glob(f"*/{MANIFEST}")):
            if not is_partition(path.name):
                raise DamagedLake(
                    f"{printable(path)} holds versions, but is no partition's name: move it out of the lake"
                )
            parts = path.relative_to(root).parts
            yield Ref(parts[0], parts[1], parts[-1], parts[2] if len(parts) == 4 else None)


def _depth(root: Path, path: Path) -> int:
    return len(path.relative_to(root).parts)


def _published(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = entry.record.get("publication", {})
    return found


def _kept(ref: Ref, path: Path) -> Kept:
    if path.is_symlink():
        return Kept(path.name, path, "", None, "is a link, not a version")
    try:
        digest = hashlib.sha256(record_bytes(path / MANIFEST, ANEW, MANIFEST_BYTES)).hexdigest()
    except (DamagedLake, OSError) as error:
        return Kept(path.name, path, "", None, one_line(error).removeprefix(f"{path}/"))
    try:
        manifest, digest = read_manifest(path)
    except (DamagedLake, OSError) as error:
        why = one_line(str(error).removeprefix(f"{path / MANIFEST}").removesuffix(f": {ANEW}"), 160)
        return Kept(path.name, path, digest, None, f"{MANIFEST} was changed or damaged ({why.strip(': ')})")
    fault = ""
    if manifest["ref"] != str(ref):
        fault = f"{MANIFEST} is that of {manifest['ref']}"
    elif manifest["content"][:VERSION_DIGITS] != path.name:
        fault = f"{MANIFEST} is that of version {manifest['content'][:VERSION_DIGITS]}"
    return Kept(path.name, path, digest, None if fault else manifest, fault)


def _read_ledger(found: Partition) -> None:
    path = found.folder / LEDGER
    if not os.path.lexists(path):
        if found.versions:
            found.findings.append(Finding(str(found.ref), "ledger", f"{LEDGER} is missing"))
        return
    try:
        lines = entries(path)
        wrong = problems(path)
        faults = [record_fault(entry.record) for entry in lines]
        found.ledger = [entry for entry, fault in zip(lines, faults, strict=True) if not fault]
        wrong += [f"line {number} is no publication: {fault}" for number, fault in enumerate(faults, 1) if fault]
    except (DamagedLake, OSError) as error:
        wrong = [one_line(error)]
    found.findings += [Finding(str(found.ref), "ledger", w.removeprefix(f"{path}: ")) for w in wrong]


def _read_pointer(found: Partition) -> None:
    path, ref = found.folder / POINTER, str(found.ref)

    def wrong(message: str) -> None:
        found.findings.append(Finding(ref, "pointer", f"{POINTER} {message}"))

    if not os.path.lexists(path):
        if found.versions or found.ledger:
            wrong("is missing")
        return
    try:
        values = asdict(read_pointer(found.folder, path, "it is passed over"))
        if canonical(values) != record_bytes(path, "it is passed over"):
            return wrong("was changed after it was written")
    except (DamagedLake, OSError) as error:
        return wrong(f"is damaged: {one_line(error)}")
    found.pointer = values
    lines = {entry.digest: _published(entry) for entry in found.ledger}
    line = lines.get(values["ledger"])
    if not line:
        return wrong("names a publication that the ledger does not hold")
    if [e for e in found.ledger if _published(e)][-1].digest != values["ledger"]:
        wrong("is not that of the ledger's last publication")
    for key in ("version", "manifest", "recipe_key"):
        if line.get(key) != values[key]:
            wrong(f"and the ledger disagree on {key}")


def _read_tombstone(found: Partition, path: Path) -> None:
    """A tombstone counts only where the ledger, in `run.erased`, names its bytes."""
    ref = str(found.ref)
    try:
        data = record_bytes(path, "it is passed over")
        stone = json.loads(data)
        sound = all(k in stone for k in _ABOUT) and stone["ref"] == ref and canonical(stone) == data
        blank = {"files": [], "content": "0" * 64, "recipe": {}, "recipe_key": "", "code": {}, "checks": []}
        sound = sound and not shape_fault({**blank, **stone}) and all(isinstance(stone[k], str) for k in _TEXTS)
    except (OSError, *FORM, LakeError):
        sound = False
    if not sound:
        found.findings.append(Finding(ref, "tombstone", f"{path.name} is damaged"))
        return
    named = {
        (str(e.get("manifest")), str(e.get("tombstone")))
        for entry in found.ledger
        for e in entry.record.get("run", {}).get("erased", [])
    }
    if (stone["manifest"], hashlib.sha256(data).hexdigest()) not in named:
        found.findings.append(Finding(ref, "tombstone", f"{path.name} is not in the ledger: no erasure was recorded"))
        return
    found.tombstones[stone["manifest"]] = stone
