"""Impression ids that name impressions of several days of one log: those of the first day stand.

Belongs here: finding them over a whole log, and marking the rows of later days. Does not belong here: ids that
are there twice on one day, and holding rows back (`ml.readers.canonical`).

The mark stays with its row in the raw day, in the column `reused` (null: none), also when a day is put together from
several deliveries; ids of other deliveries are not compared. Memory: 16 bytes an
impression, and one day.
"""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from ml import schema
from ml.readers.files import frame
from ml.readers.marks import NUMBER_IN_DAY, put_marks

REUSED = "reused"
Published = Callable[[pl.DataFrame, date], pl.Series]
"""Given raw rows of a day, the impression ids that its table would show."""


def mark_reused(out: Path, days: Sequence[date], name: str, published: Published) -> None:
    """Marks, in the file `name` of the raw `days` (in order) below `out`, impressions whose id an earlier day's table
    shows. Id 0 names none and may repeat."""
    files = {day: path for day in days if (path := out / str(day) / name).is_file()}
    repeated = _repeated([_ids(path) for path in files.values()])
    taken = repeated.clear()
    for day, path in files.items() if len(repeated) else ():
        if not _ids(path).is_in(repeated.implode()).any():
            continue
        number = pl.col(schema.IMPRESSION_ID)
        rows = frame(path).with_row_index(NUMBER_IN_DAY).filter(number.is_in(repeated.implode()))
        again = rows.filter(number.is_in(taken.implode()))
        put_marks(path, again.select(NUMBER_IN_DAY, pl.lit(True).alias(REUSED)))
        first = published(rows.filter(~number.is_in(taken.implode())).drop(NUMBER_IN_DAY), day)
        taken = pl.concat([taken, first.unique()])


def _ids(path: Path) -> pl.Series:
    """The ids of a raw day that name an impression, int64."""
    ids = frame(path, [schema.IMPRESSION_ID])[schema.IMPRESSION_ID].cast(pl.Int64)
    return ids.filter(ids > 0)


def _repeated(ids: Sequence[pl.Series]) -> pl.Series:
    """Ids that are there more than once, each once."""
    every = np.concatenate([np.zeros(0, dtype=np.int64), *(part.to_numpy() for part in ids)])
    every.sort()
    return pl.Series(schema.IMPRESSION_ID, np.unique(every[1:][every[1:] == every[:-1]]), dtype=pl.Int64)
