"""Both sides of a benchmark do the same work, and the logs that they are given are sound."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ml import schema
from ml.benchmarks import gpu, loader, sessions
from ml.benchmarks.world import END_MS, World
from ml.clock import MS_PER_DAY
from ml.errors import UsageError
from ml.recipes import SNERT_QUICK

TINY = World(articles=300, clicks_per_minute=1, minutes=10 * 1440, dim=8, shown_minutes=2 * 1440)


def test_ranges_of_ours_pandas_and_duckdb_agree(tmp_path: Path) -> None:
    sessions.write_log(tmp_path / "log", 3_000)
    found = {}
    for side in ("ours", "pandas", "duckdb"):
        (tmp_path / side).mkdir()
        found[side] = sessions._SIDES[side](tmp_path / "log", tmp_path / side)
    assert found["ours"] == found["pandas"] == found["duckdb"]
    assert found["ours"][0] > 2_000


def test_the_generated_clicks_are_canonical(tmp_path: Path) -> None:
    sessions.write_log(tmp_path / "log", 3_500)
    files = sorted((tmp_path / "log").iterdir())
    assert len(files) == sessions.DAYS
    tables = [pq.read_table(f) for f in files]
    assert all(t.schema.equals(schema.CLICKS) for t in tables)
    time = np.concatenate([t["time"].cast("int64").to_numpy() for t in tables])
    assert len(time) == 3_500 and (np.diff(time) > 0).all()
    assert all(len(set(t["time"].cast("int64").to_numpy() // MS_PER_DAY)) <= 2 for t in tables)


def test_the_random_log_is_one_that_training_takes() -> None:
    asof = TINY.make()
    clicks, shown = asof.clicks, asof.impressions
    assert len(clicks) == TINY.minutes and clicks.time.max() < END_MS
    assert 0 < np.mean(clicks.impression >= 0) < 0.5
    assert np.mean(clicks.article < asof.available(clicks.time)) > 0.95
    at = {int(i): row for row, i in enumerate(shown.impression)}
    for row in np.flatnonzero(clicks.impression >= 0)[::50]:
        place = at[int(clicks.impression[row])]
        listed = slice(shown.offsets[place], shown.offsets[place + 1])
        assert clicks.article[row] in shown.article[listed][shown.clicked[listed]]
    again = TINY.make()
    assert np.array_equal(again.clicks.article, clicks.article)


def test_both_sides_of_the_loader_take_steps() -> None:
    recipe = SNERT_QUICK.model_copy(update={"batch": 16, "negatives": 4, "dim": 8, "hidden": 8, "feedforward": 8})
    run = loader.prepared(TINY.make(), recipe, "cpu")
    before = {name: tensor.clone() for name, tensor in run.net.state_dict().items()}
    pair = loader.step_pair(run, steps=2, rounds=2)
    assert len(pair.ours) == len(pair.reference) == 2 and min(*pair.ours, *pair.reference) > 0
    assert any(not tensor.equal(before[name]) for name, tensor in run.net.state_dict().items())
    floor = gpu.floor_bytes(run, run.batches.make(1))
    weights = sum(p.numel() for p in run.net.parameters())
    assert floor > 7 * 4 * weights


def test_without_a_card_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="bench gpu: torch finds no CUDA device on this machine"):
        gpu.bench_gpu("quick")
    with pytest.raises(UsageError, match="unknown size"):
        gpu.bench_gpu("vast")
