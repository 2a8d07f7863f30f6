"""Which runs a living process works on: a locked file a run, in the lake.

Belongs here: holding and finding these files. Does not belong here: what is done about a run whose process is gone
(`pipeline.left_open`).

Dagster learns of a run's end from the process that works on it. One that is killed, or goes down with its machine, says
nothing more, and its run counts as running for ever. The kernel's lock tells: it is gone the moment its process is.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.lake import LOCKS

FOLDER = "runs"


@contextmanager
def at_work(lake: Path, run_id: str) -> Iterator[None]:
    """Say that this process works on a run, until the end of the block. The file gets its name when it is locked."""
    folder = _folder(lake)
    folder.mkdir(parents=True, exist_ok=True)
    path, unnamed = folder / run_id, folder / f".{run_id}.{os.getpid()}"
    handle = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        unnamed.rename(path)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def left(lake: Path) -> list[str]:
    """Ids of runs whose process has gone without an end, sorted."""
    folder = _folder(lake)
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
    return [name for name in names if _is_free(folder / name)]


def forget(lake: Path, run_id: str) -> None:
    """Remove what a run that has gone left behind."""
    (_folder(lake) / run_id).unlink(missing_ok=True)


def _folder(lake: Path) -> Path:
    return lake / LOCKS / FOLDER


def _is_free(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # it ended in the meantime
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return path.exists()
