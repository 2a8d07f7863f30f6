"""Periods, and what a backfill asks for; the estimate from ledgers."""

from datetime import date

import pytest

from assets.graph import BY_NAME
from ml.datasets import DATASETS
from ml.errors import UsageError
from pipeline.backfill_plan import Backfill, Period, _chosen, as_json, estimate, parse_period, text
from pipeline.daemon import _ranges
from pipeline.plan import Node, Plan
from resources.bindings import RunSettings, ToolBox
from resources.lake import POINTER, Ref

SIMULATED = DATASETS["simulated"]


@pytest.mark.parametrize(
    ("periods", "weeks", "first", "last"),
    [
        ("2023-05-18..2023-05-24", None, "2023-05-18", "2023-05-24"),
        ("2023-05-18", None, "2023-05-18", "2023-05-18"),
        (None, "2023-W20..2023-W21", "2023-05-15", "2023-05-28"),
        (None, "2023-05-18..2023-05-24", "2023-05-15", "2023-05-28"),
        (None, "2020-W53", "2020-12-28", "2021-01-03"),
    ],
)
def test_periods(periods, weeks, first, last):
    assert parse_period(periods, weeks) == Period(date.fromisoformat(first), date.fromisoformat(last))


@pytest.mark.parametrize(
    ("periods", "weeks", "message"),
    [
        (None, None, "either"),
        ("2023-05-18", "2023-W20", "either"),
        ("2023-05-18..2023-05-17", None, "before it begins"),
        ("yesterday", None, "no day"),
        ("2023-05-18..", None, "A..B"),
        (None, "2023-W54", "no week"),
    ],
)
def test_periods_that_mean_nothing(periods, weeks, message):
    with pytest.raises(UsageError, match=message):
        parse_period(periods, weeks)


def node(stage: str, day: int, state: str) -> Node:
    ref = Ref("simulated", stage, f"2023-05-{day:02}")
    return Node(BY_NAME[stage], date(2023, 5, day), None, ref, (), state, f"{state} for a reason")


PLAN = Plan(
    SIMULATED, [node("clicks", 1, "fresh"), node("clicks", 2, "stale"), node("articles", 2, "missing"),
                node("interactions", 3, "waits")]
)  # fmt: skip


@pytest.mark.parametrize(
    ("which", "asked"),
    [("all", ["clicks", "articles", "interactions"]), ("missing", ["articles"]), ("stale", ["clicks", "interactions"])],
)
def test_only_missing_and_only_stale_share_out_what_is_pending(which, asked):
    assert [n.stage.name for n in _chosen(PLAN, which)] == asked


@pytest.fixture
def backfill():
    period = Period(date(2023, 5, 1), date(2023, 5, 4))
    return Backfill(SIMULATED, period, "all", PLAN, tuple(_chosen(PLAN, "all")), {date(2023, 5, 4): "no data"})


def test_days_are_asked_for_asset_by_asset(backfill):
    assert backfill.by_asset[("simulated", "clicks")] == ["2023-05-02"]
    assert _ranges(["2023-04-30", "2023-05-01", "2023-05-03"]) == [
        ("2023-04-30", "2023-05-01"),
        ("2023-05-03", "2023-05-03"),
    ]


def test_the_estimate_is_the_median_of_the_ledgers(backfill, tmp_path):
    tools = ToolBox(lake=str(tmp_path / "lake"), device="cpu").tools()
    for day, seconds in ((1, 1.0), (2, 3.0), (3, 50.0)):
        with tools.lake.staging(Ref("simulated", "clicks", f"2023-04-0{day}")) as staged:
            (staged.path / "clicks.parquet").write_bytes(b"x" * 100 * day)
            tools.lake.publish(staged, {}, "k", {}, {}, None, [], {"seconds": seconds})
    cost = estimate(backfill, tools)
    assert (cost.seconds, cost.bytes) == (3.0, 200)
    assert cost.unknown == {"articles": 1, "interactions": 1}
    shown = text(backfill, cost)
    assert "2023-05-04" in shown and "no data" in shown
    assert "simulated/clicks/2023-05-02: stale for a reason" in shown
    assert "3 of 4 partitions" in shown and "never made before: 1 x articles, 1 x interactions" in shown
    assert as_json(backfill, cost)["estimate"]["unknown"] == {"articles": 1, "interactions": 1}


def test_the_estimate_passes_over_what_is_damaged_and_says_so(backfill, tmp_path):
    tools = ToolBox(lake=str(tmp_path / "lake"), device="cpu").tools()
    for day, seconds in ((1, 1.0), (2, 3.0)):
        ref = Ref("simulated", "clicks", f"2023-04-0{day}")
        with tools.lake.staging(ref) as staged:
            (staged.path / "clicks.parquet").write_bytes(b"x" * 100 * day)
            tools.lake.publish(staged, {}, "k", {}, {}, None, [], {"seconds": seconds})
    (tools.lake.folder(ref) / POINTER).write_text("{")
    cost = estimate(backfill, tools)
    assert (cost.seconds, cost.bytes, cost.passed_over) == (1.0, 100, 1)
    assert "1 damaged partitions were passed over" in text(backfill, cost)
    assert as_json(backfill, cost)["estimate"]["passed_over"] == 1


def test_settings_of_the_environment(monkeypatch):
    from resources.bindings import default_settings

    assert default_settings() == RunSettings()
    monkeypatch.setenv("NEWSREC_MODELS", "random")
    assert default_settings().models == ["random", "popular_15"]
    monkeypatch.setenv("NEWSREC_RECIPE", "snert_magic")
    with pytest.raises(UsageError, match="snert_magic"):
        default_settings()
