"""`python -m tests.fuzz --cases 10000 --seed 0`: prints the ledger; exit code 1 after a traceback or a loss."""

import argparse
import sys

from tests.fuzz.run import run
from tests.fuzz.subjects import SUBJECTS

parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
parser.add_argument("--cases", type=int, default=10_000)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--first", type=int, default=0, help="number of the first case, to run one again")
parser.add_argument("--reader", action="append", choices=sorted(SUBJECTS), help="only these")
asked = parser.parse_args()
ledger = run(asked.cases, asked.seed, asked.reader, asked.first)
print(ledger.text())
print(f"\n{asked.cases} cases, seed {asked.seed}, {ledger.seconds:.0f} s, {len(ledger.failed)} failed")
for failed in ledger.failed[:20]:
    print(f"\ncase {failed.number}, {failed.reader}, {failed.kind}: {failed.what}\n{failed.said}", file=sys.stderr)
sys.exit(bool(ledger.failed))
