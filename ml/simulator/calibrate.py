"""What the model gives, seed by seed: `python -m ml.simulator.calibrate --size demo --seeds 11-20`.

Belongs here: how constants were fitted (`--set NAME=VALUE` tries one) and how `expected.EXPECTED` was measured. Does
not belong here: the figures themselves (`check`). Constants are fitted on seeds 1 to 9 and measured on others.
"""

import argparse
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ml.errors import UsageError
from ml.simulator.bundle import write_bundle
from ml.simulator.check import figures
from ml.simulator.config import Behaviour, preset_named, size_named
from ml.simulator.seeds import seeds_of

UNJUDGED = ("seconds", "peak_gb", "lifecycle_articles")
"""Printed seed by seed, and no figure of a newspaper."""


def measure(size: str, seed: int, preset: str, behaviour: Behaviour) -> dict[str, float]:
    """Figures of one seed, from a bundle that is thrown away; besides `seconds` to write it, and the process's peak of
    memory so far, `peak_gb`."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        write_bundle(Path(folder), size_named(size), seed, preset, behaviour)
        seconds = time.perf_counter() - begin
        found = figures(Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000_000
    return found | {"seconds": seconds, "peak_gb": peak}


def changed(behaviour: Behaviour, settings: Sequence[str]) -> Behaviour:
    """`behaviour` with each `NAME=VALUE` of `settings`. Raises UsageError for an unknown name or a bad value."""
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in Behaviour.__slots__:
            raise UsageError(f"--set {setting}: no constant {name!r}: see ml/simulator/config.py")
        try:
            behaviour = replace(behaviour, **{name: type(getattr(behaviour, name))(value)})
        except ValueError as error:
            raise UsageError(f"--set {setting}: {value!r} is no number") from error
    return behaviour


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures of each seed as they come, then mean and standard deviation as `expected` holds them."""
    parser = argparse.ArgumentParser(prog="python -m ml.simulator.calibrate")
    parser.add_argument("--size", default="demo")
    parser.add_argument("--preset", default="tabloid")
    parser.add_argument("--seeds", default="1-9")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args(arguments)
    behaviour = changed(preset_named(options.preset), options.set)
    rows = []
    for seed in seeds_of(options.seeds):
        rows.append(measure(options.size, seed, options.preset, behaviour))
        shown = {name: round(value, 4) if math.isfinite(value) else None for name, value in rows[-1].items()}
        print(json.dumps({"seed": seed} | shown), flush=True)
    values = {name: np.array([row[name] for row in rows]) for name in rows[0] if name not in UNJUDGED}
    print(f'    ("{options.preset}", "{options.size}"): Measured("{options.seeds}", {{')
    for name, column in values.items():
        if np.isfinite(column).all():
            spread = column.std(ddof=1) if len(column) > 1 else float("nan")
            print(f'        "{name}": ({column.mean():.5g}, {spread:.3g}),')
    print("    }),")


if __name__ == "__main__":
    try:
        main()
    except UsageError as problem:
        sys.exit(f"calibrate: {problem}")
