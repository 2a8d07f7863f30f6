"""The command `newsrec bench`: choosing, printing, one file for all; what fails is missed by its exit code."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ml.errors import UsageError
from pipeline import bench
from pipeline.benchmarks import BENCHMARKS
from pipeline.cli import app

RESULT = {
    "bench": "toy",
    "size": {"rows": 7},
    "results": [{"name": "x", "ours": 1.0, "reference": 3.0, "ratio": 3.0, "unit": "s", "spread": [2.5, 3.5]}],
    "growth": [{"name": "toy", "sizes": [10, 100, 1000], "seconds": [1.0, 10.0, 100.0]}],
}
TOY = f"RESULT = {RESULT!r}\ndef bench_toy(size):\n    return RESULT | {{'size': size}}\n"
LOG = "def bench_log(size, root):\n    return {'bench': 'log', 'size': str(root), 'results': []}\n"


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("toy", TOY), ("log", LOG)):
        (tmp_path / f"toys_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(bench, "_known", lambda: {"toy": "toys_toy", "log": "toys_log", "gpu": "nowhere"})


def test_one_benchmark_is_printed_with_its_spread_and_growth(toys: None) -> None:
    done = CliRunner().invoke(app, ["bench", "toy"])
    assert done.exit_code == 0
    assert "2.5 3.5" in done.stdout and "10 100 1,000" in done.stdout and "1.00" in done.stdout
    found = json.loads(CliRunner().invoke(app, ["bench", "toy", "--json"]).stdout)
    assert found["growth"][0]["exponent"] == pytest.approx(1) and found["size"] == "quick"


def test_a_log_goes_to_those_that_measure_on_one(toys: None, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "log", "--data-root", str(tmp_path), "--json"])
    assert json.loads(done.stdout)["size"] == str(tmp_path)
    with pytest.raises(UsageError, match="toy makes its own data"):
        bench.bench(["toy"], "quick", tmp_path)


def test_unknown_names_and_sizes_are_refused(toys: None) -> None:
    with pytest.raises(UsageError, match="unknown benchmark 'lot': choose from gpu, log, toy, all"):
        bench.bench(["toy", "lot"])
    with pytest.raises(UsageError, match="unknown size 'vast'"):
        bench.bench(["toy"], "vast")


def test_all_of_them_go_into_one_file_and_a_failure_is_missed(
    toys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def process(name: str, size: str, root: Path | None) -> dict | None:
        asked.append(name)
        return RESULT | {"growth": []} if name == "toy" else None

    monkeypatch.setattr(bench, "_in_a_process", process)
    out = tmp_path / "bench.json"
    assert bench.bench(["all"], out=out) == 1
    assert asked == ["log", "toy"]
    written = json.loads(out.read_text())
    assert [b["bench"] for b in written["benchmarks"]] == ["toy"] and written["size"] == "quick"
    assert written["machine"]["cores"] >= 1 and written["machine"]["libraries"]["numpy"]
    assert len(written["machine"]["git_commit"] or "") in (0, 40)
    assert "toy: " in capsys.readouterr().out


def test_every_module_around_the_science_offers_the_benchmark_of_its_name() -> None:
    from importlib import import_module

    for name, module in BENCHMARKS.items():
        assert callable(getattr(import_module(module), f"bench_{name}"))
    assert set(bench.OUTSIDE) & set(bench._known())
