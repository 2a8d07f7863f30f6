"""What a drop and a correction make of the plan, on the tiny simulated log whose last days arrive later."""

import json
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from assets.graph import BY_NAME
from ml.datasets import dataset
from ml.simulator import simulate
from pipeline.deliveries import land_files, status, take_arrivals, text
from pipeline.plan import make_plan
from pipeline.run import execute
from resources.bindings import RunSettings, ToolBox
from resources.lake import Lake, Ref
from tests.ml.cuts import cut
from tests.pipeline.conftest import dagster_home

SIMULATED = dataset("simulated")
FIRST = SIMULATED.first_day + timedelta(days=3)
CUT = [FIRST + timedelta(days=4), FIRST + timedelta(days=5)]
"""The last two days of the log, which here begins on `FIRST`: without histories."""
TABLES = ("articles", "clicks", "impressions")


class Home:
    """A shortened tiny log with its lake, and the deliveries of the days cut off."""

    def __init__(self, folder: Path) -> None:
        simulate(folder / "whole", "tiny", 3)
        for history in (folder / "whole").glob("*/history.parquet"):
            history.unlink()
        self.root = folder / "log"
        self.deliveries = cut(folder / "whole", self.root, SIMULATED, CUT, folder / "deliveries")
        self.toolbox = ToolBox(
            lake=str(folder / "lake"),
            dataset="simulated",
            data_root=str(self.root),
            tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
            device="cpu",
        )
        self.tools = self.toolbox.tools()

    def goals(self, last: date) -> list:
        """The canonical tables up to the day `last`, and the interactions as of the third day and of the day after
        `last`."""
        days = [FIRST + timedelta(days=i) for i in range((last - FIRST).days + 1)]
        ingestion = [(BY_NAME[name], day, None) for day in days for name in TABLES]
        return [*ingestion, *((BY_NAME["interactions"], d, None) for d in (days[2], last + timedelta(days=1)))]

    def states(self, last: date) -> dict[str, str]:
        """The plan's verdict by partition, without the dataset."""
        plan = make_plan(SIMULATED, RunSettings(), self.tools, self.goals(last))
        return {str(n.ref).removeprefix("simulated/"): n.state for n in plan.nodes}

    def run(self, last: date) -> dict[str, str]:
        """Materialises up to `last`; the manifest of every partition."""
        execute(SIMULATED, RunSettings(), self.toolbox, self.goals(last), lambda _: None)
        lake = self.tools.lake
        refs = [
            Ref("simulated", stage, partition)
            for stage in lake.stages("simulated")
            for partition in lake.partitions("simulated", stage)
        ]
        return {str(r).removeprefix("simulated/"): lake.require(r).manifest_digest for r in refs}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A `Home`; the tests of this module follow each other in it."""
    folder = tmp_path_factory.mktemp("deliveries")
    with dagster_home(folder):
        yield Home(folder)


def test_a_drop_makes_its_own_day_pending_and_leaves_the_rest_fresh(home):
    old, new = CUT[0] - timedelta(days=1), CUT[0]
    before = home.run(old)
    assert set(home.states(old).values()) == {"fresh"}
    behaviors = home.deliveries[new] / "behaviors.parquet"
    late = pl.read_parquet(home.root / "train" / "behaviors.parquet").head(7)
    pl.concat([pl.read_parquet(behaviors), late], how="vertical_relaxed").write_parquet(behaviors)
    assert land_files(home.tools.source, SIMULATED, home.deliveries[new], new).is_dir()
    assert set(home.states(old).values()) == {"fresh"}
    said: list[str] = []
    take_arrivals(home.tools.source, SIMULATED, said.append)
    assert [s.split(":")[0] for s in said] == [f"landing/{new}"] and "7 of them late" in said[0]
    take_arrivals(home.tools.source, SIMULATED, said.append)
    assert len(said) == 1, "what was taken is told of once"
    assert set(home.states(old).values()) == {"fresh"}
    states = home.states(new)
    pending = {ref for ref, state in states.items() if state != "fresh"}
    assert pending == {f"{s}/{new}" for s in ("raw_parquet", *TABLES)} | {f"interactions/{new + timedelta(days=1)}"}
    assert {states[p] for p in pending} == {"missing"}
    after = home.run(new)
    assert {ref: after[ref] for ref in before} == before
    held = pl.read_parquet(
        home.tools.lake.require(Ref("simulated", "raw_parquet", str(new))).file("quarantine.parquet")
    )
    assert held["reason"].to_list() == ["late"] * 7


def test_the_cut_log_with_its_drops_has_the_clicks_of_the_whole_log(home, tmp_path):
    home.run(CUT[0])
    whole = ToolBox(
        lake=str(tmp_path / "lake"),
        dataset="simulated",
        data_root=str(home.root.parent / "whole"),
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
        device="cpu",
    )
    day = CUT[0]
    goals = [(BY_NAME[name], d, None) for name in TABLES for d in (day, day - timedelta(days=1))]
    execute(SIMULATED, RunSettings(), whole, goals, lambda _: None)
    for name in TABLES:
        for d in (day, day - timedelta(days=1)):
            ours, theirs = (
                t.lake.require(Ref("simulated", name, str(d))).file(f"{name}.parquet").read_bytes()
                for t in (home.tools, whole.tools())
            )
            assert ours == theirs, (name, d)


def test_a_correction_makes_stale_what_follows_from_its_day_and_only_that(home, tmp_path):
    last, day = CUT[0], CUT[0] - timedelta(days=2)
    before = home.run(last)
    shown = pl.read_parquet(home.root / "train" / "behaviors.parquet")
    start = SIMULATED.clock.start(day)
    time = pl.col("impression_time").cast(pl.Datetime("ms")).cast(pl.Int64)
    right = shown.filter((time >= start) & (time < SIMULATED.clock.end(day))).slice(100)
    right.write_parquet(tmp_path / "behaviors.parquet")
    home.tools.source.correct(SIMULATED, day, tmp_path, "a robot's first hundred", "the test")
    states = home.states(last)
    pending = {ref: state for ref, state in states.items() if state != "fresh"}
    assert pending == {f"raw_parquet/{day}": "stale"} | {f"{t}/{day}": "waits" for t in TABLES} | {
        f"interactions/{last + timedelta(days=1)}": "waits"
    }
    after = home.run(last)
    changed = {ref for ref in before if after[ref] != before[ref]}
    assert changed == {f"{s}/{day}" for s in ("raw_parquet", "clicks", "impressions")} | {
        f"interactions/{last + timedelta(days=1)}"
    }, "the articles of the day came out as they were"
    assert set(home.states(last).values()) == {"fresh"}
    found = status(home.tools.source, SIMULATED)
    assert [c["why"] for c in found["corrections"]] == ["a robot's first hundred"]
    assert "correction of" in text(found) and json.dumps(found)


def newsrec(home: Home, *arguments: str) -> tuple[int, str, str]:
    """Runs the command in its own process on the log: exit code, standard output, standard error."""
    environment = {**os.environ, "NEWSREC_LAKE": str(Lake(Path(home.toolbox.lake)).root)}
    command = [sys.executable, "-m", "pipeline.cli", *arguments, "--data-root", str(home.root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_commands(home, tmp_path):
    day = str(CUT[1])
    code, _, told = newsrec(home, "land", str(home.deliveries[CUT[1]]), "--day", day)
    assert code == 0 and f"landing/{day}" in told
    code, out, _ = newsrec(home, "landing", "--json")
    assert code == 0
    assert {d["day"]: d["state"] for d in json.loads(out)["drops"]} == {str(CUT[0]): "taken", day: "complete"}
    assert home.tools.source.days(SIMULATED)[-1] == CUT[0], "listing takes in nothing"
    home.tools.source.take(SIMULATED, "the test")
    arguments = ("correct", "--day", day, "--from", str(home.deliveries[CUT[1]]), "--why", "again")
    assert newsrec(home, *arguments)[0] == 0
    code, out, _ = newsrec(home, "landing")
    assert code == 0 and f"correction of {day}" in out and "again" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("land", "/nowhere", "--day", "2023-05-05"), "no such folder"),
        (("land", ".", "--day", "today"), "YYYY-MM-DD"),
        (("correct", "--day", "2023-05-04", "--from", ".", "--why", ""), "--why"),
        (("correct", "--day", "2023-06-04", "--from", ".", "--why", "x"), "no data on 2023-06-04"),
        (("land", "EMPTY", "--day", "2023-05-05"), "holds no file"),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(home, tmp_path, arguments, message):
    code, _, told = newsrec(home, *(str(tmp_path) if a == "EMPTY" else a for a in arguments))
    assert code == 2 and message in told and "Traceback" not in told
    assert len(told.strip().splitlines()) == 1
