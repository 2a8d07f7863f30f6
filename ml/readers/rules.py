"""Row-level rules: which rows stay out of a table, with the reason, and which are exact repetitions.

Belongs here: rules that hold for every layout, and the form of quarantined rows. Does not belong here: parsing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl
import pyarrow as pa

from ml import schema
from ml.clock import MS_PER_DAY, DayClock
from ml.datasets import Dataset
from ml.errors import LakeError
from ml.readers.cells import presentable

SOURCE = "source"
"""Name of the column that says which source file a raw row came from. Columns that start with "__" are a reader's own
and never written."""

NUMBER = "__number"
"""Name of the column that says which row or line of its source file a raw row is, from 1."""

UNFIT = "__unfit"
"""Name of the column that says which values of a row no canonical type can hold (`ml.readers.canonical.complete`)."""

_REASON = "__reason"
_FAR = 1_000_000

Rule = tuple[str, pl.Expr]
"""A reason, and the expression that is true for the rows it holds back."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows that passed, and the quarantined ones (schema `QUARANTINE`)."""

    kept: pl.DataFrame
    held_back: pa.Table


def judge(rows: pl.DataFrame, table: str, rules: Sequence[Rule]) -> Judged:
    """Splits `rows` by `rules`; a row that breaks several is held back for the first. Order is kept."""
    if not len(rows) or not rules:
        return Judged(rows, schema.QUARANTINE.empty_table())
    names = [f"{_REASON}{i}" for i in range(len(rules))]
    broken = rows.with_columns([rule.fill_null(False).alias(n) for n, (_, rule) in zip(names, rules, strict=True)])
    broken = broken.select(names)
    held = broken.select(pl.any_horizontal(pl.all())).to_series()
    if not held.any():
        return Judged(rows, schema.QUARANTINE.empty_table())
    reason = pl.coalesce([pl.when(pl.col(n)).then(pl.lit(why)) for n, (why, _) in zip(names, rules, strict=True)])
    bad = rows.with_columns(broken.select(reason.alias(_REASON)).to_series()).filter(held)
    return Judged(rows.filter(~held), quarantine(bad, table, pl.col(_REASON)))


def quarantine(rows: pl.DataFrame, table: str, reason: pl.Expr) -> pa.Table:
    """Rows in the form of `schema.QUARANTINE`: the source file from their column `source`, with the row's number where
    they have it, the row as JSON, long cells cut (`ml.readers.cells.presentable`)."""
    if not len(rows):
        return schema.QUARANTINE.empty_table()
    said = [UNFIT] if UNFIT in rows.columns and rows[UNFIT].null_count() < len(rows) else []
    content = presentable(rows.select(pl.exclude(SOURCE, "^__.*$"), *said))
    source = numbered() if NUMBER in rows.columns else pl.col(SOURCE).cast(pl.String)
    shaped = rows.select(pl.lit(table).alias("table"), reason.alias(schema.REASON), source).with_columns(
        content.select(pl.struct(pl.all()).struct.json_encode().alias("row")).to_series()
    )
    return shaped.to_arrow().cast(schema.QUARANTINE)


def numbered() -> pl.Expr:
    """The column `source` with the row's number: FILE:NUMBER."""
    return pl.format("{}:{}", SOURCE, NUMBER).alias(SOURCE)


def bad_ids(*columns: str) -> list[Rule]:
    """Ids that are missing or negative."""
    null = pl.any_horizontal([pl.col(c).is_null() for c in columns])
    negative = pl.any_horizontal([pl.col(c) < 0 for c in columns])
    return [("null_id", null), ("negative_id", negative)]


def bad_time(column: str, start_ms: int, end_ms: int) -> list[Rule]:
    """Times (int64 ms) that are missing or outside [start, end)."""
    return [
        ("null_time", pl.col(column).is_null()),
        ("outside_day", (pl.col(column) < start_ms) | (pl.col(column) >= end_ms)),
    ]


def day_of(time_ms: pl.Expr, clock: DayClock) -> pl.Expr:
    """The partition day (date) of times in ms; null where the time is null. Absurd times become days millennia off."""
    shifted = time_ms - clock.start(date(1970, 1, 1))
    return (shifted // MS_PER_DAY).clip(-_FAR, _FAR).cast(pl.Int32).cast(pl.Date)


def outside_days(day: str, dataset: Dataset) -> list[Rule]:
    """Days (date) that are unknown or not among the dataset's."""
    return [
        ("null_time", pl.col(day).is_null()),
        ("outside_days", ~pl.col(day).is_between(dataset.first_day, dataset.last_day)),
    ]


def milliseconds(column: str) -> pl.Expr:
    """A timestamp column as int64 ms since the epoch; times without a zone are UTC."""
    return pl.col(column).cast(pl.Datetime("ms")).cast(pl.Int64)


def counted(rows_in: int, published: int, quarantined: int, duplicates: int) -> dict[str, int]:
    """The figures of one table. Raises LakeError where they do not add up: a row was lost, or came from nowhere."""
    lost = rows_in - published - quarantined - duplicates
    if lost:
        raise LakeError(
            f"{lost:,} of {rows_in:,} rows are neither published nor quarantined nor copies of others: nothing is "
            "published; this is a fault of the reader, report it"
        )
    return {"rows_in": rows_in, "published": published, "quarantined": quarantined, "duplicates": duplicates}
