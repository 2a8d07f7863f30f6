"""`newsrec bench imports`: what starting costs, in fresh processes.

Belongs here: importing the code location, building what it serves, `newsrec --help`. Does not belong here: which
libraries may be imported (`tests/pipeline/test_definitions.py` says so).
"""

import os
import subprocess
import sys
from functools import partial
from typing import Any

from ml.benchmarks.common import interleaved, row, size_of

REPEATS = {"quick": 5, "paper": 15}
HELP_S = 0.5
"""Promised seconds until `newsrec --help` has answered."""

_DAGSTER = "import dagster"
_LOCATION = "import pipeline.definitions"
_SERVED = "from pipeline.definitions import defs; defs()"
_HELP = "import sys; sys.argv = ['newsrec', '--help']; from pipeline.cli import main; main()"


def bench_imports(size: str = "quick") -> dict[str, Any]:
    """Seconds of a process that imports `pipeline.definitions` and of one that builds what the code location serves,
    both against `import dagster`, and of `newsrec --help` against its promise. `size`: `quick` (5 rounds) or `paper`
    (15)."""
    repeats = size_of(REPEATS, size)
    results = []
    for name, code in (("import pipeline.definitions", _LOCATION), ("load the code location", _SERVED)):
        pair = interleaved(partial(_run, code), partial(_run, _DAGSTER), repeats)
        results.append(pair.row(f"{name} / import dagster"))
    pair = interleaved(lambda: _run(_HELP), lambda: _run("pass"), repeats)
    results.append(row("newsrec --help / promise", pair.ours, HELP_S, "s"))
    return {"bench": "imports", "size": {"rounds": repeats, "assets": _assets()}, "results": results}


def _run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "NEWSREC_DATASET": "", "NEWSREC_DATA_ROOT": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{code!r} failed: {done.stderr[-2_000:]}")


def _assets() -> int:
    from pipeline.definitions import build_defs

    return len(list(build_defs().assets or []))
