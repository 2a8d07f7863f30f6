"""Variants: a recipe changed for one run, published under a name of its own.

Belongs here: making a variant from the launchpad's configuration, and the job that runs it. Does not belong here:
recipes (`ml.recipes`) and the registry of models (`ml.models`).

A variant is a model: its assets are `[dataset, stage, <name>]`, its lake folder is `<stage>/<name>/`. Nothing of the
model that it varies is touched, nor of the baseline beside it.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dagster as dg
from pydantic import Field, ValidationError

from assets.build import models_of
from assets.graph import BY_NAME
from assets.stage import BASELINE
from ml.datasets import dataset
from ml.errors import UsageError
from ml.models import MODELS
from ml.recipes import RECIPES, Recipe, recipe
from ml.splits import split
from pipeline.days import parse_day
from pipeline.steps import operating
from resources.bindings import DEFAULT_MODELS, RunSettings, ToolBox, default_settings

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
NAMED = frozenset(RECIPES)
"""Recipes that the project brings along."""
EVALUATED = ("faiss_index", "evaluation_rq1", "evaluation_rq2", "evaluation_rq3")


class VariantConfig(dg.Config):
    """The launchpad's fields. `overrides` changes fields of the recipe, for example `{"dim": 32, "lr": 0.0005}`. `seed`
    and `profile` are the deployment's, and may be left out."""

    name: str
    overrides: dict[str, Any] = Field(default={})
    recipe: str = "snert_quick"
    model: str = "snert"
    as_of: str = ""
    split: str = "rolling"
    seed: int | None = None
    profile: str | None = None


def varied(name: str, base: str, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe `base` with some fields changed, called `name`. Raises UsageError in one line for a field or a value
    that no recipe can have."""
    made = recipe(base).model_dump() | dict(overrides) | {"name": name}
    try:
        return Recipe.model_validate(made)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "recipe"
        known = f"; fields: {', '.join(Recipe.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise UsageError(f"variant {name!r}: {field}: {first['msg']}{known}") from error


def register(config: VariantConfig) -> str:
    """Makes the variant a model of this process; its name. Raises UsageError for a name that is taken or cannot be a
    folder, for a model that does not train, and for a recipe that cannot be."""
    if not NAME.fullmatch(config.name):
        raise UsageError(f"variant {config.name!r}: use lower-case letters, digits and _, a letter first")
    if config.name in DEFAULT_MODELS or config.name in NAMED:
        raise UsageError(f"variant {config.name!r} would replace what is published under that name: choose another")
    if config.model not in DEFAULT_MODELS or not MODELS[config.model].trains:
        trained = ", ".join(m for m in DEFAULT_MODELS if MODELS[m].trains)
        raise UsageError(f"variant {config.name!r}: model {config.model!r} has no recipe: choose from {trained}")
    RECIPES[config.name] = varied(config.name, config.recipe, config.overrides)
    MODELS[config.name] = replace(MODELS[config.model], name=config.name, recipe=config.name)
    return config.name


def settings_of(config: VariantConfig) -> RunSettings:
    """The deployment's settings, for the variant and the baseline alone. Raises UsageError for another seed or profile:
    the variant is compared to the baseline, whose predictions on its test cases are those of the default."""
    usual = default_settings()
    for field in ("seed", "profile"):
        asked, deployed = getattr(config, field), getattr(usual, field)
        if asked not in (None, deployed):
            raise UsageError(
                f"variant {config.name!r}: {field}={asked!r} would replace the predictions of {BASELINE} that were "
                f"made with {field}={deployed!r}: leave {field} out, or set the deployment's environment"
            )
    return usual.model_copy(update={"split": split(config.split).name, "models": [config.name, BASELINE]})


def variant_job(name: str) -> dg.JobDefinition:
    """The job of one dataset, for the launchpad."""

    @dg.op(name=f"{name}_train_variant", description="Trains and evaluates a recipe under a name of its own.")
    def train_variant(
        context: dg.OpExecutionContext, config: VariantConfig, toolbox: ToolBox
    ) -> dg.Output[dict[str, str]]:
        from pipeline.run import as_of_day, execute

        data = dataset(name)
        with operating(context, toolbox) as tools:
            settings = settings_of(config)
            model = register(config)
            asked = parse_day(config.as_of, "as_of") if config.as_of else None
            day = as_of_day(data, settings, toolbox, asked)
            goals = [(BY_NAME[s], day, m) for s in EVALUATED for m in models_of(BY_NAME[s], [model])]
            tags = {"newsrec/asked_by": f"variant {context.run_id}", "newsrec/parent_run": context.run_id}
            execute(data, settings, toolbox, goals, context.log.info, tags)
            made = {s.name: tools.lake.require(s.ref(data, d, settings, m)) for s, d, m in goals}
        paths = {stage: str(version.path) for stage, version in made.items()}
        shown = {stage: dg.MetadataValue.path(path) for stage, path in paths.items()}
        return dg.Output(paths, metadata={**shown, "as_of": str(day), "variant": model})

    @dg.job(
        name=f"{name}_variant",
        tags={"newsrec/dataset": name},
        description="A recipe of your own for one run: fill in the launchpad.",
    )
    def job() -> None:
        train_variant()

    return job
