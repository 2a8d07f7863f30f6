"""Rows on their way to days: one parquet file a day, written in pieces while the sources stream by.

Belongs here: gathering and writing. Does not belong here: which day a row belongs to by the rules of a layout.
"""

from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml.readers.cells import is_string

_GATHER = 4 << 20
"""Bytes of a day that are held back before they become a row group."""


_WAITING = 4
"""Row groups that may wait to be written."""

_FEW_VALUES = (pa.types.is_boolean, pa.types.is_int8, pa.types.is_int16, pa.types.is_int32, pa.types.is_uint8)


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """How rows are written: dictionaries only where values repeat (codes, texts, lists of ids), which halves the time;
    no statistics, which nobody reads."""
    repeating = [f.name for f in schema if is_string(f.type) or any(few(f.type) for few in _FEW_VALUES)]
    lists = [f for f in schema if pa.types.is_list(f.type) or pa.types.is_large_list(f.type)]
    repeating += [f"{f.name}.list.element" for f in lists if pa.types.is_integer(f.type.value_type)]
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": repeating,
        "write_statistics": False,
    }


class Background:
    """One thread that writes row groups while the next ones are made; they are written in the order given."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._waiting: deque[Future[None]] = deque()

    def run(self, work: Callable[[], None]) -> None:
        """Does `work` after all that came before; waits when too much is waiting. Raises what earlier work raised."""
        self._waiting.append(self._pool.submit(work))
        while len(self._waiting) > _WAITING:
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Waits for all of it. Raises what it raised."""
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown()


class Spill:
    """One parquet file, appended to: small pieces are gathered, so that row groups are of a useful size. Without
    rows, nothing is written. All pieces are cast to `schema`, with null for columns that they lack."""

    def __init__(self, path: Path, schema: pa.Schema, background: Background | None = None) -> None:
        self._background = background
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
            self._writer = pq.ParquetWriter(self._path, self._schema, **parquet_options(self._schema))
        writer, held = self._writer, self._held
        self._held, self._bytes = [], 0
        self._do(lambda: writer.write_table(pa.concat_tables(held).combine_chunks()))

    def _do(self, work: Callable[[], None]) -> None:
        if self._background is None:
            work()
        else:
            self._background.run(work)

    def close(self) -> None:
        """Writes what is held back and ends the file."""
        self._flush()
        if self._writer is not None:
            self._do(self._writer.close)
            self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DaySpill:
    """The files `out/<day>/<name>.parquet` of all days; `rows`: how many each has so far."""

    def __init__(self, out: Path, name: str, schema: pa.Schema) -> None:
        self._out = out
        self._name = name
        self._schema = schema
        self._days: dict[date, Spill] = {}
        self._background = Background()
        self.rows: Counter[date] = Counter()

    @property
    def days(self) -> list[date]:
        """Days with rows so far, in order."""
        return sorted(self._days)

    def append(self, rows: pl.DataFrame, day: str) -> None:
        """Appends rows, in order, each to the day that its column `day` (date) names; that column is not written."""
        for (where,), part in rows.partition_by(day, maintain_order=True, include_key=False, as_dict=True).items():
            if where not in self._days:
                self._days[where] = Spill(
                    self._out / str(where) / f"{self._name}.parquet", self._schema, self._background
                )
            self._days[where].append(part.to_arrow())
            self.rows[where] += len(part)

    def close(self) -> None:
        """Ends all files."""
        try:
            for day in self.days:
                self._days[day].close()
        finally:
            self._background.finish()

    def __enter__(self) -> "DaySpill":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
