"""The evaluation report of one as-of day: a JSON file and one self-contained page.

Belongs here: gathering the figures of all models beside the published ones. Does not belong here: computing any figure
(`ml.evaluate`), tables (`ml.report_tables`) and drawing (`ml.figures`).

The page shows what report.json holds, and training curves.
"""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ml import figures, published, synthetic
from ml.datasets import dataset as known_dataset
from ml.report_tables import LABELS, LEAKING, PROTOCOL_TITLES, QUESTIONS, left_out, tables, text_table
from ml.segment_tables import segment_tables
from ml.segments import ALL, TITLES
from ml.synthetic import SYNTHETIC

__all__ = ["build_report", "report_json", "text_table"]

BASELINE = "popular_15"
CLICKS = "clicks in the test span"
CURVES = {
    "Loss": {"loss": "total", "nce": "InfoNCE"},
    "Relative effective rank (Eq. A.10)": {"erank_user": "readers", "erank_article": "articles"},
    "Average cosine (Eq. 2.8)": {"cosine_user": "readers", "cosine_article": "articles"},
}
VALIDATION = {"recall@20": "Recall@20", "ndcg@20": "nDCG@20"}
Json = dict[str, Any]


def build_report(
    dataset: str,
    as_of: str,
    split: str,
    models: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    *,
    out: Path,
) -> Json:
    """Write `report.json` (returned) and `report.html` to the folder `out`.

    `models`: by name, in the order of the rows, `rq1`, `rq2`, `rq3` (the content of each evaluation's metrics.json,
    absent where not measured), `manifests` (manifest digest by `rq1`, ..., `checkpoint`) and, for models that train,
    `curves` (content of curves.json). `notes` are added to the dataset's own. The same input gives the same bytes.
    """
    report = report_json(dataset, as_of, split, models, notes, environment)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    curves = {name: entry["curves"] for name, entry in models.items() if entry.get("curves")}
    (out / "report.html").write_text(_page(report, curves), encoding="utf-8")
    return report


def report_json(
    dataset: str,
    as_of: str,
    split: str,
    models: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Json:
    """The report as plain values, in the form that `newsrec metrics --json` prints; arguments as in `build_report`."""
    known = known_dataset(dataset)
    measured = [entry[rq] for entry in models.values() for rq in (*QUESTIONS, "segments") if rq in entry]
    made = next((found[SYNTHETIC] for found in measured if SYNTHETIC in found), "")
    warning = synthetic.note("RQ2, and the AUC watched in training, rest", made) if made else ""
    return {
        "dataset": dataset,
        "as_of": as_of,
        "split": split,
        "simulated": known.synthetic,
        "notes": [note for note in (known.note, warning, *notes) if note],
        SYNTHETIC: made,
        "baseline": BASELINE,
        "conventions": {found["rq"]: found["conventions"] for found in measured},
        "span": measured[0]["span"] if measured else {},
        "environment": dict(environment or {}),
        "models": {name: _model_json(entry) for name, entry in models.items()},
        "published": _published_json(dataset),
    }


def _model_json(entry: Mapping[str, Any]) -> Json:
    """One model's figures: `rq2` and `rq3` have one protocol each, which is left out of the path."""
    out: Json = {"paired": {}, "counts": {}}
    for rq in QUESTIONS:
        found = entry.get(rq)
        if found is None:
            continue
        flat = rq != "rq1"
        out[rq], out["paired"][rq] = (_only(found[part]) if flat else found[part] for part in ("protocols", "paired"))
        out["counts"][rq] = _only(found["counts"]) if flat else found["counts"]
    beyond, shown = entry.get("rq3", {}), entry.get("rq2", {})
    more = {"categories": beyond.get("categories"), "clicks_by_category": beyond.get("clicks_by_category")}
    more |= {"left_out": shown.get("left_out", {}) | beyond.get("left_out", {}), "vectors": beyond.get("vectors")}
    more |= {"oracle": shown.get("oracle"), SYNTHETIC: shown.get(SYNTHETIC)}
    if "segments" in entry:
        more |= {"segments": entry["segments"]["protocols"][ALL], "segments_left_out": entry["segments"]["left_out"]}
    return out | {name: value for name, value in more.items() if value} | {"manifest": dict(entry.get("manifests", {}))}


def _only(by_protocol: Json) -> Json:
    """The values of the only protocol; nothing where there is none."""
    return next(iter(by_protocol.values()), {})


def _published_json(dataset: str) -> Json:
    rows = [
        {"rq": f.rq, "protocol": f.protocol, "metric": f.metric, "model": f.model, "value": f.value, "table": f.table}
        for f in published.FIGURES
    ]
    return {"source": published.SOURCE, "label": published.label(dataset), "figures": rows}


def _page(report: Json, curves: Mapping[str, list[dict[str, float]]]) -> str:
    from jinja2 import Environment, StrictUndefined

    template = resources.files("ml").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shown = {rq: [table for table in tables(report) if table.rq == rq] for rq in QUESTIONS}
    return environment.from_string(template).render(
        report=report,
        questions=QUESTIONS,
        labels=LABELS,
        tables=shown,
        leaking=[name for name in report["models"] if name in LEAKING],
        recall=_recall_figure(report),
        categories=_categories(report, trained=list(curves)),
        published_categories=published.CATEGORIES,
        left_out=left_out(report),
        segments=segment_tables(report, [m for m in report["models"] if m in (report["baseline"], *curves)]),
        segments_left_out=_segments_left_out(report),
        curves=_training(report, curves),
    )


def _training(report: Json, curves: Mapping[str, list[dict[str, float]]]) -> dict[str, str]:
    """Drawings of the training curves by model."""
    watched = VALIDATION | {"auc": synthetic.marked("AUC", report[SYNTHETIC])}
    shown = CURVES | {"Validation": watched}
    return {name: figures.training_curves(f"curves {name}", points, shown) for name, points in curves.items()}


def _recall_figure(report: Json) -> str:
    """Recall@20 of all models by protocol; empty where there is none."""
    panels: dict[str, list[figures.Bar]] = {}
    for protocol in PROTOCOL_TITLES:
        for name, entry in report["models"].items():
            found = entry.get("rq1", {}).get(protocol, {}).get("recall@20")
            if found and found["value"] is not None:
                bar = (name, found["value"], found["low"], found["high"])
                panels.setdefault(f"Recall@20, {protocol}", []).append(bar)
    return figures.models_with_intervals("recall", panels, report["baseline"]) if panels else ""


def _categories(report: Json, trained: list[str]) -> Json:
    """Shares of all models by category, and a drawing of the clicks, the baseline and trained models; empty without."""
    shares: dict[str, dict[str, float]] = {}
    for name, entry in report["models"].items():
        if "categories" in entry:
            shares.setdefault(CLICKS, entry["clicks_by_category"])
            shares[name] = {category: found["value"] or 0.0 for category, found in entry["categories"].items()}
    if not shares:
        return {}
    names = [c for c in shares[CLICKS] if any(share.get(c, 0) > 0 for share in shares.values())]
    drawn = [name for name in (CLICKS, report["baseline"], *trained) if name in shares]
    drawing = figures.category_bars("categories", {n: {c: shares[n].get(c, 0.0) for c in names} for n in drawn})
    return {"names": names, "shares": shares, "drawing": drawing}


def _segments_left_out(report: Json) -> dict[str, str]:
    """Dimensions that the log does not record, by title, with the reason; the same for all models."""
    found: Json = next((e["segments_left_out"] for e in report["models"].values() if "segments_left_out" in e), {})
    return {TITLES[d]: why for reasons in found.values() for d, why in reasons.items()}
