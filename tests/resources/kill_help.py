"""Killing a process, without a word, before one of its calls that change the file system."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


def die_before(stop: int) -> None:
    """From now on, die before the `stop`-th such call of this process."""
    calls = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == stop:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*given, **keywords)

        return call

    for name in ("fsync", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
    for name in ("rename", "replace", "mkdir", "open", "chmod", "touch", "unlink", "write_bytes"):
        setattr(Path, name, counted(getattr(Path, name)))


def _act(stop: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    die_before(stop)
    function(*arguments)


def dies_before(stop: int, function: Callable[..., Any], *arguments: Any, start: str = "fork") -> bool:
    """Run `function` in a child that is killed before its `stop`-th such call; whether it was killed, not done. A
    process that has used polars has threads and needs another `start` than a fork."""
    child = multiprocessing.get_context(start).Process(target=_act, args=(stop, function, arguments))
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL), f"the child ended with {child.exitcode}"
    return child.exitcode != 0
