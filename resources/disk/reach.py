"""What must stay: the versions that something points to, and all that they were made from.

Belongs here: the roots, one function each, and the walk down from them. Does not belong here: how long other versions
stay (`resources.disk.collect`).

A manifest that cannot be read is walked by what the ledger says of it; where nothing tells what a reachable version was
made from, nobody can say what may go, and the walk says so.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ml.errors import UsageError
from resources.champion import all_kept, decisions
from resources.lake import Lake
from resources.lineage.archive import SIGNATURE, Partition, partitions, read_partition
from resources.manifest import canonical
from resources.ref import Ref

KEPT = ".kept.json"
Root = tuple[Ref, str]
"""A partition and the digest of one of its manifests."""

Partitions = Mapping[Ref, Partition]


def pointers(lake: Path, read: Partitions) -> Iterator[Root]:
    """The current version of every partition."""
    for ref, partition in read.items():
        if partition.current:
            yield ref, partition.current


def marked(lake: Path, read: Partitions) -> Iterator[Root]:
    """Versions that somebody has asked to keep (`newsrec lake keep`)."""
    yield from _beside(read, KEPT)


def signed(lake: Path, read: Partitions) -> Iterator[Root]:
    """Versions with a signature: somebody vouched for them."""
    yield from _beside(read, SIGNATURE)


def champions(lake: Path, read: Partitions) -> Iterator[Root]:
    """Checkpoints that are champion or that a rollback would make champion again; the decisions that acts rest on."""
    for title in all_kept(Lake(lake)):
        if title.ref in read and title.manifest in read[title.ref].by_digest:
            yield title.ref, title.manifest
    rested_on = decisions(Lake(lake))
    for ref, partition in read.items():
        yield from ((ref, digest) for digest in partition.by_digest if digest in rested_on)


def damaged(lake: Path, read: Partitions) -> Iterator[Root]:
    """Every version of a partition whose pointer, ledger or tombstones do not hold: nobody can say which of them
    matters."""
    for ref, partition in read.items():
        if partition.findings:
            yield from ((ref, digest) for digest in partition.by_digest)


ROOTS: tuple[Callable[[Path, Partitions], Iterable[Root]], ...] = (pointers, marked, signed, champions, damaged)
"""What keeps a version: functions of the lake's root and its partitions. A new reason is one more function here."""


@dataclass
class Reach:
    """Digests that are reached, and what is known of nothing: reached digests of which neither manifest, tombstone nor
    ledger tells the inputs, by ref."""

    digests: set[str] = field(default_factory=set)
    blind: list[Root] = field(default_factory=list)


def read_all(lake: Path) -> dict[Ref, Partition]:
    """Every partition of a lake."""
    return {ref: read_partition(lake, ref) for ref in partitions(lake)}


def roots(lake: Path, read: Partitions) -> list[Root]:
    """All roots, each once."""
    return list(dict.fromkeys(root for find in ROOTS for root in find(lake, read)))


def reach(read: Partitions, starts: Iterable[Root]) -> Reach:
    """Everything under `starts`, by the manifests' digests."""
    found = Reach()
    todo = list(starts)
    while todo:
        ref, digest = todo.pop()
        if digest in found.digests:
            continue
        found.digests.add(digest)
        inputs = inputs_of(read.get(ref), digest)
        if inputs is None:
            found.blind.append((ref, digest))
        else:
            todo += [(Ref.of_input(name), wanted) for name, wanted in inputs.items()]
    return found


def inputs_of(partition: Partition | None, digest: str) -> dict[str, str] | None:
    """What the version with this manifest digest was made from: by its manifest, its tombstone, or all that the ledger
    says of it; None where nothing tells."""
    if partition is None:
        return None
    kept = partition.by_digest.get(digest)
    if kept is not None and kept.manifest is not None:
        return dict(kept.manifest["inputs"])
    if digest in partition.tombstones:
        return dict(partition.tombstones[digest]["inputs"])
    entry = partition.publications.get(digest)
    return dict(entry.record["publication"]["inputs"]) if entry else None


def keep(lake: Path, ref: Ref, version: str, why: str, who: str, at: str) -> Path:
    """Mark a version, which then stays with all that it was made from until the mark is removed; the mark's path."""
    partition = read_partition(lake, ref)
    kept = partition.versions.get(version)
    if kept is None or kept.manifest is None:
        raise UsageError(f"{ref} has no sound version {version!r}: it has {', '.join(partition.versions) or 'none'}")
    path = partition.folder / f"{version}{KEPT}"
    with Lake(lake).changing(str(ref)):
        path.write_bytes(canonical({"ref": str(ref), "version": version, "why": why, "who": who, "at": at}) + b"\n")
    return path


def _beside(read: Partitions, ending: str) -> Iterator[Root]:
    for ref, partition in read.items():
        for path in sorted(partition.folder.glob(f"*{ending}")):
            kept = partition.versions.get(path.name.removesuffix(ending))
            if kept is not None and kept.digest:
                yield ref, kept.digest
