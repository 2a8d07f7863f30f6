"""The command `backfill`: plan, launch or join, wait, compare what ran with what was asked.

Belongs here: the order of these and what is told. Does not belong here: each of them (`pipeline.backfill_plan`,
`pipeline.daemon`) and the argument parsing (`pipeline.cli`).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import dagster as dg

from ml.datasets import dataset as known_dataset
from pipeline import backfill_plan as plans
from pipeline import daemon
from pipeline.backfill_plan import Backfill, Period, Which, parse_period
from pipeline.deliveries import asked_by, take_arrivals
from resources.bindings import ToolBox, default_settings

__all__ = ["Period", "Request", "Which", "carry_out", "parse_period"]
DONE, FAILED = 0, 1


@dataclass(frozen=True)
class Request:
    """What the command was asked: a period of one dataset."""

    dataset: str
    toolbox: ToolBox
    period: Period
    which: Which

    @property
    def name(self) -> str:
        """Names the backfill, so that the same command finds it again."""
        return f"{self.dataset} {self.period.first}..{self.period.last} {self.which}"


def carry_out(request: Request, wait: bool, dry_run: bool, as_json: bool, say: Callable[[str], None]) -> int:
    """Exit code 0: all that was asked for is there (with `wait`), or was handed over; 1: something is not."""
    data, settings, tools = known_dataset(request.dataset), default_settings(), request.toolbox.tools()
    if dry_run:
        waiting = [d.name for d in tools.source.landing(data).drops() if d.state == "complete"]
        if waiting:
            say(f"not in this plan, since a dry run takes in nothing: drops {', '.join(waiting)}")
    else:
        take_arrivals(tools.source, data, say)
    made = plans.make_backfill(data, settings, tools, request.period, request.which)
    if dry_run:
        cost = plans.estimate(made, tools)
        print(json.dumps(plans.as_json(made, cost), indent=1) if as_json else plans.text(made, cost))
        return DONE
    for day, why in made.impossible.items():
        say(f"{day}: cannot be evaluated: {why}")
    with dg.DagsterInstance.get() as instance:
        identity = _launch_or_join(instance, request, made, say)
        if identity is None:
            return _result(made, None, {}, as_json, say)
        if not wait:
            say(f"backfill {identity} is handed over to the daemon; the same command with --wait joins it")
            return FAILED if made.impossible else DONE
        status = daemon.wait(instance, identity, say)
        say(f"backfill {identity}: the daemon says {status}")
    lacking = {str(ref): why for ref, why in plans.lacking(made, settings, tools)}
    return _result(made, identity, lacking, as_json, say)


def _launch_or_join(
    instance: dg.DagsterInstance, request: Request, made: Backfill, say: Callable[[str], None]
) -> str | None:
    """The backfill's id, None where nothing is to be done. Raises BackfillFailed when Dagster took it to be another."""
    identity = daemon.active(instance, request.name)
    if identity is not None:
        say(f"backfill {identity} of {request.name} is under way already: joining it")
        return identity
    if not made.asked:
        return None
    if not daemon.daemon_is_alive(instance):
        say("no daemon is at work in this DAGSTER_HOME: the backfill starts with it (`make ui`, or dagster-daemon run)")
    identity = daemon.launch(made.by_asset, request.name, f"newsrec backfill {request.name}", asked_by())
    asked = {(path, day) for path, days in made.by_asset.items() for day in days}
    taken = daemon.target(instance, identity)
    if taken is not None and taken != asked:
        other = sorted("/".join((*path, day)) for path, day in taken ^ asked)
        raise daemon.BackfillFailed(
            f"Dagster took backfill {identity} to be {len(taken)} partitions instead of {len(asked)}, the first that "
            f"differs is {other[0]}: cancel it in the UI; does the daemon know the same dataset?"
        )
    say(f"backfill {identity}: {len(asked)} partitions of {len(made.by_asset)} assets")
    return identity


def _result(
    made: Backfill, identity: str | None, lacking: Mapping[str, str], as_json: bool, say: Callable[[str], None]
) -> int:
    """Tells each day's outcome; the exit code."""
    failed = bool(lacking or made.impossible)
    days = {}
    for day in made.period.days:
        mine = [n for n in made.asked if n.day == day]
        bad = [str(n.ref) for n in mine if str(n.ref) in lacking]
        days[str(day)] = made.impossible.get(day) or (
            f"{len(bad)} of {len(mine)} not made" if bad else _fine(made, day)
        )
    for ref, reason in lacking.items():
        say(f"did not come to be: {ref}: {reason}")
    if as_json:
        asked = [str(n.ref) for n in made.asked]
        print(json.dumps({"backfill": identity, "days": days, "asked": asked, "lacking": dict(lacking)}, indent=1))
    else:
        for name, outcome in days.items():
            print(f"{name}  {outcome}")
        print(f"{len(made.asked) - len(lacking)} of {len(made.asked)} partitions that were asked for are there")
    return FAILED if failed else DONE


def _fine(made: Backfill, day: object) -> str:
    mine = sum(n.day == day for n in made.asked)
    return f"{mine} partitions made" if mine else "fresh before"
