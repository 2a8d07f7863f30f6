"""Training: determinism, what it writes, that it learns, and how it fails."""

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ml import train as trainer
from ml.asof import AsOf
from ml.batches import Batches, log_density, step_targets, target_cases
from ml.clock import minute_of
from ml.errors import DataError, UsageError
from ml.features import FittedFeatures
from ml.models.popular import Popular
from ml.models.random import Random
from ml.models.snert import Snert
from ml.recipes import Mixture, Recipe
from ml.sampling import NegativeSampler
from ml.sessions import exclusion_mask, read_sessions
from ml.train import TrainResult, TrainSpec, choose_device, main, schedule, train
from ml.validation import Validation
from tests.ml.interests import DIGEST, TRAIN_END, World, small_recipe, write_world
from tests.ml.worlds import tiny_world

FILES = {"model.safetensors", "features.safetensors", "features.json", "recipe.json", "curves.json", "metrics.json"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"))


def spec_of(world: World, out: Path, recipe: Recipe | None = None, seed: int = 3) -> TrainSpec:
    return TrainSpec(
        asof=world.paths,
        sessions=world.sessions,
        sessions_digest=DIGEST,
        recipe=recipe or small_recipe(),
        seed=seed,
        out=out,
        device="cpu",
        train_end=TRAIN_END,
    )


@pytest.fixture(scope="module")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, list[str]]:
    said: list[str] = []
    return train(spec_of(world, tmp_path_factory.mktemp("out") / "checkpoint"), said.append), said


def make_batches(world: World, **changes: object) -> Batches:
    asof = world.open()
    recipe = small_recipe(**changes)
    sessions = read_sessions(world.sessions, DIGEST)
    targets = sessions.target[sessions.split == "train"]
    mask = exclusion_mask(asof.clicks, targets, TRAIN_END)
    return Batches(asof, FittedFeatures.fit(recipe, asof, targets), recipe, targets, mask, seed=5)


def test_it_writes_the_whole_checkpoint(trained: tuple[TrainResult, list[str]]) -> None:
    result, said = trained
    assert {p.name for p in result.out.iterdir()} == FILES
    curves = json.loads((result.out / "curves.json").read_text())
    metrics = json.loads((result.out / "metrics.json").read_text())
    assert curves == result.curves and metrics == result.metrics
    measured = [point for point in curves if "recall@20" in point]
    assert [point["step"] for point in measured] == [15, 30]
    names = {"loss", "nce", "logdet", "erank_user", "erank_article", "cosine_user", "ndcg@20"}
    assert all(names <= point.keys() for point in measured)
    assert metrics["best_step"] in (15, 30) and metrics["recall@20"] == max(p["recall@20"] for p in measured)
    assert any(line.startswith("step 30/30: loss") for line in said)


def test_the_kept_weights_are_those_of_the_best_step(world: World, trained: tuple[TrainResult, list[str]]) -> None:
    result, _ = trained
    asof = world.open()
    sessions = read_sessions(world.sessions, DIGEST)
    chosen = Validation.choose(asof, sessions.target[sessions.split == "validation"], 200, 3)
    again = chosen.measure(asof, Snert.load(result.out, asof))
    assert again["recall@20"] == pytest.approx(result.metrics["recall@20"], abs=1e-12)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    world: World, trained: tuple[TrainResult, list[str]], tmp_path: Path
) -> None:
    first = trained[0].out
    torch.rand(17)  # the caller's random state is no input
    train(spec_of(world, tmp_path / "again"))
    train(spec_of(world, tmp_path / "other", seed=4))
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (first / name).read_bytes(), name
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != (first / "model.safetensors").read_bytes()


def test_the_callers_random_state_is_kept(world: World, tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train(spec_of(world, tmp_path, small_recipe(steps=2, eval_every=2)))
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_where_interests_matter_it_beats_popularity(world: World, tmp_path: Path) -> None:
    result = train(spec_of(world, tmp_path, small_recipe(steps=250, eval_every=50, epochs=30, lr=3e-3)))
    asof = world.open()
    sessions = read_sessions(world.sessions, DIGEST)
    chosen = Validation.choose(asof, sessions.target[sessions.split == "validation"], 5000, 0)
    snert = chosen.measure(asof, Snert.load(result.out, asof))
    popular = chosen.measure(asof, Popular(60))
    chance = chosen.measure(asof, Random())
    assert snert["recall@20"] > popular["recall@20"] + 0.1 > chance["recall@20"]
    assert snert["ndcg@20"] > popular["ndcg@20"]


def test_early_stopping(world: World, tmp_path: Path) -> None:
    result = train(spec_of(world, tmp_path, small_recipe(steps=200, epochs=50, eval_every=2, patience=2, lr=1e-9)))
    assert result.metrics["steps"] < 200
    assert result.metrics["best_step"] == result.metrics["steps"] - 4


class Died(BaseException):
    """The process that trains ends here."""


def die_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next trainings die as they begin the step after `step`."""
    original = trainer.Run.step

    def stepping(self: trainer.Run, number: int, batch: object) -> dict[str, float]:
        if number == step:
            raise Died
        return original(self, number, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer.Run, "step", stepping)


def resumable(world: World, folder: Path, **changes: object) -> TrainSpec:
    changes = {"states": folder / "states", "states_key": "k", "states_every": 4} | changes
    return spec_of(world, folder / "out").model_copy(update=changes)


@pytest.mark.parametrize("deaths", [(2,), (17, 29), (5, 6, 23)])
def test_a_training_that_died_goes_on_and_ends_in_the_same_bytes(
    world: World, trained: tuple[TrainResult, list[str]], tmp_path: Path, deaths: tuple[int, ...]
) -> None:
    spec = resumable(world, tmp_path)
    for death in deaths:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
            die_after(death, patch)
            train(spec)
        kept = [death // 4 * 4 - 4, death // 4 * 4]
        assert sorted(int(p.stem) for p in spec.states.glob("*.json")) == [step for step in kept if step > 0]
    said: list[str] = []
    train(spec, said.append)
    assert any(line == f"went on from the state stored after step {deaths[-1] // 4 * 4} of 30" for line in said) == (
        deaths[-1] >= 4
    )
    for name in FILES:
        assert (spec.out / name).read_bytes() == (trained[0].out / name).read_bytes(), name


def test_a_training_that_was_over_is_not_repeated(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(steps=200, epochs=50, eval_every=2, patience=2, lr=1e-9)
    spec = resumable(world, tmp_path, recipe=recipe, states_every=100)
    first = train(spec)
    die_after(0, monkeypatch)
    again = train(spec.model_copy(update={"out": tmp_path / "again"}))
    assert again.metrics == first.metrics and again.curves == first.curves
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (spec.out / name).read_bytes(), name


@pytest.mark.parametrize("other", [{"states_key": "other"}, {"seed": 4}, {"recipe": small_recipe(lr=2e-3)}])
def test_a_state_of_another_training_is_not_used(world: World, tmp_path: Path, other: dict[str, object]) -> None:
    spec = resumable(world, tmp_path, recipe=small_recipe(steps=6, eval_every=6))
    train(spec)
    said: list[str] = []
    other = {"seed": 3, "states_key": "k", **other}
    train(spec.model_copy(update=other), said.append)
    assert any("of another training" in line for line in said)
    assert not any("went on" in line for line in said)


def test_a_damaged_state_is_named_and_the_one_before_it_used(
    world: World, trained: tuple[TrainResult, list[str]], tmp_path: Path
) -> None:
    spec = resumable(world, tmp_path)
    train(spec)
    newest = spec.states / "000000030.safetensors"
    data = bytearray(newest.read_bytes())
    data[-5] ^= 4
    newest.write_bytes(data)
    said: list[str] = []
    train(spec, said.append)
    assert "000000030.json: training state is damaged (the bytes of 000000030.safetensors changed)" in said[0]
    assert said[1] == "went on from the state stored after step 28 of 30"
    for name in FILES:
        assert (spec.out / name).read_bytes() == (trained[0].out / name).read_bytes(), name


def test_no_targets_are_an_error(world: World, tmp_path: Path) -> None:
    empty = write_world(tmp_path / "w", readers=3)
    sessions = empty.sessions
    pq.write_table(pq.read_table(sessions).slice(0, 0), sessions)
    with pytest.raises(DataError, match="no training targets"):
        train(spec_of(empty, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_names_the_step(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml.train.log_det", lambda *_: torch.tensor(math.nan, requires_grad=True))
    with pytest.raises(DataError, match=r"not finite at step 1 .*lower lr or raise ridge"):
        train(spec_of(world, tmp_path / "out"))


def test_sessions_of_other_interactions_are_refused(world: World, tmp_path: Path) -> None:
    spec = spec_of(world, tmp_path).model_copy(update={"sessions_digest": "f" * 64})
    with pytest.raises(DataError):
        train(spec)


def test_an_epoch_sees_every_target_once() -> None:
    seen = np.concatenate([step_targets(10, 4, 7, step) for step in range(5)])
    assert Counter(seen[:10].tolist()) == Counter(range(10)) == Counter(seen[10:].tolist())
    assert not np.array_equal(seen[:10], seen[10:])
    assert np.array_equal(step_targets(10, 4, 7, 3), seen[12:16])
    assert not np.array_equal(step_targets(10, 10, 8, 0), step_targets(10, 10, 7, 0))
    assert step_targets(3, 8, 0, 0).tolist()[:3] != [] and set(step_targets(3, 8, 0, 0)) == {0, 1, 2}


def test_a_batch_depends_on_seed_and_step_only(world: World) -> None:
    batches = make_batches(world)
    later = batches.make(7)
    batches.make(0)
    again = make_batches(world).make(7)
    for name in ("valid", "log_q", "distinct"):
        assert np.array_equal(getattr(later, name), getattr(again, name))
    assert np.array_equal(later.articles.row, again.articles.row)
    assert np.array_equal(later.articles.dynamic, again.articles.dynamic)


def test_a_batch_by_hand(world: World) -> None:
    batches = make_batches(world)
    batch = batches.make(2)
    chosen = step_targets(len(batches), 64, 5, 2)
    clicks, rows = batches.asof.clicks, batch.articles.row.reshape(64, 13)
    assert rows[:, 0].tolist() == clicks.article[batches.targets[chosen]].tolist()
    available = batches.asof.available(clicks.time[batches.targets[chosen]])
    forbidden = batches.mask[chosen]
    for b in range(64):
        negatives = rows[b, 1:][batch.valid[b]]
        assert np.all(negatives < available[b]) and not set(negatives) & set(forbidden[b].tolist())
    used = np.concatenate([rows[:, :1], np.where(batch.valid, rows[:, 1:], -1)], axis=1).reshape(-1)
    assert sorted(used[batch.distinct]) == sorted(set(used[used >= 0].tolist()))
    assert batch.history.size == 64


def test_training_histories_are_strictly_before_the_target(world: World) -> None:
    asof = world.open()
    targets = np.arange(0, len(asof.clicks), 7)
    cases = target_cases(asof, targets)
    assert np.all(cases.stop <= targets)
    has = cases.stop > cases.first
    assert np.all(asof.clicks.time[cases.stop[has] - 1] < asof.clicks.time[targets[has]])


def test_log_density_is_that_of_the_sampler() -> None:
    asof = tiny_world(seed=1, with_impressions=False)
    click = len(asof.clicks) // 2
    mixture = Mixture(popularity=0.5, recency=0.2, inview=0.1, uniform=0.2, delta_minutes=1440, recent=30)
    sampler = NegativeSampler(asof, mixture, 100)
    n = 400
    targets, time = np.full(n, click), np.full(n, asof.clicks.time[click])
    nothing = np.full((n, 11), -1, dtype=np.int32)
    drawn = sampler.sample(targets, time, nothing, torch.Generator().manual_seed(0)).numpy()
    available = int(asof.available(time[:1])[0])
    share = np.bincount(drawn.reshape(-1), minlength=available) / drawn.size
    density = np.exp(log_density(asof, mixture, time[:1], np.arange(available)[None]))[0]
    assert density.sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(share, density, atol=5 * np.sqrt(density.max() / drawn.size))


def test_log_density_needs_a_counted_window(world: World) -> None:
    with pytest.raises(UsageError, match="delta_minutes must be one of"):
        make_batches(world, mixture={"delta_minutes": 7})


class _Fixed(Popular):
    """Scores every article by its catalogue row modulo 7: many ties."""

    def catalogue_scores(self, asof: AsOf, time_ms: int, cases: object) -> np.ndarray:
        n = int(asof.available(np.array([time_ms]))[0])
        return np.tile((np.arange(n) % 7).astype(np.float32), (len(cases), 1))  # type: ignore[arg-type]


def test_validation_ranks_by_brute_force() -> None:
    asof = tiny_world(seed=2)
    targets = np.flatnonzero(asof.clicks.time > np.median(asof.clicks.time))
    chosen = Validation.choose(asof, targets, 150, seed=0)
    assert len(np.unique(minute_of(chosen.cases.time))) > 1 and len(chosen.cases) >= 150
    ranks = chosen._ranks(asof, _Fixed(15))
    for b in range(len(ranks)):
        n = int(asof.available(chosen.cases.time[[b]])[0])
        order = sorted(range(n), key=lambda row: (-(row % 7), -row))
        expected = order.index(chosen.target[b]) + 1 if chosen.target[b] < n else 0
        assert ranks[b] == expected


def test_validation_auc_is_half_for_a_constant_and_nan_without_impressions(world: World) -> None:
    asof = tiny_world(seed=2)
    targets = np.flatnonzero(asof.clicks.time > np.median(asof.clicks.time))
    chosen = Validation.choose(asof, targets, 100, seed=0)
    assert len(chosen.shown) > 0

    class Constant(Popular):
        def candidate_scores(self, asof: AsOf, cases: object, offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return np.zeros(len(rows), dtype=np.float32)

    assert chosen.measure(asof, Constant(15))["auc"] == pytest.approx(0.5)
    none = Validation.choose(world.open(), np.arange(100), 50, seed=0)
    assert math.isnan(none.measure(world.open(), Popular(15))["auc"])


def test_no_validation_targets_are_measured_as_nan(world: World) -> None:
    asof = world.open()
    chosen = Validation.choose(asof, np.zeros(0, dtype=np.int64), 50, seed=0)
    assert all(math.isnan(v) for v in chosen.measure(asof, Popular(15)).values())


def test_schedule_rises_then_falls() -> None:
    factors = [schedule(step, 100, 0.05) for step in range(100)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[5] == 1.0 and np.all(np.diff(factors[5:]) < 0) and 0 < factors[-1] < 0.01
    assert schedule(0, 1, 0.05) == 1.0


def test_a_device_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert choose_device("auto") == "cpu"
    with pytest.raises(UsageError, match="cuda"):
        choose_device("cuda")


def test_the_command_line_trains(world: World, tmp_path: Path) -> None:
    spec = spec_of(world, tmp_path / "out", small_recipe(steps=2, eval_every=2))
    path = tmp_path / "spec.json"
    path.write_text(spec.model_dump_json())
    done = subprocess.run([sys.executable, "-m", "ml.train", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 2
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES


def test_the_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2 and main([str(tmp_path / "none.json")]) == 2
    (tmp_path / "bad.json").write_text("{}")
    assert main([str(tmp_path / "bad.json")]) == 2
    assert "error:" in capsys.readouterr().err


def test_training_needs_only_the_scientific_libraries() -> None:
    code = (
        "import sys, ml.train\n"
        "banned = {'duckdb', 'polars', 'faiss', 'dagster', 'mlflow', 'great_expectations', 'transformers'}\n"
        "sys.exit(' '.join(sorted(banned & {m.partition('.')[0] for m in sys.modules})) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
