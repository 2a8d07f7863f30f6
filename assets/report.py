"""`evaluation_report`: one page and one JSON with every model's numbers and where each came from.

Belongs here: gathering the evaluations of one as-of day. Does not belong here: layout (`ml.report`).
"""

import hashlib
from pathlib import Path
from typing import Any

from assets.stage import Need, Stage, Summary, Work, inview_label
from ml.datasets import Dataset
from ml.measured import read_curves, read_metrics
from ml.strangers import reading
from ml.synthetic import SYNTHETIC
from resources.bindings import RunSettings, Tools
from resources.lineage.graph import walk

MEASURED = ("rq1", "rq2", "rq3", "segments")
TABLES = ("articles", "clicks", "impressions")


def _recipe(dataset: Dataset, settings: RunSettings, tools: Tools, model: str | None) -> dict[str, Any]:
    from ml import report as layout

    template = hashlib.sha256(Path(layout.__file__).with_name("report.html.j2").read_bytes()).hexdigest()
    return {"models": list(settings.models), "split": settings.split, "template": template}


def _compute(work: Work) -> Summary:
    from ml import report as layout

    models: dict[str, dict[str, Any]] = {name: {"manifests": {}} for name in work.settings.models}
    for question in MEASURED:
        for version in work.inputs[f"evaluation_{question}"]:
            entry = models[str(version.ref.model)]
            entry[question] = read_metrics(version.file("metrics.json"))
            entry["manifests"][question] = version.manifest_digest
    for version in work.inputs["checkpoint"]:
        entry = models[str(version.ref.model)]
        entry["curves"] = read_curves(version.file("curves.json"))
        entry["manifests"]["checkpoint"] = version.manifest_digest
    with reading(work.tools.lake.root / work.dataset.name):
        report = layout.build_report(work.dataset.name, str(work.day), work.settings.split, models, out=work.out)
    _write_cards(work, report)
    labels = inview_label(report[SYNTHETIC])
    return Summary(labels=labels, artifacts=["report.json", "report.html", "data_card.md", "model_card.md"])


def _write_cards(work: Work, report: dict[str, Any]) -> None:
    """Both cards, from the report and the manifests of all that it came from."""
    from ml import cards

    given = [v for versions in work.inputs.values() for v in versions]
    graph = walk(work.tools.lake.root, [(v.ref, v.manifest_digest) for v in given])
    rows: dict[str, dict[str, int]] = {}
    sources: dict[str, str] = {}
    targets: dict[str, int] = {}
    held_back = 0
    for node in graph.nodes.values():
        manifest = node.manifest or {}
        counted = manifest.get("rows") or {}
        if node.ref.stage in TABLES:
            rows.setdefault(node.ref.stage, {})[node.ref.partition] = counted.get(f"{node.ref.stage}.parquet", 0)
            held_back += counted.get("quarantine.parquet", 0)
        sources |= manifest.get("recipe", {}).get("sources", {})
        if node.ref.stage == "session_splits":
            targets[node.ref.partition] = counted.get("sessions.parquet", 0)
    checkpoints = {
        str(v.ref.model): {
            "recipe": v.manifest["recipe"].get("recipe", {}),
            "seed": v.manifest["recipe"].get("seed"),
            "targets": targets.get(v.ref.partition, 0),
            "manifest": v.manifest_digest,
        }
        for v in work.inputs["checkpoint"]
    }
    card = cards.data_card(work.dataset, str(work.day), rows, held_back, sources, report[SYNTHETIC])
    (work.out / "data_card.md").write_text(card, encoding="utf-8")
    (work.out / "model_card.md").write_text(cards.model_card(report, checkpoints), encoding="utf-8")


EVALUATION_REPORT = Stage(
    name="evaluation_report",
    group="evaluation",
    description="RQ1 to RQ3 of every model with intervals, beside the published figures; JSON and one HTML page.",
    needs=(
        *(Need(f"evaluation_{q}", f"evaluation_{q}", model="every") for q in MEASURED),
        Need("checkpoint", "checkpoint", model="every"),
    ),
    modules=("assets.report", "ml.report", "ml.cards"),
    recipe=_recipe,
    compute=_compute,
    by_split="test",
    kinds=("html",),
)
