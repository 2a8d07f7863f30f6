"""Where an asset's page leads: column lineage, inputs, runs, and a report's audit page."""

from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from assets.graph import BY_NAME
from assets.links import column_lineage, links
from ml.datasets import DATASETS
from resources.lake import Ref
from tests.resources.lineage_help import DATASET, DAY, PARTITION, small_lake

SIMULATED = DATASETS["simulated"]


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return small_lake(tmp_path_factory.mktemp("lake"))


def test_columns_of_metrics_lead_to_the_same_models_predictions():
    found = column_lineage(BY_NAME["evaluation_rq2"], SIMULATED, "snert", BY_NAME)["dagster/column_lineage"]
    deps = {(d.asset_key.to_user_string(), d.column_name) for d in found.deps_by_column["auc"]}
    assert deps == {("simulated/predictions/snert", "scores"), ("simulated/predictions/snert", "clicked")}


def test_columns_of_canonical_tables_are_those_of_the_datasets_reader():
    for name, raw in (("simulated", "article_ids_clicked"), ("globo", "click_article_id")):
        found = column_lineage(BY_NAME["clicks"], DATASETS[name], None, BY_NAME)["dagster/column_lineage"]
        deps = {(d.asset_key.to_user_string(), d.column_name) for d in found.deps_by_column["article_id"]}
        assert (f"{name}/raw_parquet", raw) in deps


def test_a_stage_without_columns_has_no_column_lineage():
    assert column_lineage(BY_NAME["checkpoint"], SIMULATED, "snert", BY_NAME) == {}


def test_a_report_links_run_inputs_and_its_audit_page(lake):
    report = lake.require(Ref(DATASET, "evaluation_report", PARTITION))
    found = links(lake, report, "sqlite:///x.db", "#/experiments/1/runs/2")
    assert found["mlflow_page"].value == "http://127.0.0.1:5000/#/experiments/1/runs/2"
    assert all(ref in found["inputs"].value for ref in report.manifest["inputs"])
    page = Path(unquote(urlparse(found["audit_page"].value).path))
    assert str(report.ref) in page.read_text() and lake.root in page.parents
    assert lake.verify(report) == []


def test_a_server_is_linked_where_it_is(lake):
    clicks = lake.require(Ref(DATASET, "interactions", DAY))
    found = links(lake, clicks, "https://mlflow.example/", "#/runs/2")
    assert found["mlflow_page"].value == "https://mlflow.example/#/runs/2"
    assert "audit_page" not in found
