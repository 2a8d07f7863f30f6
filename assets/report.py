"""`evaluation_report`: one page and one JSON with every model's numbers and where each came from.

Belongs here: gathering the evaluations of one as-of day. Does not belong here: layout (`ml.report`).
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from assets.stage import Need, Stage, Summary, Work
from ml import report as layout
from ml.datasets import Dataset
from resources.bindings import RunSettings, Tools

QUESTIONS = ("rq1", "rq2", "rq3")


def _recipe(dataset: Dataset, settings: RunSettings, tools: Tools, model: str | None) -> dict[str, Any]:
    template = hashlib.sha256(Path(layout.__file__).with_name("report.html.j2").read_bytes()).hexdigest()
    return {"models": list(settings.models), "split": settings.split, "template": template}


def _compute(work: Work) -> Summary:
    models: dict[str, dict[str, Any]] = {name: {"manifests": {}} for name in work.settings.models}
    for question in QUESTIONS:
        for version in work.inputs[f"evaluation_{question}"]:
            entry = models[str(version.ref.model)]
            entry[question] = json.loads(version.file("metrics.json").read_text())
            entry["manifests"][question] = version.manifest_digest
    for version in work.inputs["checkpoint"]:
        entry = models[str(version.ref.model)]
        entry["curves"] = json.loads(version.file("curves.json").read_text())
        entry["manifests"]["checkpoint"] = version.manifest_digest
    layout.build_report(work.dataset.name, str(work.day), work.settings.split, models, out=work.out)
    return Summary(artifacts=["report.json", "report.html"])


EVALUATION_REPORT = Stage(
    name="evaluation_report",
    group="evaluation",
    description="RQ1 to RQ3 of every model with intervals, beside the published figures; JSON and one HTML page.",
    needs=(
        *(Need(f"evaluation_{q}", f"evaluation_{q}", model="every") for q in QUESTIONS),
        Need("checkpoint", "checkpoint", model="every"),
    ),
    modules=("ml.report",),
    recipe=_recipe,
    compute=_compute,
    by_split="test",
    kinds=("html",),
)
