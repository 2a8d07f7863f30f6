"""Anchors and reconciliation against a real MLflow store and a real Dagster instance, over a small lake."""

import hashlib
import json
import shutil
from pathlib import Path

import dagster as dg
import pytest

from pipeline.audit.anchors import check_anchors
from pipeline.audit.reconcile import reconcile
from resources.lake import Lake, Ref
from resources.lineage.graph import walk_all
from resources.lineage.metric import REPORT
from resources.tracker import Tracker
from tests.resources.lineage_help import DATASET, DAY, PARTITION, RQ1, RQ2, publish, small_lake
from tests.resources.test_lineage import forge

RQ1_SNERT = Ref(DATASET, "evaluation_rq1", PARTITION, "snert")


def figures(ref: Ref) -> dict[str, float]:
    """What the evaluation's run logs: figures by protocol and name."""
    protocols = {"evaluation_rq1": RQ1, "evaluation_rq2": RQ2}.get(ref.stage, {})
    return {f"{p}.{name}": entry["value"] for p, values in protocols.items() for name, entry in values.items()}


def tell(instance, tracker, lake, node, files, inputs):
    """Publish one version inside a Dagster run and an MLflow run, as `assets.build` does."""
    day = node.ref.partition.split(".")[0]
    made = []

    @dg.asset(
        key=[p for p in (node.ref.dataset, node.ref.stage, node.ref.model) if p],
        partitions_def=dg.StaticPartitionsDefinition([day]),
    )
    def body(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with tracker.run(node.ref, context.run.run_id, "key") as run:
            record = {"mlflow_run": run.run_id, "dagster_run": context.run.run_id}
            version = publish(lake, node.ref, files, inputs, recipe=node.manifest["recipe"], record=record)
            run.metrics(figures(node.ref))
            tags = {"manifest": version.manifest_digest, "ledger_head": version.ledger_head}
            run.tags({f"newsrec.{k}": v for k, v in tags.items()})
        made.append(version)
        return dg.MaterializeResult(metadata={**tags, **{k.replace(".", "/"): v for k, v in figures(node.ref).items()}})

    assert dg.materialize([body], partition_key=day, instance=instance).success
    return made[0]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A lake whose every publication was told to an MLflow store and to Dagster, with the runs in its ledgers."""
    home = tmp_path_factory.mktemp("told")
    first = small_lake(home / "draft")
    tracker = Tracker(f"sqlite:///{home / 'mlflow.db'}")
    lake = Lake(home / "lake")
    (home / "dagster").mkdir()
    (home / "dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        made = {}
        for node in walk_all(first.root).order():
            inputs = [made[i] for i in node.inputs]
            files = {f["name"]: (node.kept.path / f["name"]).read_text() for f in node.manifest["files"]}
            if node.ref.stage == REPORT:
                report = json.loads(files["report.json"])
                for version in inputs:
                    report["models"][version.ref.model]["manifest"][version.ref.stage[-3:]] = version.manifest_digest
                files = {"report.json": json.dumps(report)}
            made[node.id] = tell(instance, tracker, lake, node, files, inputs)
    return home


@pytest.fixture
def home(told, tmp_path, monkeypatch):
    """A copy to be tampered with."""
    folder = Path(shutil.copytree(told, tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(folder / "dagster"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    return folder


def test_both_stores_name_every_version(home):
    anchors = check_anchors(walk_all(home / "lake"))
    assert anchors.findings == []
    assert anchors.named == {"mlflow": 13, "dagster": 13}


def test_a_forged_report_is_betrayed_by_the_anchor_outside(home):
    """The report has no users in the lake: only the stores know its true digest."""
    ref = Ref(DATASET, REPORT, PARTITION)
    report = Lake(home / "lake").require(ref).file("report.json").read_text().replace('"value": 0.75', '"value": 0.99')
    forge(home / "lake", ref, "report.json", report.encode())
    graph = walk_all(home / "lake")
    assert [str(f) for f in graph.findings] == []
    found = [str(f) for f in check_anchors(graph).findings]
    assert any(f"{ref}: MLflow never heard of manifest" in line for line in found)
    assert any("saw ledger line" in line for line in found)


def test_dagster_alone_betrays_a_forged_version(home):
    forge(home / "lake", RQ1_SNERT, "metrics.json", b'{"protocols": {}}')
    graph = walk_all(home / "lake")
    (home / "mlflow.db").unlink()
    anchors = check_anchors(graph)
    assert anchors.mlflow == "no store"
    assert any(f"{RQ1_SNERT}: Dagster run" in str(f) for f in anchors.findings)


def test_a_forged_version_with_a_forged_run_is_betrayed_too(home):
    """Its run is one that neither store has heard of."""
    forge(home / "lake", RQ1_SNERT, "metrics.json", b'{"protocols": {}}', dagster_run="d9", mlflow_run="m9")
    graph = walk_all(home / "lake")
    (home / "mlflow.db").unlink()
    found = [f for f in check_anchors(graph).findings if f.ref == str(RQ1_SNERT)]
    assert [f.broken for f in found] == [True] and "Dagster never heard of manifest" in found[0].message


def test_a_version_that_only_mlflow_was_told_of_is_noted(home):
    """Its process ended after the publication, before Dagster's event."""
    before = check_anchors(walk_all(home / "lake")).named
    lake, tracker = Lake(home / "lake"), Tracker(f"sqlite:///{home / 'mlflow.db'}")
    with tracker.run(RQ1_SNERT, "d9", "key") as run:
        record = {"mlflow_run": run.run_id, "dagster_run": "d9"}
        lists = lake.require(Ref(DATASET, "predictions", PARTITION, "snert"))
        version = publish(lake, RQ1_SNERT, {"metrics.json": "{}"}, [lists], recipe={}, record=record)
        run.published(version)
    anchors = check_anchors(walk_all(home / "lake"))
    (found,) = anchors.findings
    assert not found.broken and found.message.endswith("name others; MLflow names it")
    assert anchors.named == {"mlflow": before["mlflow"] + 1, "dagster": before["dagster"]}


def test_a_version_that_took_an_erased_ones_place_is_noted(home):
    lake = Lake(home / "lake")
    lists = lake.require(Ref(DATASET, "predictions", PARTITION, "snert"))
    record = {"erasure": "r1", "dagster_run": None, "mlflow_run": None}
    publish(lake, RQ1_SNERT, {"metrics.json": "{}"}, [lists], recipe={}, record=record)
    found = check_anchors(walk_all(home / "lake")).findings
    assert [f.broken for f in found] == [False, False]
    assert all(f.message.startswith("took an erased version's place by request r1") for f in found)


def test_stores_that_are_not_there_are_not_made(home, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(home / "other"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'other.db'}")
    anchors = check_anchors(walk_all(home / "lake"))
    assert (anchors.mlflow, anchors.dagster, anchors.findings) == ("no store", "no store", [])
    assert not (home / "other").exists() and not (home / "other.db").exists()


def test_the_same_number_stands_everywhere(home):
    answer = reconcile(home / "lake", DATASET)
    assert answer["ok"] and answer["findings"] == []
    assert answer["counts"] | {"pointers": 0} == {
        "reports": 1, "figures": 4, "in_mlflow": 4, "in_dagster": 4, "pointers": 0, "disagree": 0,
    }  # fmt: skip


def test_a_figure_that_mlflow_remembers_otherwise_is_named(home):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (entry,) = Lake(home / "lake").history(RQ1_SNERT)
    client.log_metric(entry.record["run"]["mlflow_run"], "thesis.recall_at_20", 0.625, step=1)
    answer = reconcile(home / "lake", DATASET)
    assert not answer["ok"]
    (finding,) = [f for f in answer["findings"] if f["broken"]]
    assert "snert rq1.thesis.recall@20 is 0.5, MLflow says 0.625" in finding["message"]


def test_runs_that_made_nothing_known_are_orphans(home):
    tracker = Tracker(f"sqlite:///{home / 'mlflow.db'}")
    with pytest.raises(ValueError), tracker.run(RQ1_SNERT, "d2", "key"):
        raise ValueError
    with tracker.run(RQ1_SNERT, "d3", "key") as run:
        run.tags({"newsrec.manifest": hashlib.sha256(b"elsewhere").hexdigest()})
    tracker.client.create_run(tracker.experiment(DATASET), tags={"newsrec.ref": str(RQ1_SNERT)})
    said = [f["message"] for f in reconcile(home / "lake", DATASET)["findings"]]
    assert any("ended FAILED and published nothing" in m for m in said)
    assert any("which no ledger of this lake holds" in m for m in said)
    assert any("says it is still running" in m for m in said)


def test_a_report_on_superseded_inputs_is_named(home):
    lake = Lake(home / "lake")
    publish(lake, Ref(DATASET, "interactions", DAY), {"interactions.bin": "newer"}, [], recipe={})
    said = [f["message"] for f in reconcile(home / "lake", DATASET)["findings"]]
    assert any(m.startswith(f"stands on superseded {DATASET}/interactions/{DAY}") for m in said)


def test_equal_bytes_from_newer_inputs_are_not_superseded(home):
    """The version keeps its first manifest; its last publication names what is current."""
    lake = Lake(home / "lake")
    raw = publish(lake, Ref(DATASET, "raw_parquet", "2023-05-16"), {"raw.bin": "corrected"}, [], recipe={})
    ref = Ref(DATASET, "clicks", "2023-05-16")
    before = lake.require(ref)
    text = {"clicks.bin": before.file("clicks.bin").read_text()}
    after = publish(lake, ref, text, [raw], recipe={"rules": "r"})
    assert after.manifest_digest == before.manifest_digest
    assert not any(f["kind"] == "superseded" for f in reconcile(home / "lake", DATASET)["findings"])
