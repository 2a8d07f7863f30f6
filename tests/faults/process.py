"""Children that are killed: forked from a process that has everything imported and no threads.

Belongs here: forking, waiting, killing after a time. Does not belong here: what a child does and what must hold after.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LONGEST_SECONDS = 300.0


@dataclass(slots=True)
class Child:
    """A forked child; `marks` are what it has said so far (one byte each)."""

    pid: int
    pipe: int
    log: Path
    code: int | None = None

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                os.close(self.pipe)
        return self.code

    def kill(self) -> None:
        """kill -9."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, meanwhile: Callable[[], object] = lambda: None) -> int:
        """Exit code; `meanwhile` is called again and again until then."""
        end = time.monotonic() + LONGEST_SECONDS
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                self.kill()
            meanwhile()
            time.sleep(0.005)
        return code

    def until_marked(self) -> bool:
        """Wait until the child says that it has come so far; False if it ended before."""
        return os.read(self.pipe, 1) == b"!"


def fork(log: Path, function: Callable[[Callable[[], None]], object]) -> Child:
    """Run `function(mark)` in a child, with standard output and error in `log`; exit code 1 after an exception."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(out, 1)
            os.dup2(out, 2)
            function(lambda: os.write(writer, b"!") and None)
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(writer)
    return Child(pid, reader, log)
