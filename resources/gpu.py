"""The device that models run on: which one was asked for, which one it is, what is known about it.

Belongs here: resolving and describing the device. Does not belong here: using it (`ml.train`, `ml.predict`).
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ml.errors import UsageError

CHOICES = ("auto", "cpu", "cuda")


class Device:
    """`auto` is CUDA where there is one, else the CPU. torch is imported on first use, not here."""

    def __init__(self, asked: str = "auto") -> None:
        if asked not in CHOICES:
            raise UsageError(f"unknown device {asked!r}: use {', '.join(CHOICES)}")
        self.asked = asked

    @cached_property
    def name(self) -> Literal["cpu", "cuda"]:
        """`cpu` or `cuda`. Raises UsageError when CUDA was asked for and there is none."""
        if self.asked == "cpu":
            return "cpu"
        import torch

        if torch.cuda.is_available():
            return "cuda"
        if self.asked == "cuda":
            raise UsageError("no CUDA device was found by torch: choose device cpu or auto")
        return "cpu"

    def describe(self) -> dict[str, Any]:
        """Facts for the record: torch version and threads; on CUDA also name, memory, capability and driver."""
        import torch

        facts: dict[str, Any] = {"device": self.name, "torch": torch.__version__, "threads": torch.get_num_threads()}
        if self.name == "cuda":
            card = torch.cuda.get_device_properties(0)
            facts |= {
                "name": card.name,
                "memory_bytes": int(card.total_memory),
                "capability": f"{card.major}.{card.minor}",
                "cuda": torch.version.cuda,
                "driver": _driver(),
            }
        return facts


def _driver() -> str | None:
    """Version of the kernel driver of the first card; None where the management library gives none."""
    path = Path("/proc/driver/nvidia/version")
    if not path.is_file():
        return None
    words = path.read_text().splitlines()[0].split()
    return next((w for w in words if w[:1].isdigit() and "." in w), None)
