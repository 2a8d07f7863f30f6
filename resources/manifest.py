"""Manifests: what a version is made of, as canonical bytes with a digest.

Belongs here: canonical JSON, file digests, the content digest, recipe keys, the form of what is read back. Does not
belong here: folders, locks and pointers (`resources.lake`) and when or by whom something was made
(`resources.ledger`).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ml.errors import LakeError
from ml.strangers import one_line
from resources.ref import Ref, is_partition

FORMAT = 1
MANIFEST = "manifest.json"
DIGEST = re.compile(r"[0-9a-f]{64}")
VERSION = re.compile(r"[0-9a-f]{16}")
_CHECK = {"name", "passed", "blocking", "count_bad", "examples", "description"}
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]*(/[A-Za-z0-9_][A-Za-z0-9_.=+-]*)*")


class HasManifest(Protocol):
    """Anything with a manifest digest: a version in the lake."""

    @property
    def manifest_digest(self) -> str:
        """sha256 of the manifest's canonical bytes, hex."""


V = TypeVar("V", bound=HasManifest)


def canonical(value: Any) -> bytes:
    """JSON bytes that are equal for equal values: sorted keys, no spaces, UTF-8. Raises LakeError for values that
    JSON cannot hold exactly (NaN, infinity, arrays, dates)."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise LakeError(f"cannot be written as JSON: {error}; convert it to plain numbers, text, lists") from error
    return text.encode()


def digest(value: Any) -> str:
    """sha256 hex of `canonical(value)`."""
    return hashlib.sha256(canonical(value)).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 hex of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_file_name(name: str) -> str:
    """`name` itself if it is a relative path that stays inside its folder, else LakeError."""
    if not _FILE.fullmatch(name) or name == MANIFEST:
        raise LakeError(
            f"{one_line(name, 120)!r} is no file name for the lake: use letters, digits and _.=+- (folders by /)"
        )
    return name


def shape_fault(manifest: Any) -> str:
    """What is wrong with the form of a manifest; "" when its files lie in their folder and its inputs can be walked."""
    try:
        names = [check_file_name(file["name"]) for file in manifest["files"]]
        sound = all(
            DIGEST.fullmatch(f["sha256"]) and type(f["bytes"]) is int and f["bytes"] >= 0 for f in manifest["files"]
        )
        if len(set(names)) != len(names) or not sound:
            return "a file is named twice, or has no digest or size"
        rows = manifest.get("rows") or {}
        if not all(isinstance(name, str) and type(count) is int for name, count in rows.items()):
            return "rows are not counted by file"
        return making_fault(manifest)
    except Exception as error:  # noqa: BLE001 whatever a stranger's file holds, it is named and walked no further
        return f"its form is wrong ({one_line(error, 120)})"


def publication_fault(publication: Any) -> str:
    """The same for what a ledger says of a publication."""
    try:
        if not (VERSION.fullmatch(publication["version"]) and DIGEST.fullmatch(publication["manifest"])):
            return "it names no version"
        datetime.fromisoformat(publication["at"])
        return making_fault(publication)
    except Exception as error:  # noqa: BLE001
        return f"its form is wrong ({one_line(error, 120)})"


def record_fault(record: Mapping[str, Any]) -> str:
    """The same for a line of a partition's ledger: a publication where there is one, the run and its environment."""
    run, environment = record.get("run", {}), record.get("environment", {})
    if not (isinstance(run, dict) and isinstance(environment, dict) and isinstance(run.get("erased", []), list)):
        return "run or environment have another form"
    if not all(isinstance(e, dict) and {"manifest", "tombstone"} <= e.keys() for e in run.get("erased", [])):
        return "it names no tombstones"
    return publication_fault(record["publication"]) if "publication" in record else ""


def making_fault(made: Mapping[str, Any]) -> str:
    """What is wrong with what both say: from which inputs, by which recipe and code, with which checks."""
    if not DIGEST.fullmatch(made["content"]) or not isinstance(made["recipe_key"], str):
        return "it has no content digest or recipe key"
    for name, wanted in [(made["ref"], made["content"]), *made["inputs"].items()]:
        ref = Ref.of_input(name)
        if str(ref) != name.partition("@")[0] or not is_partition(ref.partition) or not DIGEST.fullmatch(wanted):
            return f"input {one_line(name, 120)!r} is not named by a digest"
    wrong = [k for k in ("recipe", "code") if not isinstance(made[k], dict)]
    wrong += [] if all(isinstance(c, dict) and c.keys() >= _CHECK for c in made["checks"]) else ["checks"]
    wrong += [] if isinstance(made["recipe"].get("sources", {}), dict) else ["recipe.sources"]
    return f"field {wrong[0]} has another form" if wrong else ""


def list_files(folder: Path) -> list[dict[str, Any]]:
    """{name, bytes, sha256} of every file below `folder` except the manifest, sorted by name.

    Raises LakeError for links and other things that are neither file nor folder.
    """
    entries = []
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise LakeError(f"{path.relative_to(folder)} in the output of a stage is neither a file nor a folder")
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            entries.append((check_file_name(name), path))
    return [{"name": n, "bytes": p.stat().st_size, "sha256": file_digest(p)} for n, p in sorted(entries)]


def content_digest(files: Sequence[Mapping[str, Any]]) -> str:
    """sha256 hex over the sorted pairs of file name and file sha256."""
    return digest(sorted([f["name"], f["sha256"]] for f in files))


def input_names(inputs: Iterable[tuple[object, V]]) -> dict[str, V]:
    """Versions by the name of their partition, as manifests name inputs. A second version of one partition (a champion
    beside its retrained self) is named `partition@` and twelve digits of its manifest's digest."""
    found: dict[str, V] = {}
    for ref, version in inputs:
        first = found.setdefault(str(ref), version)
        if first.manifest_digest != version.manifest_digest:
            found[f"{ref}@{version.manifest_digest[:12]}"] = version
    return found


def recipe_key(inputs: Mapping[str, HasManifest], code_digest: str, recipe: Mapping[str, Any], seed: int | None) -> str:
    """sha256 hex that is equal when, and only when, a stage would compute the same again: the manifest digests of its
    inputs by name, the digest of its source, its recipe and its seed."""
    parts = {name: version.manifest_digest for name, version in inputs.items()}
    return digest({"inputs": parts, "code": code_digest, "recipe": dict(recipe), "seed": seed})
