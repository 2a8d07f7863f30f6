"""`newsrec audit export`: the graph in other tools' formats: OpenLineage, W3C PROV-JSON, Mermaid, GraphML.

Belongs here: translation of nodes and links. Does not belong here: the bundle for an auditor (`pipeline.audit.bundle`).
The same graph gives the same text.
"""

import json
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from typing import Any

from assets.column_lineage import columns_of
from ml.datasets import DATASETS
from ml.parquet import read_schema
from resources.lineage.graph import Graph, Node

Json = dict[str, Any]
PRODUCER = "urn:newsrec:audit"
NAMESPACE = "newsrec"
LAKE = "newsrec-lake"
CORE = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
FACETS = {
    "version": ("1-0-1", "DatasetVersionDatasetFacet"),
    "schema": ("1-2-0", "SchemaDatasetFacet"),
    "columnLineage": ("1-2-0", "ColumnLineageDatasetFacet"),
    "dataQualityAssertions": ("1-1-0", "DataQualityAssertionsDatasetFacet"),
    "dataQualityMetrics": ("1-0-3", "DataQualityMetricsInputDatasetFacet"),
    "outputStatistics": ("1-0-2", "OutputStatisticsOutputDatasetFacet"),
    "parent": ("1-2-0", "ParentRunFacet"),
    "processing_engine": ("1-1-1", "ProcessingEngineRunFacet"),
    "tags": ("1-0-0", "TagsRunFacet"),
    "jobType": ("2-0-4", "JobTypeJobFacet"),
}
"""Version and name of the published schema of each facet."""
COLOURS = {
    "intact": "#1b7f3b", "superseded": "#7a6a00", "changed": "#b3261e", "missing": "#8a1c7c", "erased": "#56606b",
}  # fmt: skip


def openlineage(graph: Graph) -> list[Json]:
    """One COMPLETE run event a version, inputs first. A dataset is a partition of the lake, its version the content
    digest (Dagster's data version)."""
    return [_event(graph, node) for node in graph.order() if node.manifest is not None]


def prov(graph: Graph) -> Json:
    """PROV-JSON: an entity a version, an activity a publication, agents for who asked and for the software."""
    found: dict[str, dict[str, Json]] = {
        k: {} for k in ("entity", "activity", "agent", "wasGeneratedBy", "used", "wasDerivedFrom", "wasAssociatedWith")
    }
    for node in graph.order():
        entity, activity = f"lake:{node.id}", f"run:{node.id}"
        found["entity"][entity] = _plain(
            {
                "prov:label": str(node.ref),
                "newsrec:version": node.version,
                "newsrec:content": (node.manifest or {}).get("content"),
                "newsrec:rows": node.rows,
                "newsrec:state": node.state,
            }
        )
        at = node.publication.get("at")
        facts = {"prov:label": f"made {node.ref}", "newsrec:recipe_key": node.publication.get("recipe_key")}
        more = {"newsrec:mlflow_run": node.run.get("mlflow_run"), "newsrec:dagster_run": node.run.get("dagster_run")}
        found["activity"][activity] = _plain({**facts, **more, "prov:endTime": at})
        made = {"prov:entity": entity, "prov:activity": activity, "prov:time": at}
        found["wasGeneratedBy"][f"_:g{node.id}"] = _plain(made)
        for number, id_ in enumerate(node.inputs):
            link = f"_:{node.id}.{number}"
            found["used"][f"{link}u"] = {"prov:activity": activity, "prov:entity": f"lake:{id_}"}
            found["wasDerivedFrom"][f"{link}d"] = {
                "prov:generatedEntity": entity,
                "prov:usedEntity": f"lake:{id_}",
                "prov:activity": activity,
            }
        for kind, name in _agents(node):
            agent = f"agent:{name}"
            found["agent"][agent] = {"prov:type": {"$": kind, "type": "prov:QUALIFIED_NAME"}, "prov:label": name}
            found["wasAssociatedWith"][f"_:{node.id}.{kind[5:]}"] = {"prov:activity": activity, "prov:agent": agent}
    prefixes = {"newsrec": "urn:newsrec:", "lake": "urn:newsrec:lake:", "run": "urn:newsrec:run:"}
    return {"prefix": {**prefixes, "agent": "urn:newsrec:agent:"}, **{k: v for k, v in found.items() if v}}


def mermaid(graph: Graph) -> str:
    """A flowchart: days of one stage that have the same users become one box, so that it stays readable."""
    groups: dict[tuple[str, str, tuple[str, ...]], list[Node]] = {}
    names: dict[str, str] = {}
    for node in reversed(graph.order()):
        users = tuple(sorted({names[u] for u in graph.users[node.id]}))
        key = (node.ref.stage, node.ref.model or "", users if "." not in node.ref.partition else (node.id,))
        groups.setdefault(key, []).append(node)
        names[node.id] = f"n{list(groups).index(key)}"
    lines = ["flowchart LR"]
    for number, ((stage, model, _), nodes) in enumerate(groups.items()):
        days = sorted(n.ref.partition for n in nodes)
        span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]} ({len(days)})"
        state = max((n.state for n in nodes), key=list(COLOURS).index)
        lines.append(f'  n{number}["{stage}{"/" + model if model else ""}<br/>{span}"]:::{state}')
    links = sorted({(names[i], names[n.id]) for n in graph.nodes.values() for i in n.inputs})
    lines += [f"  {a} --> {b}" for a, b in links]
    return "\n".join([*lines, *(f"  classDef {s} stroke:{c},stroke-width:2px" for s, c in COLOURS.items())]) + "\n"


def graphml(graph: Graph) -> str:
    """GraphML with ref, version, state, rows, content and time as attributes of the nodes; edges run from inputs."""
    space = "http://graphml.graphdrawing.org/xmlns"
    root = ET.Element("graphml", xmlns=space)
    kinds = dict.fromkeys(("ref", "version", "state", "content", "at"), "string") | {"rows": "long"}
    for name, kind in kinds.items():
        ET.SubElement(root, "key", {"id": name, "for": "node", "attr.name": name, "attr.type": kind})
    inner = ET.SubElement(root, "graph", edgedefault="directed")
    order = graph.order()
    for node in order:
        facts = {"ref": str(node.ref), "version": node.version, "state": node.state, "rows": node.rows}
        facts |= {"content": (node.manifest or {}).get("content"), "at": node.publication.get("at")}
        element = ET.SubElement(inner, "node", id=node.id)
        for name, value in _plain(facts).items():
            ET.SubElement(element, "data", key=name).text = str(value)
    for node in order:
        for id_ in node.inputs:
            ET.SubElement(inner, "edge", source=id_, target=node.id)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def text(graph: Graph, kind: str) -> str:
    """The graph as `openlineage`, `prov`, `mermaid` or `graphml`."""
    if kind in ("mermaid", "graphml"):
        return mermaid(graph) if kind == "mermaid" else graphml(graph)
    value = openlineage(graph) if kind == "openlineage" else prov(graph)
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(values: Mapping[str, Any]) -> Json:
    return {k: v for k, v in values.items() if v is not None}


def _agents(node: Node) -> Iterator[tuple[str, str]]:
    if node.run.get("asked_by"):
        yield "prov:Person", str(node.run["asked_by"])
    if node.environment.get("git_commit"):
        yield "prov:SoftwareAgent", f"newsrec {node.environment['git_commit']}"


def _facet(kind: str, /, **values: Any) -> Json:
    version, schema = FACETS[kind]
    url = f"https://openlineage.io/spec/facets/{version}/{schema}.json#/$defs/{schema}"
    return {"_producer": PRODUCER, "_schemaURL": url, **values}


def _event(graph: Graph, node: Node) -> Json:
    at = str(node.publication.get("at", "1970-01-01T00:00:00+00:00"))
    job = ".".join(p for p in (node.ref.dataset, node.ref.stage, node.ref.model) if p)
    kind = {"processingType": "BATCH", "integration": "DAGSTER", "jobType": "ASSET"}
    inputs = [graph.nodes[i] for i in node.inputs]
    return {
        "eventType": "COMPLETE",
        "eventTime": at,
        "producer": PRODUCER,
        "schemaURL": CORE,
        "run": {"runId": _run_id(node.id), "facets": _run_facets(node)},
        "job": {"namespace": NAMESPACE, "name": job, "facets": {"jobType": _facet("jobType", **kind)}},
        "inputs": [_dataset(i, graph) | {"inputFacets": _input_facets(i)} for i in inputs],
        "outputs": [_dataset(node, graph) | {"outputFacets": _output_facets(node)}],
    }


def _run_id(text: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PRODUCER}:{text}"))


def _run_facets(node: Node) -> Json:
    facts = {
        "manifest": node.id, "seed": node.recipe.get("seed"), "device": node.run.get("device"),
        "commit": node.environment.get("git_commit"), "mlflow_run": node.run.get("mlflow_run"),
        "recipe_key": node.publication.get("recipe_key"),
    }  # fmt: skip
    tags = [{"key": k, "value": str(v), "source": NAMESPACE} for k, v in _plain(facts).items()]
    found = {"tags": _facet("tags", tags=tags)}
    libraries = node.environment.get("libraries", {})
    if "dagster" in libraries:
        found["processing_engine"] = _facet("processing_engine", version=libraries["dagster"], name="Dagster")
    parent = str(node.run.get("dagster_run") or "")
    if parent:
        try:
            run = str(uuid.UUID(parent))
        except ValueError:
            run = _run_id(parent)
        found["parent"] = _facet("parent", run={"runId": run}, job={"namespace": NAMESPACE, "name": node.ref.dataset})
    return found


def _dataset(node: Node, graph: Graph) -> Json:
    manifest = node.manifest or {}
    facets = {"version": _facet("version", datasetVersion=str(manifest.get("content", node.id)))}
    fields = _fields(node)
    if fields:
        facets["schema"] = _facet("schema", fields=fields)
    lineage = _column_lineage(node, graph)
    if lineage:
        facets["columnLineage"] = _facet("columnLineage", fields=lineage)
    return {"namespace": LAKE, "name": str(node.ref), "facets": facets}


def _fields(node: Node) -> list[Json]:
    """Columns of the version's tables, read from their files; each name once."""
    found: dict[str, str] = {}
    if node.kept is None:
        return []
    for file in (node.manifest or {}).get("files", []):
        path = node.kept.path / file["name"]
        if file["name"].endswith(".parquet") and file["name"] != "quarantine.parquet" and path.is_file():
            for field in read_schema(path, "run `newsrec audit verify`"):
                found.setdefault(field.name, str(field.type))
    return [{"name": name, "type": kind} for name, kind in found.items()]


def _column_lineage(node: Node, graph: Graph) -> Json:
    """For each column, the columns of the inputs of this very version that it comes from."""
    known = DATASETS.get(node.ref.dataset)
    by_stage: dict[str, list[Node]] = {}
    for id_ in node.inputs:
        by_stage.setdefault(graph.nodes[id_].ref.stage, []).append(graph.nodes[id_])
    found = {}
    for column, sources in columns_of(node.ref.stage, known.reader if known else "").items():
        inputs = [
            {"namespace": LAKE, "name": str(source.ref), "field": field}
            for stage, field in sources
            for source in by_stage.get(stage, [])
        ]
        if inputs:
            found[column] = {"inputFields": inputs}
    return found


def _input_facets(node: Node) -> Json:
    found: Json = {}
    checks = (node.manifest or {}).get("checks", [])
    if checks:
        said = [
            {
                "assertion": str(c["name"]),
                "success": bool(c["passed"]),
                "severity": "error" if c.get("blocking") else "warn",
                "description": str(c.get("description", "")),
                "actual": f"{c.get('count_bad', 0)} rows against the rule",
            }
            for c in checks
        ]
        found["dataQualityAssertions"] = _facet("dataQualityAssertions", assertions=said)
    if node.rows is not None:
        found["dataQualityMetrics"] = _facet(
            "dataQualityMetrics", rowCount=node.rows, bytes=node.size, columnMetrics={}
        )
    return found


def _output_facets(node: Node) -> Json:
    files = len((node.manifest or {}).get("files", []))
    if node.rows is None:
        return {}
    return {"outputStatistics": _facet("outputStatistics", rowCount=node.rows, size=node.size, fileCount=files)}
