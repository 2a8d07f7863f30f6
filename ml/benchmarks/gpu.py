"""Benchmark of training on a CUDA device: `newsrec bench gpu`.

Belongs here: steps a second of the thesis' recipe, what the loader adds, how near the card's limits it is. Does not
belong here: the training (`ml.train`), the log that it runs on (`ml.benchmarks.world`).

FLOP are those of the matrix products of one step, forward and backward, as `FlopCounterMode` counts them. The byte
floor is what a step cannot avoid to move: weights, gradients and both moments of the optimiser, the vectors and
features that the batch names, once each.
"""

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ml.batches import Batch
from ml.benchmarks.common import row, size_of
from ml.benchmarks.loader import SIZES as TRAININGS
from ml.benchmarks.loader import prepared, step_pair
from ml.errors import UsageError
from ml.recipes import SNERT_THESIS
from ml.train import Run

STEPS = {"quick": 50, "paper": 500}
PROMISED_STEPS_S = 100.0
"""60,000 steps in ten minutes."""

CARDS = {"H100": (989e12, 3.35e12), "H200": (989e12, 4.8e12), "A100": (312e12, 2.0e12)}
"""Dense bf16 FLOP/s and bytes/s of memory, from the vendor's data sheets."""

_OPTIMISER_PASSES = 7
"""Reads of weight, gradient and two moments; writes of weight and two moments."""


def bench_gpu(size: str = "quick") -> dict[str, Any]:
    """Steps a second of `snert_thesis` (batch 512, K = 100) at the paper's catalogue, real step against fixed-batch
    step, share of time in which the card is busy, achieved FLOP/s and time against the card's limits.

    `size`: `quick` or `paper` (more steps). Raises UsageError where torch finds no CUDA device.
    """
    steps = size_of(STEPS, size)
    if not torch.cuda.is_available():
        raise UsageError("bench gpu: torch finds no CUDA device on this machine")
    run = prepared(TRAININGS["paper"].world.make(), SNERT_THESIS, "cuda")
    pair = step_pair(run, steps)
    batch = run.batches.make(1)
    with FlopCounterMode(display=False) as counted:
        run.step(1, batch)
    seconds, name = sorted(pair.ours)[len(pair.ours) // 2] / steps, torch.cuda.get_device_name()
    results = [
        row("steps a second / promise", [steps / s for s in pair.ours], PROMISED_STEPS_S, "steps/s", "more"),
        pair.row("training step / on one fixed batch", "ms", 1000 / steps),
        row("time in which the card is busy / all", busy(run, steps, seconds), 1.0, "share", "more"),
    ]
    for card, (flops, bandwidth) in CARDS.items():
        if card in name:
            achieved, floor = counted.get_total_flops() / seconds, floor_bytes(run, batch) / bandwidth
            results.append(row(f"achieved / peak of {card}", achieved / 1e12, flops / 1e12, "TFLOP/s", "more"))
            results.append(row(f"training step / byte floor of {card}", 1000 * seconds, 1000 * floor, "ms"))
    return {"bench": "gpu", "size": {"card": name, "batch": SNERT_THESIS.batch, "steps": steps}, "results": results}


def busy(run: Run, steps: int, seconds: float) -> float:
    """Seconds of kernels in `steps` real steps over the seconds that these take unwatched."""
    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        for step, batch in run.ahead(1, 1 + steps):
            run.step(step, batch)
    kernels = sum(event.self_device_time_total for event in watched.key_averages()) / 1e6
    return kernels / (steps * seconds)


def floor_bytes(run: Run, batch: Batch) -> int:
    """Bytes that a step on `batch` has to move at least."""
    weights = sum(p.numel() * p.element_size() for p in run.net.parameters())
    inputs = 0
    for part in (batch.articles, batch.history.articles):
        inputs += part.dynamic.nbytes + part.row.nbytes
        for family, version in part.version.items():
            vectors = run.tables.vectors[family]
            inputs += len(set(version.tolist())) * vectors.shape[1] * vectors.element_size()
    return _OPTIMISER_PASSES * weights + inputs
