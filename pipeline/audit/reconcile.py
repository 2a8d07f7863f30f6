"""`newsrec audit reconcile`: report, evaluation, MLflow and Dagster side by side.

Belongs here: figures that must agree, runs that belong to nothing, metrics on superseded inputs, Dagster's own input
pointers. Does not belong here: digests (`pipeline.audit.anchors`) and bytes (`pipeline.audit.verify`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.errors import DataError, UsageError
from ml.measured import read_metrics, read_report
from pipeline.audit.anchors import MANIFEST_TAG, dagster_events, day_of, event_facts, mlflow_runs
from resources.lineage.archive import Finding, Partition, partitions, read_partition
from resources.lineage.graph import Graph, Node, walk
from resources.lineage.metric import METRICS_FILE, REPORT, REPORT_FILE, figure, numbers
from resources.lineage.payload import findings_json
from resources.ref import Ref
from resources.tracker import KIND

if TYPE_CHECKING:
    from mlflow.entities import Run

Events = Mapping[tuple[str, ...], list[dict[str, Any]]]


def reconcile(root: Path, dataset: str, tracking_uri: str | None = None) -> dict[str, Any]:
    """Everything of one dataset that is current: `ok`, counts, findings; stores that are not there are said so."""
    reports = [ref for ref in partitions(root) if ref.dataset == dataset and ref.stage == REPORT]
    starts = [(ref, read_partition(root, ref).current) for ref in reports]
    graph = walk(root, [(ref, digest) for ref, digest in starts if digest])
    runs = mlflow_runs([dataset], tracking_uri) if graph.roots else None
    recorded = dagster_events({_key(n) for n in graph.nodes.values()})
    events = None if recorded is None else {k: [event_facts(r) for r in v] for k, v in recorded.items()}
    if not graph.roots:
        raise UsageError(f"no report of {dataset} in {root}: run `newsrec run --dataset {dataset}`")
    counts = {"reports": len(graph.roots), "figures": 0, "in_mlflow": 0, "in_dagster": 0, "pointers": 0, "disagree": 0}
    found = [finding for id_ in graph.roots for finding in _figures(graph, graph.nodes[id_], runs, events, counts)]
    found += _superseded(graph)
    found += _orphans(root, runs) if runs is not None else []
    found += _pointers(graph, events, counts) if events is not None else []
    return {
        "ok": not any(f.broken for f in found),
        "mlflow": "no store" if runs is None else f"{len(runs)} runs",
        "dagster": "no store" if events is None else f"{sum(map(len, events.values()))} materialisations",
        "counts": counts,
        "findings": findings_json(found),
    }


def render(answer: dict[str, Any]) -> str:
    """For the terminal."""
    lines = [f"{'DIFFERS' if f['broken'] else 'note'}  {f['ref']}: {f['message']}" for f in answer["findings"]]
    c = answer["counts"]
    lines.append(
        f"{c['figures']} figures of {c['reports']} reports: {c['in_mlflow']} the same in MLflow ({answer['mlflow']}), "
        f"{c['in_dagster']} the same in Dagster ({answer['dagster']})"
    )
    lines.append(f"{c['pointers']} input pointers of Dagster: {c['disagree']} name another version than the manifest")
    broken = sum(f["broken"] for f in answer["findings"])
    lines.append("report, MLflow and Dagster agree" if answer["ok"] else f"{broken} do not agree")
    return "\n".join(lines)


def _key(node: Node) -> tuple[str, ...]:
    return (node.ref.dataset, node.ref.stage, *([node.ref.model] if node.ref.model else []))


def _figures(
    graph: Graph, report: Node, runs: "Mapping[str, Run] | None", events: Events | None, counts: dict[str, int]
) -> Iterator[Finding]:
    """Each figure of a report in its evaluation, in MLflow and in Dagster."""
    where = str(report.ref)
    text = _json(report, REPORT_FILE)
    if text is None:
        yield Finding(where, "number", f"{REPORT_FILE} cannot be read")
        return
    for (model, metric), entry in numbers(text).items():
        counts["figures"] += 1
        ref = Ref(report.ref.dataset, f"evaluation_{metric.split('.')[0]}", report.ref.partition, model)
        named = (report.manifest or {}).get("inputs", {}).get(str(ref), "")
        node = graph.nodes.get(named)
        metrics = _json(node, METRICS_FILE) if node is not None else None
        if node is None or metrics is None:
            yield Finding(where, "number", f"{model} {metric}: its evaluation {ref} cannot be read")
            continue
        value = float(entry["value"])
        if figure(metrics, metric) != value:
            yield Finding(where, "number", f"{model} {metric} is {value}, {ref} says {figure(metrics, metric)}")
        name = _stored_name(metrics, metric)
        if runs is not None:
            theirs = _in_mlflow(node, name, runs)
            counts["in_mlflow"] += theirs == [value]
            if theirs and theirs != [value]:
                yield Finding(where, "number", f"{model} {metric} is {value}, MLflow says {theirs[0]}")
        if events is not None:
            theirs = _in_dagster(node, name, events)
            counts["in_dagster"] += theirs == [value]
            if theirs and theirs != [value]:
                yield Finding(where, "number", f"{model} {metric} is {value}, Dagster says {theirs[0]}")


def _json(node: Node, name: str) -> dict[str, Any] | None:
    if node.kept is None:
        return None
    try:
        read = read_report if name == REPORT_FILE else read_metrics
        return read(node.kept.path / name)
    except (OSError, DataError):
        return None


def _stored_name(metrics: Mapping[str, Any], metric: str) -> str:
    """The name under which the stores keep a figure: with its protocol, which the report leaves out of rq2 and rq3."""
    question, *path = metric.split(".")
    protocol = [] if question == "rq1" else [next(iter(metrics["protocols"]))]
    return ".".join([*protocol, *path])


def _in_mlflow(node: Node, name: str, runs: "Mapping[str, Run]") -> list[float]:
    """The values that runs of this very version hold, each once."""
    key = name.replace("@", "_at_")
    own = [r for r in runs.values() if r.data.tags.get(MANIFEST_TAG) == node.id and key in r.data.metrics]
    return sorted({float(r.data.metrics[key]) for r in own})


def _in_dagster(node: Node, name: str, events: Events) -> list[float]:
    key = name.replace(".", "/")
    own = [e["metadata"] for e in events.get(_key(node), []) if e["metadata"].get("manifest") == node.id]
    return sorted({float(m[key]) for m in own if key in m})


def _superseded(graph: Graph) -> Iterator[Finding]:
    """Current reports over inputs that are no longer current, by what each version was last made from: equal bytes keep
    their first manifest, the ledger names the newer inputs."""
    for id_ in graph.roots:
        todo, seen, old = [graph.nodes[id_].ref], set(), set()
        while todo:
            ref = todo.pop()
            if ref in seen:
                continue
            seen.add(ref)
            partition = _partition(graph, ref)
            entry = partition.publications.get(partition.current)
            named = entry.record["publication"].get("inputs", {}) if entry else {}
            for name, digest in named.items():
                upstream = Ref.of_input(name)
                if _partition(graph, upstream).current != digest:
                    old.add(name)
                todo.append(upstream)
        if old:
            more = f" and {len(old) - 1} more" if len(old) > 1 else ""
            message = f"stands on superseded {min(old)}{more}: {graph.nodes[id_].ref.command} brings it up to date"
            yield Finding(str(graph.nodes[id_].ref), "superseded", message, broken=False)


def _partition(graph: Graph, ref: Ref) -> Partition:
    if ref not in graph.partitions:
        graph.partitions[ref] = read_partition(graph.root, ref)
    return graph.partitions[ref]


def _orphans(root: Path, runs: "Mapping[str, Run]") -> Iterator[Finding]:
    """Runs of the tracker that made nothing which the lake knows."""
    known: dict[str, set[str]] = {}
    for run in runs.values():
        name, manifest, status = run.data.tags.get(KIND, ""), run.data.tags.get(MANIFEST_TAG, ""), run.info.status
        if not name:
            yield Finding("MLflow", "orphan", f"run {run.info.run_id} names no partition", broken=False)
            continue
        if name not in known:
            known[name] = set(read_partition(root, Ref.parse(name)).publications)
        if status == "RUNNING":
            yield Finding(name, "orphan", f"MLflow run {run.info.run_id} says it is still running", broken=False)
        elif not manifest:
            message = f"MLflow run {run.info.run_id} ended {status} and published nothing"
            yield Finding(name, "orphan", message, broken=False)
        elif manifest not in known[name]:
            message = f"MLflow run {run.info.run_id} made manifest {manifest[:12]}, which no ledger of this lake holds"
            yield Finding(name, "orphan", message)


def _pointers(graph: Graph, events: Events, counts: dict[str, int]) -> Iterator[Finding]:
    """Dagster's input event pointers against the manifests: each names one materialisation, of any partition."""
    manifests = {e["storage_id"]: e["metadata"].get("manifest") for all_ in events.values() for e in all_}
    prefix = "dagster/input_event_pointer/"
    wrong: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        own = [
            e for e in events.get(_key(node), [])
            if e["metadata"].get("manifest") == node.id and e["partition"] == day_of(node)
            and not e["metadata"].get("unchanged")
        ]  # fmt: skip
        if not own:
            continue
        for tag, pointed in own[-1]["tags"].items():
            if tag.startswith(prefix) and pointed.isdigit():
                counts["pointers"] += 1
                key = tag.removeprefix(prefix)
                inputs = [i for i in node.inputs if "/".join(_key(graph.nodes[i])) == key]
                # a window reads many partitions, of which one pointer can name but one
                if len(inputs) != 1 or manifests.get(int(pointed)) not in inputs:
                    counts["disagree"] += 1
                    wrong.setdefault(f"{node.ref.dataset}/{node.ref.stage}", []).append(key.split("/")[1])
    for asset, keys in sorted(wrong.items()):
        shown = ", ".join(f"{keys.count(k)} of {k}" for k in sorted(set(keys)))
        message = f"Dagster's input pointers are not the manifest's inputs: {shown}; the manifest is the truth"
        yield Finding(asset, "pointer", message, broken=False)
