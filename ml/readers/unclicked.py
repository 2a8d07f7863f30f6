"""Impressions of an own log that tell of a click which its table of clicks does not have.

Belongs here: finding them over a whole log, and the remark on them. Does not belong here: links of clicks to
impressions (`ml.readers.links`).

A click has a row when `clicks` has one of that reader on that article, on the impression's day of the log, the day
before or the day after. As with links, the mark stays with its row in the raw day, in the column `unclicked` (null:
none), and is judged once more by the day's own clicks, which another delivery may have brought.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from ml import schema
from ml.readers.canonical import Canonical
from ml.readers.files import frame
from ml.readers.marks import NUMBER_IN_DAY, put_marks
from ml.readers.remarks import Remark, remarks_on
from ml.readers.rules import SOURCE

UNCLICKED = "unclicked"
REASON = "clicked_without_a_row"
_PAIR = [schema.USER_ID, schema.ARTICLE_ID]


def mark_unclicked(out: Path, days: Sequence[date]) -> None:
    """Marks the impressions of the raw `days` below `out`, which have been cut from one log."""
    for day in days:
        path = out / str(day) / "impressions.parquet"
        if path.is_file():
            shown = _pairs(frame(path, [schema.USER_ID, schema.CLICKED]))
            around = [out / str(day + timedelta(days=n)) / "clicks.parquet" for n in (-1, 0, 1)]
            for clicked in (p for p in around if p.is_file()):
                shown = shown.join(frame(clicked, _PAIR), on=_PAIR, how="anti")
            rows = shown.select(pl.col(NUMBER_IN_DAY).unique().sort(), pl.lit(True).alias(UNCLICKED))
            put_marks(path, rows)


def unclicked(shown: pl.DataFrame, clicks: pl.DataFrame, published: Canonical) -> list[Remark]:
    """The remarks on the marked rows of a raw day (`shown`) that are published, given the day's `clicks`."""
    marked = shown.filter(pl.col(UNCLICKED).fill_null(False))
    still = _pairs(marked).join(clicks.select(_PAIR), on=_PAIR, how="anti")[NUMBER_IN_DAY].unique()
    sources = marked.with_row_index(NUMBER_IN_DAY).filter(pl.col(NUMBER_IN_DAY).is_in(still.implode())).select(SOURCE)
    rows = published.rows.join(sources, on=SOURCE, how="semi", maintain_order="left")
    return remarks_on(rows, "impressions", REASON, schema.CLICKED)


def _pairs(shown: pl.DataFrame) -> pl.DataFrame:
    """One row for each click that impressions tell of: their number, reader and article."""
    clicked = pl.col(schema.CLICKED).alias(schema.ARTICLE_ID)
    pairs = shown.with_row_index(NUMBER_IN_DAY).select(NUMBER_IN_DAY, schema.USER_ID, clicked)
    return pairs.explode(schema.ARTICLE_ID).drop_nulls()
