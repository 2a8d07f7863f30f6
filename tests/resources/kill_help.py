"""Killing a process, without a word, before one of its calls that change the file system."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _until(stop: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    calls = 0

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == stop:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*given, **keywords)

        return call

    os.fsync = counted(os.fsync)
    os.unlink = counted(os.unlink)
    os.rmdir = counted(os.rmdir)
    for name in ("rename", "replace", "mkdir", "open", "unlink", "write_bytes"):
        setattr(Path, name, counted(getattr(Path, name)))
    function(*arguments)


def dies_before(stop: int, function: Callable[..., Any], *arguments: Any) -> bool:
    """Run `function` in a child that is killed before its `stop`-th such call; whether it was killed, not done."""
    child = multiprocessing.get_context("fork").Process(target=_until, args=(stop, function, arguments))
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), f"the child failed with {child.exitcode}"
    return child.exitcode != 0
