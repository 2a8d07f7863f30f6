"""Automation conditions ask for what `--explain` calls missing or stale with fresh inputs, wave by wave."""

import dagster as dg
import pytest

from assets.build import asset_key
from pipeline import automation
from pipeline.automation import condition, ready_partitions
from pipeline.definitions import build_defs
from pipeline.plan import make_plan
from pipeline.run import execute
from resources.bindings import RunSettings
from tests.pipeline.conftest import dagster_home
from tests.pipeline.test_deliveries import CUT, SIMULATED, Home

SETTINGS = RunSettings()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The shortened log, of which nothing is in the lake yet."""
    folder = tmp_path_factory.mktemp("automation")
    with dagster_home(folder) as instance:
        made = Home(folder)
        made.instance = instance
        yield made


def requested(home: Home, monkeypatch) -> set[str]:
    """`asset path/partition` that the conditions ask for now, where the plan is that of the home's goals."""
    plan = make_plan(SIMULATED, SETTINGS, home.tools, home.goals(CUT[0]))
    monkeypatch.setattr(automation, "_plan_at", lambda *_: plan)
    graph = build_defs({"toolbox": home.toolbox}, ["simulated"])
    rule = condition("simulated", home.toolbox, SETTINGS)
    assets = [a.map_asset_specs(lambda s: s.replace_attributes(automation_condition=rule)) for a in graph.assets]
    result = dg.evaluate_automation_conditions(dg.Definitions(assets=assets, resources=graph.resources), home.instance)
    found = set()
    for evaluation in result.results:
        subset = evaluation.true_subset.expensively_compute_asset_partitions()
        found |= {f"{p.asset_key.path[1]}/{p.partition_key}" for p in subset}
    return found


def explained(home: Home) -> tuple[set[str], set[str]]:
    """Partitions that the plan calls pending, and those of them that are ready."""
    plan = make_plan(SIMULATED, SETTINGS, home.tools, home.goals(CUT[0]))
    pending = {f"{n.stage.name}/{n.day}" for n in plan.pending}
    keys = {asset_key(SIMULATED, n.stage, n.model) for n in plan.nodes}
    return pending, {f"{k.path[1]}/{d}" for k in keys for d in ready_partitions(plan, k)}


def test_the_conditions_agree_with_explain_until_nothing_is_pending(home, monkeypatch):
    days = list(home.tools.source.days(SIMULATED))
    home.goals = lambda last: Home.goals(home, days[-1])
    pending, ready = explained(home)
    asked = requested(home, monkeypatch)
    assert asked == ready == {p for p in pending if p.startswith("raw_parquet/")}
    raw = [g for g in Home.goals(home, days[-1]) if g[0].name == "articles"]
    execute(SIMULATED, SETTINGS, home.toolbox, raw, lambda _: None)
    pending, ready = explained(home)
    asked = requested(home, monkeypatch)
    assert asked == ready
    assert {p.split("/")[0] for p in asked} == {"clicks", "impressions"}
    execute(SIMULATED, SETTINGS, home.toolbox, Home.goals(home, days[-1]), lambda _: None)
    assert explained(home) == (set(), set()) and requested(home, monkeypatch) == set()
