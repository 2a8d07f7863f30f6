"""`python -m tests.month.backfill [--folder DIR] [--days 42]`: a backfill of six weeks beside single runs.

In one lake `newsrec backfill --wait` through a daemon; in another one `newsrec run --as-of` for each day, in shuffled
order. Every partition of every asset must have come out with the same bytes. Exit code 1 otherwise.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

from ml.simulator import simulate
from resources.ref import Ref
from tests.month.deliveries import BUNDLE, day_number
from tests.month.deployment import SETTINGS, Deployment, Missed
from tests.month.lake import Snapshot
from tests.month.ledger import Ledger
from tests.month.page import write_backfill

DAYS = 42
BACKFILL, COMPARED = "Backfill", "Compared"


def deployment(folder: Path, seed: int) -> Deployment:
    """Nothing runs by itself in it; the whole bundle is there."""
    made = Deployment(folder, SETTINGS | {"NEWSREC_AUTOPILOT": "0"})
    simulate(made.log, BUNDLE, seed)
    return made


def backfilled(folder: Path, days: list[date], seed: int, ledger: Ledger) -> dict[str, str]:
    """Contents after `newsrec backfill --wait`."""
    made = deployment(folder, seed)
    asked = ("backfill", "--periods", f"{days[0]}..{days[-1]}", "--wait")
    try:
        made.start()
        answer: dict[str, Any] = made.asked(*asked, code=None)
    finally:
        made.stop()
    lacking = answer["lacking"]
    said = "; ".join(f"{ref}: {why}" for ref, why in list(lacking.items())[:2])
    ledger.check(BACKFILL, f"newsrec {' '.join(asked)}: all that was asked for is there", not lacking, said)
    ledger.note(BACKFILL, f"{len(answer['asked'])} partitions in {ledger.seconds:.0f} s")
    return Snapshot.of(made.lake).contents()


def one_by_one(folder: Path, days: list[date], seed: int, ledger: Ledger) -> dict[str, str]:
    """Contents after a `newsrec run` for each day, the days shuffled."""
    made = deployment(folder, seed)
    shuffled = random.Random(seed).sample(days, len(days))
    for number, day in enumerate(shuffled, 1):
        made.newsrec("run", "--as-of", str(day))
        ledger.tell(f"single runs: {number} of {len(days)}: {day}")
    ledger.note("Single runs", f"{len(days)} runs in this order: {', '.join(f'{d:%d %b}' for d in shuffled)}")
    return Snapshot.of(made.lake).contents()


def compare(ours: dict[str, str], theirs: dict[str, str], ledger: Ledger) -> None:
    """Enters how many partitions of each asset were compared, and which differ."""
    differ = sorted(r for r in ours.keys() | theirs.keys() if ours.get(r) != theirs.get(r))
    counts, others = (Counter(Ref.parse(r).stage for r in refs) for refs in (ours.keys() | theirs.keys(), differ))
    for stage, n in sorted(counts.items()):
        ledger.note(COMPARED, f"{stage}: {n} partitions, {others[stage]} different")
    total = f"{sum(counts.values())} compared, {len(differ)} different"
    ledger.check(
        COMPARED, "content digests are equal", not differ and bool(counts), f"**{total}** {', '.join(differ[:3])}"
    )


def main() -> int:
    """Arguments, both lakes, the ledger."""
    parser = argparse.ArgumentParser(prog="python -m tests.month.backfill", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, help="new folder that is kept; default: a temporary one, kept on failure"
    )
    parser.add_argument("--days", type=int, default=DAYS, help="as-of days, from the log's second day on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path, help="page whose part on the backfill is written anew")
    asked = parser.parse_args()
    folder = (asked.folder or Path(tempfile.mkdtemp(prefix="newsrec-backfill-"))).absolute()
    days, ledger = [day_number(1 + i) for i in range(asked.days)], Ledger()
    try:
        ours = backfilled(folder / "backfill", days, asked.seed, ledger)
        compare(ours, one_by_one(folder / "single", days, asked.seed, ledger), ledger)
    except Missed as error:
        ledger.check("Course", "both lakes were made", False, str(error))
    about = f"`make backfill-check`: the same {len(days)} as-of days of `{BUNDLE}`, by one backfill and by single runs."
    end = f"{time.strftime('%d %B %Y')}, seed {asked.seed}, {ledger.seconds / 60:.0f} minutes."
    text = f"{about}\n\n{ledger.told(3)}\n{end}\n"
    print(text)
    if asked.write:
        write_backfill(asked.write, text)
    if asked.folder is None and not ledger.missed:
        shutil.rmtree(folder)
    return bool(ledger.missed)


if __name__ == "__main__":
    sys.exit(main())
