"""Resident memory of this process: the highest it has been.

Belongs here: reading and forgetting the peak (Linux). Does not belong here: limits.
"""

from contextlib import suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def forget_peak() -> None:
    """Let `peak_mib` count from now on. Where the kernel does not allow it, it goes on counting from the beginning."""
    with suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK)


def peak_mib() -> float:
    """Highest resident memory since this process began or `forget_peak`, MiB. (`getrusage` would count what the parent
    held when it started this process.)"""
    return next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")) / 1024
