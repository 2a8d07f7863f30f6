"""The lake knows which runs a living process works on."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

from resources import running
from resources.running import at_work, forget, left

HOLD = "import sys; from pathlib import Path; from resources.running import at_work\nwith at_work(Path(sys.argv[1]), sys.argv[2]): print('!', flush=True); sys.stdin.read()"  # noqa: E501


def holder(lake: Path, run_id: str) -> subprocess.Popen:
    """A process that works on a run until its input ends."""
    command = [sys.executable, "-c", HOLD, str(lake), run_id]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.read(1) == b"!"
    return process


def test_a_run_that_ends_leaves_nothing(tmp_path):
    assert left(tmp_path) == []
    with at_work(tmp_path, "a"):
        assert left(tmp_path) == []
    assert left(tmp_path) == [] and not list((tmp_path / ".locks" / "runs").iterdir())


def test_so_does_one_that_fails(tmp_path):
    try:
        with at_work(tmp_path, "a"):
            raise ValueError
    except ValueError:
        assert left(tmp_path) == []


def test_a_killed_process_leaves_its_run_and_no_other(tmp_path):
    first, second = holder(tmp_path, "first"), holder(tmp_path, "second")
    assert left(tmp_path) == []
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert left(tmp_path) == ["first"]
    forget(tmp_path, "first")
    assert left(tmp_path) == []
    second.communicate(b"")
    assert second.returncode == 0 and left(tmp_path) == []


def test_a_run_that_is_taken_up_again_is_at_work_again(tmp_path):
    process = holder(tmp_path, "a")
    process.kill()
    process.wait()
    with at_work(tmp_path, "a"):
        assert left(tmp_path) == []
    assert left(tmp_path) == []


def test_a_run_that_is_worked_on_anyway_may_say_so_again(tmp_path):
    with at_work(tmp_path, "a"):
        with at_work(tmp_path, "a"):
            pass
        assert [p.name for p in (tmp_path / ".locks" / "runs").iterdir()] == ["a"] and left(tmp_path) == []
    assert not list((tmp_path / ".locks" / "runs").iterdir())


def test_a_run_that_is_taken_up_again_while_one_looks_is_not_left(tmp_path, monkeypatch):
    """The file that was looked at is free, but has lost its name to that of a living process."""
    gone = holder(tmp_path, "a")
    gone.kill()
    gone.wait()
    lock, again = fcntl.flock, []

    def late(handle, how):
        if how & fcntl.LOCK_NB and not again:
            again.append(holder(tmp_path, "a"))
        lock(handle, how)

    monkeypatch.setattr(running.fcntl, "flock", late)
    assert left(tmp_path) == [] and again
    again[0].communicate(b"")
