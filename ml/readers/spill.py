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

_BUDGET = 256 << 20
"""Bytes that are held back of all days of a table together."""

_PIECE = 256
"""Bytes that a column of a piece takes beside its values."""

_OPEN = 128
"""Files of a table that are open at a time."""

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
        self._gathered: list[pa.Table] = []
        self._parts: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self.held = 0
        """Bytes that are gathered."""

    @property
    def is_open(self) -> bool:
        """Whether it has a file open."""
        return self._writer is not None

    def append(self, table: pa.Table) -> None:
        """Adds rows at the end."""
        if not len(table):
            return
        columns = [
            table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(len(table), f.type)
            for f in self._schema
        ]
        self._gathered.append(pa.table(columns, schema=self._schema))
        self.held += table.nbytes + _PIECE * len(columns)
        if self.held >= _GATHER:
            self.flush()

    def flush(self) -> None:
        """Writes what is gathered."""
        if not self._gathered:
            return
        if self._writer is None:
            self._writer = self._next_part()
        writer, gathered = self._writer, self._gathered
        self._gathered, self.held = [], 0
        self._do(lambda: writer.write_table(pa.concat_tables(gathered).combine_chunks()))

    def _next_part(self) -> pq.ParquetWriter:
        """The file itself, then files beside it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._parts.append(self._path.with_suffix(f".part{len(self._parts)}") if self._parts else self._path)
        return pq.ParquetWriter(self._parts[-1], self._schema, **parquet_options(self._schema))

    def release(self) -> None:
        """Writes what is gathered and closes what is open; more rows may follow."""
        self.flush()
        if self._writer is not None:
            self._do(self._writer.close)
            self._writer = None

    def _join(self) -> None:
        """Makes one file of the parts."""
        whole = self._path.with_suffix(".whole")
        with Spill(whole, self._schema) as joined:
            for part in self._parts:
                with pq.ParquetFile(part) as file:
                    for group in range(file.num_row_groups):
                        joined.append(file.read_row_group(group))
                part.unlink()
        whole.replace(self._path)

    def _do(self, work: Callable[[], None]) -> None:
        if self._background is None:
            work()
        else:
            self._background.run(work)

    def close(self) -> None:
        """Writes what is held back and ends the file."""
        self.release()
        if len(self._parts) > 1:
            self._do(self._join)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DaySpill:
    """The files `out/<day>/<name>.parquet` of all days; `rows`: how many each has so far. However many days there are,
    at most `_BUDGET` bytes are gathered and `_OPEN` files open; of a day whose file was closed meanwhile, the parts are
    joined at the end."""

    def __init__(self, out: Path, name: str, schema: pa.Schema) -> None:
        self._out = out
        self._name = name
        self._schema = schema
        self._days: dict[date, Spill] = {}
        self._open: dict[date, None] = {}
        self._held = 0
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
            spill = self._days[where]
            before = spill.held
            spill.append(part.to_arrow())
            self.rows[where] += len(part)
            self._held += spill.held - before
            if spill.held <= before:  # it has written
                self._written(where)
            if self._held > _BUDGET:
                self._write_largest()

    def _write_largest(self) -> None:
        """Writes the days of which most is gathered, until half of the budget is free."""
        for where in sorted(self._days, key=lambda d: (-self._days[d].held, d)):
            if self._held <= _BUDGET // 2:
                return
            self._held -= self._days[where].held
            self._days[where].flush()
            self._written(where)

    def _written(self, where: date) -> None:
        """Notes that a day's file was written to, and closes those that have not been for the longest time."""
        self._open.pop(where, None)
        self._open[where] = None
        while len(self._open) > _OPEN:
            oldest = next(iter(self._open))
            del self._open[oldest]
            self._held -= self._days[oldest].held
            self._days[oldest].release()

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
