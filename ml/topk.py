"""Exact top lists: the k best articles of a row of scores, with ties decided.

Belongs here: choosing and ordering by score. Does not belong here: which articles a protocol excludes (`ml.predict`)
and approximate search (`ml.retrieval`).
"""

import numba as nb
import numpy as np


def top_k(scores: np.ndarray, k: int, offsets: np.ndarray, excluded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The k best columns of each row of `scores` (float32 [B, n]), best first; ties go to the higher column, which is
    the newer article. Columns `excluded[offsets[b]:offsets[b + 1]]` never appear in list b (values outside [0, n) are
    ignored). Returns columns int64 [B, k] and scores float32 [B, k]; (-1, NaN) where fewer than k are left.

    >>> columns, _ = top_k(np.float32([[1, 3, 3, 2]]), 3, np.array([0, 1]), np.array([3]))
    >>> columns.tolist()
    [[2, 1, 0]]
    """
    scores = np.ascontiguousarray(scores, dtype=np.float32)
    return _top_k(scores, k, offsets.astype(np.int64), excluded.astype(np.int64))


@nb.njit(cache=True)
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


@nb.njit(cache=True)
def _sift_up(score: np.ndarray, column: np.ndarray, i: int) -> None:
    while i > 0:
        parent = (i - 1) // 2
        if score[parent] < score[i] or (score[parent] == score[i] and column[parent] < column[i]):
            return
        score[i], score[parent] = score[parent], score[i]
        column[i], column[parent] = column[parent], column[i]
        i = parent


@nb.njit(cache=True)
def _top_k(scores: np.ndarray, k: int, offsets: np.ndarray, excluded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n_cases, n = scores.shape
    columns, best = np.full((n_cases, k), -1, np.int64), np.full((n_cases, k), np.nan, np.float32)
    banned = np.zeros(n, np.bool_)
    for b in range(n_cases):
        mine = excluded[offsets[b] : offsets[b + 1]]
        for c in mine:
            if 0 <= c < n:
                banned[c] = True
        size = 0
        # From the newest article down: an equal score met later is an older article and never displaces one kept.
        for c in range(n - 1, -1, -1):
            if banned[c]:
                continue
            if size < k:
                columns[b, size], best[b, size] = c, scores[b, c]
                _sift_up(best[b], columns[b], size)
                size += 1
            elif scores[b, c] > best[b, 0]:
                columns[b, 0], best[b, 0] = c, scores[b, c]
                _sift_down(best[b], columns[b], size)
        for last in range(size - 1, 0, -1):  # heap sort in place: the worst goes to the end
            best[b, 0], best[b, last] = best[b, last], best[b, 0]
            columns[b, 0], columns[b, last] = columns[b, last], columns[b, 0]
            _sift_down(best[b], columns[b], last)
        for c in mine:
            if 0 <= c < n:
                banned[c] = False
    return columns, best
