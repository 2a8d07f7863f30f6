"""Benchmark of ingestion: behaviors in EB-NeRD's layout, ours against plain Polars.

Belongs here: `newsrec bench ingestion`, the generated log, both sides. Does not belong here: the readers.

Ours is what a run does with these files: the cut into days with all checks, and for each day the canonical articles,
clicks and impressions with all row rules, quarantine and removal of repetitions, everything written. The reference
checks nothing: `scan_parquet(...).explode("article_ids_inview")`, streamed into one parquet file of the same
compression; at the smaller size also collected into memory, where nothing is written. Each side runs in a process of
its own, whose seconds of CPU and peak of resident memory are read: on a busy machine the former say more than the
clock.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml.benchmarks.common import Apart, apart, row, size_of, tell_measured
from ml.clock import MS_PER_DAY
from ml.datasets import dataset
from ml.readers import reader
from ml.readers.spill import parquet_options
from ml.simulator.write import BEHAVIORS, IDS, ragged, times, unless

SIZES = {"quick": 1_000_000, "paper": 12_000_000}
"""Impressions; `paper`: about as many as the two behaviour files of EB-NeRD large have together."""

_FIRST = {"train": date(2023, 5, 18), "validation": date(2023, 5, 25)}
_DAYS = 7
_PIECE = 250_000
_BROKEN = 1_000
_INVIEW = "article_ids_inview"


def bench_ingestion(size: str = "quick") -> dict[str, Any]:
    """Impressions a second, seconds of CPU and peak memory (MiB), ours and the reference: the faster of two runs each,
    the only one at `paper`.

    `size`: `quick` or `paper`; UsageError otherwise. Form: DESIGN, section 7.
    """
    impressions = size_of(SIZES, size)
    runs = 2 if size == "quick" else 1
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "log"
        write_log(root, impressions)
        size_on_disk = sum(p.stat().st_size for p in root.rglob("*.parquet"))
        sides = ["ours", "sink", "collect"] if size == "quick" else ["ours", "sink"]
        measured = {side: _best([_side(side, root, Path(folder)) for _ in range(runs)]) for side in sides}
    ours = measured["ours"]
    results = []
    for side in sides[1:]:
        other, name = measured[side], f"scan_parquet.explode.{side}"
        results += [
            row(f"speed / {name}", impressions / ours.seconds, impressions / other.seconds, "rows/s", "more"),
            row(f"CPU / {name}", ours.cpu_seconds, other.cpu_seconds, "s"),
            row(f"peak memory / {name}", ours.peak_mib, other.peak_mib, "MiB"),
        ]
    described = {"impressions": impressions, "bytes": size_on_disk, "runs": runs}
    return {"bench": "ingestion", "size": described, "results": results, "ours": asdict(ours)}


def _side(side: str, root: Path, scratch: Path) -> Apart:
    with tempfile.TemporaryDirectory(dir=scratch) as out:
        return apart("ml.benchmarks.ingestion", side, str(root), out)


def write_log(root: Path, impressions: int) -> None:
    """Two splits of a week each, in-view lists of 5 to 16 articles, times in no order; one impression in a thousand is
    broken (its click was not in view), and as many are there twice."""
    rng = np.random.default_rng(0)
    number = 0
    for split, first in _FIRST.items():
        (root / split).mkdir(parents=True)
        with pq.ParquetWriter(root / split / "behaviors.parquet", BEHAVIORS, compression="zstd") as writer:
            left = impressions // len(_FIRST)
            while left > 0:
                rows = min(left, _PIECE)
                piece = _impressions(rng, rows, number, dataset("ebnerd").clock.start(first) // 1000)
                again = piece.slice(0, rows // _BROKEN)
                writer.write_table(pa.concat_tables([piece.slice(0, rows - len(again)), again]))
                number += rows
                left -= rows


def _impressions(rng: np.random.Generator, rows: int, number: int, start: int) -> pa.Table:
    """Rows of behaviors within a week from `start` (s) on; ids from `number` + 1 on."""
    length = rng.integers(5, 17, rows)
    first = np.concatenate([[0], np.cumsum(length)])
    time_s = start + rng.integers(0, _DAYS * MS_PER_DAY // 1000, rows)
    newest = 9_700_000 + (time_s - start) // 600
    shown = (np.repeat(newest, length) + rng.integers(0, 300, first[-1])).astype(np.int32)
    clicks = np.where(rng.random(rows) < 0.004, 2, 1)
    clicked = shown[np.repeat(first[:-1], clicks) + rng.integers(0, 5, clicks.sum())]
    clicked[::_BROKEN] = 1
    some = rng.random((6, rows))
    columns = {
        "impression_id": pa.array(number + 1 + np.arange(rows)).cast(pa.uint32()),
        "article_id": unless(shown[first[:-1]], some[0] < 0.7, pa.int32()),
        "impression_time": times(time_s),
        "read_time": pa.array(rng.exponential(30, rows).astype(np.float32)),
        "scroll_percentage": unless((100 * some[1]).astype(np.float32), some[0] < 0.7, pa.float32()),
        "device_type": pa.array(rng.integers(1, 4, rows).astype(np.int8)),
        _INVIEW: ragged(pa.array(shown), length, IDS),
        "article_ids_clicked": ragged(pa.array(clicked), clicks, IDS),
        "user_id": pa.array(rng.integers(10_000, 1_000_000, rows)).cast(pa.uint32()),
        "is_sso_user": pa.array(some[2] < 0.3),
        "gender": unless(rng.integers(0, 2, rows), some[3] < 0.9, pa.int8()),
        "postcode": unless(rng.integers(0, 5, rows), some[3] < 0.9, pa.int8()),
        "age": unless(rng.integers(20, 80, rows), some[3] < 0.9, pa.int8()),
        "is_subscriber": pa.array(some[4] < 0.1),
        "session_id": pa.array(rng.integers(1, 10 * SIZES["paper"], rows)).cast(pa.uint32()),
        "next_read_time": pa.array(rng.exponential(60, rows).astype(np.float32)),
        "next_scroll_percentage": unless((100 * some[5]).astype(np.float32), some[1] < 0.1, pa.float32()),
    }
    return pa.table([columns[name] for name in BEHAVIORS.names], schema=BEHAVIORS)


def _best(runs: list[Apart]) -> Apart:
    return min(runs, key=lambda run: run.seconds)


def ours(root: Path, out: Path) -> dict[str, Any]:
    """Ingests the log and gives the figures of all days added up."""
    log = dataset("ebnerd")
    layout = reader(log.reader)
    totals: dict[str, int] = {}
    for day in layout.split(root, log, out / "raw"):
        tables = layout.tables(out / "raw" / str(day), log, day)
        for name in ("articles", "clicks", "impressions", "quarantine"):
            table = getattr(tables, name)
            pq.write_table(table, out / f"{day}-{name}.parquet", **parquet_options(table.schema))
        for name in ("clicks", "impressions"):
            for figure, count in tables.counts[name].items():
                totals[f"{name} {figure}"] = totals.get(f"{name} {figure}", 0) + count
    return totals


def sink(root: Path, out: Path) -> dict[str, Any]:
    """The reference, streamed into a file."""
    plain = pl.scan_parquet(root / "*" / "behaviors.parquet").explode(_INVIEW)
    plain.sink_parquet(out / "exploded.parquet", compression="zstd", compression_level=1)
    return {"rows": pq.read_metadata(out / "exploded.parquet").num_rows}


def collect(root: Path, out: Path) -> dict[str, Any]:
    """The reference, in memory."""
    return {"rows": pl.scan_parquet(root / "*" / "behaviors.parquet").explode(_INVIEW).collect().height}


_SIDES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {"ours": ours, "sink": sink, "collect": collect}


if __name__ == "__main__":
    tell_measured(lambda: _SIDES[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3])))
