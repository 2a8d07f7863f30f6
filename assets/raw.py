"""`raw_parquet`: the published files, split into days once, byte for byte traceable.

The bundle's first day also holds its rows that belong to no day (`quarantine.parquet`); the day of a drop those of the
drop that came too late, or tell of another day. So none is lost.

Belongs here: handing one raw day to the lake. Does not belong here: parsing (`ml.readers`) and
where the files are (`resources.source`).
"""

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from assets.stage import Stage, Summary, Work, no_recipe
from ml.datasets import Dataset
from resources.bindings import Tools

EXAMPLE_CHARACTERS = 300


def _recipe(dataset: Dataset, day: date, tools: Tools) -> dict[str, Any]:
    """The source files of this day alone: what arrives for another day leaves it fresh."""
    return tools.source.raw_day(dataset, day).recipe


def _compute(work: Work) -> Summary:
    rows: dict[str, int] = {}
    found = work.tools.source.raw_day(work.dataset, work.day, work.progress)
    erased: dict[str, Any] = {"erased_rows": dict(found.erased)} if found.erased else {}
    if found.erased:
        work.progress(f"{sum(found.erased.values())} rows left out, erased by request: {', '.join(found.erased)}")
    for file in found.files:
        shutil.copyfile(file, work.out / file.name)
        rows[file.name] = pq.read_metadata(file).num_rows
    held_back = work.out / "quarantine.parquet"
    if not held_back.exists():
        return Summary(rows=rows, metadata=erased)
    reasons, examples = _quarantined(held_back)
    work.progress(f"rows that belong to no day: {reasons}")
    return Summary(rows=rows, metadata={"quarantine": reasons, "quarantine_examples": examples, **erased})


def _quarantined(file: Path) -> tuple[dict[str, int], dict[str, str]]:
    """How many rows are held back for each reason, and the first of each: its source file and the row."""
    reasons: dict[str, int] = {}
    examples: dict[str, str] = {}
    for batch in pq.ParquetFile(file).iter_batches(columns=["reason", "source", "row"]):
        found = batch.column("reason").to_pylist()
        for reason in dict.fromkeys(found):
            reasons[reason] = reasons.get(reason, 0) + found.count(reason)
            first = found.index(reason)
            source, row = (batch.column(name)[first].as_py() for name in ("source", "row"))
            examples.setdefault(reason, f"{source}: {row[:EXAMPLE_CHARACTERS]}")
    return reasons, examples


RAW = Stage(
    name="raw_parquet",
    group="ingestion",
    description="The rows of one day as they were published, cut from the source files in a single pass.",
    needs=(),
    modules=("assets.raw", "ml.readers"),
    recipe=no_recipe,
    day_recipe=_recipe,
    compute=_compute,
    daily=True,
    kinds=("parquet",),
)
