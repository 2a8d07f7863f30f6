"""Links of an own log's clicks to impressions: is the one named there, is it the reader's, did it show the article?

Belongs here: judging links over a whole log, and unsetting those that do not hold. Does not belong here: what an
impression itself must be (`ml.readers.canonical`).

A raw day's clicks carry the verdict in the column `link` (null: it holds, or there is none), so that it stays with its
row when a day is put together from several deliveries. Memory: some millions of clicks, and one day of impressions.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from ml import schema
from ml.readers.files import frame
from ml.readers.marks import NUMBER_IN_DAY as _ROW
from ml.readers.marks import put_marks
from ml.readers.remarks import Remark, remarks_on
from ml.readers.reused import REUSED

LINK = "link"
VERDICTS = (None, "article_not_in_impression", "impression_of_another_reader", "impression_missing")
"""From the best to the worst; where an id names impressions of several deliveries the best counts."""

_DAY = "__day"
_KEYS = [schema.USER_ID, schema.ARTICLE_ID, schema.IMPRESSION_ID]
_SHOWN = [schema.IMPRESSION_ID, schema.USER_ID, schema.CLICK_TIME, schema.INVIEW, REUSED]
_MOST = 4_000_000


def judge_links(out: Path, days: Sequence[date]) -> None:
    """Writes the verdicts into the clicks of the raw `days` below `out`, which have been cut from one log."""
    shown = [p for p in (out / str(day) / "impressions.parquet" for day in days) if p.is_file()]
    clicked = [p for p in (out / str(day) / "clicks.parquet" for day in days) if p.is_file()]
    for paths in _groups([p for p in clicked if frame(p, [schema.IMPRESSION_ID]).count().item()]):
        clicks = _linked(pl.concat([_numbered(path, n) for n, path in enumerate(paths)]))
        verdict = np.full(len(clicks), len(VERDICTS) - 1, dtype=np.int8)
        for path in shown:
            np.minimum(verdict, _verdicts(clicks, frame(path, _SHOWN)), out=verdict)
        judged = clicks.select(_DAY, _ROW).with_columns(_named(verdict)).drop_nulls(LINK)
        for (number,), part in judged.partition_by(_DAY, as_dict=True).items():
            put_marks(paths[int(number)], part.select(_ROW, LINK))


def settled(clicks: pl.DataFrame, shown: pl.DataFrame) -> tuple[pl.DataFrame, list[Remark]]:
    """A raw day's clicks (with `time` in ms) without the links that do not hold, and the remarks on these. Links to
    impressions that were missing when the log was cut are judged once more by the day's own, `shown`: another delivery
    may have brought them."""
    missing = pl.col(LINK) == VERDICTS[-1]
    doubtful = _linked(clicks.with_row_index(_ROW).filter(missing))
    if len(doubtful):
        again = doubtful.select(_ROW).with_columns(_named(_verdicts(doubtful, shown)).alias("__again"))
        clicks = clicks.with_row_index(_ROW).join(again, on=_ROW, how="left", maintain_order="left").drop(_ROW)
        clicks = clicks.with_columns(pl.when(missing).then(pl.col("__again")).otherwise(LINK).alias(LINK))
    broken = clicks.filter(pl.col(LINK).is_not_null())
    remarks = [
        r
        for why in VERDICTS[:0:-1]
        for r in remarks_on(broken.filter(pl.col(LINK) == why), "clicks", str(why), schema.IMPRESSION_ID)
    ]
    held = pl.when(pl.col(LINK).is_null()).then(pl.col(schema.IMPRESSION_ID)).alias(schema.IMPRESSION_ID)
    return clicks.with_columns(held), remarks


def _groups(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """The files in order, as many together as have `_MOST` rows."""
    group: list[Path] = []
    rows = 0
    for path in paths:
        count = pq.read_metadata(path).num_rows
        if group and rows + count > _MOST:
            yield group
            group, rows = [], 0
        group.append(path)
        rows += count
    if group:
        yield group


def _numbered(path: Path, number: int) -> pl.DataFrame:
    """A raw day's clicks with the number of the day and of the row."""
    return frame(path, _KEYS).with_row_index(_ROW).with_columns(pl.lit(number).alias(_DAY))


def _linked(clicks: pl.DataFrame) -> pl.DataFrame:
    """The clicks that name an impression, of those that can be clicks."""
    return clicks.filter(
        (pl.col(schema.USER_ID) >= 0) & (pl.col(schema.ARTICLE_ID) >= 0) & (pl.col(schema.IMPRESSION_ID) > 0)
    )


def _verdicts(clicks: pl.DataFrame, shown: pl.DataFrame) -> np.ndarray:
    """For each of `clicks` the place in `VERDICTS` (int8) by the impressions `shown`, without those that reuse an id;
    of several with one id the first in time counts, as in the canonical table."""
    named = (
        shown.filter(pl.col(REUSED).is_null())
        .join(clicks, on=schema.IMPRESSION_ID, how="semi")
        .sort(schema.CLICK_TIME, schema.USER_ID)
    )
    named = named.unique(schema.IMPRESSION_ID, keep="first", maintain_order=True)
    linked = clicks.select(*_KEYS).with_row_index("__place")
    found = linked.join(
        named.select(schema.IMPRESSION_ID, pl.col(schema.USER_ID).alias("__reader")), on=schema.IMPRESSION_ID
    )
    own = found.filter(pl.col(schema.USER_ID) == pl.col("__reader"))
    pairs = named.select(schema.IMPRESSION_ID, pl.col(schema.INVIEW).alias(schema.ARTICLE_ID)).explode(
        schema.ARTICLE_ID
    )
    right = own.join(pairs, on=[schema.IMPRESSION_ID, schema.ARTICLE_ID], how="semi")
    verdict = np.full(len(clicks), 3, dtype=np.int8)
    for place, rows in ((2, found), (1, own), (0, right)):
        verdict[rows["__place"].to_numpy()] = place
    return verdict


def _named(verdict: np.ndarray) -> pl.Series:
    return pl.Series(LINK, [VERDICTS[v] for v in verdict.tolist()], dtype=pl.String)
