"""Benchmark of sessions: from the daily clicks to session ranges, against pandas and DuckDB.

Belongs here: `newsrec bench sessions`, the generated clicks, all sides. Does not belong here: the query and the ranges
(`ml.sessions`).

Ours is what the assets `interactions` and `session_splits` do: clicks of all days sorted by reader, sessions numbered,
all columns written, read back as arrays, and the ranges of every click with a history. The references read three
columns and keep everything in memory: pandas sorts and counts within readers, which gives the same ranges (compared);
DuckDB's list windows give every history as a list. Each side runs in a process of its own, which has gone through a
small log before: what is timed holds no imports and no compiling.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.benchmarks.common import Apart, apart, growth, row, size_of, tell_measured
from ml.clock import MS_PER_DAY
from ml.sessions import build_interactions, reader_times, session_ranges, write_sessions

SIZES = {"quick": (300_000, 1_000_000, 3_000_000), "paper": (3_000_000, 30_000_000, 120_000_000)}
"""Clicks for the growth of ours; the references are measured at the size in `REFERENCE`."""

REFERENCE = {"quick": 3_000_000, "paper": 30_000_000}
MAX_HISTORY = 64
MEMORY_LIMIT = "3GB"
DAYS = 35
_START = 1_682_000_000_000
_ARTICLES = 20_000
_CLICKS_PER_READER = 40


def bench_sessions(size: str = "quick") -> dict[str, Any]:
    """Clicks a second, seconds of CPU and peak memory (MiB) of ours and of both references, and how ours grows.

    `size`: `quick` (3 M clicks) or `paper` (30 M, ours up to 120 M). Raises RuntimeError where the ranges differ from
    those of pandas, UsageError for another size.
    """
    sizes, shared = size_of(SIZES, size), REFERENCE[size]
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for clicks in sizes:
            root = Path(folder) / str(clicks)
            write_log(root, clicks)
            runs[clicks] = _side("ours", root)
            if clicks == shared:
                others = {side: _side(side, root) for side in ("pandas", "duckdb")}
            for file in root.iterdir():
                file.unlink()
    if others["pandas"].figures != runs[shared].figures:
        raise RuntimeError(f"ranges differ from those of pandas: {runs[shared].figures}, {others['pandas'].figures}")
    results = []
    for side, other in others.items():
        results += _rows(f"{shared:,} clicks / {side}", shared, runs[shared], other)
    return {
        "bench": "sessions",
        "size": {"clicks": shared, "days": DAYS, "history": MAX_HISTORY},
        "results": results,
        "growth": [growth("parquet to session ranges", lambda clicks: runs[clicks].seconds, sizes)],
        "ours": {f"{clicks:,} clicks": asdict(run) for clicks, run in runs.items()},
    }


def _rows(name: str, clicks: int, ours: Apart, other: Apart) -> list[dict[str, Any]]:
    return [
        row(f"speed, {name}", clicks / ours.seconds, clicks / other.seconds, "clicks/s", "more"),
        row(f"CPU, {name}", ours.cpu_seconds, other.cpu_seconds, "s"),
        row(f"peak memory, {name}", ours.peak_mib, other.peak_mib, "MiB"),
    ]


def _side(side: str, root: Path) -> Apart:
    with tempfile.TemporaryDirectory(dir=root.parent) as out:
        return apart("ml.benchmarks.sessions", side, str(root), out)


def write_log(root: Path, clicks: int) -> None:
    """Daily files of `clicks` clicks in all, schema `CLICKS`: no two in one millisecond, readers of uneven activity."""
    root.mkdir()
    rng = np.random.default_rng(0)
    readers = max(1, clicks // _CLICKS_PER_READER)
    for day in range(DAYS):
        rows = clicks // DAYS + (day < clicks % DAYS)
        gap = 1 + rng.integers(0, 2 * max(1, MS_PER_DAY // max(rows, 1)) - 1, rows)
        time = _START + day * MS_PER_DAY + np.cumsum(gap) * (MS_PER_DAY - 1) // max(int(gap.sum()), MS_PER_DAY)
        pq.write_table(_clicks(rng, np.unique(time), readers), root / f"{day:02}.parquet", compression="zstd")


def _clicks(rng: np.random.Generator, time: np.ndarray, readers: int) -> pa.Table:
    rows = len(time)
    columns = {
        schema.USER_ID: (readers * rng.random(rows) ** 2).astype(np.int64),
        schema.ARTICLE_ID: rng.integers(0, _ARTICLES, rows),
        schema.CLICK_TIME: pa.array(time).cast(schema.TIME),
        schema.SESSION_ID: pa.array(time // 1_800_000, mask=rng.random(rows) < 0.7),
        schema.IMPRESSION_ID: pa.array(rng.integers(0, 10**9, rows), mask=rng.random(rows) < 0.7),
        schema.READ_TIME: rng.exponential(30, rows).astype(np.float32),
        schema.SCROLL: pa.array(rng.random(rows, dtype=np.float32), mask=rng.random(rows) < 0.5),
        schema.CONTEXT[0]: rng.integers(1, 4, rows).astype(np.int32),
        **{name: pa.nulls(rows, pa.int32()) for name in schema.CONTEXT[1:]},
        "subscriber": pa.array(rng.random(rows) < 0.2),
    }
    return pa.table(columns, schema=schema.CLICKS)


def _files(root: Path) -> list[Path]:
    return sorted(root.glob("*.parquet"))


def ours(root: Path, out: Path) -> list[int]:
    """Interactions and ranges, both written."""
    import duckdb

    span = (_START, _START + DAYS * MS_PER_DAY)
    with duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(out / "spill")}) as con:
        build_interactions(con, _files(root), out / "interactions.parquet", *span)
    ranges = session_ranges(*reader_times(out / "interactions.parquet"), {"train": span}, MAX_HISTORY)
    write_sessions(ranges, out / "sessions.parquet", "digest")
    return _said(ranges["first"].to_numpy(), ranges["target"].to_numpy())


def pandas(root: Path, out: Path) -> list[int]:
    """Sorted, counted within readers."""
    import pandas as pd

    names = [schema.USER_ID, schema.CLICK_TIME, schema.ARTICLE_ID]
    frame = pd.concat([pd.read_parquet(f, columns=names) for f in _files(root)], ignore_index=True)
    frame = frame.sort_values(names, ignore_index=True)
    before = frame.groupby(schema.USER_ID, sort=False).cumcount().to_numpy()
    target = np.flatnonzero(before)
    return _said(target - np.minimum(before[target], MAX_HISTORY), target)


def duckdb(root: Path, out: Path) -> list[int]:
    """Every history a list."""
    import duckdb as engine

    query = f"""
        SELECT list(article_id) OVER reader AS history, article_id FROM read_parquet($files)
        WINDOW reader AS (PARTITION BY user_id ORDER BY time, article_id
                          ROWS BETWEEN {MAX_HISTORY} PRECEDING AND 1 PRECEDING)
    """
    clicks = sessions = 0
    with engine.connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(out / "spill")}) as con:
        for batch in con.sql(query, params={"files": [str(f) for f in _files(root)]}).to_arrow_reader(1 << 17):
            lengths = batch.column(0).value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
            clicks, sessions = clicks + int(lengths.sum()), sessions + int(np.count_nonzero(lengths))
    return [sessions, clicks]


def _said(first: np.ndarray, target: np.ndarray) -> list[int]:
    """Number of sessions, and of clicks in their histories."""
    return [len(target), int((target - first).sum())]


_SIDES: dict[str, Callable[[Path, Path], list[int]]] = {"ours": ours, "pandas": pandas, "duckdb": duckdb}


def _measure(side: Callable[[Path, Path], list[int]], root: Path, out: Path) -> None:
    write_log(out / "small", 10_000)
    side(out / "small", out)
    tell_measured(lambda: side(root, out))


if __name__ == "__main__":
    _measure(_SIDES[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3]))
