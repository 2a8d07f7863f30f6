"""Rows of article tables on the days on which they are used.

Belongs here: which of a day's article rows its canonical table shows, so that rows that lie in several days can be
counted once. Does not belong here: which row of an article stands (`ml.readers.canonical`), the count (`ml.log_rows`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from ml import schema
from ml.readers.rules import SOURCE, Judged, judge

ROWS = pa.schema([(SOURCE, pa.string()), (schema.ARTICLE_ID, pa.int64()), ("published", pa.bool_())])
"""One row for each article row of a raw day: its file and number, its article, and whether the day's table shows it.
Those that it does not show are in the day's quarantine or repeat another one exactly."""


@dataclass(frozen=True, slots=True)
class Described:
    """Articles that appear (`canonical.first_seen`), with the columns of the rows that describe them; the rows that
    describe no article that appears; the fate of all (`ROWS`)."""

    seen: pl.DataFrame
    unused: Judged
    rows: pa.Table

    def added_to(self, counts: Mapping[str, int]) -> dict[str, int]:
        """The figures of the day's articles, with the unused rows."""
        held_back = len(self.unused.held_back)
        more = {name: counts[name] + held_back for name in ("rows_in", "quarantined")}
        return {**counts, **more}


def described(rows: pl.DataFrame | None, seen: pl.DataFrame) -> Described:
    """`seen` with the columns of `rows` (one an article; None: there are none) by article_id. Rows whose article does
    not appear among the day's canonical rows are held back as `never_shown`."""
    if rows is None:
        nothing = pl.DataFrame(schema={SOURCE: pl.String})
        return Described(seen, Judged(nothing, schema.QUARANTINE.empty_table()), ROWS.empty_table())
    rows = rows.with_columns(pl.col(SOURCE).cast(pl.String))
    unused = judge(
        rows, "articles", [("never_shown", ~pl.col(schema.ARTICLE_ID).is_in(seen[schema.ARTICLE_ID].implode()))]
    )
    joined = seen.join(rows.drop(SOURCE), on=schema.ARTICLE_ID, how="left", maintain_order="left")
    return Described(joined, unused, fates(rows, unused.kept))


def fates(listed: pl.DataFrame | None, published: pl.DataFrame) -> pa.Table:
    """`ROWS` of the `listed` article rows (None: there are none), given the `published` ones; both with `source`."""
    if listed is None:
        return ROWS.empty_table()
    shown = published[SOURCE].cast(pl.String).drop_nulls()
    source = pl.col(SOURCE).cast(pl.String)
    is_shown = source.is_in(shown.implode()).alias("published")
    return listed.select(source, pl.col(schema.ARTICLE_ID).cast(pl.Int64), is_shown).to_arrow().cast(ROWS)
