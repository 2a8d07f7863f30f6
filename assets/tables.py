"""`articles`, `clicks`, `impressions`: the canonical tables of one day.

Belongs here: one stage a table. Does not belong here: the rules by which rows become canonical (`ml.readers`).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.stage import Need, Stage, Summary, Work, inview_label
from ml.datasets import Dataset
from ml.errors import LakeError
from ml.synthetic import SYNTHETIC
from resources.bindings import RunSettings
from resources.lake import write_parquet

if TYPE_CHECKING:
    from ml.readers import DayTables
    from ml.readers.remarks import Remark


def _compute(table: str, work: Work) -> Summary:
    from ml.inview import synthesise
    from ml.readers import reader

    choice = work.settings.inview_of(work.dataset) if table == "impressions" else None
    raw = work.one("raw_parquet").path
    tables = reader(work.dataset.reader).tables(raw, work.dataset, work.day)
    refuse_loss(table, tables, raw)
    rows, more, labels = getattr(tables, table), {}, {}
    if choice is not None:
        rows, figures = synthesise(tables.clicks, choice)
        more, labels = {"synthesised": figures}, inview_label(str(choice))
        work.progress(f"{choice}: {figures}")
    held_back = tables.quarantine.filter(pc.equal(tables.quarantine["table"], table))
    write_parquet(rows, work.out / f"{table}.parquet")
    write_parquet(held_back, work.out / "quarantine.parquet")
    reasons = {str(r["values"]): int(r["counts"]) for r in pc.value_counts(held_back["reason"]).to_pylist()}
    return Summary(
        rows={f"{table}.parquet": len(rows), "quarantine.parquet": len(held_back)},
        metrics={"rows": len(rows), "quarantined": len(held_back)},
        metadata={"quarantine": reasons, "counts": tables.counts, "remarks": _told(table, tables.remarks), **more},
        labels=labels,
    )


def refuse_loss(table: str, tables: "DayTables", raw: Path) -> None:
    """Raises LakeError where the files of the `raw` day have other rows of `table` than its figures say went in, or the
    table or its quarantine others than they say came out."""
    from ml.readers.base import FROM_IMPRESSIONS
    from ml.readers.merge import RAW_TABLES

    files = [p for p in raw.glob("*.parquet") if RAW_TABLES.get(p.stem, p.stem) == table]
    there = sum(pq.read_metadata(p).num_rows for p in files)
    figures = tables.counts[table]
    read = len(tables.article_rows) if table == "articles" else figures["rows_in"] - figures.get(FROM_IMPRESSIONS, 0)
    held_back = pc.sum(pc.equal(tables.quarantine["table"], table)).as_py() or 0
    pairs = {
        "rows of the raw day": (there, read),
        "published rows": (len(getattr(tables, table)), figures["published"]),
        "quarantined rows": (held_back, figures["quarantined"]),
    }
    for what, (rows, said) in pairs.items():
        if rows != said:
            raise LakeError(
                f"{table}: there are {rows:,} {what}, {said:,} are accounted for: nothing is published; this is a "
                "fault of the reader, report it"
            )


def _told(table: str, remarks: "Sequence[Remark]") -> list[dict[str, Any]]:
    """What was published in spite of something: how many rows of which file, and the first of them."""
    from ml.readers.remarks import added

    return [
        {
            **{name: getattr(r, name) for name in ("reason", "column", "file", "count")},
            "example": ": ".join(r.examples[0]),
        }
        for r in added(remarks)
        if r.table == table
    ]


def _recipe(table: str, dataset: Dataset, settings: RunSettings, *_: object) -> dict[str, Any]:
    choice = settings.inview_of(dataset) if table == "impressions" else None
    return {SYNTHETIC: choice.model_dump()} if choice is not None else {}


def _table(name: str, description: str) -> Stage:
    return Stage(
        name=name,
        group="ingestion",
        description=description,
        needs=(Need("raw_parquet", "raw_parquet"),),
        modules=("assets.tables", "ml.readers", *(["ml.inview"] if name == "impressions" else [])),
        recipe=partial(_recipe, name),
        compute=partial(_compute, name),
        daily=True,
        table=name,
        kinds=("parquet",),
    )


ARTICLES = _table("articles", "Articles published on the day (the first day also holds all older ones).")
CLICKS = _table("clicks", "Clicks of the day: histories and behaviours united, exact duplicates removed.")
IMPRESSIONS = _table("impressions", "What was shown on the day and which of it was clicked.")
