"""Which runs a living process works on: a locked file a run, in the lake.

Belongs here: holding and finding these files. Does not belong here: what is done about a run whose process is gone
(`pipeline.left_open`).

Dagster learns of a run's end from the process that works on it. One that is killed, or goes down with its machine, says
nothing more, and its run counts as running for ever. The kernel's lock tells: it is gone the moment its process is.
"""

import atexit
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from resources.lake import LOCKS

if TYPE_CHECKING:
    import dagster as dg

FOLDER = "runs"
_TO_THE_END = ExitStack()
atexit.register(_TO_THE_END.close)
_HELD: set[Path] = set()
"""Files that this process has locked."""


def is_launched(run: "dg.DagsterRun") -> bool:
    """Whether UI, daemon or backfill launched the run from the code location, in a process of its own; a planned run is
    executed in place."""
    return run.remote_job_origin is not None


def at_work_to_the_end(lake: Path, run_id: str) -> None:
    """Say that this process works on a run, until the process ends: also while its steps wait for a pool, for the
    dataset or for each other. Said again it changes nothing."""
    if _folder(lake) / run_id not in _HELD:
        _TO_THE_END.enter_context(at_work(lake, run_id))


@contextmanager
def at_work(lake: Path, run_id: str) -> Iterator[None]:
    """Say that this process works on a run, until the end of the block, unless it says so already. The file gets its
    name when it is locked."""
    folder = _folder(lake)
    path, unnamed = folder / run_id, folder / f".{run_id}.{os.getpid()}"
    if path in _HELD:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        unnamed.rename(path)
        _HELD.add(path)
        yield
    finally:
        _HELD.discard(path)
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
        return _is_named(handle, path)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)


def _is_named(handle: int, path: Path) -> bool:
    """Whether the open file still bears this name: else its run ended, or another process has taken it up again."""
    try:
        now = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(now, os.fstat(handle))
