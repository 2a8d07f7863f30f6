"""What benchmarks share: timing two sides in turn, rows of results, how a cost grows, a side in a process of its own.

Belongs here: measuring and the form of what was measured (DESIGN, section 7). Does not belong here: what is measured
(one module a benchmark), printing (`pipeline.bench`), comparing two files of results (`ml.benchmarks.compare`).
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from resource import RUSAGE_SELF, getrusage
from statistics import median
from typing import Any, Literal, TypeVar

import numpy as np

from ml.errors import UsageError
from ml.memory import forget_peak, peak_mib

REPEATS = 7
T = TypeVar("T")
Better = Literal["less", "more"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Seconds of both sides by round; round i of one stands beside round i of the other."""

    ours: tuple[float, ...]
    reference: tuple[float, ...]

    def row(self, name: str, unit: str = "s", per: float = 1.0) -> dict[str, Any]:
        """A row in seconds times `per` (1,000 with unit "ms"; 1,000 / n for ms of one of n)."""
        return row(name, [per * s for s in self.ours], [per * s for s in self.reference], unit)

    def rate(self, name: str, work: float, unit: str) -> dict[str, Any]:
        """A row in units of `work` a second: more is better."""
        return row(name, [work / s for s in self.ours], [work / s for s in self.reference], unit, "more")


def interleaved(ours: Callable[[], object], reference: Callable[[], object], repeats: int = REPEATS) -> Pair:
    """Both calls once unmeasured, then `repeats` rounds of both, each round beginning with the other one: what slows
    the machine down for a while slows both."""
    ours()
    reference()
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(repeats):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            seconds[side].append(timed((ours, reference)[side])[1])
    return Pair(tuple(seconds[0]), tuple(seconds[1]))


def timed(call: Callable[[], object]) -> tuple[Any, float]:
    """What `call` gives, and its seconds."""
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started


def median_seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds of `repeats` calls."""
    return median(timed(call)[1] for _ in range(repeats))


def row(
    name: str,
    ours: float | Sequence[float],
    reference: float | Sequence[float],
    unit: str,
    better: Better = "less",
) -> dict[str, Any]:
    """One line of results: medians of both sides, `ratio` (above 1: ours is better) and, where a side was measured more
    than once, its `spread`, the quartiles of the rounds' ratios. A single reference stands beside every round."""
    sides = [[float(v)] if isinstance(v, int | float) else [float(x) for x in v] for v in (ours, reference)]
    rounds = max(map(len, sides))
    mine, theirs = (side * rounds if len(side) == 1 else side for side in sides)
    ratios = [b / a if better == "less" else a / b for a, b in zip(mine, theirs, strict=True)]
    found = {"name": name, "ours": median(mine), "reference": median(theirs), "ratio": median(ratios), "unit": unit}
    return found | ({"spread": np.quantile(ratios, [0.25, 0.75]).tolist()} if rounds > 1 else {})


def growth(name: str, cost: Callable[[int], float], sizes: Sequence[int]) -> dict[str, Any]:
    """How the seconds `cost(size)` grow over three or more `sizes`: the form of a result's `growth`."""
    return {"name": name, "sizes": list(sizes), "seconds": [cost(size) for size in sizes]}


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The b of seconds = a * size^b by least squares on logarithms; 1 is linear."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def size_of(sizes: Mapping[str, T], size: str) -> T:
    """The entry of `sizes` called `size`. Raises UsageError naming the known ones."""
    if size not in sizes:
        raise UsageError(f"unknown size {size!r}: choose one of {', '.join(sizes)}")
    return sizes[size]


@dataclass(frozen=True, slots=True)
class Apart:
    """What a process of its own measured: wall-clock and CPU seconds of its call, peak of resident memory in MiB, and
    what the call said."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    figures: Any


def apart(module: str, *arguments: str) -> Apart:
    """Run `python -m MODULE ARGUMENTS`, whose main is `tell_measured`. Raises RuntimeError where it fails."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed: {done.stderr[-2_000:]}")
    return Apart(**json.loads(done.stdout.splitlines()[-1]))


def tell_measured(call: Callable[[], object]) -> None:
    """The other end of `apart`: measures `call` and prints it."""
    forget_peak()
    before = getrusage(RUSAGE_SELF)
    figures, seconds = timed(call)
    after = getrusage(RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_mib": peak_mib(), "figures": figures}))
