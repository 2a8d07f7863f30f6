"""The plan of a backfill: which partitions of which assets a period needs, what it will cost, and what came to be.

Belongs here: choosing, estimating, comparing. Does not belong here: the daemon that carries it out
(`pipeline.daemon`), arguments and printing (`pipeline.cli`).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median
from typing import Any, Literal

from assets.build import asset_key
from assets.graph import STAGES
from ml.datasets import Dataset
from ml.errors import LakeError, UsageError
from pipeline.days import parse_day
from pipeline.plan import Node, Plan, make_plan
from pipeline.run import Goal, lacks, report_goals
from resources.bindings import RunSettings, Tools
from resources.lake import Ref

Which = Literal["all", "missing", "stale"]
MARKS = {"fresh": ".", "missing": "M", "stale": "S", "waits": "w"}
RECORDS = 12
"""Latest partitions of an asset whose ledgers the estimate reads."""


@dataclass(frozen=True, slots=True)
class Period:
    """Days `first` to `last`, both included."""

    first: date
    last: date

    @property
    def days(self) -> list[date]:
        """All days of the period, in order."""
        return [self.first + timedelta(days=i) for i in range((self.last - self.first).days + 1)]


def parse_period(periods: str | None, weeks: str | None) -> Period:
    """`--periods A..B` (days) or `--weeks A..B` (ISO weeks such as 2023-W20, or days, whose whole weeks are meant).
    Raises UsageError for anything else."""
    if (periods is None) == (weeks is None):
        raise UsageError("give either --periods DAY..DAY or --weeks WEEK..WEEK")
    if periods is not None:
        first, last = _ends(periods, "--periods", _day)
        return _ordered(Period(first[0], last[1]), periods)
    assert weeks is not None
    first, last = _ends(weeks, "--weeks", _week)
    return _ordered(Period(first[0], last[1]), weeks)


def _ends(text: str, option: str, read: Callable[[str, str], tuple[date, date]]) -> tuple[Any, Any]:
    parts = text.split("..")
    if len(parts) not in (1, 2) or not all(parts):
        raise UsageError(f"{option} {text!r}: write it as A..B, or as A alone")
    return read(parts[0], option), read(parts[-1], option)


def _ordered(period: Period, text: str) -> Period:
    if period.last < period.first:
        raise UsageError(f"{text!r} ends before it begins")
    return period


def _day(text: str, option: str) -> tuple[date, date]:
    day = parse_day(text, option)
    return day, day


def _week(text: str, option: str) -> tuple[date, date]:
    named = re.fullmatch(r"(\d{4})-W(\d{2})", text)
    try:
        monday = date.fromisocalendar(int(named[1]), int(named[2]), 1) if named else None
    except ValueError as error:
        raise UsageError(f"{option}: {text!r} is no week of that year") from error
    if monday is None:
        day = parse_day(text, option)
        monday = day - timedelta(days=day.weekday())
    return monday, monday + timedelta(days=6)


@dataclass(frozen=True, slots=True)
class Backfill:
    """What a period needs. `impossible`: days that cannot be evaluated, with the reason; `asked`: the partitions that
    are to be made, those of the plan that are missing or stale, as chosen by `which`."""

    dataset: Dataset
    period: Period
    which: Which
    plan: Plan
    asked: tuple[Node, ...]
    impossible: Mapping[date, str]

    @property
    def by_asset(self) -> dict[tuple[str, ...], list[str]]:
        """Partition keys to make, by the path of the asset key, in the order of the graph."""
        found: dict[tuple[str, ...], list[str]] = {}
        for node in self.asked:
            key = tuple(asset_key(self.dataset, node.stage, node.model).path)
            found.setdefault(key, []).append(node.day.isoformat())
        return {key: sorted(days) for key, days in found.items()}


def make_backfill(dataset: Dataset, settings: RunSettings, tools: Tools, period: Period, which: Which) -> Backfill:
    """The plan of the reports as of each day of the period, with all that they need. Raises UsageError when no day of
    the period can be evaluated."""
    days = tools.source.days(dataset)
    impossible = {d: why for d in period.days if (why := lacks(d, settings, days)) is not None}
    goals: list[Any] = []
    for day in period.days:
        if day not in impossible:
            goals += report_goals(day, settings)
    if not goals:
        day, why = next(iter(impossible.items()))
        raise UsageError(f"no day of {period.first}..{period.last} can be evaluated: {day}: {why}")
    plan = make_plan(dataset, settings, tools, goals)
    return Backfill(dataset, period, which, plan, tuple(_chosen(plan, which)), impossible)


def _chosen(plan: Plan, which: Which) -> Iterable[Node]:
    kinds = {"all": ("missing", "stale", "waits"), "missing": ("missing",), "stale": ("stale", "waits")}[which]
    return (n for n in plan.pending if n.state in kinds)


def lacking(backfill: Backfill, settings: RunSettings, tools: Tools) -> list[tuple[Ref, str]]:
    """Of the partitions that were asked for, those that did not come to be, each with what the lake says now."""
    goals: Goal = [(n.stage, n.day, n.model) for n in backfill.plan.nodes]
    now = {n.ref: n for n in make_plan(backfill.dataset, settings, tools, goals).nodes}
    found = []
    for node in backfill.asked:
        after = now[node.ref]
        there = after.state != "missing" if backfill.which == "missing" else not after.runs
        if not there:
            found.append((node.ref, f"{after.state}: {after.why}"))
    return found


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of all steps one after the other, bytes on disk, from what the lake's ledgers say of earlier partitions
    of the same assets. `unknown`: assets that were never made, by number of partitions asked for; `passed_over`: of the
    earlier partitions, how many are damaged and say nothing."""

    seconds: float
    bytes: int
    unknown: Mapping[str, int]
    passed_over: int = 0


def estimate(backfill: Backfill, tools: Tools) -> Estimate:
    """The median of the last partitions of each asset, times the partitions asked for."""
    counts = Counter((n.stage.name, n.model) for n in backfill.asked)
    seconds, size, unknown, passed_over = 0.0, 0, {}, 0
    for (stage, model), number in counts.items():
        known, damaged = _records(tools, backfill.dataset.name, stage, model)
        passed_over += damaged
        if not known:
            unknown["/".join(p for p in (stage, model) if p)] = number
            continue
        seconds += number * median(s for s, _ in known)
        size += number * round(median(b for _, b in known))
    return Estimate(seconds, size, unknown, passed_over)


def _records(tools: Tools, dataset: str, stage: str, model: str | None) -> tuple[list[tuple[float, int]], int]:
    """(seconds, bytes) of the latest publication of the last partitions of an asset, and how many of them are damaged:
    a backfill is what makes these anew."""
    found, damaged = [], 0
    for partition in tools.lake.partitions(dataset, stage, model)[-RECORDS:]:
        ref = Ref(dataset, stage, partition, model)
        try:
            version, history = tools.lake.current(ref), tools.lake.history(ref)
        except LakeError:
            damaged += 1
            continue
        if version is not None and history and "seconds" in history[-1].record["run"]:
            size = sum(f["bytes"] for f in version.manifest["files"])
            found.append((float(history[-1].record["run"]["seconds"]), size))
    return found, damaged


def as_json(backfill: Backfill, cost: Estimate) -> dict[str, Any]:
    """The plan as one JSON object."""
    return {
        "dataset": backfill.dataset.name,
        "first": str(backfill.period.first),
        "last": str(backfill.period.last),
        "which": backfill.which,
        "partitions": [{"partition": str(n.ref), "state": n.state, "why": n.why} for n in backfill.plan.nodes],
        "asked": [str(n.ref) for n in backfill.asked],
        "impossible": {str(d): why for d, why in backfill.impossible.items()},
        "estimate": {
            "seconds": round(cost.seconds, 1),
            "bytes": cost.bytes,
            "unknown": dict(cost.unknown),
            "passed_over": cost.passed_over,
        },
    }


def text(backfill: Backfill, cost: Estimate) -> str:
    """Day x asset with a mark in each cell, the reasons of what is stale, and the estimate."""
    stages = [s.name for s in STAGES if any(n.stage.name == s.name for n in backfill.plan.nodes)]
    cells: dict[tuple[date, str], list[Node]] = {}
    for node in backfill.plan.nodes:
        cells.setdefault((node.day, node.stage.name), []).append(node)
    lines = ["M missing  S stale  w waits for an input  . fresh  (a number: so many models of the asset)", ""]
    names = [_short(s) for s in stages]
    lines.append(f"{'day':12}" + " ".join(f"{n:>6}" for n in names))
    for day in sorted({n.day for n in backfill.plan.nodes} | set(backfill.impossible)):
        row = " ".join(f"{_cell(cells.get((day, s), [])):>6}" for s in stages)
        lines.append(f"{day!s:12}{row}" + (f"  {backfill.impossible[day]}" if day in backfill.impossible else ""))
    lines += ["", *(f"{n.ref}: {n.why}" for n in backfill.asked if n.state == "stale")]
    lines += [f"{len(backfill.asked)} of {len(backfill.plan.nodes)} partitions would run or be checked again"]
    lines.append(f"estimated: {_duration(cost.seconds)} of steps, {cost.bytes / 1e6:.1f} MB on disk (from the ledgers)")
    if cost.unknown:
        lines.append("not in it, never made before: " + ", ".join(f"{n} x {name}" for name, n in cost.unknown.items()))
    if cost.passed_over:
        lines.append(f"{cost.passed_over} damaged partitions were passed over in the estimate")
    return "\n".join(lines)


def _short(stage: str) -> str:
    parts = stage.replace("evaluation_", "").split("_")
    return parts[0][:6] if len(parts) == 1 else f"{parts[0][:3]}_{parts[-1][:2]}"


def _cell(nodes: Sequence[Node]) -> str:
    counts = Counter(MARKS[n.state] for n in nodes)
    if len(nodes) <= 1:
        return "".join(counts)
    return "".join(f"{counts[m]}{m}" for m in "MSw." if counts[m])


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
