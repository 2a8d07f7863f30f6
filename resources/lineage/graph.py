"""The Merkle graph under a version: every version that it was made from, each once, with its state.

Belongs here: walking from manifest to manifest by digest and judging each link. Does not belong here: reading one
partition (`resources.lineage.archive`) and hashing files (`resources.lineage.check`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from resources.ledger import Entry
from resources.lineage.archive import Finding, Kept, Partition, partitions, read_partition
from resources.ref import Ref
from resources.version import linked

State = Literal["intact", "superseded", "changed", "missing", "erased"]
STATES: tuple[State, ...] = ("intact", "superseded", "changed", "missing", "erased")


@dataclass
class Node:
    """One version, by the manifest digest `id` that whoever needs it names. `kept` is the folder that stands for it,
    also where its manifest is now another; `manifest` what can be walked: the sound one, a tombstone's stand-in, or
    the one that was put in its place. `inputs` are ids in the order of the manifest."""

    id: str
    ref: Ref
    state: State
    kept: Kept | None
    manifest: dict[str, Any] | None
    entry: Entry | None
    inputs: tuple[str, ...] = ()
    tombstone: dict[str, Any] | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def version(self) -> str:
        """Name of the version's folder, "" where nothing says."""
        return self.kept.name if self.kept else str((self.tombstone or {}).get("version", ""))

    @property
    def rows(self) -> int | None:
        """Rows of the largest file, None where the stage counted none."""
        rows = (self.manifest or {}).get("rows") or {}
        return max(rows.values()) if rows else None

    @property
    def size(self) -> int:
        """Bytes of its files by the manifest."""
        return sum(f["bytes"] for f in (self.manifest or {}).get("files", []))

    @property
    def publication(self) -> dict[str, Any]:
        """What it was last made from by the ledger; {} where no line tells."""
        return dict(self.entry.record.get("publication", {})) if self.entry else {}

    @property
    def run(self) -> dict[str, Any]:
        """Dagster run, MLflow run, device, seconds and who asked, by the ledger."""
        return dict(self.entry.record.get("run", {})) if self.entry else {}

    @property
    def environment(self) -> dict[str, Any]:
        """Commit, libraries and platform, by the ledger."""
        return dict(self.entry.record.get("environment", {})) if self.entry else {}

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe of its last publication (equal bytes keep the first manifest)."""
        return dict(self.publication.get("recipe") or (self.manifest or {}).get("recipe") or {})


@dataclass
class Graph:
    """Nodes by id, `roots` first; `partitions` that were read; `findings` about links, pointers and ledgers."""

    root: Path
    roots: tuple[str, ...] = ()
    nodes: dict[str, Node] = field(default_factory=dict)
    partitions: dict[Ref, Partition] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        """All findings, of partitions first, in the order in which the graph was walked."""
        found = [f for p in self.partitions.values() for f in p.findings]
        return found + [f for n in self.nodes.values() for f in n.findings]

    @cached_property
    def users(self) -> dict[str, list[str]]:
        """Ids of the nodes that name a node as input."""
        found: dict[str, list[str]] = {id_: [] for id_ in self.nodes}
        for node in self.nodes.values():
            for id_ in node.inputs:
                found[id_].append(node.id)
        return found

    def find(self, ref: Ref) -> list[Node]:
        """Nodes of one partition."""
        return [n for n in self.nodes.values() if n.ref == ref]

    def order(self) -> list[Node]:
        """All nodes, each after its inputs."""
        done: dict[str, Node] = {}
        begun: set[str] = set()
        stack = [(id_, False) for id_ in reversed(self.roots)]
        while stack:
            id_, ready = stack.pop()
            if ready:
                done[id_] = self.nodes[id_]
            elif id_ not in begun:  # a manifest that was put in another's place may name it
                begun.add(id_)
                stack.append((id_, True))
                stack += [(i, False) for i in reversed(self.nodes[id_].inputs) if i not in begun]
        return list(done.values())


def walk(
    root: Path,
    starts: Iterable[tuple[Ref, str]],
    only: Mapping[str, Iterable[str]] | None = None,
    read: dict[Ref, Partition] | None = None,
) -> Graph:
    """The graph under `starts` (ref and manifest digest). `only`: for a start's digest, the input refs to follow.
    `read`: partitions that were read before.

    Nothing is hashed but manifests; sizes and presence of files are looked at.
    """
    graph = Graph(root, partitions=read if read is not None else {})
    todo = [(ref, digest, "") for ref, digest in starts]
    graph.roots = tuple(dict.fromkeys(digest for _, digest, _ in todo))
    while todo:
        ref, digest, user = todo.pop()
        if digest in graph.nodes:
            continue
        if ref not in graph.partitions:
            graph.partitions[ref] = read_partition(root, ref)
        node = _node(graph.partitions[ref], digest, user)
        graph.nodes[digest] = node
        named = dict((node.manifest or {}).get("inputs", {}))
        if only is not None and digest in only:
            named = {k: v for k, v in named.items() if k in only[digest]}
        node.inputs = tuple(dict.fromkeys(named.values()))
        todo += [(Ref.of_input(name), wanted, str(ref)) for name, wanted in reversed(list(named.items()))]
    return graph


def walk_all(root: Path) -> Graph:
    """The graph of everything in the lake, also of what is superseded or stands alone."""
    starts: list[tuple[Ref, str]] = []
    read = {ref: read_partition(root, ref) for ref in partitions(root)}
    for ref, partition in read.items():
        starts += [(ref, digest) for digest in partition.by_digest]
        starts += [(ref, partition.current)] if partition.current else []
        for kept in partition.versions.values():
            if kept.manifest is None:
                partition.findings.append(Finding(str(ref), "manifest", f"version {kept.name}: {kept.fault}"))
    return walk(root, starts, read=read)


def _node(partition: Partition, digest: str, user: str) -> Node:
    ref, entry = partition.ref, partition.publications.get(digest)
    kept = partition.by_digest.get(digest)
    if kept is not None:
        node = Node(digest, ref, "intact", kept, kept.manifest, entry)
        if entry is None:
            node.findings.append(Finding(str(ref), "ledger", f"the ledger never published version {kept.name}"))
        _look(node)
        if node.state == "intact" and partition.current != digest:
            node.state = "superseded"
        return node
    stone = partition.tombstones.get(digest)
    if stone is not None:
        return Node(digest, ref, "erased", None, {"files": [], **stone}, entry, tombstone=stone)
    return _broken(partition, digest, user, entry)


def _look(node: Node) -> None:
    """Presence and size of the files, without reading them."""
    assert node.kept is not None and node.kept.manifest is not None
    away = set(linked(node.kept.path, node.kept.manifest))
    for file in node.kept.manifest["files"]:
        path = node.kept.path / file["name"]
        if file["name"] in away or not path.is_file():
            node.state = "missing"
            node.findings.append(Finding(str(node.ref), "file", f"{node.version}/{file['name']} is missing"))
        elif path.stat().st_size != file["bytes"]:
            node.state = "changed" if node.state == "intact" else node.state
            node.findings.append(Finding(str(node.ref), "file", f"{node.version}/{file['name']} has another size"))


def _broken(partition: Partition, digest: str, user: str, entry: Entry | None) -> Node:
    """No sound version has this digest: say what is there in its place."""
    ref = partition.ref
    name = partition.version_of(digest)
    if name is None and partition.pointer is not None:
        name = partition.pointer["version"]
    unknown = [k for k in partition.versions.values() if k.digest not in partition.publications]
    kept = partition.versions.get(name or "") or (unknown[0] if unknown else None)
    link = f"{user} -> {ref}: " if user else ""
    short = digest[:12]
    if kept is None or (kept.manifest is None and not kept.digest):
        what = f"version {kept.name}: {kept.fault}" if kept else f"version {name or 'unknown'} is missing"
        finding = Finding(str(ref), "link", f"{link}manifest {short} is gone: {what}")
        return Node(digest, ref, "missing", kept, None, entry, findings=[finding])
    what = kept.fault or f"the manifest of version {kept.name} is now {kept.digest[:12]}"
    finding = Finding(str(ref), "link", f"{link}manifest {short} was named, but {what}")
    return Node(digest, ref, "changed", kept, kept.manifest, entry, findings=[finding])
