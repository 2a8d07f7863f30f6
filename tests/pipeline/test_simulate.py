"""`newsrec simulate` as a command: preset, workers, report, and one line for what it cannot do."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ml.simulator.config import VERSION
from pipeline.cli import app


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


SEEDED = ("run", "spec", "challenge", "decay", "simulate")


def test_every_command_with_a_seed_is_known() -> None:
    found = {str(c.callback.__name__) for c in app.registered_commands if c.callback and "seed" in _options(c.callback)}
    assert found == set(SEEDED)


def _options(command: object) -> list[str]:
    return list(inspect.signature(command).parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize("command", SEEDED)
@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_a_number_that_is_no_seed_is_bad_usage(command: str, seed: int, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "log")] if command in ("spec", "simulate") else []
    with pytest.raises(typer.TyperException) as refused:
        CliRunner().invoke(app, [command, *out, "--seed", str(seed)], standalone_mode=False, catch_exceptions=False)
    said = refused.value.format_message()
    assert "--seed" in said and "\n" not in said
    assert said.split()[-1] == ("0" if seed < 0 else str(2**63 - 1))
    assert not list(tmp_path.iterdir())
