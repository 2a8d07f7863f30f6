"""The one way of materialising: skip, check, publish, refuse; on two small stages of their own."""

from dataclasses import replace
from datetime import date

import dagster as dg
import pytest

from assets import build
from assets.build import asset_key, build_asset, input_refs, models_of
from assets.expectations import CheckResult
from assets.graph import BY_NAME, STAGES
from assets.stage import Need, Stage, Summary, days_of, no_recipe
from ml.datasets import DATASETS
from ml.errors import DataError, TransientError
from ml.splits import THESIS, split
from resources.bindings import DEFAULT_MODELS, RunSettings, ToolBox
from resources.lake import Ref

GLOBO = DATASETS["globo"]
DAY = date(2017, 10, 5)
LOG = "user_id,session_id,session_start,session_size,click_article_id,click_timestamp,click_environment,click_deviceGroup,click_os,click_country,click_region,click_referrer_type\n"  # noqa: E501


def number(work):
    (work.out / "number.txt").write_text(f"{work.settings.seed}\n")
    return Summary(rows={"number.txt": 1}, metrics={"seed": work.settings.seed})


def doubled(work):
    value = int(work.one("number").file("number.txt").read_text())
    if value == 13:
        raise DataError("13 is refused: choose another seed")
    if value == 14:
        raise TimeoutError("the disk is slow")
    if value == 15:
        raise TransientError("the store is away")
    (work.out / "double.txt").write_text(f"{2 * value}\n")
    return Summary(rows={"double.txt": 1})


NUMBER = Stage("number", "g", "d", (), ("ml.clock",), lambda d, s, t, m: {"seed": s.seed}, number, daily=True)
DOUBLED = Stage("doubled", "g", "d", (Need("number", "number"),), ("ml.clock",), no_recipe, doubled, table="clicks")
STAGE_BY_NAME = {s.name: s for s in (NUMBER, DOUBLED)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that materialises both stages for one seed; `checks` holds what validation will say."""
    clicks = tmp_path / "log" / "clicks"
    clicks.mkdir(parents=True)
    row = "1,2,1507200000000,2,3,1507208400000,4,3,20,1,20,2\n"
    (clicks / "clicks_hour_000.csv").write_text(LOG + row)
    checks = [CheckResult("ids", True, True, 0, [], "ids are there")]
    monkeypatch.setattr(build, "validate", lambda *_: list(checks))
    monkeypatch.setattr(build, "suite_names", lambda _: [c.name for c in checks])
    toolbox = ToolBox(
        lake=str(tmp_path / "lake"),
        dataset="globo",
        data_root=str(tmp_path / "log"),
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
        device="cpu",
    )

    def go(seed: int) -> dg.ExecuteInProcessResult:
        made = [build_asset(s, GLOBO, None, STAGE_BY_NAME, []) for s in STAGE_BY_NAME.values()]
        return dg.materialize(
            made,
            partition_key=str(DAY),
            resources={"settings": RunSettings(seed=seed), "toolbox": toolbox},
            instance=dg.DagsterInstance.ephemeral(),
            raise_on_error=False,
        )

    go.lake = toolbox.tools().lake
    go.checks = checks
    return go


def metadata(result: dg.ExecuteInProcessResult, stage: Stage) -> dict:
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == asset_key(GLOBO, stage, None)]
    return event.materialization.metadata


def test_a_second_run_keeps_the_versions_and_says_so(run):
    first, second = run(5), run(5)
    assert first.success and second.success
    assert "unchanged" not in metadata(first, DOUBLED)
    assert metadata(second, DOUBLED)["unchanged"].value is True
    assert metadata(first, DOUBLED)["manifest"] == metadata(second, DOUBLED)["manifest"]


def test_the_data_version_is_the_content_and_the_manifest_names_its_input(run):
    result = run(5)
    number_, double = (run.lake.require(Ref("globo", n, str(DAY))) for n in ("number", "doubled"))
    assert double.manifest["inputs"] == {str(number_.ref): number_.manifest_digest}
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key.path[-1] == "doubled"]
    assert event.materialization.tags["dagster/data_version"] == double.content


def test_a_failed_blocking_rule_publishes_nothing(run):
    run.checks[0] = CheckResult("ids", False, True, 7, ["row 3"], "ids are there")
    result = run(5)
    assert not result.success
    assert run.lake.current(Ref("globo", "doubled", str(DAY))) is None
    (failed,) = [e for e in result.all_events if e.is_step_failure]
    message = failed.step_failure_data.user_failure_data.description
    assert "7 rows" in message and "nothing published" in message
    assert "row 3" not in message, "an example may name a reader, and messages leave the machine"
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert (evaluation.metadata["count"].value, evaluation.metadata["examples"].value) == (7, ["row 3"])


def test_a_failed_warning_is_published_and_shown(run):
    run.checks[0] = CheckResult("ids", False, False, 7, ["row 3"], "ids are there")
    result = run(5)
    assert result.success
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert evaluation.metadata["count"].value == 7


def test_a_data_error_keeps_the_old_version_and_does_not_retry(run):
    run(5)
    before = run.lake.require(Ref("globo", "doubled", str(DAY)))
    result = run(13)
    assert not result.success
    assert run.lake.require(Ref("globo", "doubled", str(DAY))).manifest_digest == before.manifest_digest
    assert not [e for e in result.all_events if e.is_step_restarted]


@pytest.mark.parametrize("seed", [14, 15])
def test_a_transient_error_asks_for_a_retry(run, monkeypatch, seed):
    monkeypatch.setattr(build, "WAIT_SECONDS", 0)
    result = run(seed)
    assert not result.success
    assert len([e for e in result.all_events if e.is_step_restarted]) == 2
    (failed,) = [e for e in result.all_events if e.is_step_failure]
    assert failed.step_failure_data.user_failure_data.description.count("\n") == 0, "after the last try one line"


def test_what_follows_a_publication_is_done_by_the_next_try_when_it_failed(run, monkeypatch):
    monkeypatch.setattr(build, "WAIT_SECONDS", 0)
    told = []

    def after(tools, version, who):
        told.append(version.content)
        if len(told) == 1:
            raise ConnectionError("away")

    monkeypatch.setitem(STAGE_BY_NAME, "number", replace(NUMBER, after=after))
    assert run(5).success
    assert len(told) == 2 and len(set(told)) == 1


def test_a_window_leaves_out_days_without_data():
    found = input_refs(
        BY_NAME["interactions"], GLOBO, date(2017, 10, 4), None, RunSettings(), BY_NAME, [date(2017, 10, 2), DAY]
    )
    assert [str(ref) for _, _, ref in found["clicks"]] == ["globo/clicks/2017-10-02"]


@pytest.mark.parametrize("name", ["rolling", "thesis", "lag_3"])
def test_no_input_of_a_checkpoint_lies_behind_what_its_split_allows(name):
    day, run_split = date(2017, 10, 9), split(name)
    for need in BY_NAME["checkpoint"].needs:
        last = days_of(need, day, run_split, GLOBO)[-1]
        daily = BY_NAME[need.stage].daily
        assert (last - day).days <= run_split.fit_days - daily, need.name


def test_the_thesis_split_reads_the_whole_test_week():
    days = {n.name: days_of(n, date(2017, 10, 5), THESIS, GLOBO) for n in BY_NAME["predictions"].needs}
    assert days["impressions"] == [date(2017, 10, d) for d in range(6, 12)]
    assert days["interactions"] == [date(2017, 10, 12)]


def test_only_models_that_train_have_a_checkpoint():
    assert models_of(BY_NAME["checkpoint"], DEFAULT_MODELS) == ["snert"]
    assert models_of(BY_NAME["predictions"], DEFAULT_MODELS) == list(DEFAULT_MODELS)
    assert models_of(BY_NAME["clicks"], DEFAULT_MODELS) == [None]


def test_stages_come_after_what_they_need():
    seen = set()
    for stage in STAGES:
        assert {n.stage for n in stage.needs} <= seen, stage.name
        seen.add(stage.name)


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
def test_a_stage_names_the_module_of_its_body_for_the_recipe_key(stage):
    body = getattr(stage.compute, "func", stage.compute)
    assert body.__module__ in stage.modules
