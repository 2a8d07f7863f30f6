"""The code location: every stage of every dataset as Dagster definitions.

Belongs here: assembly. Does not belong here: asset bodies (`assets`), planning and the command line.
Loads without what the bodies compute with: of the numerical libraries only NumPy and PyArrow (`newsrec bench imports`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from assets.build import asset_key, build_asset, models_of
from assets.graph import BY_NAME, STAGES
from ml.datasets import dataset, known_names
from pipeline.operations import operations, with_operation
from resources.bindings import DEFAULT_MODELS, ToolBox, default_settings
from resources.own_logs import learn_configured


def build_defs(
    resource_overrides: Mapping[str, Any] | None = None,
    datasets: Sequence[str] | None = None,
    models: Sequence[str] = DEFAULT_MODELS,
) -> dg.Definitions:
    """The same graph for the UI, the command line and tests; `resource_overrides` replaces `settings` or `toolbox`.
    Without `datasets` it holds all that this process knows."""
    built, jobs = [], []
    for name in known_names() if datasets is None else datasets:
        known = dataset(name)
        keys = []
        for stage in STAGES:
            for model in models_of(stage, models):
                built.append(build_asset(stage, known, model, BY_NAME, models))
                keys.append(asset_key(known, stage, model))
        jobs.append(
            dg.define_asset_job(
                f"{name}_all", selection=dg.AssetSelection.assets(*keys), tags={"newsrec/dataset": name}
            )
        )
    resources = {"settings": default_settings(), "toolbox": ToolBox(), **(resource_overrides or {})}
    return dg.Definitions(assets=built, jobs=jobs, resources=resources, executor=dg.in_process_executor)


@dg.definitions
def defs() -> dg.Definitions:
    """What the code location serves: the graph of all known datasets, and what runs it by itself. Dagster calls it when
    it loads the location; the command line, which builds the graph of its one dataset, does not."""
    learn_configured()
    graph = build_defs(models=default_settings().models)
    assets = [with_operation(a) for a in graph.assets or []]
    parts = operations(known_names(), [key for a in assets for key in a.keys])
    return dg.Definitions(
        assets=assets,
        jobs=[*(graph.jobs or []), *parts["jobs"]],
        schedules=parts["schedules"],
        sensors=parts["sensors"],
        resources=graph.resources,
        executor=graph.executor,
    )
