"""Rows on their way to days: one parquet file a day, written in pieces while the sources stream by.

Belongs here: gathering and writing. Does not belong here: which day a row belongs to by the rules of a layout.
"""

from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

_GATHER = 4 << 20
"""Bytes of a day that are held back before they become a row group."""


class Spill:
    """One parquet file, appended to: small pieces are gathered, so that row groups are of a useful size. Without
    rows, nothing is written. All pieces are cast to `schema`, with null for columns that they lack."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._held: list[pa.Table] = []
        self._bytes = 0
        self._writer: pq.ParquetWriter | None = None

    def append(self, table: pa.Table) -> None:
        """Adds rows at the end."""
        if not len(table):
            return
        columns = [
            table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(len(table), f.type)
            for f in self._schema
        ]
        self._held.append(pa.table(columns, schema=self._schema))
        self._bytes += table.nbytes
        if self._bytes >= _GATHER:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd", compression_level=1)
        self._writer.write_table(pa.concat_tables(self._held).combine_chunks())
        self._held, self._bytes = [], 0

    def close(self) -> None:
        """Writes what is held back and ends the file."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> "Spill":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DaySpill:
    """The files `out/<day>/<name>.parquet` of all days."""

    def __init__(self, out: Path, name: str, schema: pa.Schema) -> None:
        self._out = out
        self._name = name
        self._schema = schema
        self._days: dict[date, Spill] = {}

    @property
    def days(self) -> list[date]:
        """Days with rows so far, in order."""
        return sorted(self._days)

    def append(self, rows: pl.DataFrame, day: str) -> None:
        """Appends rows, in order, each to the day that its column `day` (date) names; that column is not written."""
        for (where,), part in rows.partition_by(day, maintain_order=True, include_key=False, as_dict=True).items():
            if where not in self._days:
                self._days[where] = Spill(self._out / str(where) / f"{self._name}.parquet", self._schema)
            self._days[where].append(part.to_arrow())

    def close(self) -> None:
        """Ends all files."""
        for day in self.days:
            self._days[day].close()

    def __enter__(self) -> "DaySpill":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
