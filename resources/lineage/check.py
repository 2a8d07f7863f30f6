"""Hashing every byte under a graph against its manifests.

Belongs here: files of versions, source files beside the lake. Does not belong here: links between manifests
(`resources.lineage.graph`), drops and corrections (`resources.lineage.deliveries`), anchors outside the lake
(`pipeline.audit.anchors`).
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resources.lineage.archive import Finding
from resources.lineage.deliveries import DELIVERED
from resources.lineage.graph import Graph, Node
from resources.manifest import MANIFEST, file_digest
from resources.version import linked


@dataclass
class Hashed:
    """What was read: files, bytes and seconds, and what differed."""

    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    @property
    def megabytes_per_second(self) -> float:
        """10^6 bytes hashed a second."""
        return self.bytes / 1e6 / self.seconds if self.seconds else 0.0


def hash_files(graph: Graph, workers: int | None = None) -> Hashed:
    """Hash every file of every version in the graph; nodes whose bytes differ become `changed`.

    Threads read side by side (hashing releases the interpreter), the largest files first.
    """
    started = time.perf_counter()
    jobs = [(node, f["name"], f["sha256"], f["bytes"]) for node in graph.nodes.values() for f in _files(node)]
    jobs.sort(key=lambda job: -job[3])
    found = Hashed(files=len(jobs))
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for (node, name, expected, size), digest in zip(jobs, pool.map(_digest, jobs), strict=True):
            if digest is None:
                _gone(node, name)
                continue
            found.bytes += size
            if digest != expected:
                if node.state in ("intact", "superseded"):
                    node.state = "changed"
                node.findings.append(
                    Finding(str(node.ref), "bytes", f"{node.version}/{name} differs from the manifest's sha256")
                )
    for node in graph.nodes.values():
        node.findings += _strangers(node)
    found.seconds = time.perf_counter() - started
    found.findings = graph.findings
    return found


def check_sources(graph: Graph, data_root: Path) -> list[Finding]:
    """Compare the published source files below `data_root` with what the raw tables were cut from, by sha256."""
    wanted: dict[str, dict[str, list[str]]] = {}
    for node in graph.nodes.values():
        for name, digest in dict(node.recipe.get("sources") or {}).items():
            if not str(name).startswith(DELIVERED):
                wanted.setdefault(str(name), {}).setdefault(str(digest), []).append(str(node.ref))
    findings = []
    for name, digests in sorted(wanted.items()):
        actual = _source_digest(data_root, name)
        for digest, refs in digests.items():
            if actual != digest:
                what = "is missing" if actual is None else "has other bytes than were read"
                findings.append(
                    Finding(refs[0], "source", f"source file {name} {what} ({len(refs)} days are cut from it)")
                )
    return findings


def _source_digest(data_root: Path, name: str) -> str | None:
    """sha256 of the source file `name`; None where there is none below the root."""
    try:
        path = data_root / name
        inside = path.resolve().is_relative_to(data_root.resolve())
        return file_digest(path) if inside and path.is_file() else None
    except (ValueError, RuntimeError):  # no name of a file; links in a circle
        return None


def _files(node: Node) -> Sequence[dict[str, Any]]:
    return node.kept.manifest["files"] if node.kept is not None and node.kept.manifest is not None else []


def _digest(job: tuple[Node, str, str, int]) -> str | None:
    """sha256 of a file, None where there is none."""
    node, name = job[0], job[1]
    assert node.kept is not None and node.kept.manifest is not None
    try:
        path = node.kept.path / name
        away = not path.is_file() or name in linked(node.kept.path, {"files": [{"name": name}]})
        return None if away else file_digest(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _gone(node: Node, name: str) -> None:
    """A file that is not there: what the graph saw missing is named already, what vanished since is not."""
    finding = Finding(str(node.ref), "file", f"{node.version}/{name} is missing")
    if finding not in node.findings:
        node.findings.append(finding)
    if node.state in ("intact", "superseded"):
        node.state = "missing"


def _strangers(node: Node) -> list[Finding]:
    """Files in the version's folder that its manifest does not name."""
    if node.kept is None or node.kept.manifest is None or not node.kept.path.is_dir():
        return []
    listed = {MANIFEST, *(f["name"] for f in node.kept.manifest["files"])}
    present = {
        path.relative_to(node.kept.path).as_posix()
        for path in node.kept.path.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    return [
        Finding(str(node.ref), "file", f"{node.version}/{name} is not in the manifest")
        for name in sorted(present - listed)
    ]
