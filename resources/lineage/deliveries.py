"""Drops and corrections under a number: the lake's own copies of what was taken in.

Belongs here: comparing them with what raw tables were cut from. Does not belong here: the folders that they were
delivered in, which nobody has to keep; the published files beside the lake (`resources.lineage.check`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml.errors import LakeError
from resources import ledger
from resources.lineage.archive import Finding
from resources.lineage.graph import Graph
from resources.manifest import file_digest

DELIVERED = ("landing/", "correction/")
"""How the names of such source files begin (`resources.days.Delivery.label`)."""
Where = tuple[Path, str]


def check_deliveries(graph: Graph) -> list[Finding]:
    """Every delivered file that a version of the graph was cut from, by sha256; what was rewritten when a reader was
    erased by the digest that the landing ledger gives since."""
    findings: list[Finding] = []
    kept: dict[str, dict[tuple[str, str], Where]] = {}
    seen: set[tuple[str, str, str]] = set()
    for node in graph.nodes.values():
        for name, digest in dict(node.recipe.get("sources") or {}).items():
            dataset = node.ref.dataset
            if not str(name).startswith(DELIVERED) or (dataset, name, digest) in seen:
                continue
            if dataset not in kept:
                kept[dataset] = dict(_kept(graph.root, dataset, findings))
            seen.add((dataset, name, digest))
            fault = _fault(kept[dataset].get((name, digest)))
            if fault:
                findings.append(Finding(str(node.ref), "source", f"delivered file {name} {fault}"))
    return findings


def _fault(where: Where | None) -> str:
    if where is None:
        return "is named by no landing ledger"
    path, digest = where
    if path.is_symlink() or not path.is_file():
        return "is missing in the lake"
    return "" if file_digest(path) == digest else "has other bytes than were taken in"


def _kept(lake: Path, dataset: str, findings: list[Finding]) -> Iterator[tuple[tuple[str, str], Where]]:
    """Labelled name and delivered sha256, to where the file lies and the sha256 that it has there."""
    from resources.erasure.deliveries import FILES, HOME, kept_files

    for path in sorted((lake / HOME / dataset).glob(f"*/{ledger.LEDGER}")):
        try:
            records = [entry.record for entry in ledger.entries(path)]
            wrong = ledger.problems(path)
        except LakeError as error:
            records, wrong = [], [str(error)]
        findings += [Finding(f"{HOME}/{dataset}", "ledger", line) for line in wrong]
        for number, record in enumerate(records):
            if record["kind"] not in ("drop", "correction"):
                continue
            now = kept_files(records, record)
            for name, digest in record["files"].items():
                place = record["placed"][name]
                where = path.parent / FILES / now.folder / place, str(now.digests.get(place, digest))
                yield (f"{_label(number, record)}/{name}", digest), where


def _label(number: int, record: Mapping[str, Any]) -> str:
    return f"landing/{record['day']}" if record["kind"] == "drop" else f"correction/{record['day']}.{number}"
