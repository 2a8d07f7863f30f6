"""The settings with which a published number was made, read back from its manifests.

Belongs here: settings for a rerun. Does not belong here: the rerun (`pipeline.audit.replay`).
"""

from typing import Any

from pydantic import Field, ValidationError

from ml.errors import LakeError, UsageError
from ml.recipes import Recipe
from resources.bindings import BUDGETS, DEFAULT_MODELS, RunSettings
from resources.lineage.graph import Graph
from resources.lineage.metric import REPORT


class RecordedSettings(RunSettings):
    """Settings whose training recipes are those that the checkpoints' manifests hold, by model, whatever the recipe of
    that name is now."""

    recorded: dict[str, dict[str, Any]] = Field(default={}, description="training recipe by model")

    def recipe_of(self, model: str | None) -> Recipe:
        """The recorded recipe. Raises UsageError when it has fields that this code does not know."""
        if model not in self.recorded:
            return super().recipe_of(model)
        try:
            return Recipe.model_validate(self.recorded[model])
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise UsageError(
                f"the recorded recipe of {model} is not one of this code ({where}: {fault['msg']}): "
                "check out the commit that the record names"
            ) from error


def settings_of(graph: Graph, model: str) -> dict[str, Any]:
    """Split, profile, seed, models and training recipes of the run that made a number, from the manifests under it."""
    predicted = [n for n in graph.nodes.values() if n.ref.stage == "predictions" and n.ref.model == model]
    if not predicted:
        raise LakeError(f"no predictions of {model} under this number: nothing tells the settings it was made with")
    recipe = predicted[0].recipe
    profiles = {budget: name for name, budget in BUDGETS.items()}
    if recipe.get("budget") not in profiles:
        raise UsageError(f"{predicted[0].ref} was made with {recipe.get('budget')} test cases, no profile has so many")
    report = next((n for n in graph.nodes.values() if n.ref.stage == REPORT), None)
    trained = {str(n.ref.model): n.recipe["recipe"] for n in graph.nodes.values() if n.ref.stage == "checkpoint"}
    return {
        "split": recipe["split"],
        "profile": profiles[recipe["budget"]],
        "seed": recipe["seed"],
        "recorded": trained,
        "models": list(report.recipe.get("models", DEFAULT_MODELS)) if report else list(DEFAULT_MODELS),
    }
