"""`newsrec audit verify`: every byte under a number, or all, against manifests, ledgers and the anchors outside.

Belongs here: putting the checks together and telling them. Does not belong here: the checks (`resources.lineage`,
`pipeline.audit.anchors`).
"""

from pathlib import Path
from typing import Any

from resources.lineage.agreement import compare_numbers
from resources.lineage.check import check_sources, hash_files
from resources.lineage.deliveries import check_deliveries
from resources.lineage.graph import STATES, Graph
from resources.lineage.payload import findings_json


def verify(graph: Graph, data_root: Path | None, anchors: bool, tracking_uri: str | None = None) -> dict[str, Any]:
    """Hash, compare, and say what was found: `ok`, `findings`, counts by state, bytes, seconds, reports, anchors."""
    hashed = hash_files(graph)
    compared = compare_numbers(graph)
    found = [*hashed.findings, *(f for c in compared for f in c.findings), *check_deliveries(graph)]
    answer: dict[str, Any] = {"anchors": None}
    if data_root is not None:
        found += check_sources(graph, data_root)
    if anchors:
        from pipeline.audit.anchors import check_anchors

        outside = check_anchors(graph, tracking_uri)
        found += outside.findings
        answer["anchors"] = outside.json()
    return {
        "ok": not any(f.broken for f in found),
        "nodes": len(graph.nodes),
        "counts": {state: sum(n.state == state for n in graph.nodes.values()) for state in STATES},
        "files": hashed.files,
        "bytes": hashed.bytes,
        "seconds": round(hashed.seconds, 3),
        "mb_per_second": round(hashed.megabytes_per_second, 1),
        "reports": [c.json() for c in compared],
        "erased": erased(graph),
        "findings": findings_json(found),
        **answer,
    }


def erased(graph: Graph) -> list[dict[str, str]]:
    """What is gone by request: partition, day and request."""
    stones = [(n.ref, n.tombstone) for n in graph.nodes.values() if n.tombstone]
    return [{"ref": str(r), "at": str(t["at"])[:10], "request": str(t["request"])} for r, t in stones]


def render(answer: dict[str, Any]) -> str:
    """For the terminal."""
    lines = [f"{'BROKEN' if f['broken'] else 'note'}  {f['ref']}: {f['message']}" for f in answer["findings"]]
    lines += [f"erased  {e['ref']}: erased on {e['at']} by request {e['request']}" for e in answer["erased"]]
    counts = ", ".join(f"{n} {state}" for state, n in answer["counts"].items() if n)
    lines.append(
        f"{answer['nodes']} versions: {counts}; {answer['files']} files, {answer['bytes']:,} bytes hashed in "
        f"{answer['seconds']} s ({answer['mb_per_second']} MB/s)"
    )
    agree, gone = (sum(r[name] for r in answer["reports"]) for name in ("agree", "erased"))
    if answer["reports"]:
        more = f"; {gone:,} stand on evaluations that were erased" if gone else ""
        lines.append(f"{agree:,} numbers in {len(answer['reports'])} reports are those of their evaluations{more}")
    outside = answer["anchors"]
    if outside is not None:
        for store in ("mlflow", "dagster"):
            lines.append(
                f"{store}: {outside[store]}, {outside['named'][store]} of {answer['nodes']} versions named alike"
            )
    broken = sum(f["broken"] for f in answer["findings"])
    lines.append("verified: everything is as it was published" if answer["ok"] else f"{broken} broken")
    return "\n".join(lines)
