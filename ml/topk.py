"""Exact top lists: the k best articles of a row of scores, with ties decided.

Belongs here: choosing and ordering by score. Does not belong here: which articles a protocol excludes (`ml.predict`)
and approximate search (`ml.retrieval`).
"""

import numba as nb
import numpy as np

Lists = tuple[np.ndarray, np.ndarray]
"""Columns int64 [B, k] and scores float32 [B, k], best first; (-1, NaN) where fewer than k are left."""

Exclusions = tuple[np.ndarray, np.ndarray]
"""Offsets int64 [B + 1] and columns: `columns[offsets[b]:offsets[b + 1]]` never appear in list b (values outside [0, n)
are ignored)."""

_SPARE = 50
"""Places kept beyond the longest list: as many may be excluded before a row has to be searched again."""

_LOOK = 32
"""Columns compared with the worst kept score at once."""


def top_k(scores: np.ndarray, k: int, offsets: np.ndarray, excluded: np.ndarray) -> Lists:
    """The k best columns of each row of `scores` (float32 [B, n]) without the excluded ones, best first; ties go to the
    higher column, which is the newer article.

    >>> columns, _ = top_k(np.float32([[1, 3, 3, 2]]), 3, np.array([0, 1]), np.array([3]))
    >>> columns.tolist()
    [[2, 1, 0]]
    """
    return top_ks(scores, [(k, (offsets, excluded))])[0]


def top_ks(scores: np.ndarray, wanted: list[tuple[int, Exclusions]]) -> list[Lists]:
    """Several lists of each row of `scores` (float32 [B, n]), of other lengths k and exclusions; as `top_k`.

    The order of a row is the same for all: its best columns are found once, and for all rows once where these are one
    row repeated (`numpy.broadcast_to`). Each list is what its exclusions leave of them.
    """
    rows = np.ascontiguousarray(rows_of(scores), dtype=np.float32)
    longest = max((k for k, _ in wanted), default=0)
    best = _best(rows, min(longest + _SPARE, rows.shape[1]))
    return [
        _without(rows, *best, len(scores), k, offsets.astype(np.int64), excluded.astype(np.int64))
        for k, (offsets, excluded) in wanted
    ]


def rows_of(scores: np.ndarray) -> np.ndarray:
    """The rows that are held in memory: one where `numpy.broadcast_to` repeats it, else all."""
    return scores[:1] if scores.strides[0] == 0 else scores


@nb.njit(cache=True, nogil=True)
def _best(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best columns of each row."""
    columns, best = np.full((len(rows), k), -1, np.int64), np.full((len(rows), k), np.nan, np.float32)
    banned = np.zeros(rows.shape[1], np.bool_)
    for b in range(len(rows)):
        _search(rows[b], banned, columns[b], best[b])
    return columns, best


@nb.njit(cache=True, nogil=True)
def _without(
    rows: np.ndarray,
    kept: np.ndarray,
    kept_scores: np.ndarray,
    n_lists: int,
    k: int,
    offsets: np.ndarray,
    excluded: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best columns without the excluded ones: from those `kept` of the list's row (of the only row, where there
    is one), or from all of it where too few of them are left."""
    columns, best = np.full((n_lists, k), -1, np.int64), np.full((n_lists, k), np.nan, np.float32)
    n = rows.shape[1]
    banned = np.zeros(n, np.bool_)
    for b in range(n_lists):
        row = b if len(rows) > 1 else 0
        mine = excluded[offsets[b] : offsets[b + 1]]
        _mark(banned, mine, True)
        size = 0
        for j in range(kept.shape[1]):
            if size < k and not banned[kept[row, j]]:
                columns[b, size], best[b, size] = kept[row, j], kept_scores[row, j]
                size += 1
        if size < k and kept.shape[1] < n:
            _search(rows[row], banned, columns[b], best[b])
        _mark(banned, mine, False)
    return columns, best


@nb.njit(cache=True, nogil=True)
def _mark(banned: np.ndarray, columns: np.ndarray, value: bool) -> None:
    for c in columns:
        if 0 <= c < len(banned):
            banned[c] = value


@nb.njit(cache=True, nogil=True)
def _search(row: np.ndarray, banned: np.ndarray, columns: np.ndarray, best: np.ndarray) -> None:
    """Fill `columns` and `best` with what is best in a row and not banned, from the newest article down: an equal score
    met later is an older article and never displaces one kept."""
    size, c = 0, len(row)
    while c > 0 and size < len(columns):
        c -= 1
        if not banned[c]:
            columns[size], best[size] = c, row[c]
            _sift_up(best, columns, size)
            size += 1
    while c > 0 and size > 0:
        begin = max(c - _LOOK, 0)
        if _any_above(row, begin, c, best[0]):
            for j in range(c - 1, begin - 1, -1):
                if row[j] > best[0] and not banned[j]:
                    columns[0], best[0] = j, row[j]
                    _sift_down(best, columns, size)
        c = begin
    for last in range(size - 1, 0, -1):  # heap sort in place: the worst goes to the end
        best[0], best[last] = best[last], best[0]
        columns[0], columns[last] = columns[last], columns[0]
        _sift_down(best, columns, last)


@nb.njit(cache=True, nogil=True, inline="always")
def _any_above(row: np.ndarray, begin: int, end: int, score: float) -> bool:
    """Whether a score of [begin, end) is higher; without a branch for each, so that many are compared at once."""
    above = 0
    for c in range(begin, end):
        above |= row[c] > score
    return above != 0


@nb.njit(cache=True, nogil=True)
def _sift_down(score: np.ndarray, column: np.ndarray, size: int) -> None:
    """Restores the heap with the worst kept entry at its root: lowest score, of equal ones the lowest column."""
    i = 0
    while True:
        worst = i
        for child in (2 * i + 1, 2 * i + 2):
            if child < size and (
                score[child] < score[worst] or (score[child] == score[worst] and column[child] < column[worst])
            ):
                worst = child
        if worst == i:
            return
        score[i], score[worst] = score[worst], score[i]
        column[i], column[worst] = column[worst], column[i]
        i = worst


@nb.njit(cache=True, nogil=True)
def _sift_up(score: np.ndarray, column: np.ndarray, i: int) -> None:
    while i > 0:
        parent = (i - 1) // 2
        if score[parent] < score[i] or (score[parent] == score[i] and column[parent] < column[i]):
            return
        score[i], score[parent] = score[parent], score[i]
        column[i], column[parent] = column[parent], column[i]
        i = parent
