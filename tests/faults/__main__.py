"""`python -m tests.faults [--quick] [--kills 200] [--write FILE]`: prints fault x promise x outcome; exit code 1 after
a broken promise.

This process imports everything once, starts no thread, and forks every child.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.faults import faults
from tests.faults.process import fork
from tests.faults.table import Table
from tests.faults.training import killed_trainings
from tests.faults.world import asset_home, build_lake, plain_home


def main() -> int:
    """Runs the suite."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few trials, plain publications only")
    parser.add_argument("--kills", type=int, default=200, help="kills at random moments in all, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base", type=Path, help="folder with `log` and `home` of an earlier `--keep`")
    parser.add_argument("--keep", type=Path, help="build the tiny lake there, to be given to --base later")
    parser.add_argument("--write", type=Path, help="write the ledger as a page")
    asked = parser.parse_args()
    _load()
    started, table, rng = time.monotonic(), Table(), np.random.default_rng(asked.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _quick(table, folder, rng) if asked.quick else _whole(table, folder, rng, asked)
    seconds = time.monotonic() - started
    print(f"{table.text()}\n\n{seconds:.0f} s, seed {asked.seed}, {len(table.broken)} promises broken")
    for line in table.broken[:20]:
        print(line, file=sys.stderr)
    if asked.write:
        asked.write.write_text(_page(table, seconds, asked.seed), encoding="utf-8")
    return bool(table.broken)


def _quick(table: Table, folder: Path, rng: np.random.Generator) -> None:
    home = plain_home(folder / "plain")
    for ref in home.refs:
        faults.publish(home, ref, "first")
    faults.killed(table, home, 4, rng, "plain publication")
    faults.together(table, home, 1, rng)
    faults.damaged(table, home, 4, rng)
    faults.size_limit(table, home, 1, rng)
    faults.full_disk(table, home, 1, rng)
    faults.read_only(table, home, 1, rng)
    faults.clock_back(table, home, 1, rng)
    faults.killed_trainers(table, folder, 2, rng)


def _whole(table: Table, folder: Path, rng: np.random.Generator, asked: argparse.Namespace) -> None:
    base = asked.base or asked.keep or folder / "base"
    if asked.base is None:
        build_lake(base)
    home = asset_home(base / "home", base / "log").copy(folder / "assets")
    plain = plain_home(folder / "plain")
    for ref in plain.refs:
        faults.publish(plain, ref, "first")
    _tell("kills: newsrec run")
    faults.killed_runs(table, base, folder / "runs", max(1, asked.kills // 25), rng)
    _tell("kills: assets")
    faults.killed(table, home, asked.kills * 6 // 10, rng, "asset")
    _tell("kills: plain publications, trainers, trainings")
    faults.killed(table, plain, asked.kills * 2 // 10, rng, "plain publication")
    faults.killed_trainers(table, folder, asked.kills // 10, rng)
    killed_trainings(table, folder / "training", max(1, asked.kills // 30), 5, rng)
    for fault, subject, trials in (
        (faults.together, home, 10),
        (faults.damaged, plain, 48),
        (faults.full_disk, plain, 10),
        (faults.size_limit, home, 10),
        (faults.read_only, home, 5),
        (faults.store_away, home, 8),
        (faults.clock_back, home, 5),
    ):
        _tell(fault.__name__)
        fault(table, subject, trials, rng)


def _load() -> None:
    """Everything that a child would have to import."""
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import dagster
    import great_expectations
    import mlflow
    import torch

    import assets.graph
    import ml.train
    import resources.record

    resources.record.environment()
    _ = (dagster, great_expectations, mlflow, torch, assets.graph, ml.train, fork)


def _tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _page(table: Table, seconds: float, seed: int) -> str:
    head = Path(__file__).with_name("page.md").read_text(encoding="utf-8")
    return f"{head}\n{table.text()}\n\n{time.strftime('%d %B %Y')}, seed {seed}, {seconds:.0f} s.\n"


if __name__ == "__main__":
    sys.exit(main())
