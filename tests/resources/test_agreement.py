"""Every number of a report stands beside the evaluation that measured it."""

import json

import pytest

from resources.lake import Lake, Ref
from resources.lineage.agreement import compare_numbers
from resources.lineage.graph import walk_all
from resources.lineage.metric import ADDRESSED, REPORT, REPORT_FILE, measurement, numbers
from tests.resources.lineage_help import DATASET, PARTITION, publish, rewrite, small_lake
from tests.resources.test_lineage import bury

REPORT_REF = Ref(DATASET, REPORT, PARTITION)


@pytest.fixture
def lake(tmp_path):
    return small_lake(tmp_path / "lake")


def report_of(lake: Lake) -> dict:
    return json.loads(lake.require(REPORT_REF).file(REPORT_FILE).read_text())


def republish(lake: Lake, report: dict, leave_out: str = "") -> None:
    """Publish another report over the same evaluations, but for those whose name contains `leave_out`."""
    named = lake.require(REPORT_REF).manifest["inputs"]
    inputs = [lake.require(Ref.parse(n)) for n in named if not leave_out or leave_out not in n]
    publish(lake, REPORT_REF, {REPORT_FILE: json.dumps(report)}, inputs)


def current(lake: Lake):
    """The comparison of the report that the pointer names."""
    now = lake.require(REPORT_REF).manifest_digest
    return next(c for c in compare_numbers(walk_all(lake.root)) if c.node.id == now)


def test_the_numbers_of_a_sound_report_agree(lake):
    found = current(lake)
    assert found.agree == len(numbers(report_of(lake), ADDRESSED)) == 4
    assert (found.differ, found.erased, found.findings) == (0, 0, [])


@pytest.mark.parametrize(("field", "value"), [("value", 0.51), ("low", 0.41), ("n", 11)])
def test_a_number_or_its_interval_that_changed_on_its_way_is_named(lake, field, value):
    report = report_of(lake)
    report["models"]["snert"]["rq1"]["thesis"]["recall@20"][field] = value
    republish(lake, report)
    found = current(lake)
    assert (found.agree, found.differ) == (3, 1)
    (finding,) = found.findings
    assert finding.broken and finding.ref == str(REPORT_REF) and "rq1.thesis.recall@20" in finding.message


def test_a_number_of_an_evaluation_that_is_no_input_is_named(lake):
    republish(lake, report_of(lake) | {"notes": ["other bytes"]}, leave_out="evaluation_rq2/snert")
    found = current(lake)
    assert (found.agree, found.differ) == (3, 1)
    assert "no input of the report" in found.findings[0].message


def test_what_cannot_be_read_is_named(lake):
    version = lake.require(Ref(DATASET, "evaluation_rq1", PARTITION, "snert"))
    rewrite(version.file("metrics.json"), b"[1]")
    found = current(lake)
    assert found.differ == 1 and "cannot be read" in found.findings[0].message
    rewrite(lake.require(REPORT_REF).file(REPORT_FILE), b"{")
    assert "report.json cannot be read" in current(lake).findings[0].message


def test_segments_have_addresses_too(tmp_path):
    metrics = {"protocols": {"all": {"rq1": {"thesis": {"device": {"1": {"recall@20": {"value": 0.25, "n": 3}}}}}}}}
    path = "segments.rq1.thesis.device.1.recall@20"
    assert measurement(metrics, path) == {"value": 0.25, "n": 3}
    assert measurement(metrics, path.replace("device", "hour")) is None
    report = {"models": {"snert": {"segments": metrics["protocols"]["all"]}}}
    assert list(numbers(report, ADDRESSED)) == [("snert", path)]
    assert not numbers(report), "those of the three questions alone"


def test_an_erased_evaluation_leaves_nothing_to_compare_with(lake):
    bury(lake.root, Ref(DATASET, "evaluation_rq1", PARTITION, "snert"), recorded=True)
    found = current(lake)
    assert (found.agree, found.differ, found.erased) == (3, 0, 1)
