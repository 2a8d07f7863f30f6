"""`newsrec spec`: what a training is given, as a file for `python -m ml.train`.

Belongs here: gathering the lake's current inputs of a checkpoint. Does not belong here: the specification
(`assets.checkpoint`), training (`ml.train`).
"""

from datetime import date
from pathlib import Path

from assets.build import input_refs
from assets.checkpoint import spec_of
from assets.graph import BY_NAME
from assets.stage import Work
from ml.datasets import dataset
from ml.errors import UsageError
from ml.models import MODELS
from resources.bindings import RunSettings, Tools


def spec_json(tools: Tools, settings: RunSettings, dataset_name: str, day: date, model: str, out: Path) -> str:
    """The specification as JSON, with `out` as the folder that the training writes. Raises UsageError for a model that
    is not trained, LakeError where an input is not in the lake."""
    if model not in MODELS or not MODELS[model].trains:
        trained = ", ".join(sorted(name for name, known in MODELS.items() if known.trains))
        raise UsageError(f"{model!r} is no model that is trained: choose from {trained}")
    known = dataset(dataset_name)
    stage = BY_NAME["checkpoint"]
    refs = input_refs(
        stage, known, day, model, settings, BY_NAME, [date.fromisoformat(p) for p in _days(tools, known.name)]
    )
    inputs = {name: [tools.lake.require(ref) for _, _, ref in found] for name, found in refs.items()}
    work = Work(known, day, model, settings, inputs, out.absolute(), tools, print)
    return str(spec_of(work).model_dump_json(indent=1))


def _days(tools: Tools, name: str) -> list[str]:
    return tools.lake.partitions(name, "clicks")
