"""The launchpad: a recipe changed for one run is a model of its own, or refused in one line."""

import os
import shutil

import dagster as dg
import pytest

from assets.build import asset_key, refuse_other_settings
from assets.graph import BY_NAME
from ml.datasets import DATASETS
from ml.errors import UsageError
from ml.models import MODELS
from ml.recipes import RECIPES, recipe
from pipeline.variants import VariantConfig, register, settings_of, variant_job
from resources.bindings import RunSettings, ToolBox, default_settings
from resources.lake import POINTER
from tests.pipeline.conftest import dagster_home
from tests.pipeline.seal import environment

SIMULATED = DATASETS["simulated"]


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    monkeypatch.setattr("pipeline.variants.RECIPES", RECIPES.copy())
    monkeypatch.setattr("pipeline.variants.MODELS", MODELS.copy())


def test_a_variant_has_its_own_asset_and_its_own_folder(monkeypatch):
    monkeypatch.setattr("pipeline.variants.RECIPES", RECIPES)
    monkeypatch.setattr("pipeline.variants.MODELS", MODELS)
    name = register(VariantConfig(name="narrow", overrides={"dim": 32}))
    try:
        made = RunSettings().recipe_of(name)
        assert made.dim == 32 and made.name == "narrow"
        assert made.model_copy(update={"dim": 64, "name": "snert_quick"}) == recipe("snert_quick")
        checkpoint = BY_NAME["checkpoint"]
        assert asset_key(SIMULATED, checkpoint, name) == dg.AssetKey(["simulated", "checkpoint", "narrow"])
        ref = checkpoint.ref(SIMULATED, SIMULATED.first_day, RunSettings(), name)
        assert str(ref) == f"simulated/checkpoint/narrow/{SIMULATED.first_day}.rolling"
        assert checkpoint.sources(name) == checkpoint.sources("snert"), "the same code is part of its recipe key"
        assert RunSettings().recipe_of("snert").dim == 64
    finally:
        del MODELS["narrow"], RECIPES["narrow"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "snert"}, "would replace"),
        ({"name": "../up"}, "lower-case"),
        ({"name": "v", "overrides": {"dims": 32}}, "dims"),
        ({"name": "v", "overrides": {"dim": 33}}, "divisible"),
        ({"name": "v", "overrides": {"lr": "fast"}}, "lr"),
        ({"name": "v", "recipe": "magic"}, "magic"),
        ({"name": "v", "model": "random"}, "no recipe"),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(fields, message):
    with pytest.raises(UsageError, match=message) as refused:
        register(VariantConfig(**fields))
    assert "\n" not in str(refused.value)


def test_the_job_fails_with_that_line(tmp_path):
    done = variant_job("simulated").execute_in_process(
        run_config={"ops": {"simulated_train_variant": {"config": {"name": "v", "overrides": {"dims": 1}}}}},
        resources={"toolbox": ToolBox(lake=str(tmp_path))},
        raise_on_error=False,
    )
    (failed,) = [e for e in done.all_events if e.is_step_failure]
    line = failed.step_failure_data.user_failure_data.description
    assert "dims" in line and "\n" not in line


def test_settings_that_would_replace_the_default_are_refused():
    refuse_other_settings(RunSettings(), SIMULATED)
    with pytest.raises(UsageError, match=r"recipe='snert_thesis'.*simulated_variant"):
        refuse_other_settings(RunSettings(recipe="snert_thesis"), SIMULATED)


@pytest.mark.parametrize("field", ["margin_recall", "erank_floor", "latency_budget_ms", "decay_days", "seed"])
def test_no_setting_of_a_single_step_replaces_the_default(field):
    with pytest.raises(UsageError, match=f"{field}="):
        refuse_other_settings(RunSettings(**{field: 9 if field == "seed" else 1}), SIMULATED)
    refuse_other_settings(RunSettings(split="thesis"), SIMULATED)


@pytest.mark.parametrize("field", ["seed", "profile"])
def test_a_variant_cannot_move_what_the_baseline_is_named_without(field):
    usual = getattr(default_settings(), field)
    assert getattr(settings_of(VariantConfig(name="v", **{field: usual})), field) == usual
    with pytest.raises(UsageError, match=f"{field}=.*would replace the predictions of popular_15") as refused:
        settings_of(VariantConfig(name="v", **{field: 7 if field == "seed" else "full"}))
    assert "\n" not in str(refused.value)


def test_the_settings_of_a_variant_are_the_deployments(monkeypatch):
    monkeypatch.setenv("NEWSREC_PROFILE", "smoke")
    made = settings_of(VariantConfig(name="v", split="lag_2"))
    assert (made.profile, made.split, made.models) == ("smoke", "lag_2", ["v", "popular_15"])


def test_a_variant_leaves_every_partition_of_the_default_as_it_is(home, tmp_path, monkeypatch):
    shutil.copytree(home / "lake", tmp_path / "lake")
    shutil.copy(home / "mlflow.db", tmp_path)
    moved = {**environment(home), "NEWSREC_LAKE": str(tmp_path / "lake")}
    moved["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for name in moved.keys() - os.environ.keys() | {n for n, v in moved.items() if os.environ.get(n) != v}:
        monkeypatch.setenv(name, moved[name])
    monkeypatch.setattr("pipeline.variants.RECIPES", RECIPES)
    monkeypatch.setattr("pipeline.variants.MODELS", MODELS)

    def pointers() -> dict[str, bytes]:
        return {str(p.relative_to(tmp_path)): p.read_bytes() for p in (tmp_path / "lake").rglob(POINTER)}

    before = pointers()
    config = {"name": "narrow", "recipe": "snert_smoke", "overrides": {"dim": 32}}
    try:
        with dagster_home(tmp_path):
            done = variant_job("simulated").execute_in_process(
                run_config={"ops": {"simulated_train_variant": {"config": config}}}, resources={"toolbox": ToolBox()}
            )
        assert done.success
        after = pointers()
        assert {name: after[name] for name in before} == before
        made = {name.split("/")[2] for name in after.keys() - before.keys() if "/narrow/" in name}
        assert made >= {"checkpoint", "faiss_index", "predictions", "evaluation_rq1"}
        assert all("/narrow/" in name for name in after.keys() - before.keys())
        assert any("/predictions/popular_15/" in name for name in before)
    finally:
        MODELS.pop("narrow", None), RECIPES.pop("narrow", None)
