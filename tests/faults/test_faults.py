"""The quick part of the fault suite, in a process of its own that forks; and that the suite can fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.promises import mixed, open_runs
from tests.faults.table import NEXT_RUN, READERS, Table
from tests.faults.world import plain_home, publish_plainly

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.faults", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_quick_part_keeps_every_promise() -> None:
    done = run("--quick")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "0 promises broken" in done.stdout and "SIGKILL at random moments: 6 " in done.stdout


@pytest.mark.slow
def test_the_whole_suite_keeps_every_promise() -> None:
    done = run("--kills", "60")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_promises_can_be_broken(tmp_path: Path) -> None:
    home = plain_home(tmp_path / "home")
    ref = home.refs[0]
    publish_plainly(home, ref, "one", lambda: None)
    assert mixed(home, ref, {"one"}) == [] and open_runs(home, ref) == []
    (line,) = mixed(home, ref, {"two"})
    assert "neither old nor new" in line
    part = home.lake.require(ref).file("part-0.bin")
    part.chmod(0o644)
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert any("part-0.bin differ" in line for line in mixed(home, ref, {"one"}))


def test_the_table_counts() -> None:
    table = Table()
    table.enter("a fault", READERS, [])
    table.enter("a fault", READERS, ["wrong"])
    table.enter("another", NEXT_RUN, [])
    text = table.text()
    assert "| a fault | 1 of 2 |  |" in text and "| all | 1 of 2 |  | 1 of 1 |" in text
    assert table.broken == [f"a fault: {READERS}: wrong"]
