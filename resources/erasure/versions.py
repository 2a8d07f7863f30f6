"""Versions in the lake that hold a reader's rows: found, written anew without them, buried under a tombstone.

Belongs here: which versions hold rows, the version that takes a current one's place, tombstones. Does not belong here:
rows of a file (`resources.erasure.rows`) and the order of things (`resources.erasure.erase`).

A version holds the reader when one of its files has rows of theirs, or when it is bound to such a version: the session
ranges of `session_splits` point at rows of one `interactions` version and are moved along with them. Test cases go from
all files of their version. Everything else of it stays, byte for byte.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml.durable import replace_whole, sync_folder
from ml.errors import LakeError
from ml.sessions import read_sessions, write_sessions
from resources import ledger
from resources.disk.reach import read_all
from resources.erasure import rows
from resources.erasure.book import Readers, Request
from resources.lake import STAGING, Lake
from resources.lineage.archive import TOMBSTONE, Kept, Partition, read_partition
from resources.manifest import canonical, content_digest, digest, list_files
from resources.ref import Ref
from resources.staging import temporary_folder
from resources.version import Version, verify

INTERACTIONS, INTERACTIONS_FILE = "interactions", "interactions.parquet"
SESSIONS, SESSIONS_FILE = "session_splits", "sessions.parquet"
BINDING = b"interactions"
INSTEAD = "instead_of"
"""Field of a publication's record: the manifest digest of the version that it took the place of, for an erasure."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A version with the reader's rows: how many, and whether it is its partition's current one."""

    ref: Ref
    kept: Kept
    rows: int
    current: bool

    @property
    def digest(self) -> str:
        """Its manifest digest."""
        return self.kept.digest


def holding(lake: Path, dataset: str, readers: Readers) -> list[Holding]:
    """Every version of the dataset that holds rows of the readers, those made first before what was made of them."""
    read = {ref: p for ref, p in read_all(lake).items() if ref.dataset == dataset}
    found: dict[str, Holding] = {}
    bound: set[str] = set()
    for ref, partition in read.items():
        for kept in partition.versions.values():
            total = sum(rows.find(p, readers).total for p in sorted(kept.path.rglob("*.parquet")))
            if total:
                found[f"{ref}/{kept.name}"] = Holding(ref, kept, total, _is_current(partition, kept))
                if ref.stage == INTERACTIONS and kept.manifest is not None:
                    bound.add(str(kept.manifest["content"]))
        if ref.stage == INTERACTIONS:
            bound |= {str(stone.get("content")) for stone in partition.tombstones.values()}
    for ref, partition in read.items():
        for kept in partition.versions.values() if ref.stage == SESSIONS else ():
            if _binding(kept.path) in bound:
                found[f"{ref}/{kept.name}"] = Holding(ref, kept, 0, _is_current(partition, kept))
    depths = _depths(list(found.values()))
    return sorted(found.values(), key=lambda h: (depths.get(h.digest, 0), str(h.ref), h.kept.name))


def rewrite(lake: Lake, held: Holding, mates: Sequence[Kept], readers: Readers, request: Request, who: str) -> None:
    """Publish the current version of a partition without the readers' rows; the ledger names the tombstones of its
    `mates`, all the partition's versions with rows. Raises LakeError when its bytes are not those that were published:
    damage would be hidden."""
    ref, manifest = held.ref, held.kept.manifest
    wrong = [] if manifest is None else verify(Version(ref, held.kept.path, manifest, held.digest, "", ""))
    if manifest is None or wrong:
        raise LakeError(
            f"{wrong[0] if wrong else f'{ref}: {held.kept.fault}'}: nothing is rewritten from damaged bytes: repair it "
            f"(`{ref.command}`), then run the same command again"
        )
    with lake.staging(ref) as staged:
        counted = write_without(lake, held.kept.path, staged.path, readers)
        same = dict(manifest["rows"] or {})
        recipe = dict(manifest["recipe"])
        with lake.publishing():
            lake.publish(
                staged,
                inputs=_inputs(lake, manifest["inputs"]),
                recipe_key=digest({"erasure": request.name, "of": held.digest}),
                recipe=recipe,
                code=manifest["code"],
                rows=same | {name: n for name, n in counted.items() if name in same} if same else None,
                checks=[{**check, "examples": []} for check in manifest["checks"]],
                record={**_record(lake, ref, mates, request, who), INSTEAD: held.digest},
            )


def name_in_ledger(lake: Lake, ref: Ref, mates: Sequence[Kept], request: Request, who: str) -> None:
    """Make the ledger name the tombstones of a partition's versions with rows, where it does not do so yet."""
    with lake.publishing(), lake.lock(ref):
        record = _record(lake, ref, mates, request, who)
        partition = read_partition(lake.root, ref)
        known = {stone["manifest"] for stone in _named(partition)}
        missing = [stone for stone in record["erased"] if stone["manifest"] not in known]
        if missing:
            ledger.append(lake.folder(ref) / ledger.LEDGER, {"run": {**record, "erased": missing}})


def bury(lake: Lake, held: Holding, request: Request) -> None:
    """Put the tombstone beside a version that is no longer current, and remove the version."""
    with lake.publishing(), lake.lock(held.ref), temporary_folder(lake.root / STAGING) as trash:
        partition = read_partition(lake.root, held.ref)
        if partition.current and partition.current == held.digest:
            raise LakeError(f"{held.ref} was published anew while a reader was erased: run the same command again")
        stone = _stone(partition, held.kept, request)
        path = partition.folder / f"{held.kept.name}{TOMBSTONE}"
        if stone is not None and not path.exists():
            replace_whole(path, canonical(stone))
        held.kept.path.rename(trash / "version")
        sync_folder(partition.folder)


def write_without(lake: Lake, version: Path, out: Path, readers: Readers) -> dict[str, int]:
    """Write the files of a version without the readers' rows; rows by name of each file that changed."""
    changed: dict[str, int] = {}
    cases: set[int] = set()
    files = sorted(p for p in version.rglob("*") if p.is_file() and p.name != "manifest.json")
    for path in files:
        target = out / path.relative_to(version)
        target.parent.mkdir(parents=True, exist_ok=True)
        removed = rows.strip(path, readers, target)
        cases |= removed.cases
        if removed.total:
            changed[path.relative_to(version).as_posix()] = pq.read_metadata(target).num_rows
        else:
            shutil.copyfile(path, target)
    for path in files:
        target = out / path.relative_to(version)
        name = path.relative_to(version).as_posix()
        if cases and path.suffix == ".parquet" and name not in changed and rows.CASE in pq.read_schema(path).names:
            if rows.without_cases(path, cases, target):
                changed[name] = pq.read_metadata(target).num_rows
        elif path.name == SESSIONS_FILE and BINDING in (pq.read_schema(path).metadata or {}):
            changed[name] = _move_sessions(lake, path, target, readers)
    return changed


def _move_sessions(lake: Lake, path: Path, target: Path, readers: Readers) -> int:
    """Session ranges without the readers' targets, pointing at the rows of the rewritten interactions."""
    bound = _binding(path.parent)
    found = [
        kept
        for ref, partition in read_all(lake.root).items()
        for kept in partition.versions.values()
        if ref.stage == INTERACTIONS and kept.manifest is not None and kept.manifest["content"] == bound
    ]
    if not found:
        raise LakeError(f"{path} points into interactions that are gone: `newsrec run` makes them anew; then run again")
    source = found[0].path
    gone = np.array(rows.reader_rows(source / INTERACTIONS_FILE, readers), dtype=np.int64)
    with temporary_folder(lake.root / STAGING) as folder:
        write_without(lake, source, folder, readers)
        content = content_digest(list_files(folder))
    sessions = read_sessions(path, bound)
    stays = ~np.isin(sessions.target, gone)
    moved = [rows_[stays] - np.searchsorted(gone, rows_[stays]) for rows_ in (sessions.first, sessions.target)]
    table = pa.table({"first": moved[0], "target": moved[1], "split": pa.array(sessions.split[stays].tolist())})
    write_sessions(table, target, content)
    return int(stays.sum())


def _binding(folder: Path) -> str:
    """Content digest of the interactions that a version's session ranges point into; "" where there are none."""
    path = folder / SESSIONS_FILE
    if not path.is_file():
        return ""
    try:
        return str((pq.read_schema(path).metadata or {}).get(BINDING, b"").decode())
    except (OSError, pa.ArrowException) as error:
        raise LakeError(f"{path} cannot be read ({error}): repair or remove it") from error


def _is_current(partition: Partition, kept: Kept) -> bool:
    return partition.pointer is not None and partition.pointer["version"] == kept.name


def _depths(found: Sequence[Holding]) -> dict[str, int]:
    """Length of the longest way down from each manifest digest through versions that hold rows too."""
    inputs = {h.digest: list((h.kept.manifest or {"inputs": {}})["inputs"].values()) for h in found if h.digest}
    depths: dict[str, int] = {}
    todo = list(inputs)
    while todo:
        below = [i for i in inputs[todo[-1]] if i in inputs]
        waiting = [i for i in below if i not in depths]
        if waiting:
            todo += waiting
        else:
            depths[todo.pop()] = 1 + max((depths[i] for i in below), default=0)
    return depths


def _record(lake: Lake, ref: Ref, mates: Sequence[Kept], request: Request, who: str) -> dict[str, Any]:
    """What the ledger says of an erasure in a partition: `erased` names the tombstones by digest."""
    partition = read_partition(lake.root, ref)
    stones = [s for kept in mates if (s := _stone(partition, kept, request)) is not None]
    named = [{"manifest": s["manifest"], "tombstone": hashlib.sha256(canonical(s)).hexdigest()} for s in stones]
    return {"erased": named, "erasure": request.name, "asked_by": who}


def _stone(partition: Partition, kept: Kept, request: Request) -> dict[str, Any] | None:
    """The tombstone of a version: equal for equal requests, whenever it is written. Of one whose manifest is damaged
    the ledger tells digest and inputs; None where it never published such a version."""
    manifest, about = kept.manifest, kept.digest
    if manifest is None:
        lines = [e.record["publication"] for e in partition.ledger if "publication" in e.record]
        said = [line for line in lines if line["version"] == kept.name]
        if not said:
            return None
        manifest, about = said[-1], str(said[-1]["manifest"])
    return {
        **{"format": 1, "ref": str(partition.ref), "version": kept.name, "manifest": about},
        **{"inputs": dict(manifest["inputs"]), "content": manifest["content"]},
        **{"at": request.at, "request": request.name},
    }


def _named(partition: Partition) -> list[dict[str, str]]:
    return [stone for e in partition.ledger for stone in e.record.get("run", {}).get("erased", [])]


def _inputs(lake: Lake, named: Mapping[str, str]) -> dict[str, Version]:
    """The inputs of a rewritten version: what took the place of erased ones, where something did."""
    found = {}
    for name, wanted in named.items():
        ref = Ref.of_input(name)
        partition = read_partition(lake.root, ref)
        lines = [e.record for e in partition.ledger if "publication" in e.record]
        instead = {r["run"][INSTEAD]: str(r["publication"]["manifest"]) for r in lines if INSTEAD in r["run"]}
        while wanted in instead:
            wanted = instead[wanted]
        kept = partition.by_digest.get(wanted)
        path = kept.path if kept is not None else partition.folder / "gone"
        found[name] = Version(ref, path, {}, wanted, "", "")
    return found


def stages_of(found: Sequence[Holding]) -> dict[str, int]:
    """Rows by stage."""
    counts: dict[str, int] = {}
    for held in found:
        counts[held.ref.stage] = counts.get(held.ref.stage, 0) + held.rows
    return counts
