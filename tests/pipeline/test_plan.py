"""Batches respect inputs: nothing runs before what it reads."""

import json
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.graph import BY_NAME
from ml.datasets import DATASETS
from pipeline.plan import Node, Plan, _difference
from resources.bindings import RunSettings
from resources.lake import Ref

DAY = date(2023, 5, 1)


@st.composite
def plans(draw):
    """Nodes on a few days, each reading some of those before it; some fresh."""
    nodes: list[Node] = []
    for i in range(draw(st.integers(1, 14))):
        day = DAY + timedelta(days=draw(st.integers(0, 3)))
        inputs = draw(st.lists(st.sampled_from(nodes), max_size=3)) if nodes else []
        waits = any(n.runs for n in inputs)
        state = "waits" if waits else draw(st.sampled_from(["fresh", "missing", "stale"]))
        ref = Ref("simulated", f"s{i}", str(day))
        nodes.append(Node(BY_NAME["clicks"], day, None, ref, tuple(n.ref for n in inputs), state, ""))
    return Plan(DATASETS["simulated"], nodes)


@given(plans())
def test_every_pending_node_runs_once_and_after_its_inputs(plan):
    ran: list[Ref] = []
    for day, batch in plan.batches():
        for node in batch:
            assert node.day == day
            assert all(r in ran for r in node.inputs if r in {n.ref for n in plan.pending})
            ran.append(node.ref)
    assert sorted(map(str, ran)) == sorted(str(n.ref) for n in plan.pending)


@given(plans())
def test_fresh_nodes_do_not_run(plan):
    assert not {n.ref for n in plan.nodes if n.state == "fresh"} & {n.ref for _, b in plan.batches() for n in b}


@pytest.mark.parametrize("name", ["rolling", "thesis", "lag_2"])
def test_an_unchanged_recipe_read_back_from_the_ledger_is_no_difference(name):
    stage = BY_NAME["predictions"]
    recipe = stage.recipe(DATASETS["simulated"], RunSettings(split=name), None, "random")
    before = json.loads(json.dumps({"inputs": {}, "code": {"ml.predict": "1"}, "recipe": recipe}))
    assert _difference(before, [], recipe, {"ml.predict": "2"}) == "code of ml.predict changed"
