"""`raw_parquet`: the published files, split into days once, byte for byte traceable.

The first day also holds the rows that belong to no day (`quarantine.parquet`), so that none is lost.

Belongs here: handing one day of the split bundle to the lake. Does not belong here: parsing (`ml.readers`) and
where the files are (`resources.source`).
"""

import shutil
from typing import Any

import pyarrow.parquet as pq

from assets.stage import Stage, Summary, Work
from ml.datasets import Dataset
from ml.errors import DataError
from resources.bindings import RunSettings, Tools


def _recipe(dataset: Dataset, settings: RunSettings, tools: Tools, model: str | None) -> dict[str, Any]:
    return {"sources": tools.source.fingerprint(dataset)}


def _compute(work: Work) -> Summary:
    split = work.tools.source.split(work.dataset, work.progress)
    folder = split / str(work.day)
    if not folder.is_dir():
        days = work.tools.source.days(work.dataset)
        raise DataError(
            f"{work.dataset.name}: the log has no data on {work.day}; it covers {days[0]} to {days[-1]}: "
            "choose a day in that span or point the data root at a log that holds it"
        )
    files = sorted(folder.glob("*.parquet"))
    if work.day == work.tools.source.days(work.dataset)[0]:
        files += split.glob("quarantine.parquet")
    rows = {}
    for file in files:
        shutil.copyfile(file, work.out / file.name)
        rows[file.name] = pq.read_metadata(file).num_rows
    if (work.out / "quarantine.parquet").exists():
        reasons = (
            pq.read_table(work.out / "quarantine.parquet", columns=["reason"])["reason"].value_counts().to_pylist()
        )
        held_back = {str(r["values"]): int(r["counts"]) for r in reasons}
        work.progress(f"rows that belong to no day: {held_back}")
        return Summary(rows=rows, metadata={"quarantine": held_back})
    return Summary(rows=rows)


RAW = Stage(
    name="raw_parquet",
    group="ingestion",
    description="The rows of one day as they were published, cut from the source files in a single pass.",
    needs=(),
    modules=("ml.readers",),
    recipe=_recipe,
    compute=_compute,
    daily=True,
    kinds=("parquet",),
)
