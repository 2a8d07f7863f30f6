"""`newsrec simulate` as a command: preset, workers, report, and one line for what it cannot do."""

import subprocess
import sys
from pathlib import Path

from ml.simulator.config import VERSION


def simulate(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipeline.cli", "simulate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_preset_with_its_report(tmp_path: Path) -> None:
    out = str(tmp_path / "log")
    arguments = ("--out", out, "--size", "tiny", "--seed", "5", "--preset", "regional", "--workers", "1", "--report")
    done = simulate(*arguments)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"regional, tiny, seed 5, model version {VERSION}"
    assert {line.split()[0] for line in lines[2:] if line} >= {"gini_15_min", "front_page_share", "oracle_inview_auc"}
    again = simulate(*arguments)
    assert "already there, nothing to do" in again.stderr
    assert again.stdout == done.stdout
    other = ("--out", out, "--size", "tiny", "--seed", "6")
    refused = simulate(*other)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "--replace" in refused.stderr
    done = simulate(*other, "--replace")
    assert done.returncode == 0 and done.stderr.endswith("written\n")


def test_an_unknown_preset_is_one_line(tmp_path: Path) -> None:
    done = simulate("--out", str(tmp_path / "log"), "--preset", "weekly")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("unknown preset 'weekly': choose one of tabloid, regional")
    assert not list(tmp_path.iterdir())
