"""Benchmark of negative sampling: the default mixture and its popularity features against NumPy's `choice` by row.

Belongs here: `newsrec bench sampling`, the loop. Does not belong here: the sampler (`ml.sampling`), the features
(`ml.features`).

The loop does for one target after another what a reader of document 1 (Sec. 4.4.2) would write: a probability by
article from the clicks of the last 15 minutes, `choice` for each sampler among what the mask leaves, a count of the
clicks of every window for the features. It is timed on some rows and scaled to all of them. Both sides draw other
numbers from the same distributions (tests/ml/test_sampling.py); the features of the same articles must agree.
"""

from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch

from ml.asof import AsOf
from ml.benchmarks.common import growth, interleaved, row, size_of, timed
from ml.benchmarks.world import END_MS, World
from ml.clock import MS_PER_MINUTE, minute_start
from ml.features import SHARE_SCALE, raw_dynamic
from ml.popularity import WINDOWS
from ml.recipes import Mixture
from ml.sampling import NegativeSampler
from ml.sessions import exclusion_mask

SIZES = {"quick": (World(10_000, 60, 2_000), 12), "paper": (World(125_542, 579, 2_880), 12)}
"""The log, and how many rows the loop takes."""

BATCH, K = 512, 100
_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Step:
    """Targets of one step: click rows, times (ms) and exclusion masks."""

    targets: np.ndarray
    time: np.ndarray
    mask: np.ndarray


def bench_sampling(size: str = "quick") -> dict[str, Any]:
    """Milliseconds for the negatives of 512 targets, 100 each, with their popularity features, ours and the loop's.

    `size`: `quick` or `paper`; UsageError otherwise, RuntimeError if the features differ. Form: DESIGN, section 7.
    """
    world, looped = size_of(SIZES, size)
    asof = world.make()
    sampler = NegativeSampler(asof, Mixture(), K)
    times = np.sort(asof.clicks.time)
    steps = [_step(asof, seed) for seed in range(_ROUNDS + 1)]
    _must_agree(asof, sampler, times, steps[0])
    turn, other = count(), count()
    pair = interleaved(
        lambda: ours(asof, sampler, steps[next(turn) % len(steps)]),
        lambda: loop(asof, sampler, times, steps[next(other) % len(steps)], looped),
        _ROUNDS,
    )
    scaled = [1000 * seconds * BATCH / looped for seconds in pair.reference]
    name = f"{BATCH} x {K} negatives and features / NumPy choice by row ({looped} of them, scaled)"
    clicks = world.clicks_per_minute * world.minutes
    return {
        "bench": "sampling",
        "size": {"articles": world.articles, "clicks": clicks, "targets": BATCH, "negatives": K},
        "results": [row(name, [1000 * seconds for seconds in pair.ours], scaled, "ms")],
        "growth": [growth("by negatives", partial(_cost, asof, steps[0]), [K // 4, K, 4 * K])],
    }


def _step(asof: AsOf, seed: int) -> Step:
    """Random targets of the last third of the log, whose longest window lies in it."""
    clicks = asof.clicks
    late = np.flatnonzero(clicks.time >= np.quantile(clicks.time, 2 / 3))
    targets = np.random.default_rng(seed).choice(late, BATCH)
    return Step(targets, clicks.time[targets], exclusion_mask(clicks, targets, END_MS))


def _cost(asof: AsOf, step: Step, k: int) -> float:
    sampler = NegativeSampler(asof, Mixture(), k)
    ours(asof, sampler, step)
    return min(timed(lambda: ours(asof, sampler, step))[1] for _ in range(3))


def ours(asof: AsOf, sampler: NegativeSampler, step: Step) -> np.ndarray:
    """Features float32 [B, 1 + K, 15] of each target and its negatives."""
    negatives = sampler.sample(step.targets, step.time, step.mask, torch.Generator().manual_seed(0)).numpy()
    rows = np.concatenate([asof.clicks.article[step.targets][:, None], negatives], axis=1)
    return raw_dynamic(asof, minute_start(step.time), rows)


def loop(asof: AsOf, sampler: NegativeSampler, times: np.ndarray, step: Step, rows: int) -> np.ndarray:
    """The same for the first `rows` targets, one after another; `times` are those of all clicks in order."""
    rng = np.random.default_rng(0)
    out = np.empty((rows, 1 + K, 1 + 2 * len(WINDOWS)), dtype=np.float32)
    for b in range(rows):
        target, now = step.targets[b], int(minute_start(step.time[b : b + 1])[0])
        free = np.ones(int(np.searchsorted(asof.catalogue.published, now)), dtype=bool)
        masked = step.mask[b]
        free[masked[(masked >= 0) & (masked < len(free))]] = False
        drawn = [asof.clicks.article[target : target + 1], *_chosen(asof, sampler, times, rng, target, now, free)]
        out[b] = _features(asof, times, now, np.concatenate(drawn))
    return out


def _chosen(
    asof: AsOf,
    sampler: NegativeSampler,
    times: np.ndarray,
    rng: np.random.Generator,
    target: int,
    now: int,
    free: np.ndarray,
) -> list[np.ndarray]:
    """The draws of the four samplers for one target among the articles that are `free`."""
    mixture, sizes = sampler.mixture, sampler.slots
    weight = np.bincount(_clicked(asof, times, now, mixture.delta_minutes), minlength=len(free))[: len(free)] * free
    everyone = np.flatnonzero(free)
    if not weight.any():
        weight = free.astype(np.int64)
    share = weight / weight.sum()
    recent = everyone[everyone >= len(free) - mixture.recent]
    shown = _unclicked(asof, target)
    shown = shown[free[np.minimum(shown, len(free) - 1)] & (shown < len(free)) & (shown >= 0)]
    return [
        rng.choice(len(free), sizes["popularity"], p=share),
        rng.choice(recent, sizes["recency"]),
        rng.choice(shown, sizes["inview"]) if len(shown) else rng.choice(len(free), sizes["inview"], p=share),
        rng.choice(everyone, sizes["uniform"]),
    ]


def _unclicked(asof: AsOf, target: int) -> np.ndarray:
    """What was shown beside a click."""
    impression = int(asof.impression_of(np.array([target]))[0])
    shown = asof.impressions
    part = slice(shown.offsets[impression], shown.offsets[impression + 1])
    return shown.article[part][~shown.clicked[part]]


def _clicked(asof: AsOf, times: np.ndarray, now: int, minutes: int) -> np.ndarray:
    """Articles of the clicks of the last minutes."""
    lo, hi = np.searchsorted(times, [now - minutes * MS_PER_MINUTE, now])
    return asof.time_sorted_articles[lo:hi]


def _features(asof: AsOf, times: np.ndarray, now: int, rows: np.ndarray) -> np.ndarray:
    """Age and popularity of articles at one time, float32 [n, 15], each window counted through."""
    out = np.empty((len(rows), 1 + 2 * len(WINDOWS)), dtype=np.float32)
    out[:, 0] = np.maximum(now - asof.catalogue.published[rows], 0) / MS_PER_MINUTE
    for w, minutes in enumerate(WINDOWS):
        clicked = _clicked(asof, times, now, minutes)
        counts = np.bincount(clicked, minlength=len(asof.catalogue))[rows].astype(np.float32)
        out[:, 1 + w] = counts
        out[:, 1 + len(WINDOWS) + w] = counts * np.float32(SHARE_SCALE / np.float32(max(len(clicked), 1)))
    return np.log1p(out)


def _must_agree(asof: AsOf, sampler: NegativeSampler, times: np.ndarray, step: Step) -> None:
    negatives = sampler.sample(step.targets, step.time, step.mask, torch.Generator().manual_seed(1)).numpy()
    now = minute_start(step.time)
    expected = [_features(asof, times, int(now[b]), negatives[b]) for b in range(3)]
    if not np.array_equal(raw_dynamic(asof, now[:3], negatives[:3]), np.stack(expected)):
        raise RuntimeError("popularity features differ from counts of the log")
