"""Benchmarks by name: ours and a reference, timed in one run (form: DESIGN, section 7).

Belongs here: the registry; a new benchmark is one new module and one line. Does not belong here: timing code (one
module each), assertions on times (tests have none).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml.benchmarks.globo_baselines import bench_globo_baselines
from ml.benchmarks.ingestion import bench_ingestion
from ml.benchmarks.popularity import bench_popularity
from ml.benchmarks.retrieval import bench_retrieval

Benchmark = Callable[[str, Path | None], dict[str, Any]]
"""Takes a size (`quick` or `paper`) and the folder of a real log, for those that measure on one."""

BENCHMARKS: dict[str, Benchmark] = {
    "globo_baselines": bench_globo_baselines,
    "ingestion": lambda size, _: bench_ingestion(size),
    "popularity": lambda size, _: bench_popularity(size),
    "retrieval": lambda size, _: bench_retrieval(size),
}
