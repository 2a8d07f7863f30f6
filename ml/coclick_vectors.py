"""Article vectors from co-clicks, for logs without text: who is clicked together points the same way.

Belongs here: vectors made of the pairs known by a time, in a basis that never moves. Does not belong here: the pairs
themselves (`ml.coclicks`) and asking for a vector at a time (`ml.content`).

Random indexing: every article id has a fixed code r_a, random signs from a hash, nearly orthogonal to all others. As of
s the vector of a is v_a = |w_a + r_a|, w_a = |Σ 2^(-(s - t) / half-life) r_b| over its pairs (b, t) with t < s, where
|.| scales to unit length. v_a · v_b then holds how often a and b were clicked together (r_a in w_b, r_b in w_a) and how
many partners they share (w_a · w_b), up to noise of order D^-1/2. Days need no alignment: the codes are the basis.
"""

from pathlib import Path

import numba as nb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.clock import MS_PER_HOUR, MS_PER_MINUTE
from ml.coclicks import LOOKBACK, pairs
from ml.content import SINCE, VECTOR
from ml.hashing import mix
from ml.log import int_array
from ml.parquet import read_table

DIM = 96
STEP_MINUTES = 30
HALF_LIFE_MS = MS_PER_HOUR
SESSION_GAP_MS = 30 * MS_PER_MINUTE
"""The three figures were chosen by measurement: docs/globo.md."""

COCLICK = pa.schema(
    [
        pa.field(schema.ARTICLE_ID, pa.int64(), nullable=False),
        pa.field(SINCE, schema.TIME, nullable=False),
        pa.field(VECTOR, pa.list_(pa.float32(), DIM), nullable=False),
    ]
)


def build_coclick_day(earlier: list[Path], today: Path, start_ms: int, end_ms: int, out: Path) -> int:
    """Write the vectors that become known in the day [start_ms, end_ms) to parquet `out`; returns their number.

    `today`, `earlier`: `clicks` files of the day and of days before it (the last one is enough: a day is 24
    half-lives). The day goes by steps of `STEP_MINUTES`; an article with a new pair in a step gets a vector that holds
    `since` the end of the step. Sorted by (since, article_id).
    """
    article_id, first, second, time = _known_pairs([*earlier, today], end_ms)
    codes = article_codes(article_id, DIM)
    sums = np.zeros((len(article_id), DIM), dtype=np.float32)
    rows, now, done = 0, start_ms, 0
    with pq.ParquetWriter(out, COCLICK) as writer:
        for since in (
            start_ms,
            *range(start_ms + STEP_MINUTES * MS_PER_MINUTE, end_ms + 1, STEP_MINUTES * MS_PER_MINUTE),
        ):
            sums *= np.float32(2.0 ** (-(since - now) / HALF_LIFE_MS))
            stop = int(np.searchsorted(time, since))
            weight = np.exp2((time[done:stop] - since) / HALF_LIFE_MS).astype(np.float32)
            _add_codes(sums, codes, first[done:stop], second[done:stop], weight)
            touched = np.unique(np.concatenate([first[done:stop], second[done:stop]]))
            if since > start_ms and len(touched):
                writer.write_table(_table(article_id[touched], since, _unit(_unit(sums[touched]) + codes[touched])))
                rows += len(touched)
            now, done = since, stop
    return rows


def article_codes(article_id: np.ndarray, dim: int) -> np.ndarray:
    """The fixed code of each article: float32 [n, dim], entries ±1/sqrt(dim) by a hash of the id (int64 [n]) alone."""
    return _signs(np.asarray(article_id, dtype=np.int64), dim) / np.float32(np.sqrt(dim))


def _known_pairs(files: list[Path], end_ms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Distinct article ids, and the pairs known before `end_ms` in order of time: positions of the earlier and the
    later article among the ids, and the time (ms) of the later click."""
    columns = [schema.USER_ID, schema.CLICK_TIME, schema.ARTICLE_ID, schema.SESSION_ID]
    wanted = schema.some(schema.CLICKS, *columns)
    table = pa.concat_tables([read_table(f, wanted, "rebuild the clicks of that day") for f in files])
    user, time, article, session = (int_array(table, c) for c in columns)
    order = np.lexsort((article, time, user))
    order = order[time[order] < end_ms]
    user, time, article, session = user[order], time[order], article[order], session[order]
    article_id, position = np.unique(article, return_inverse=True)
    new = (user[1:] != user[:-1]) | (session[1:] != session[:-1])
    new |= (session[1:] < 0) & (np.diff(time) >= SESSION_GAP_MS)
    begins = np.concatenate([[True], new])[: len(user)]
    starts = np.maximum.accumulate(np.where(begins, np.arange(len(user)), 0))
    first, second, since = pairs(position.astype(np.int32), time, starts, LOOKBACK)
    by_time = np.argsort(since, kind="stable")
    return article_id, first[by_time], second[by_time], since[by_time]


def _table(article_id: np.ndarray, since: int, vectors: np.ndarray) -> pa.Table:
    columns = [
        pa.array(article_id, pa.int64()),
        pa.array(np.full(len(article_id), since)).cast(schema.TIME),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float32()), DIM),
    ]
    return pa.Table.from_arrays(columns, schema=COCLICK)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))


@nb.njit(cache=True)
def _signs(article_id: np.ndarray, dim: int) -> np.ndarray:
    out = np.empty((len(article_id), dim), np.float32)
    for a in range(len(article_id)):
        for d in range(dim):
            if d % 64 == 0:
                word = mix(mix(np.uint64(article_id[a])) ^ np.uint64(d))
            out[a, d] = 1 if (word >> np.uint64(d % 64)) & np.uint64(1) else -1
    return out


@nb.njit(cache=True)
def _add_codes(sums: np.ndarray, codes: np.ndarray, first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> None:
    for p in range(len(first)):
        for d in range(sums.shape[1]):
            sums[first[p], d] += weight[p] * codes[second[p], d]
            sums[second[p], d] += weight[p] * codes[first[p], d]
