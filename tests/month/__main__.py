"""`python -m tests.month [--folder DIR] [--write FILE]`: thirty nights with a real daemon; prints the ledger.

Exit code 1 when something that was promised did not come to be, or the month took longer than `--limit` minutes.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.month import incidents, requests
from tests.month.audit import audit
from tests.month.deliveries import PUBLISHED_DAYS, day_number
from tests.month.deployment import Deployment, Missed
from tests.month.ledger import Ledger
from tests.month.month import Month
from tests.month.page import write_month

NIGHTS = 30
LIMIT_MINUTES = 30.0
TIME = "Time"


def play(month: Month) -> None:
    """The month's course; days are those of the log, each night is the one after a day's drop has arrived."""
    days = [day_number(PUBLISHED_DAYS + i) for i in range(NIGHTS)]
    born, reader = month.publisher.newcomer(days[21:27])
    asked = days.index(born) + 1
    month.first_night(days[0])
    month.plain(days[:5], None)
    incidents.malformed(month, days[5], days[6], days[7])
    month.plain(days[7:11], None)
    requests.correction(month, days[8], days[11], days[12], days[13])
    month.plain(days[13:16], days[16])
    incidents.killed(month, days[16], days[17], days[18])
    month.plain(days[18:19], None)
    incidents.power_cut(month, days[19], days[20], days[21])
    month.plain(days[21:asked], None)
    requests.erasure(month, born, reader, days[asked], days[asked + 1])
    month.plain(days[asked + 1 :], None)
    requests.decisions(month)


def run(folder: Path, seed: int, limit: float) -> Ledger:
    """Plays and audits the month in `folder`."""
    ledger, deployment = Ledger(), Deployment(folder, program="tests.month.daemon")
    try:
        play(Month.begin(deployment, NIGHTS, seed, ledger))
        deployment.stop()
        audit(deployment, ledger)
    except Missed as error:
        ledger.check("Course", "the month went on", False, str(error))
    finally:
        deployment.stop()
    minutes = ledger.seconds / 60
    ledger.check(TIME, f"ends within {limit:g} minutes", minutes <= limit, f"{minutes:.1f} minutes")
    load = sum(ledger.loads) / max(len(ledger.loads), 1)
    ledger.note(TIME, f"{os.cpu_count()} cores, mean load {load:.1f}, others' work included")
    return ledger


def main() -> int:
    """Arguments, the month, the ledger."""
    parser = argparse.ArgumentParser(prog="python -m tests.month", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, help="new folder that is kept; default: a temporary one, kept on failure"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=float, default=LIMIT_MINUTES, help="minutes")
    parser.add_argument("--write", type=Path, help="write the ledger as a page")
    asked = parser.parse_args()
    folder = (asked.folder or Path(tempfile.mkdtemp(prefix="newsrec-month-"))).absolute()
    ledger = run(folder, asked.seed, asked.limit)
    print(ledger.text())
    for line in ledger.missed:
        print(f"MISSED {line}", file=sys.stderr)
    if asked.write:
        write_month(asked.write, f"{ledger.text()}\n{time.strftime('%d %B %Y')}, seed {asked.seed}.\n")
    if asked.folder is None and not ledger.missed:
        shutil.rmtree(folder)
    elif asked.folder is None:
        print(f"left for a look: {folder}", file=sys.stderr)
    return bool(ledger.missed)


if __name__ == "__main__":
    sys.exit(main())
