"""The popularity tensor P[φ(t), ι(a), :] of document 1 (App. A.3), exact and sparse.

Belongs here: counting clicks in windows that end at a minute, of articles and in all, and the file that holds them.
Does not belong here: what may be asked of it at a time (`ml.asof`), scaling (`ml.features`), timing
(`ml.benchmarks.popularity`).

The dense tensor has a number for every minute, article and window. Here a *cell* is an (article, minute) with clicks,
cells are counted through all articles, and a *word* marks the cells of 64 minutes of an article by one bit each. The
clicks of a window are the difference of what was clicked before two cells; a cell is found as the rank of a bit. Only
words with a cell are kept, and at most one stands for 64 minutes: a window's first word is looked for among the few
before its last. The kernels run in one thread and release the GIL: they are safe to call from several threads at once.
"""

from dataclasses import dataclass
from pathlib import Path

import numba as nb
import numpy as np
from safetensors.numpy import load_file, save_file

from ml.clock import minute_of
from ml.errors import DataError
from ml.tensors import Layout, load_tensors

WINDOWS = (1, 5, 15, 60, 120, 240, 1440)
"""Window lengths in minutes, the order of the tensor's last axis (document 1, Sec. 3.3)."""

_LONGEST = 100 * 366 * 1440
_MOST_CLICKS = np.iinfo(np.int32).max
_WIDTHS = np.array(WINDOWS, dtype=np.int64)
_RANK = 0xFFFFFFFF
"""The half of a word's head that holds its rank."""
_SHIFTS = tuple(map(np.uint64, (1, 2, 4, 56)))
_MASKS = tuple(map(np.uint64, (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F, 0x0101010101010101)))
_AT_ONCE = 128
"""Rows that a lookup takes through its stages together: their reads miss the cache side by side, not one by one."""
_LAYOUTS = {
    "base": Layout("I64", (1,)),
    "offsets": Layout("I64", (None,)),
    "words": Layout("I64", (None, 2)),
    "before": Layout("I32", (None,)),
    "total_minutes": Layout("I32", (None,)),
    "total_cumulative": Layout("I64", (None,)),
}


@dataclass(frozen=True, slots=True)
class Popularity:
    """Clicks by article and minute. The words of article a are `words[offsets[a]:offsets[a + 1]]`, ascending.

    `offsets` int64 [A + 1]. `words` int64 [W + 1, 2]: its number n and rank (n << 32 | cells before it), and 64 bits,
    of which bit j is set where minute `base + 64 n + j` is a cell; a last one holds the number of all cells.
    `before` int32 [C + 1]: clicks in all cells before each. `life` int32 [A, 2]: minutes from the first word of an
    article to the end of its last. In minute `base + total_minutes` (int32 [U]) all articles together had been clicked
    `total_cumulative` (int64 [U]) times.

    >>> p = Popularity.build(np.array([0, 1, 1]), np.array([0, 60_000, 119_999]), n_articles=2)
    >>> p.counts(np.array([120_000]), np.array([[0, 1]]))[0].tolist()
    [[0, 1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2, 2]]
    """

    base: int
    offsets: np.ndarray
    words: np.ndarray
    before: np.ndarray
    total_minutes: np.ndarray
    total_cumulative: np.ndarray
    life: np.ndarray

    @property
    def n_articles(self) -> int:
        """Number of articles A."""
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return int(sum(getattr(self, name).nbytes for name in Popularity.__slots__[1:]))

    @classmethod
    def build(cls, article: np.ndarray, time_ms: np.ndarray, n_articles: int) -> "Popularity":
        """From clicks in any order: `article` int [N] rows, `time_ms` int64 [N].

        Costs a sort of N numbers. Raises DataError for a row outside the catalogue, for times more than a century
        apart and for more than 2^31 - 1 clicks.
        """
        if len(article) > _MOST_CLICKS:
            raise DataError(f"{len(article)} clicks, but at most {_MOST_CLICKS} can be counted: take fewer days")
        if len(article) and (article.min() < 0 or article.max() >= n_articles):
            raise DataError(f"clicks on article rows outside 0..{n_articles - 1}: rebuild article_features")
        minute = minute_of(time_ms)
        base, last = (int(minute.min()), int(minute.max())) if len(minute) else (0, 0)
        if last - base > _LONGEST:
            raise DataError(f"clicks lie {(last - base) // 525_600} years apart: their times are wrong, rebuild clicks")
        minute -= base
        totals = np.bincount(minute)
        total_minutes = np.flatnonzero(totals)
        total_cumulative = np.cumsum(totals[total_minutes], dtype=np.int64)
        minute |= np.asarray(article, dtype=np.int64) << 32
        minute.sort()
        offsets, words, before = _packed(minute, n_articles)
        return cls._of(base, offsets, words, before, total_minutes.astype(np.int32), total_cumulative)

    @classmethod
    def _of(
        cls,
        base: int,
        offsets: np.ndarray,
        words: np.ndarray,
        before: np.ndarray,
        total_minutes: np.ndarray,
        total_cumulative: np.ndarray,
    ) -> "Popularity":
        """With `life`, which the words tell."""
        number = words[:, 0] >> 32
        life = np.stack([64 * number[offsets[:-1]], 64 * number[offsets[1:] - 1] + 64], axis=1)
        life[offsets[1:] == offsets[:-1]] = 0
        return cls(base, offsets, words, before, total_minutes, total_cumulative, life.astype(np.int32))

    def counts(self, time_ms: np.ndarray, rows: np.ndarray, paper_window: bool = False) -> np.ndarray:
        """Clicks of article `rows[b, k]` in every window that ends before the minute of `time_ms[b]`: minutes
        [m - w, m - 1] (Eq. A.12, strict). int32 [B, K, 7]; 0 for rows < 0 or beyond the catalogue.

        `paper_window`: minutes [m - w + 1, m] as in Eq. A.11, the whole current minute included, which looks ahead.
        """
        rows = np.ascontiguousarray(rows, dtype=np.int32)
        out = np.empty((*rows.shape, len(WINDOWS)), dtype=np.int32)
        _counts(self.life, self.offsets, self.words, self.before, self._ends(time_ms, paper_window), rows, _WIDTHS, out)
        return out

    def catalogue_counts(self, time_ms: int, n_rows: int, paper_window: bool = False) -> np.ndarray:
        """The same for the first `n_rows` articles at one time: int32 [n_rows, 7]."""
        return self.counts(np.array([time_ms]), np.arange(n_rows, dtype=np.int32)[None], paper_window)[0]

    def totals(self, time_ms: np.ndarray, paper_window: bool = False) -> np.ndarray:
        """Clicks of all articles in the same windows, the column sums c of Eq. A.13; int64 [B, 7]."""
        ends = self._ends(time_ms, paper_window)
        before = np.concatenate([[0], self.total_cumulative])
        upto = before[np.searchsorted(self.total_minutes, ends)]
        return upto[:, None] - before[np.searchsorted(self.total_minutes, ends[:, None] - _WIDTHS)]

    def shares(self, time_ms: np.ndarray, rows: np.ndarray, paper_window: bool = False) -> np.ndarray:
        """`counts` over `totals` (Eq. A.13), 0 where nobody clicked; float32 [B, K, 7]."""
        totals = np.maximum(self.totals(time_ms, paper_window), 1)
        return (self.counts(time_ms, rows, paper_window) / totals[:, None]).astype(np.float32)

    def save(self, path: Path) -> None:
        """One safetensors file; the same clicks give the same bytes."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _LAYOUTS if name != "base"}
        save_file({**arrays, "base": np.array([self.base], dtype=np.int64)}, path)

    @classmethod
    def load(cls, path: Path) -> "Popularity":
        """From a file of `save`. Raises DataError naming the file and what is wrong with it."""
        arrays = load_tensors(path, _LAYOUTS, load_file, "rebuild popularity_tensor")
        fault = _fault(arrays)
        if fault:
            raise DataError(f"{path}: {fault}: rebuild popularity_tensor")
        return cls._of(int(arrays["base"][0]), *(arrays[name].copy() for name in list(_LAYOUTS)[1:]))

    def _ends(self, time_ms: np.ndarray, paper_window: bool) -> np.ndarray:
        """First minute after the windows, relative to `base`, int64 [B]."""
        return minute_of(time_ms) - self.base + (1 if paper_window else 0)


def _fault(arrays: dict[str, np.ndarray]) -> str | None:
    """What makes `arrays` no popularity tensor; None if nothing."""
    offsets, words, before = (arrays[n] for n in ("offsets", "words", "before"))
    if not len(words) or not len(offsets) or offsets[0] != 0 or offsets[-1] != len(words) - 1:
        return "offsets do not span the words"
    if np.any(np.diff(offsets) < 0):
        return "offsets are not ascending"
    if len(arrays["total_minutes"]) != len(arrays["total_cumulative"]):
        return "minutes and counts differ in length"
    cells = np.bitwise_count(words[:-1, 1].view(np.uint64))
    if np.any(cells == 0) or not np.array_equal(
        words[:, 0] & _RANK, np.concatenate([[0], np.cumsum(cells, dtype=np.int64)])
    ):
        return "ranks do not count the words' cells"
    if len(before) != (words[-1, 0] & _RANK) + 1 or before[0] != 0:
        return "clicks and cells differ in number"
    if len(words) > 1 and words[:-1, 0].max() >> 32 > _LONGEST >> 6:
        return "words lie beyond a century"
    inside = np.ones(max(len(words) - 2, 0), dtype=bool)
    starts = offsets[1:-1]
    inside[starts[(starts > 0) & (starts < len(words) - 1)] - 1] = False
    for name, steps in (
        ("words", np.diff(words[:-1, 0] >> 32)[inside]),
        ("before", np.diff(before)),
        ("total_minutes", np.diff(arrays["total_minutes"])),
        ("total_cumulative", np.diff(arrays["total_cumulative"])),
    ):
        if np.any(steps <= 0):
            return f"{name} are not ascending"
    for name, first, least in (
        ("words", words[:-1, 0] >> 32, 0),
        ("total_minutes", arrays["total_minutes"][:1], 0),
        ("total_cumulative", arrays["total_cumulative"][:1], 1),
    ):
        if np.any(first < least):
            return f"{name} begin below {least}"
    if not -(2**40) < arrays["base"][0] < 2**40:
        return "minutes begin outside all time"
    return None


@nb.njit(cache=True, nogil=True)
def _packed(clicks: np.ndarray, n_articles: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(offsets, words, before) of sorted clicks article << 32 | minute."""
    n_words = n_cells = 0
    last = -1
    for click in clicks:
        n_words += click >> 6 != last >> 6
        n_cells += click != last
        last = click
    offsets = np.zeros(n_articles + 1, np.int64)
    words = np.zeros((n_words + 1, 2), np.int64)
    before = np.zeros(n_cells + 1, np.int32)
    word = cell = -1
    last = -1
    for i, click in enumerate(clicks):
        if click != last:
            cell += 1
            before[cell] = i
            if click >> 6 != last >> 6:
                word += 1
                words[word, 0] = ((click & _RANK) >> 6) << 32 | cell
                offsets[(click >> 32) + 1] = word + 1
            words[word, 1] |= np.int64(1) << (click & 63)
        last = click
    before[n_cells] = len(clicks)
    words[n_words, 0] = n_cells
    for a in range(n_articles):
        offsets[a + 1] = max(offsets[a], offsets[a + 1])
    return offsets, words, before


@nb.njit(cache=True, nogil=True)
def _counts(
    life: np.ndarray,
    offsets: np.ndarray,
    words: np.ndarray,
    before: np.ndarray,
    ends: np.ndarray,
    rows: np.ndarray,
    widths: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill out[b, k, :]: the windows of rows[b, k] that end before minute ends[b]."""
    flat, counts, columns = rows.reshape(-1), out.reshape(-1, len(widths)), max(rows.shape[1], 1)
    asked, end = np.empty(_AT_ONCE, np.int64), np.empty(_AT_ONCE, np.int64)
    first, last, stop = np.empty(_AT_ONCE, np.int64), np.empty(_AT_ONCE, np.int64), np.empty(_AT_ONCE, np.int64)
    cell, upto = np.empty(_AT_ONCE, np.int64), np.empty(_AT_ONCE, np.int32)
    for begin in range(0, len(flat), _AT_ONCE):
        n = 0
        for i in range(begin, min(begin + _AT_ONCE, len(flat))):
            row, minute = flat[i], ends[i // columns]
            counts[i] = 0
            if 0 <= row < len(life) and life[row, 0] < minute and minute - widths[-1] < life[row, 1]:
                asked[n], end[n], first[n], stop[n] = i, minute, offsets[row], offsets[row + 1]
                n += 1
        for j in range(n):
            last[j] = _first_word(words, first[j], stop[j], end[j])
            cell[j] = _cell(words, last[j], stop[j], end[j])
        for j in range(n):
            upto[j] = before[cell[j]]
        for w in range(len(widths)):
            words_back = (widths[w] + 63) >> 6
            for j in range(n):
                begins = end[j] - widths[w]
                word = _first_word(words, max(first[j], last[j] - words_back), last[j], begins)
                cell[j] = _cell(words, word, stop[j], begins)
            for j in range(n):
                counts[asked[j], w] = upto[j] - before[cell[j]]


@nb.njit(cache=True, nogil=True, inline="always")
def _first_word(words: np.ndarray, lo: int, hi: int, minute: int) -> int:
    """First place in [lo, hi) of a word that ends after `minute`; hi if there is none. No branch depends on what is
    read."""
    head = (minute >> 6) << 32
    size = hi - lo
    while size > 1:
        half = size >> 1
        lo += half * int(words[lo + half - 1, 0] < head)
        size -= half
    return lo + int(size > 0) * int(words[lo, 0] < head)


@nb.njit(cache=True, nogil=True, inline="always")
def _cell(words: np.ndarray, word: int, stop: int, minute: int) -> np.int64:
    """Cells before `minute`, from the first word that ends after it (`stop` where the article has none)."""
    head = words[word, 0]
    inside = _ones(words[word, 1] & ((np.int64(1) << (minute & 63)) - 1))
    return (head & _RANK) + inside * int(word < stop and head >> 32 == minute >> 6)


@nb.njit(cache=True, nogil=True, inline="always")
def _ones(bits: int) -> np.int64:
    """How many of 64 bits are set, in the form that becomes one instruction (Warren, Hacker's Delight, Sec. 5-1)."""
    x = np.uint64(bits)
    x = x - ((x >> _SHIFTS[0]) & _MASKS[0])
    x = (x & _MASKS[1]) + ((x >> _SHIFTS[1]) & _MASKS[1])
    x = (x + (x >> _SHIFTS[2])) & _MASKS[2]
    return np.int64((x * _MASKS[3]) >> _SHIFTS[3])
