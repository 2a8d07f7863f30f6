"""The exports are what their formats ask for, and say what the graph says."""

import json
import subprocess
import sys
import types
import typing
import xml.etree.ElementTree as ET
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from assets.column_lineage import BY_READER, FEATURES, columns_of
from assets.graph import BY_NAME
from ml import schema
from ml.articles import ARTICLE_FEATURES
from pipeline.audit import export
from resources.lake import Lake, Ref
from resources.lineage.graph import walk_all
from resources.lineage.metric import Address, lineage
from tests.resources.lake_help import publish_tables
from tests.resources.lineage_help import DATASET, DAY, small_lake

SCHEMAS = {
    "articles": schema.ARTICLES, "clicks": schema.CLICKS, "impressions": schema.IMPRESSIONS,
    "interactions": schema.INTERACTIONS, "session_splits": schema.SESSIONS, "article_features": ARTICLE_FEATURES,
}  # fmt: skip


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    root = tmp_path_factory.mktemp("lake")
    small_lake(root)
    return lineage(root, Address(DATASET, DAY, "rolling", "snert", "rq1.thesis.recall@20"))[1]


def test_openlineage_has_one_event_a_version_and_links_them(graph):
    events = export.openlineage(graph)
    made: set[str] = set()
    for event in events:
        assert {d["name"] for d in event["inputs"]} <= made, "inputs come first"
        made |= {d["name"] for d in event["outputs"]}
        datetime.fromisoformat(event["eventTime"])
    assert made == {str(n.ref) for n in graph.nodes.values()}
    (clicks,) = [e for e in events if e["outputs"][0]["name"] == f"{DATASET}/clicks/2023-05-16"]
    (output,) = clicks["outputs"]
    (node,) = graph.find(Ref(DATASET, "clicks", "2023-05-16"))
    assert output["facets"]["version"]["datasetVersion"] == node.manifest["content"]
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 7
    fields = output["facets"]["columnLineage"]["fields"]
    assert fields["user_id"]["inputFields"] == [
        {"namespace": "newsrec-lake", "name": f"{DATASET}/raw_parquet/2023-05-16", "field": "user_id"}
    ]
    (user,) = [e for e in events if e["outputs"][0]["name"] == f"{DATASET}/interactions/{DAY}"]
    checks = user["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert [(c["assertion"], c["success"]) for c in checks] == [("ids", True)]


def test_openlineage_tells_the_columns_of_real_tables(tmp_path):
    lake = Lake(tmp_path)
    publish_tables(lake, Ref(DATASET, "clicks", "2023-05-16"), {"clicks": schema.CLICKS.empty_table()})
    (event,) = export.openlineage(walk_all(tmp_path))
    fields = event["outputs"][0]["facets"]["schema"]["fields"]
    assert [f["name"] for f in fields] == schema.CLICKS.names
    assert fields[2] == {"name": "time", "type": "timestamp[ms, tz=UTC]"}


FACETS = {
    "version": "dataset_version_dataset.DatasetVersionDatasetFacet",
    "schema": "schema_dataset.SchemaDatasetFacet",
    "columnLineage": "column_lineage_dataset.ColumnLineageDatasetFacet",
    "dataQualityAssertions": "data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet",
    "dataQualityMetrics": "data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet",
    "outputStatistics": "output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet",
    "parent": "parent_run.ParentRunFacet",
    "processing_engine": "processing_engine_run.ProcessingEngineRunFacet",
    "tags": "tags_run.TagsRunFacet",
    "jobType": "job_type_job.JobTypeJobFacet",
}


def conforms(value: object, kind: object, where: str) -> None:
    """`value` has the type that a class generated from the published schema declares; unknown fields are refused."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is typing.Any:
        return
    if origin in (typing.Union, types.UnionType):
        options = [k for k in arguments if k is not type(None)]
        return conforms(value, options[0], where) if value is not None else None
    if origin is list:
        assert isinstance(value, list), where
        for i, inner in enumerate(value):
            conforms(inner, arguments[0], f"{where}[{i}]")
    elif origin is dict:
        assert isinstance(value, dict), where
        facets = where.rpartition(".")[2] in ("facets", "inputFacets", "outputFacets")
        for name, inner in value.items():
            conforms(inner, generated(FACETS[name]) if facets else arguments[1], f"{where}.{name}")
    elif hasattr(kind, "__attrs_attrs__"):
        assert isinstance(value, dict), where
        declared = typing.get_type_hints(kind)
        fields = {a.name: a for a in kind.__attrs_attrs__}
        assert set(value) <= set(fields), f"{where}: unknown {set(value) - set(fields)}"
        missing = [n for n, a in fields.items() if n not in value and a.init and str(a.default) == "NOTHING"]
        assert not missing, f"{where}: lacks {missing}"
        for name, inner in value.items():
            conforms(inner, declared[name], f"{where}.{name}")
    elif isinstance(kind, type):
        plain = kind if kind in (str, int, bool, float) else str
        assert isinstance(value, (int, float) if plain is float else plain), f"{where}: {value!r}"


def generated(name: str) -> type:
    module, _, kind = name.rpartition(".")
    return getattr(__import__(f"openlineage.client.generated.{module}", fromlist=[kind]), kind)


def test_openlineage_events_fit_the_published_schema(graph):
    """Against the classes that the OpenLineage project generates from its schema and publishes."""
    pytest.importorskip("openlineage.client", reason="openlineage-python is not installed")
    for event in export.openlineage(graph):
        conforms(event, generated("base.RunEvent"), "event")
        for place, url in _urls(event):
            assert url == generated(FACETS[place])._get_schema(), place


def _urls(value: object, place: str = "") -> typing.Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if "_schemaURL" in value:
            yield place, value["_schemaURL"]
        for name, inner in value.items():
            yield from _urls(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _urls(inner, place)


def test_prov_relations_name_what_is_declared(graph):
    found = export.prov(graph)
    assert len(found["entity"]) == len(found["activity"]) == len(graph.nodes)
    for link in found["used"].values():
        assert link["prov:activity"] in found["activity"] and link["prov:entity"] in found["entity"]
    derived = {(d["prov:generatedEntity"], d["prov:usedEntity"]) for d in found["wasDerivedFrom"].values()}
    assert derived == {(f"lake:{n.id}", f"lake:{i}") for n in graph.nodes.values() for i in n.inputs}
    for link in found["wasAssociatedWith"].values():
        assert link["prov:agent"] in found["agent"]
    prefixes = set(found["prefix"]) | {"prov", "_"}
    names = [n for part in ("entity", "activity", "agent") for n in found[part]]
    assert {n.split(":")[0] for n in names} <= prefixes


def test_graphml_is_read_by_another_program(graph):
    networkx = pytest.importorskip("networkx", reason="networkx is not installed")
    read = networkx.parse_graphml(export.graphml(graph))
    assert set(read.nodes) == set(graph.nodes)
    assert set(read.edges) == {(i, n.id) for n in graph.nodes.values() for i in n.inputs}
    assert {d["state"] for _, d in read.nodes(data=True)} == {"intact"}
    ET.fromstring(export.graphml(graph))


def test_mermaid_draws_days_of_a_stage_as_one_box(graph):
    lines = export.mermaid(graph).splitlines()
    boxes = [line for line in lines if "<br/>" in line]
    assert len(boxes) == 7
    assert any("clicks<br/>2023-05-16 to 2023-05-17 (2)" in line for line in boxes)
    assert sum("-->" in line for line in lines) == 7


@pytest.mark.parametrize("kind", ["openlineage", "prov", "mermaid", "graphml"])
def test_the_same_graph_gives_the_same_text(graph, kind):
    assert export.text(graph, kind) == export.text(graph, kind)


@pytest.mark.parametrize("reader", sorted(BY_READER))
@pytest.mark.parametrize("stage", [*BY_READER["ebnerd"], *FEATURES])
def test_column_lineage_names_real_columns_of_real_inputs(stage, reader):
    needs = {n.stage for n in BY_NAME[stage].needs}
    for column, sources in columns_of(stage, reader).items():
        if stage in SCHEMAS:
            assert column in SCHEMAS[stage].names
        for upstream, name in sources:
            assert upstream in needs or (upstream == "interactions" and stage == "evaluation_rq3"), (stage, upstream)
            if upstream in SCHEMAS:
                assert name in SCHEMAS[upstream].names, (stage, column, name)


def test_no_column_of_a_canonical_table_is_forgotten():
    for stage in ("articles", "clicks", "impressions", "interactions", "article_features"):
        published = [set(columns_of(stage, reader)) for reader in sorted(BY_READER) if reader != "own"]
        assert set(SCHEMAS[stage].names) - set.union(*published) <= {"os", "region", "referrer", "synthetic_inview"}
        assert set(SCHEMAS[stage].names) == set(columns_of(stage, "own"))


def test_the_reader_gives_what_the_lineage_says(tmp_path):
    """The raw columns that canonical tables are said to come from exist in a split bundle."""
    from ml.datasets import DATASETS
    from ml.readers import reader
    from ml.simulator import simulate

    simulate(tmp_path / "log", "tiny", 3)
    known = DATASETS["simulated"]
    reader("ebnerd").split(tmp_path / "log", known, tmp_path / "days")
    names: set[str] = set()
    for path in (tmp_path / "days").glob("*/*.parquet"):
        names |= set(pq.read_schema(path).names)
    for columns in BY_READER["ebnerd"].values():
        for sources in columns.values():
            assert {name for _, name in sources} <= names


def test_the_command_writes_and_refuses(tmp_path):
    small_lake(tmp_path / "lake")

    def audit(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "audit", *arguments, "--lake", str(tmp_path / "lake")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    out = tmp_path / "events.json"
    assert audit("export", "--format", "openlineage", "--out", str(out)).returncode == 0
    assert len(json.loads(out.read_text())) == 13
    for arguments in (("export", "--format", "dot"), ("export",), ("export", "--format", "prov", "--out", "/proc/x")):
        done = audit(*arguments)
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert Path(out).exists()
