"""What benchmarks share: rows and spreads by hand, exponents of known powers, memory of a process, comparing files."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from ml.benchmarks import BENCHMARKS, common, compare
from ml.errors import DataError, UsageError


def test_every_module_offers_the_benchmark_of_its_name() -> None:
    assert {"ingestion", "popularity", "retrieval"} <= set(BENCHMARKS)
    for name, module in BENCHMARKS.items():
        assert callable(getattr(import_module(module), f"bench_{name}"))


def test_a_row_has_medians_and_the_quartiles_of_the_rounds_ratios() -> None:
    found = common.row("x", [1.0, 2.0, 4.0], [8.0, 8.0, 8.0], "s")
    assert found == {"name": "x", "ours": 2, "reference": 8, "ratio": 4, "unit": "s", "spread": [3, 6]}
    rate = common.row("x", [1.0, 2.0, 4.0], 2.0, "rows/s", "more")
    assert (rate["ratio"], rate["spread"]) == (1, [0.75, 1.5])
    once = common.row("x", 5, 10, "bytes")
    assert once["ratio"] == 2 and "spread" not in once


def test_pairs_are_taken_in_turn_and_paired_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    clock = iter(range(100))
    monkeypatch.setattr(common.time, "perf_counter", lambda: next(clock))
    found = common.interleaved(lambda: calls.append("ours"), lambda: calls.append("reference"), 3)
    assert calls == ["ours", "reference", "ours", "reference", "reference", "ours", "ours", "reference"]
    assert found == common.Pair((1, 1, 1), (1, 1, 1))
    pair = common.Pair((2.0, 4.0), (6.0, 4.0))
    assert pair.row("x", "ms", 1000)["ours"] == 3000 and pair.row("x")["ratio"] == 2
    assert pair.rate("x", 12, "rows/s")["ours"] == 4.5 and pair.rate("x", 12, "rows/s")["ratio"] == 2


@pytest.mark.parametrize("power", [0.0, 1.0, 1.7])
def test_exponents_of_powers(power: float) -> None:
    sizes = [1_000, 10_000, 40_000]
    grown = common.growth("x", lambda n: 3.0 * n**power, sizes)
    assert grown["sizes"] == sizes
    assert common.exponent(grown["sizes"], grown["seconds"]) == pytest.approx(power)


def test_an_unknown_size_is_named() -> None:
    assert common.size_of({"quick": 3}, "quick") == 3
    with pytest.raises(UsageError, match="unknown size 'vast': choose one of quick, paper"):
        common.size_of({"quick": 1, "paper": 2}, "vast")


def test_a_process_of_its_own_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "busy.py").write_text(
        "import sys, numpy\nfrom ml.benchmarks.common import tell_measured\n"
        "if len(sys.argv) > 2: sys.exit('no such side')\n"
        "tell_measured(lambda: {'sum': float(numpy.ones(15_000_000).sum())})\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    found = common.apart("busy", "x")
    assert found.figures == {"sum": 15e6} and found.peak_mib > 115
    assert found.seconds > 0 and found.cpu_seconds > 0
    with pytest.raises(RuntimeError, match="busy x y failed: no such side"):
        common.apart("busy", "x", "y")


def document(*rows: dict, size: str = "quick", cores: int = 2) -> dict:
    machine = {"processor": "P", "cores": cores}
    return {"machine": machine, "size": size, "benchmarks": [{"bench": "b", "results": list(rows)}]}


def measured(ratio: float, low: float, high: float, name: str = "x") -> dict:
    return {"name": name, "ours": 1, "reference": ratio, "ratio": ratio, "unit": "s", "spread": [low, high]}


@pytest.mark.parametrize(
    ("new", "verdict"),
    [
        (measured(5, 4.8, 5.2), "slower"),
        (measured(8.5, 7, 9.4), "same"),
        (measured(10, 9, 11), "same"),
        (measured(20, 18, 22), "faster"),
        ({**measured(1, 1, 1), "unit": "s"} | {"spread": [1.0, 1.0]}, "slower"),
    ],
)
def test_slower_is_what_the_spread_cannot_explain(new: dict, verdict: str) -> None:
    (change,), lost = compare.compare(document(measured(10, 9, 11)), document(new))
    assert change.verdict == verdict and lost == []
    assert change.change == new["ratio"] / 10


def test_rows_measured_once_are_shown_and_bytes_are_exact() -> None:
    once = {"name": "x", "ours": 1, "reference": 4, "ratio": 4.0, "unit": "s"}
    (change,), _ = compare.compare(document(once), document({**once, "ratio": 1.0}))
    assert change.verdict == "measured once"
    grown = {**once, "unit": "bytes"}
    (change,), _ = compare.compare(document(grown), document({**grown, "ratio": 1.0}))
    assert change.verdict == "slower"


def test_the_command_fails_for_what_is_slower_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def file(name: str, content: dict) -> str:
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path / name)

    old = file("old.json", document(measured(10, 9, 11), measured(1, 1, 1, "gone")))
    new = file("new.json", document(measured(2, 1.9, 2.1), cores=4))
    assert compare.main([old, old]) == 0
    assert "0 of 2 rows are slower" in capsys.readouterr().out
    assert compare.main([old, new]) == 1
    said = capsys.readouterr().out
    assert "cores: 2 and 4" in said and "only in the old file: b: gone" in said and "0.20 x" in said
    assert compare.main([old, file("large.json", document(size="paper"))]) == 2
    assert compare.main([old]) == 2
    assert compare.main([old, str(tmp_path / "none.json")]) == 2
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match="no file of results"):
        compare.read(tmp_path / "list.json")
