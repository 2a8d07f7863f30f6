"""Temporary folders that do not outlive their process: gone when it ends, swept by the next one when it was killed.

Belongs here: temporary folders beside the lake's data and their clean-up. Does not belong here: publishing.
"""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from resources.ref import Ref


@dataclass(frozen=True, slots=True)
class Staged:
    """An output being written: what it will be, and the folder to write it into."""

    ref: Ref
    path: Path


@contextmanager
def temporary_folder(home: Path) -> Iterator[Path]:
    """A fresh folder below `home`, removed at the end unless it was moved away.

    Its process holds a lock on it for as long as it lives; folders whose lock is free belong to dead processes and
    are removed here.
    """
    home.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    folder, mine = home / token, FileLock(home / f"{token}.lock")
    with FileLock(home / "sweep"):
        _sweep(home)
        mine.acquire()
        folder.mkdir()
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(folder)
        (home / f"{token}.lock").unlink()
        mine.release()


def sweep(home: Path) -> None:
    """Remove what dead processes left in `home`."""
    if home.is_dir():
        with FileLock(home / "sweep"):
            _sweep(home)


def _sweep(home: Path) -> None:
    for lock in sorted(home.glob("*.lock")):
        held = FileLock(lock)
        try:
            held.acquire(blocking=False)
        except Timeout:
            continue
        folder = lock.with_suffix("")
        if folder.exists():
            shutil.rmtree(folder)
        lock.unlink(missing_ok=True)
        held.release()
