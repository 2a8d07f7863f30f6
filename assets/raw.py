"""`raw_parquet`: the published files, split into days once, byte for byte traceable.

The bundle's first day also holds its rows that belong to no day (`quarantine.parquet`); the day of a drop those of the
drop that came too late, or tell of another day. So none is lost: the metadata of these days has the account of all rows
of the delivery, the account of each day's tables is in theirs (`counts`).

Belongs here: handing one raw day to the lake. Does not belong here: parsing (`ml.readers`) and
where the files are (`resources.source`).
"""

import shutil
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.stage import Stage, Summary, Work, no_recipe
from ml.datasets import Dataset
from ml.errors import LakeError
from ml.parquet import check, read_batches
from resources.bindings import Tools

if TYPE_CHECKING:
    from ml.readers.account import Account
    from resources.source import RawDay

EXAMPLE_CHARACTERS, MOST_NAMED, BATCH = 300, 50, 65_536


def _recipe(dataset: Dataset, day: date, tools: Tools) -> dict[str, Any]:
    """The source files of this day alone: what arrives for another day leaves it fresh."""
    return tools.source.raw_day(dataset, day).recipe


def _compute(work: Work) -> Summary:
    found = work.tools.source.raw_day(work.dataset, work.day, work.progress)
    _refuse_loss(found)
    rows: dict[str, int] = {}
    for file in found.files:
        shutil.copyfile(file, work.out / file.name)
        rows[file.name] = check(file)
    strays = _not_read(work)
    metadata: dict[str, Any] = {"not_read": strays} if strays else {}
    if found.erased:
        work.progress(f"{sum(found.erased.values())} rows left out, erased by request: {', '.join(found.erased)}")
        metadata["erased_rows"] = dict(found.erased)
    if found.accounts:
        metadata["account"] = {label: _by_table(account) for label, account in found.accounts.items()}
    held_back = work.out / "quarantine.parquet"
    if held_back.exists():
        reasons, examples = _quarantined(held_back)
        work.progress(f"rows that belong to no day: {reasons}")
        metadata |= {"quarantine": reasons, "quarantine_examples": examples}
    return Summary(rows=rows, metadata=metadata)


def _refuse_loss(found: "RawDay") -> None:
    """Raises LakeError where rows of a source file are neither in a day nor held back nor copies."""
    for label, account in found.accounts.items():
        for (file, _), rows in account.files.items():
            if rows.lost:
                raise LakeError(
                    f"{label}, {file}: {rows.lost:,} of {rows.rows_in:,} rows are not accounted for after the cut into "
                    "days: nothing is published; this is a fault of the reader, report it"
                )


def _not_read(work: Work) -> list[str]:
    """Entries of the data root that are not read; those that almost bear a name of the log are told of."""
    found = work.tools.source.strays(work.dataset)
    for stray in found:
        if stray.meant:
            work.progress(f"not read: {stray.line}")
    shown = [stray.line for stray in found[:MOST_NAMED]]
    return [*shown, *([f"and {len(found) - MOST_NAMED} more"] if len(found) > MOST_NAMED else [])]


def _by_table(account: "Account") -> dict[str, dict[str, int]]:
    """What became of all rows of a delivery when it was cut into days, by table: rows_in = placed + quarantined +
    duplicates."""
    tables = dict.fromkeys(table for _, table in account.files)
    return {table: asdict(account.of_table(table)) for table in tables}


def _quarantined(file: Path) -> tuple[dict[str, int], dict[str, str]]:
    """How many rows are held back for each reason, and the first of each: its source file and the row, without its
    reader."""
    from ml.readers.masking import without_reader

    reasons: dict[str, int] = {}
    examples: dict[str, str] = {}
    for batch in read_batches(file, BATCH, ["table", "reason", "source", "row"]):
        found = batch.column("reason").to_pylist()
        for reason in dict.fromkeys(found):
            reasons[reason] = reasons.get(reason, 0) + found.count(reason)
            first = found.index(reason)
            table, source, row = (batch.column(name)[first].as_py() for name in ("table", "source", "row"))
            examples.setdefault(reason, f"{source}: {without_reader(table, reason, row)[:EXAMPLE_CHARACTERS]}")
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
