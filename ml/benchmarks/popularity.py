"""Benchmark of the popularity tensor against document 1 (App. A.3): SciPy band matrices and a memory map.

Belongs here: `newsrec bench popularity`. Does not belong here: the tensor itself (`ml.popularity`).

At the paper's size the dense tensor is only a number (bytes). Building and looking up are timed on both sides at a size
that the dense one can hold, and ours besides at the full size, with nothing to hold against it.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy import sparse

from ml.clock import MS_PER_MINUTE
from ml.errors import UsageError
from ml.popularity import WINDOWS, Popularity

BATCH, CANDIDATES = 512, 101
_REPEATS = 7
Result = TypeVar("Result")


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


SIZES = {
    "quick": (Size(10_000, 10_080, 1_000_000), Size(500, 2_880, 100_000)),
    "paper": (Size(125_542, 51_841, 30_000_000), Size(4_000, 5_760, 1_000_000)),
}
"""Full size and the size that the dense side holds; `paper`: the tensor of document 1, App. A.3."""


def bench_popularity(size: str = "quick") -> dict[str, Any]:
    """Bytes, seconds to build and milliseconds of a 512 x 101 x 7 lookup, ours and the paper's way.

    Raises UsageError for an unknown size, RuntimeError if the two disagree in any cell. Form: DESIGN, section 7.
    """
    if size not in SIZES:
        raise UsageError(f"unknown size {size!r}: choose one of {', '.join(SIZES)}")
    full, small = SIZES[size]
    Popularity.build(*_log(Size(10, 100, 1000)), 10).counts(
        np.zeros(1, np.int64), np.zeros((1, 1), np.int32)
    )  # compiles
    big, big_seconds = _timed(Popularity.build, *_log(full), full.articles)
    results = [
        _row(f"bytes at {_text(full)} / dense float32 tensor (computed)", big.nbytes, full.dense_bytes, "bytes"),
        *_compared(small),
    ]
    lookup = _lookup_ms(lambda at, rows: big.counts(at * MS_PER_MINUTE, rows), full)
    return {
        "bench": "popularity",
        "size": {"articles": full.articles, "minutes": full.minutes, "clicks": full.clicks},
        "results": results,
        "ours_at_full_size": {"build_seconds": big_seconds, "lookup_ms": lookup, "bytes": big.nbytes},
    }


def _compared(size: Size) -> list[dict[str, Any]]:
    """Building and looking up on both sides, at one size, and whether they agree."""
    log = _log(size)
    ours, our_seconds = _timed(Popularity.build, *log, size.articles)
    with tempfile.TemporaryDirectory() as folder:
        windows, seconds = _timed(_band_products, *log, size)
        tensor = _memory_map(windows, size, Path(folder) / "tensor.f32")
        for at, rows in _requests(size):
            expected = tensor[at[:, None], rows]
            if not np.array_equal(ours.counts(at * MS_PER_MINUTE, rows, paper_window=True), expected):
                raise RuntimeError("the sparse popularity tensor differs from the dense one")
        our_ms = _lookup_ms(lambda at, rows: ours.counts(at * MS_PER_MINUTE, rows), size)
        dense_ms = _lookup_ms(lambda at, rows: tensor[at[:, None], rows], size)
    text = _text(size)
    return [
        _row(f"build at {text} / SciPy band-matrix products", our_seconds, seconds, "s"),
        _row(f"lookup {BATCH} x {CANDIDATES} x {len(WINDOWS)} at {text} / numpy.memmap", our_ms, dense_ms, "ms"),
    ]


def _log(size: Size) -> tuple[np.ndarray, np.ndarray]:
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


def _memory_map(windows: list[sparse.csc_array], size: Size, path: Path) -> np.memmap:
    """The dense tensor [T, A, 7] of counts as a file."""
    tensor = np.memmap(path, dtype=np.float32, mode="w+", shape=(size.minutes, size.articles, len(WINDOWS)))
    step = 256
    for start in range(0, size.minutes, step):
        for w, counts in enumerate(windows):
            tensor[start : start + step, :, w] = counts[:, start : start + step].toarray().T
    tensor.flush()
    return np.memmap(path, dtype=np.float32, mode="r", shape=tensor.shape)


def _requests(size: Size) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random minutes int64 [512] and articles int32 [512, 101]."""
    rng = np.random.default_rng(1)
    shape = (BATCH, CANDIDATES)
    return [
        (rng.integers(0, size.minutes, BATCH), rng.integers(0, size.articles, shape).astype(np.int32))
        for _ in range(_REPEATS)
    ]


def _lookup_ms(lookup: Callable[[np.ndarray, np.ndarray], np.ndarray], size: Size) -> float:
    """Median milliseconds of a lookup."""
    return 1000 * float(np.median([_timed(lookup, *request)[1] for request in _requests(size)]))


def _timed(call: Callable[..., Result], *arguments: Any) -> tuple[Result, float]:
    started = time.perf_counter()
    result = call(*arguments)
    return result, time.perf_counter() - started


def _text(size: Size) -> str:
    return f"{size.articles:,} articles x {size.minutes:,} minutes, {size.clicks:,} clicks"


def _row(name: str, ours: float, reference: float, unit: str) -> dict[str, Any]:
    return {"name": name, "ours": ours, "reference": reference, "ratio": reference / ours, "unit": unit}
