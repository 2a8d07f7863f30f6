"""Marks on rows of raw days, made once a whole log has been cut.

Belongs here: putting a column into a day's file. Does not belong here: what is marked, and why (`ml.readers.links`,
`ml.readers.reused`, `ml.readers.unclicked`).
"""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml.readers.files import frame
from ml.readers.spill import parquet_options

NUMBER_IN_DAY = "__row"
"""Number of a row in its day's file, from 0."""


def put_marks(path: Path, marks: pl.DataFrame) -> None:
    """Puts `marks` (`__row`, and one column more) into the file at `path`: null in all other rows. Without marks
    nothing is written."""
    if not len(marks):
        return
    (name,) = (c for c in marks.columns if c != NUMBER_IN_DAY)
    found = pq.read_schema(path)
    if name not in found.names:
        found = found.append(marks.select(name).to_arrow().schema.field(name))
    rows = frame(path).drop(name, strict=False).with_row_index(NUMBER_IN_DAY)
    rows = rows.join(marks, on=NUMBER_IN_DAY, how="left", maintain_order="left").drop(NUMBER_IN_DAY)
    table = rows.select(found.names).to_arrow()
    pq.write_table(pa.table([table[f.name].cast(f.type) for f in found], schema=found), path, **parquet_options(found))
