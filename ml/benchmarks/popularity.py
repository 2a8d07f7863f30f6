"""Benchmark of the popularity tensor against document 1 (App. A.3): SciPy band matrices and a memory map.

Belongs here: `newsrec bench popularity`. Does not belong here: the tensor itself (`ml.popularity`).

At the paper's size the dense tensor is only a number (bytes). Building and looking up are timed on both sides at a size
that the dense one can hold; ours besides at the full size, beside the memory map of the smaller one, which is much
faster there than one of 182 GB could be. Requests are of two kinds: any article at any minute, and what a training step
asks for: six in ten articles drawn from the clicks of the last 15 minutes before a click, the others from all.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from ml.benchmarks.common import Pair, growth, interleaved, row, size_of, timed
from ml.clock import MS_PER_MINUTE
from ml.popularity import WINDOWS, Popularity

BATCH, CANDIDATES = 512, 101
SHAPE = f"{BATCH} x {CANDIDATES} x {len(WINDOWS)}"
_REQUESTS = 25
_DROPS = 5
_RECENT = 15
_BY_CLICKS = 61
"""Articles of a training request that come from recent clicks: the target, 40 % by popularity and 20 % in view."""

Log = tuple[np.ndarray, np.ndarray]
Request = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class Size:
    """Articles, minutes and clicks of a generated log."""

    articles: int
    minutes: int
    clicks: int

    @property
    def dense_bytes(self) -> int:
        """Bytes of the dense float32 tensor."""
        return 4 * self.articles * self.minutes * len(WINDOWS)

    def __str__(self) -> str:
        return f"{self.articles:,} articles x {self.minutes:,} minutes, {self.clicks:,} clicks"


SIZES = {
    "quick": (Size(10_000, 10_080, 1_000_000), Size(500, 2_880, 100_000)),
    "paper": (Size(125_542, 51_841, 30_000_000), Size(4_000, 5_760, 1_000_000)),
}
"""Full size and the size that the dense side holds; `paper`: the tensor of document 1, App. A.3."""


def bench_popularity(size: str = "quick") -> dict[str, Any]:
    """Bytes, seconds to build and milliseconds of a 512 x 101 x 7 lookup, ours and the paper's way.

    Raises UsageError for an unknown size, RuntimeError if the two disagree in any cell. Form: DESIGN, section 7.
    """
    full, small = size_of(SIZES, size)
    log = _log(full)
    _compile()
    built = growth("build by clicks", lambda n: timed(lambda: _build(_first(log, n), full))[1], _thirds(full.clicks))
    big = _build(log, full)
    rows, gather_seconds = _compared(small)
    found = {kind: _seconds(partial(_counts, big), asked) for kind, asked in _requests(log, full).items()}
    work = BATCH * CANDIDATES
    rows += [
        row(f"lookup {SHAPE}, {kind}, at {full} / numpy.memmap, warm, at {small}", work / s, work / g, "rows/s", "more")
        for kind, s in found.items()
        for g in [gather_seconds[kind]]
    ]
    dense = row(f"bytes at {full} / dense float32 tensor (computed)", big.nbytes, full.dense_bytes, "bytes")
    return {
        "bench": "popularity",
        "size": {"articles": full.articles, "minutes": full.minutes, "clicks": full.clicks},
        "results": [dense, *rows],
        "growth": [built, growth("lookup by clicks", partial(_lookup_cost, log, full), _thirds(full.clicks))],
        "ours_at_full_size": {
            "build_seconds": built["seconds"][-1],
            "lookup_ms": {kind: 1000 * s for kind, s in found.items()},
            "bytes": big.nbytes,
        },
    }


def _compile() -> None:
    tiny = Size(10, 100, 1000)
    _counts(_build(_log(tiny), tiny), np.zeros(1, np.int64), np.zeros((1, 1), np.int32))


def _build(log: Log, size: Size) -> Popularity:
    return Popularity.build(*log, size.articles)


def _counts(popularity: Popularity, at: np.ndarray, rows: np.ndarray, paper_window: bool = False) -> np.ndarray:
    return popularity.counts(at * MS_PER_MINUTE, rows, paper_window)


def _first(log: Log, clicks: int) -> Log:
    return log[0][:clicks], log[1][:clicks]


def _thirds(clicks: int) -> list[int]:
    return [clicks // 9, clicks // 3, clicks]


def _lookup_cost(log: Log, size: Size, clicks: int) -> float:
    """Seconds of a lookup of any article at any minute, of the first so many clicks."""
    found = _build(_first(log, clicks), size)
    return _seconds(partial(_counts, found), _requests(log, size)["any article"])


def _compared(size: Size) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Building and looking up on both sides, at one size, after a check that they agree; and the seconds that the
    memory map takes for each kind of request."""
    log = _log(size)
    ours, our_seconds = timed(lambda: _build(log, size))
    gather: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tensor.f32"
        windows, seconds = timed(lambda: _band_products(*log, size))
        _write(windows, size, path)
        rows = [row(f"build at {size} / SciPy band-matrix products", our_seconds, seconds, "s")]
        for kind, requests in _requests(log, size).items():
            warm = _warm(ours, _open(path, size), requests)
            gather[kind] = float(np.median(warm.reference))
            name = f"lookup {SHAPE}, {kind}, at {size} / numpy.memmap"
            rows.append(warm.row(f"{name}, warm", "ms", 1000))
            cold = [1000 * _after_drop(path, size, request) for request in requests[:_DROPS]]
            rows.append(row(f"{name}, page cache dropped", [1000 * s for s in warm.ours[:_DROPS]], cold, "ms"))
    return rows, gather


def _warm(ours: Popularity, tensor: np.ndarray, requests: Sequence[Request]) -> Pair:
    """Seconds of both lookups where every page that is asked for was read before. RuntimeError where they differ."""
    for at, rows in requests:
        if not np.array_equal(_counts(ours, at, rows, paper_window=True), tensor[at[:, None], rows]):
            raise RuntimeError("the sparse popularity tensor differs from the dense one")
    return interleaved(_in_turn(partial(_counts, ours), requests), _in_turn(partial(_gather, tensor), requests))


def _gather(tensor: np.ndarray, at: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The reference's lookup."""
    found: np.ndarray = tensor[at[:, None], rows]
    return found


def _after_drop(path: Path, size: Size, request: Request) -> float:
    """Seconds of the reference's lookup when nothing of the file is in memory."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    tensor = _open(path, size)
    return timed(lambda: _gather(tensor, *request))[1]


def _in_turn(
    lookup: Callable[[np.ndarray, np.ndarray], np.ndarray], requests: Sequence[Request]
) -> Callable[[], np.ndarray]:
    """Another request at each call, so that none finds what the one before left in the processor's cache."""
    turn = cycle(requests)
    return lambda: lookup(*next(turn))


def _seconds(lookup: Callable[[np.ndarray, np.ndarray], np.ndarray], requests: Sequence[Request]) -> float:
    """Median seconds of a lookup."""
    call = _in_turn(lookup, requests)
    call()
    return float(np.median([timed(call)[1] for _ in requests]))


def _log(size: Size) -> Log:
    """Articles and times (ms) of generated clicks: Zipf-like popularity, lives of about a day from publication on."""
    rng = np.random.default_rng(0)
    rank = np.floor(size.articles ** rng.random(size.clicks, dtype=np.float32)).astype(np.int32) - 1
    article = rng.permutation(size.articles).astype(np.int32)[np.minimum(rank, size.articles - 1)]
    born = rng.integers(0, size.minutes, size.articles)
    age = rng.exponential(min(1440, size.minutes / 4), size.clicks).astype(np.int64)
    return article, (born[article] + age) % size.minutes * MS_PER_MINUTE


def _band_products(article: np.ndarray, time_ms: np.ndarray, size: Size) -> list[sparse.csc_array]:
    """S^(w) = X W^(w) (Eq. A.12) of every window: sparse [A, T]."""
    shape = (size.articles, size.minutes)
    ones = np.ones(len(article), dtype=np.float32)
    clicks = sparse.csr_array((ones, (article, time_ms // MS_PER_MINUTE)), shape=shape)
    bands = (
        sparse.diags_array([1.0] * w, offsets=range(w), shape=(size.minutes,) * 2, dtype=np.float32) for w in WINDOWS
    )
    return [(clicks @ band.tocsr()).tocsc() for band in bands]


def _write(windows: list[sparse.csc_array], size: Size, path: Path) -> None:
    """The dense tensor [T, A, 7] of counts as a file."""
    tensor = np.memmap(path, dtype=np.float32, mode="w+", shape=(size.minutes, size.articles, len(WINDOWS)))
    step = 256
    for start in range(0, size.minutes, step):
        for w, counts in enumerate(windows):
            tensor[start : start + step, :, w] = counts[:, start : start + step].toarray().T
    tensor.flush()


def _open(path: Path, size: Size) -> np.memmap:
    return np.memmap(path, dtype=np.float32, mode="r", shape=(size.minutes, size.articles, len(WINDOWS)))


def _requests(log: Log, size: Size) -> dict[str, list[Request]]:
    """Minutes int64 [512] and articles int32 [512, 101] of each kind of request."""
    rng = np.random.default_rng(1)
    sample = rng.permutation(len(log[0]))[: min(len(log[0]), 2_000_000)]
    sample = sample[np.argsort(log[1][sample], kind="stable")]
    recent = log[0][sample], log[1][sample] // MS_PER_MINUTE
    return {
        "any article": [(rng.integers(0, size.minutes, BATCH), _any(rng, size)) for _ in range(_REQUESTS)],
        "as in training": [_training(rng, size, *recent) for _ in range(_REQUESTS)],
    }


def _any(rng: np.random.Generator, size: Size) -> np.ndarray:
    return rng.integers(0, size.articles, (BATCH, CANDIDATES)).astype(np.int32)


def _training(rng: np.random.Generator, size: Size, article: np.ndarray, minute: np.ndarray) -> Request:
    """Of clicks in order of time."""
    at = minute[rng.integers(0, len(minute), BATCH)]
    lo, hi = np.searchsorted(minute, at - _RECENT), np.searchsorted(minute, at, side="right")
    rows = _any(rng, size)
    drawn = lo[:, None] + rng.random((BATCH, _BY_CLICKS)) * (hi - lo)[:, None]
    rows[:, :_BY_CLICKS] = article[drawn.astype(np.int64)]
    return at, rows
