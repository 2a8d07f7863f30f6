"""Recipes: the published configuration, validation, that reading them needs no torch."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from ml.errors import UsageError
from ml.recipes import RECIPES, SNERT_QUICK, SNERT_THESIS, Mixture, Recipe, recipe


def test_snert_thesis_is_table_5_1_with_the_features_of_row_b() -> None:
    published = {
        "dim": 128,
        "layers": 4,
        "heads": 2,
        "lambda_logdet": 0.0008,
        "session_length": 16,
        "temperature": 0.7,
        "lr": 1e-4,
        "warmup": 0.05,
        "batch": 512,
        "epochs": 3,
        "steps": 60_000,
    }
    assert {name: getattr(SNERT_THESIS, name) for name in published} == published
    assert SNERT_THESIS.families == ("body", "meta", "time", "popularity", "interaction")
    assert SNERT_THESIS.logq == 0
    mixture = SNERT_THESIS.mixture
    assert (mixture.popularity, mixture.recency, mixture.inview, mixture.uniform) == (0.4, 0.2, 0.2, 0.2)
    assert (mixture.delta_minutes, mixture.recent) == (15, 4000)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_survives_json(name: str) -> None:
    assert recipe(name).name == name
    assert Recipe.model_validate_json(recipe(name).model_dump_json()) == recipe(name)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'snert'.*snert_quick, snert_smoke, snert_thesis"):
        recipe("snert")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": 3}, "not divisible by heads"),
        ({"families": ("meta", "meta")}, "named twice"),
        ({"families": ("sound",)}, "families"),
        ({"temperature": 0}, "greater than 0"),
        ({"learning_rate": 1}, "Extra inputs"),
    ],
)
def test_impossible_recipes_are_refused(change: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Recipe.model_validate(SNERT_QUICK.model_dump() | change)


def test_sampler_shares_must_sum_to_one() -> None:
    with pytest.raises(ValidationError, match=r"sum to 1, not 1\.1"):
        Mixture(popularity=0.5)


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValidationError):
        SNERT_QUICK.lr = 1.0  # type: ignore[misc]


def test_reading_recipes_needs_no_torch() -> None:
    code = "import ml.recipes, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
