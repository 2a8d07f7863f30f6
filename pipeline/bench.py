"""`newsrec bench`: which benchmarks there are, running and printing them, one file with all that they measured.

Belongs here: arguments, a process for each of several benchmarks, what is printed and written. Does not belong here:
what is measured (`ml.benchmarks`, `pipeline.benchmarks`) and comparing two files (`ml.benchmarks.compare`).
"""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from ml.errors import UsageError

ALL = "all"
SIZES = ("quick", "paper")
OUTSIDE = {
    "audit": "a lake",
    "globo_baselines": "the Globo.com log",
    "gpu": "a CUDA device",
    "scale": "an hour and 60 GB of disk",
}
"""Benchmarks that need what not every machine has; `all` leaves them out."""


def bench(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="benchmarks; all: those that need nothing else")
    ],
    size: Annotated[str, typer.Option(help="quick or paper")] = "quick",
    data_root: Annotated[Path | None, typer.Option(help="folder of a real log, for globo_baselines")] = None,
    out: Annotated[Path | None, typer.Option(help="file for the results, beside facts of machine and code")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="machine-readable result on standard output")] = False,
) -> int:
    """Time ours against a reference from the same run. Exit 1 where a benchmark failed."""
    known = _known()
    chosen = [n for n in sorted(known) if n not in OUTSIDE] if names == [ALL] else names
    for name in chosen:
        if name not in known:
            raise UsageError(f"unknown benchmark {name!r}: choose from {', '.join([*sorted(known), ALL])}")
    if size not in SIZES:
        raise UsageError(f"unknown size {size!r}: choose one of {', '.join(SIZES)}")
    if len(chosen) == 1:
        found = [_here(known[chosen[0]], chosen[0], size, data_root)]
    else:
        found = [result for name in chosen if (result := _in_a_process(name, size, data_root)) is not None]
    if out is not None:
        from ml.durable import replace_whole

        document = {"machine": machine(), "size": size, "benchmarks": found}
        replace_whole(out, (json.dumps(document, indent=1) + "\n").encode())
    if as_json:
        print(json.dumps(found[0] if len(chosen) == 1 and found else found, indent=1))
    elif len(chosen) == 1 or out is not None:
        for result in found:
            _print(result)
    return 0 if len(found) == len(chosen) else 1


def _known() -> dict[str, str]:
    from ml.benchmarks import BENCHMARKS as SCIENCE
    from pipeline.benchmarks import BENCHMARKS as AROUND

    return SCIENCE | AROUND


def _here(module: str, name: str, size: str, data_root: Path | None) -> dict[str, Any]:
    """The result of one benchmark in this process, with the exponents of growth."""
    from ml.benchmarks.common import exponent

    call: Callable[..., dict[str, Any]] = getattr(import_module(module), f"bench_{name}")
    on_a_log = "root" in inspect.signature(call).parameters
    if data_root is not None and not on_a_log:
        raise UsageError(f"{name} makes its own data: leave --data-root out")
    result = call(size, data_root) if on_a_log else call(size)
    for grown in result.get("growth", []):
        grown["exponent"] = exponent(grown["sizes"], grown["seconds"])
    return result


def _in_a_process(name: str, size: str, data_root: Path | None) -> dict[str, Any] | None:
    """The same in a process of its own, so that none finds another's memory and caches; None where it failed, which it
    says itself on standard error."""
    print(f"bench {name}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pipeline.cli", "bench", name, "--size", size, "--json"]
    done = subprocess.run(
        command + (["--data-root", str(data_root)] if data_root else []), stdout=subprocess.PIPE, check=False
    )
    result: dict[str, Any] | None = json.loads(done.stdout) if done.returncode == 0 else None
    return result


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, memory, load when they were measured, commit and libraries."""
    from resources.record import environment

    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    cpu = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": cpu[0] if cpu else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": pages * size,
        "load": list(os.getloadavg()),
        **environment(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []


def _print(result: dict[str, Any]) -> None:
    """The tables of one benchmark: rows, growth, and what each asset cost."""
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", "ours", "reference", "ratio", "spread", "unit", box=None)
    for row in result["results"]:
        figures = (f"{row[c]:.4g}" for c in ("ours", "reference", "ratio"))
        table.add_row(row["name"], *figures, _numbers(row.get("spread", [])), row["unit"])
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)
    if result.get("growth"):
        grown = Table("how the cost grows", "sizes", "seconds", "exponent", box=None)
        for row in result["growth"]:
            sizes = " ".join(f"{n:,}" for n in row["sizes"])
            grown.add_row(row["name"], sizes, _numbers(row["seconds"]), f"{row['exponent']:.2f}")
        console.print(grown)
    if result.get("assets"):
        costs = Table(*result["assets"][0], box=None)
        for asset in result["assets"]:
            costs.add_row(*(v if isinstance(v, str) else f"{v:,.0f}" for v in asset.values()))
        console.print(costs)
    print(f"{result['bench']}: {json.dumps(result['size'])}")


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{v:.3g}" for v in values)
