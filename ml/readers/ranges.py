"""The values that the cells of canonical tables may have, and what becomes of others.

Belongs here: the one table of ranges and units, for every layout, and unsetting cells outside. Does not belong here:
values that no type can hold (`ml.readers.fit`), texts and lists (`ml.readers.cells`), links between tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from ml import schema
from ml.readers.remarks import Remark, remarks_on, remarks_on_articles
from ml.readers.rules import Rule

UNSET = "value_out_of_range"
"""Reason of the remarks on cells that were unset."""

_ID, _CODE, _SECONDS_A_DAY = 2**63 - 1, 2**31 - 1, 86_400


@dataclass(frozen=True, slots=True)
class Range:
    """Values from `low` to `high`, both allowed, in `unit`. Any other value, NaN among them, holds its `row` back, or
    leaves the `cell` unknown (null) with a remark."""

    low: int
    high: int
    unit: str
    outside: Literal["row", "cell"]


_IDS = Range(0, _ID, "id", "row")
_CODES = {name: Range(0, _CODE, "code", "row") for name in schema.CONTEXT}
RANGES: Mapping[str, Mapping[str, Range]] = {
    "clicks": {
        schema.USER_ID: _IDS,
        schema.ARTICLE_ID: _IDS,
        schema.IMPRESSION_ID: Range(1, _ID, "id", "cell"),
        schema.READ_TIME: Range(0, _SECONDS_A_DAY, "seconds", "cell"),
        schema.SCROLL: Range(0, 100, "percent", "cell"),
        **_CODES,
    },
    "impressions": {schema.IMPRESSION_ID: _IDS, schema.USER_ID: _IDS, schema.INVIEW: _IDS, **_CODES},
    "articles": {
        schema.ARTICLE_ID: _IDS,
        "category_id": Range(0, _CODE, "code", "row"),
        "sentiment_score": Range(0, 1, "share", "cell"),
    },
}
"""By table and column. Columns without a range are times (those of clicks and impressions lie in their day, those of
articles in `ml.readers.cells.PLAUSIBLE_MS`), flags, texts, and `session_id`, which may be any whole number."""


def outside(table: str, column: str) -> pl.Expr:
    """True for known values of a column that lie outside its range."""
    allowed = RANGES[table][column]
    return pl.col(column).is_not_null() & ~pl.col(column).is_between(allowed.low, allowed.high)


def bad_codes(table: str) -> list[Rule]:
    """The rule that codes lie in their range."""
    codes = [name for name, allowed in RANGES[table].items() if allowed.unit == "code"]
    return [("code_out_of_range", pl.any_horizontal([outside(table, name) for name in codes]))]


def unset_outside(rows: pl.DataFrame, table: str) -> tuple[pl.DataFrame, list[Remark]]:
    """`rows` (canonical columns, `source`; some may be missing) with null in the cells that may become unknown and lie
    outside their range, and the remarks on these."""
    remarks = []
    for name, allowed in RANGES[table].items():
        if allowed.outside == "cell" and name in rows.columns:
            wrong = rows.select(outside(table, name)).to_series()
            if wrong.any():
                bad = rows.filter(wrong)
                articles = table == "articles"
                remarks += remarks_on_articles(bad, UNSET, name) if articles else remarks_on(bad, table, UNSET, name)
                rows = rows.with_columns(pl.when(~wrong).then(pl.col(name)).alias(name))
    return rows, remarks
