"""Articles that belong to the days on which they appear.

Belongs here: which articles appear on which day, gathered while a log streams by. Does not belong here: where an
article with a publication time lies.
"""

from collections.abc import Iterable
from datetime import date

import polars as pl

APPEARS = "__article"


class Appearances:
    """Ids of the articles that appear on each day: one set a day."""

    def __init__(self) -> None:
        self._seen: dict[date, set[int]] = {}

    def note(self, rows: pl.DataFrame, day: str, columns: Iterable[str]) -> None:
        """Adds the ids in `columns` (int64, or lists of it) of rows whose column `day` (date) says when."""
        for (when,), part in rows.partition_by(day, as_dict=True).items():
            here = self._seen.setdefault(when, set())
            for column in columns:
                ids = part[column]
                flat = ids.explode() if ids.dtype == pl.List(pl.Int64) else ids
                here.update(flat.drop_nulls().unique().to_list())

    def keep(self, days: Iterable[date]) -> None:
        """Forgets all other days."""
        kept = set(days)
        self._seen = {day: ids for day, ids in self._seen.items() if day in kept}

    def on(self, day: date) -> pl.Series:
        """Ids of a day, int64, sorted."""
        return pl.Series(APPEARS, sorted(self._seen.get(day, ())), dtype=pl.Int64)

    def table(self, day: str) -> pl.DataFrame:
        """One row for each day and article: `day` (date) and `__article` (int64), sorted."""
        parts = [self.on(when).to_frame().select(pl.lit(when).alias(day), APPEARS) for when in sorted(self._seen)]
        return pl.concat([pl.DataFrame(schema={day: pl.Date, APPEARS: pl.Int64}), *parts])
