"""A lineage graph as plain values: what `show --json` prints and the audit page draws.

Belongs here: one dictionary a node, with what manifest and ledger say of it. Does not belong here: drawing
(`pipeline.audit.text`, `resources.lineage.page`).
"""

from collections.abc import Mapping
from typing import Any

from ml.synthetic import SYNTHETIC
from resources.lineage.archive import Finding
from resources.lineage.graph import STATES, Graph, Node
from resources.lineage.metric import Number
from resources.manifest import digest

FORMAT = 1
LOOKED = "manifests, links, ledgers and sizes; the bytes of the files were not hashed"
HASHED = "every byte"
OUTSIDE = "outside"
Json = dict[str, Any]


def payload(graph: Graph, title: str, number: Number | None = None, checked: str = LOOKED) -> Json:
    """`nodes` by id (manifest digest; source files by name and digest), `roots`, `environments` (each once, named by
    digest), `findings`, `counts` by state, and of a number its address, value and interval."""
    environments: dict[str, Json] = {}
    nodes: dict[str, Json] = {}
    for node in graph.nodes.values():
        nodes[node.id] = _node(node, environments, nodes)
    counts = {state: sum(n["state"] == state for n in nodes.values()) for state in (*STATES, OUTSIDE)}
    return {
        "format": FORMAT,
        "title": title,
        "number": _number(number) if number else None,
        "checked": checked,
        "roots": list(graph.roots),
        "counts": counts,
        "nodes": nodes,
        "environments": environments,
        "findings": findings_json(graph.findings),
    }


def findings_json(findings: list[Finding]) -> list[Json]:
    """Findings as plain values, each once, in order."""
    unique = dict.fromkeys(findings)
    return [{"ref": f.ref, "kind": f.kind, "message": f.message, "broken": f.broken} for f in unique]


def _number(number: Number) -> Json:
    a = number.address
    return {
        "address": str(a),
        **{"metric": a.metric, "model": a.model, "dataset": a.dataset, "as_of": a.day, "split": a.split},
        **number.entry,
        **({SYNTHETIC: number.synthetic} if number.synthetic else {}),
    }


def _node(node: Node, environments: dict[str, Json], nodes: dict[str, Json]) -> Json:
    manifest = node.manifest or {}
    environment = node.environment
    key = digest(environment)[:12] if environment else ""
    if environment:
        environments.setdefault(key, environment)
    checks = manifest.get("checks", [])
    run, publication = node.run, node.publication
    return {
        "ref": str(node.ref),
        "stage": node.ref.stage,
        "model": node.ref.model,
        "partition": node.ref.partition,
        "version": node.version,
        "state": node.state,
        "content": manifest.get("content", ""),
        "rows": node.rows,
        "bytes": node.size,
        "recipe": node.recipe,
        "seed": node.recipe.get("seed"),
        "at": publication.get("at"),
        "commit": environment.get("git_commit"),
        "dirty": environment.get("git_dirty"),
        "environment": key,
        **{name: run.get(name) for name in ("device", "seconds", "asked_by", "dagster_run", "mlflow_run")},
        "checks": {
            "passed": sum(bool(c.get("passed")) for c in checks),
            "of": len(checks),
            "failed": [c.get("name") for c in checks if not c.get("passed")],
        },
        "inputs": [*node.inputs, *_sources(node.recipe.get("sources"), nodes)],
        "problems": [f.message for f in node.findings],
        "erased": {k: node.tombstone.get(k) for k in ("at", "request")} if node.tombstone else None,
        "manifest": manifest,
    }


def _sources(sources: object, nodes: dict[str, Json]) -> list[str]:
    """Ids of the source files that a raw table was cut from; they become nodes of their own, each once."""
    found = []
    if isinstance(sources, Mapping):
        for name, sha256 in sources.items():
            id_ = f"{name}@{sha256}"
            found.append(id_)
            nodes.setdefault(id_, _source(str(name), str(sha256)))
    return found


def _source(name: str, sha256: str) -> Json:
    empty = ("model", "rows", "bytes", "seed", "at", "commit", "dirty", "device", "seconds", "asked_by")
    return {
        **dict.fromkeys((*empty, "dagster_run", "mlflow_run", "erased")),
        **{"ref": name, "stage": "source file", "partition": name, "version": "", "state": OUTSIDE, "content": sha256},
        **{"recipe": {}, "environment": "", "inputs": [], "problems": [], "manifest": {}},
        "checks": {"passed": 0, "of": 0, "failed": []},
    }
