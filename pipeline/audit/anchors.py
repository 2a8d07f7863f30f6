"""What Dagster and MLflow say of the lake's versions: the anchors outside it.

Belongs here: reading both stores and comparing digests. Does not belong here: figures (`pipeline.audit.reconcile`).

A store that is not there, or never heard of a version, is said so and is no break; one that names another manifest is.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.lineage.archive import Finding
from resources.lineage.graph import Graph, Node
from resources.places import REPOSITORY
from resources.tracker import DAGSTER_RUN, KIND
from resources.tracking_store import SQLITE, default_uri

if TYPE_CHECKING:
    from dagster import EventLogRecord
    from mlflow.entities import Run

MANIFEST_TAG, HEAD_TAG = "newsrec.manifest", "newsrec.ledger_head"
PAGE = 1000


@dataclass
class Anchors:
    """What was compared: versions named alike by a store, versions a store does not know, and findings."""

    mlflow: str = "not asked"
    dagster: str = "not asked"
    named: dict[str, int] = field(default_factory=lambda: {"mlflow": 0, "dagster": 0})
    findings: list[Finding] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """As plain values."""
        return {"mlflow": self.mlflow, "dagster": self.dagster, "named": self.named}


def check_anchors(graph: Graph, tracking_uri: str | None = None) -> Anchors:
    """Compare every version of the graph with MLflow's tags and with Dagster's materialisations."""
    anchors, known = Anchors(), set[str]()
    runs = mlflow_runs({n.ref.dataset for n in graph.nodes.values()}, tracking_uri)
    if runs is None:
        anchors.mlflow = "no store"
    else:
        known = _against_mlflow(graph, runs, anchors)
        anchors.mlflow = f"{len(runs)} runs read"
    events = dagster_events({tuple(_key(n)) for n in graph.nodes.values()})
    if events is None:
        anchors.dagster = "no store"
    else:
        _against_dagster(graph, events, known, anchors)
        anchors.dagster = f"{sum(map(len, events.values()))} materialisations read"
    return anchors


def mlflow_runs(datasets: Iterable[str], uri: str | None = None) -> "dict[str, Run] | None":
    """All runs of the datasets' experiments by run id; None where there is no store. Nothing is created."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri()
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():
        return None
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found: dict[str, Run] = {}
    for name in sorted(set(datasets)):
        experiment = client.get_experiment_by_name(name)
        token: str | None = None
        while experiment is not None:
            page = client.search_runs([experiment.experiment_id], max_results=PAGE, page_token=token)
            found |= {str(run.info.run_id): run for run in page}
            token = page.token
            if not token:
                break
    return found


def dagster_events(keys: Iterable[tuple[str, ...]]) -> "dict[tuple[str, ...], list[EventLogRecord]] | None":
    """All materialisations of the asset keys; None where DAGSTER_HOME holds no storage yet. Nothing is created."""
    home = Path(os.environ.get("DAGSTER_HOME") or REPOSITORY)
    config = home / "dagster.yaml"
    elsewhere = config.is_file() and any(line.startswith("storage:") for line in config.read_text().splitlines())
    if not elsewhere and not ((home / "history").is_dir() and (home / "storage").is_dir()):
        return None
    import dagster as dg

    found: dict[tuple[str, ...], list[EventLogRecord]] = {}
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for key in sorted(set(keys)):
            cursor: str | None = None
            records: list[EventLogRecord] = []
            while True:
                page = instance.fetch_materializations(dg.AssetKey(list(key)), limit=PAGE, cursor=cursor)
                records += page.records
                cursor = page.cursor
                if not page.has_more:
                    break
            found[key] = records
    return found


def event_facts(record: "EventLogRecord") -> dict[str, Any]:
    """Run, partition, metadata values and tags of a materialisation, and the id by which pointers name it."""
    materialization = record.asset_materialization
    assert materialization is not None
    return {
        "storage_id": record.storage_id,
        "run": record.run_id,
        "partition": materialization.partition,
        "metadata": {k: v.value for k, v in materialization.metadata.items()},
        "tags": dict(materialization.tags or {}),
    }


def day_of(node: Node) -> str:
    """The Dagster partition of a lake partition: its day."""
    return date.fromisoformat(node.ref.partition.split(".")[0]).isoformat()


def _key(node: Node) -> list[str]:
    return [node.ref.dataset, node.ref.stage, *([node.ref.model] if node.ref.model else [])]


def _against_mlflow(graph: Graph, runs: "Mapping[str, Run]", anchors: Anchors) -> set[str]:
    """The manifests of the graph that MLflow names."""
    known: set[str] = set()
    by_ref: dict[str, list[Run]] = {}
    for run in runs.values():
        by_ref.setdefault(run.data.tags.get(KIND, ""), []).append(run)
    for node in graph.nodes.values():
        ref = str(node.ref)
        manifests = {run.data.tags.get(MANIFEST_TAG) for run in by_ref.get(ref, [])} - {None}
        if node.id in manifests:
            anchors.named["mlflow"] += 1
            known.add(node.id)
        elif manifests and node.run.get("erasure"):
            message = f"took an erased version's place by request {node.run['erasure']}: MLflow has no run of it"
            anchors.findings.append(Finding(ref, "anchor", message, broken=False))
        elif manifests:
            anchors.findings.append(
                Finding(ref, "anchor", f"MLflow never heard of manifest {node.id[:12]}, its runs name others")
            )
        run_id = node.run.get("mlflow_run")
        if run_id and by_ref.get(ref) and run_id not in runs:
            anchors.findings.append(Finding(ref, "anchor", f"the ledger's MLflow run {run_id} is not in the store"))
    for ref_, partition in graph.partitions.items():
        lines = {entry.digest for entry in partition.ledger}
        for run in by_ref.get(str(ref_), []):
            head = run.data.tags.get(HEAD_TAG)
            ours = run.info.run_id in {e.record.get("run", {}).get("mlflow_run") for e in partition.ledger}
            if head and ours and head not in lines:
                message = f"MLflow run {run.info.run_id} saw ledger line {head[:12]}, which is no longer there"
                anchors.findings.append(Finding(str(ref_), "anchor", message))
    return known


def _against_dagster(
    graph: Graph, events: "Mapping[tuple[str, ...], list[EventLogRecord]]", elsewhere: set[str], anchors: Anchors
) -> None:
    """`elsewhere`: manifests that MLflow names."""
    by_day: dict[tuple[tuple[str, ...], str], dict[str, set[str]]] = {}  # manifests by run
    everywhere: set[str] = set()
    for key, records in events.items():
        for record in records:
            facts = event_facts(record)
            manifest = str(facts["metadata"].get("manifest"))
            everywhere.add(manifest)
            by_day.setdefault((key, str(facts["partition"])), {}).setdefault(str(facts["run"]), set()).add(manifest)
    for node in graph.nodes.values():
        runs = by_day.get((tuple(_key(node)), day_of(node)), {})
        said = runs.get(str(node.run.get("dagster_run")), set())
        if node.id in said or (not said and node.id in everywhere):
            anchors.named["dagster"] += 1
        elif said:
            message = f"Dagster run {node.run.get('dagster_run')} materialised another manifest than {node.id[:12]}"
            anchors.findings.append(Finding(str(node.ref), "anchor", message))
        elif runs and node.run.get("erasure"):
            message = f"took an erased version's place by request {node.run['erasure']}: Dagster has no run of it"
            anchors.findings.append(Finding(str(node.ref), "anchor", message, broken=False))
        elif runs:
            message = f"Dagster never heard of manifest {node.id[:12]}, its materialisations of that day name others"
            message += "; MLflow names it" if node.id in elsewhere else ""
            anchors.findings.append(Finding(str(node.ref), "anchor", message, broken=node.id not in elsewhere))


__all__ = ["DAGSTER_RUN", "Anchors", "check_anchors", "dagster_events", "day_of", "event_facts", "mlflow_runs"]
