"""Interactions and sessions: the reader-sorted clicks of a window, and session-target pairs as ranges into them.

Belongs here: the DuckDB query that makes `interactions`, enumeration of targets with their history (document 1,
Sec. 3.4), the exclusion mask (Eq. 3.2). Does not belong here: which times are targets (`ml.splits`), what a model may
know at one (`ml.asof`).
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba as nb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml import schema
from ml.clock import MS_PER_MINUTE
from ml.errors import DataError
from ml.log import Clicks, int_array
from ml.parquet import read_table, require_columns

if TYPE_CHECKING:
    import duckdb

GAP_MINUTES = 30
REACH = 5
"""The exclusion mask holds this many clicks before and after the target (Eq. 3.2)."""

MASK_WIDTH = 2 * REACH + 1
_ROW_GROUP = 1 << 17
_DIGEST = b"interactions"
_WHOLE_NUMBERS = [n for n in schema.INTERACTIONS.names if n not in (schema.READ_TIME, *schema.CONTEXT)]
_WRITTEN: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": list(schema.CONTEXT),
    "column_encoding": dict.fromkeys(_WHOLE_NUMBERS, "DELTA_BINARY_PACKED"),
}
"""Differences of ids and times that follow each other are small; dictionaries only where values repeat. Plain values
cost twice as long to write."""

_SORTED_BY = (schema.USER_ID, schema.CLICK_TIME, schema.ARTICLE_ID)
_REST = tuple(n for n in schema.INTERACTIONS.names if n not in _SORTED_BY)

CLICKS_SQL = f"""
SELECT user_id, article_id, epoch_ms(time) AS time, {", ".join(_REST)}
FROM read_parquet($files)
WHERE epoch_ms(time) >= $start AND epoch_ms(time) < $stop
"""
"""Clicks of `$files` with $start <= time < $stop (ms), in the order of the files."""

OF_READERS = "AND user_id >= $first AND user_id <= $last"

READERS_SQL = """
SELECT user_id, count(*) AS clicks FROM read_parquet($files)
WHERE epoch_ms(time) >= $start AND epoch_ms(time) < $stop GROUP BY user_id ORDER BY user_id
"""

PASS_ROWS = 32_000_000
"""Clicks held in memory at once, about 100 bytes each; more are read reader range by reader range."""


def build_interactions(
    con: "duckdb.DuckDBPyConnection",
    click_files: list[Path],
    out: Path,
    start_ms: int,
    end_ms: int,
    gap_minutes: int = GAP_MINUTES,
    pass_rows: int = PASS_ROWS,
) -> int:
    """Write the clicks with start_ms <= time < end_ms of daily `clicks` files as `interactions` parquet (schema
    `INTERACTIONS`); the number of rows.

    DuckDB reads, as many readers at a time as have `pass_rows` clicks. Files in the order of their days are ordered by
    time already, which leaves a stable sort by reader; anything else is sorted by all columns. The same clicks give the
    same bytes whatever the order, the number of threads and of passes. Raises DataError naming the file that lacks a
    column.
    """
    for path in click_files:
        require_columns(path, schema.INTERACTIONS, "rebuild the clicks of that day")
    rows = 0
    numbering = _Numbering(gap_minutes * MS_PER_MINUTE)
    with ThreadPoolExecutor(1) as aside, pq.ParquetWriter(out, schema.INTERACTIONS, **_WRITTEN) as writer:
        written: Future[None] | None = None
        for table in _row_groups(_passes(con, click_files, start_ms, end_ms, pass_rows)):
            numbered = numbering.number(table)
            if written is not None:
                written.result()
            written = aside.submit(writer.write_table, numbered, row_group_size=_ROW_GROUP)
            rows += table.num_rows
        if written is not None:
            written.result()
    return rows


def _passes(
    con: "duckdb.DuckDBPyConnection", files: list[Path], start_ms: int, end_ms: int, pass_rows: int
) -> Iterator[pa.Table]:
    """The clicks by reader, time and article, in tables of at most `_ROW_GROUP`."""
    if not files:
        return
    window = {"files": [str(f) for f in files], "start": start_ms, "stop": end_ms}
    if sum(pq.read_metadata(f).num_rows for f in files) <= pass_rows:
        passes = [con.sql(CLICKS_SQL, params=window)]
    else:
        readers = con.execute(READERS_SQL, window).fetchnumpy()
        ranges = _reader_ranges(readers["user_id"], readers["clicks"], pass_rows)
        passes = [con.sql(CLICKS_SQL + OF_READERS, params=window | {"first": a, "last": b}) for a, b in ranges]
    for clicks in (query.to_arrow_table().combine_chunks() for query in passes):
        order = _order(clicks)
        for begin in range(0, len(order), _ROW_GROUP):
            yield clicks.take(pa.array(order[begin : begin + _ROW_GROUP]))


def _reader_ranges(user: np.ndarray, clicks: np.ndarray, pass_rows: int) -> list[tuple[int, int]]:
    """(first, last) reader of each pass; `user` int64 [R] ascending, `clicks` int64 [R]. Only a pass of one reader
    holds more than `pass_rows` clicks."""
    ranges, begin, until = [], 0, np.cumsum(clicks)
    while begin < len(user):
        read = int(until[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(until, read + pass_rows, side="right")))
        ranges.append((int(user[begin]), int(user[end - 1])))
        begin = end
    return ranges


def _order(clicks: pa.Table) -> np.ndarray:
    """Rows by reader, time, article and then all other columns, nulls last; int64 [n]."""
    user, time, article = (clicks.column(name).to_numpy() for name in _SORTED_BY)
    if _ascends(time, user, article):
        return _by_key(user)
    return pc.sort_indices(clicks, sort_keys=[(name, "ascending") for name in (*_SORTED_BY, *_REST)]).to_numpy()


@nb.njit(cache=True, nogil=True)
def _ascends(time: np.ndarray, user: np.ndarray, article: np.ndarray) -> bool:
    """Whether every row's (time, user, article) is above the one before."""
    for row in range(1, len(time)):
        if time[row] != time[row - 1]:
            if time[row] < time[row - 1]:
                return False
        elif user[row] != user[row - 1]:
            if user[row] < user[row - 1]:
                return False
        elif article[row] <= article[row - 1]:
            return False
    return True


@nb.njit(cache=True, nogil=True)
def _by_key(key: np.ndarray) -> np.ndarray:
    """Stable order of int64 keys by radix sort, in time linear in the rows: 11 bits a turn, as many as the span of the
    keys has."""
    n = len(key)
    order = np.arange(n)
    if n == 0:
        return order
    low = key.min()
    span = np.uint64(key.max()) - np.uint64(low)
    moved, shift = np.empty(n, np.int64), np.uint64(0)
    while shift < np.uint64(64) and span >> shift > np.uint64(0):
        place = np.zeros(2049, np.int64)
        for row in range(n):
            place[np.int64(((np.uint64(key[row]) - np.uint64(low)) >> shift) & np.uint64(2047)) + 1] += 1
        place = np.cumsum(place)
        for i in range(n):
            row = order[i]
            digit = np.int64(((np.uint64(key[row]) - np.uint64(low)) >> shift) & np.uint64(2047))
            moved[place[digit]] = row
            place[digit] += 1
        order, moved = moved, order
        shift += np.uint64(11)
    return order


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The rows of tables that follow each other in tables of `_ROW_GROUP`."""
    rest: pa.Table | None = None
    for more in tables:
        table = more if rest is None else pa.concat_tables([rest, more])
        whole = table.num_rows // _ROW_GROUP * _ROW_GROUP
        for begin in range(0, whole, _ROW_GROUP):
            yield table.slice(begin, _ROW_GROUP).combine_chunks()
        rest = table.slice(whole)
    if rest is not None and rest.num_rows:
        yield rest.combine_chunks()


class _Numbering:
    """Sessions numbered 0.. within the reader, over tables that follow each other. A session begins where the source's
    session changes and, where the source names none, after `gap_ms` without a click."""

    def __init__(self, gap_ms: int) -> None:
        self._gap = gap_ms
        self._last = np.full(5, -1, dtype=np.int64)

    def number(self, table: pa.Table) -> pa.Table:
        """The table in schema `INTERACTIONS` (DuckDB knows no timestamp in ms with a zone: its times are integers)."""
        source = table.column(schema.SESSION_ID).combine_chunks()
        known = source.is_valid().to_numpy(zero_copy_only=False)
        user, time = (table.column(name).to_numpy() for name in (schema.USER_ID, schema.CLICK_TIME))
        number = _numbers(user, time, source.fill_null(0).to_numpy(), known, self._gap, self._last)
        place = table.schema.get_field_index(schema.SESSION_ID)
        numbered = table.set_column(place, schema.SESSION_ID, pa.array(number))
        return numbered.select(schema.INTERACTIONS.names).cast(schema.INTERACTIONS)


@nb.njit(cache=True, nogil=True)
def _numbers(
    user: np.ndarray, time: np.ndarray, source: np.ndarray, known: np.ndarray, gap: int, last: np.ndarray
) -> np.ndarray:
    """Session numbers int64 [n]. `last` holds reader, time, source's session, whether that is known, and number of the
    click before (number -1: there is none), and is moved on."""
    number = np.empty(len(user), np.int64)
    for row in range(len(user)):
        named = known[row] and last[3] == 1
        opens = source[row] != last[2] if named else time[row] - last[1] >= gap
        number[row] = 0 if last[4] < 0 or user[row] != last[0] else last[4] + opens
        last[0], last[1], last[2], last[3], last[4] = user[row], time[row], source[row], known[row], number[row]
    return number


def reader_times(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reader and time (ms) of every click of an `interactions` file, int64 [N] each: all that ranges depend on."""
    table = read_table(
        path, schema.some(schema.INTERACTIONS, schema.USER_ID, schema.CLICK_TIME), "rebuild interactions"
    )
    return int_array(table, schema.USER_ID), int_array(table, schema.CLICK_TIME)


def session_ranges(
    user: np.ndarray, time: np.ndarray, spans: dict[str, tuple[int, int]], max_history: int = 64, min_history: int = 1
) -> pa.Table:
    """Targets of each split and their history as rows [first, target) (schema `SESSIONS`), by split in the order of
    `spans` (name -> [start, end) of target times in ms), then by row. Clicks are `user`, `time` (ms) int64 [N], sorted.

    A history holds the last `max_history` clicks strictly before the target; targets with fewer than `min_history` are
    left out. Clicks in the target's own millisecond may stand between them: they are no history.
    """
    first, known = _ranges(user, time, max_history)
    parts = [schema.SESSIONS.empty_table()]
    for name, (start, end) in spans.items():
        target = np.flatnonzero((time >= start) & (time < end) & (known >= min_history))
        split = pa.repeat(pa.scalar(name), len(target))
        parts.append(pa.Table.from_arrays([pa.array(first[target]), pa.array(target), split], schema=schema.SESSIONS))
    return pa.concat_tables(parts)


@nb.njit(cache=True, nogil=True)
def _ranges(user: np.ndarray, time: np.ndarray, max_history: int) -> tuple[np.ndarray, np.ndarray]:
    """(first history row, number of history clicks) of every click."""
    first, known = np.empty(len(user), np.int64), np.empty(len(user), np.int32)
    begin = stop = 0
    for row in range(len(user)):
        if row == 0 or user[row] != user[row - 1]:
            begin = stop = row
        elif time[row] != time[row - 1]:
            stop = row
        first[row] = max(begin, stop - max_history)
        known[row] = stop - first[row]
    return first, known


@dataclass(frozen=True, slots=True)
class Sessions:
    """Session ranges as arrays: `first`, `target` int64 [S] rows of the interactions, `split` str [S]."""

    first: np.ndarray
    target: np.ndarray
    split: np.ndarray

    def __len__(self) -> int:
        return len(self.target)


def write_sessions(table: pa.Table, path: Path, digest: str) -> None:
    """Write ranges as parquet, bound to the interactions with content digest `digest`."""
    bound = table.cast(schema.SESSIONS).replace_schema_metadata({_DIGEST: digest.encode()})
    near = dict.fromkeys(("first", "target"), "DELTA_BINARY_PACKED")
    pq.write_table(bound, path, compression="zstd", use_dictionary=["split"], column_encoding=near)


def read_sessions(path: Path, digest: str) -> Sessions:
    """Read ranges. Raises DataError when they were made for interactions other than those of `digest`."""
    table = read_table(path, schema.SESSIONS, "rebuild session_splits")
    bound = (table.schema.metadata or {}).get(_DIGEST, b"").decode()
    if bound != digest:
        raise DataError(
            f"{path}: made for interactions {bound or '(unknown)'}, not for {digest}: rebuild session_splits"
        )
    named = table.column("split").combine_chunks().dictionary_encode()
    split = np.array(named.dictionary.to_pylist(), dtype=str)[named.indices.to_numpy()]
    first, target = int_array(table, "first"), int_array(table, "target")
    if np.any(first < 0) or np.any(first > target):
        raise DataError(f"{path}: a history begins before the first row or after its target: rebuild session_splits")
    return Sessions(first, target, split)


def exclusion_mask(clicks: Clicks, targets: np.ndarray, boundary_ms: int) -> np.ndarray:
    """Articles that must not serve as negatives of the clicks at rows `targets` (int64 [B]): the reader's five clicks
    before, the target, five after (Eq. 3.2), those after cut at `boundary_ms`, where training ends.

    int32 [B, 11] catalogue rows in order of the clicks, -1 where there is none.
    """
    targets = np.asarray(targets, dtype=np.int64)
    step = np.arange(-REACH, REACH + 1)
    row = targets[:, None] + step
    inside = (row >= 0) & (row < len(clicks))
    row = np.where(inside, row, targets[:, None])
    inside &= clicks.user[row] == clicks.user[targets][:, None]
    inside &= (step <= 0) | (clicks.time[row] < boundary_ms)
    return np.where(inside, clicks.article[row], -1).astype(np.int32)
