"""`drift`: how the days up to the as-of day differ from each other, and how models did on them.

Belongs here: which files are read, tables and page. Does not belong here: measures (`ml.drift`), layout
(`ml.drift_page`).
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa

from assets.interactions import WINDOW_DAYS
from assets.segments import QUESTIONS
from assets.stage import BASELINE, Find, Kept, Need, Stage, Summary, Work, inview_label
from ml import schema, sheet
from ml.datasets import Dataset
from ml.measured import read_metrics
from ml.models import MODELS
from ml.parquet import read_table
from ml.splits import ROLLING
from ml.strangers import reading
from ml.synthetic import SYNTHETIC
from resources.bindings import RunSettings, Tools
from resources.lake import Lake, Ref, Version, write_parquet

SHOWN = (
    ("rq1", "thesis", "recall@20"), ("rq1", "in_session", "recall@20"), ("rq2", "in_view", "auc"),
    ("rq3", "thesis", "novelty"), ("rq3", "thesis", "coverage"),
)  # fmt: skip
CONVENTION = (
    "Skew is over the articles that were clicked on the day; turnover compares with the day before; metrics are those "
    "of the model made for each day, tested on it."
)
PSI = (
    "Each day against the {days} days before it (fewer at the log's start): sum of "
    "(p - q) ln(p / q) over the reference's deciles, unknown values a bin of their own, half a click added to every "
    "bin; features of the clicked articles as of their clicks, an even sample of at most "
    "{sample:,} clicks on either side. Clicks in windows are counted from the interactions' first day on."
)


def _recipe(dataset: Dataset, settings: RunSettings, tools: Tools, model: str | None) -> dict[str, Any]:
    return {"models": _models(settings), "template": hashlib.sha256(sheet.template()).hexdigest()}


def _models(settings: RunSettings) -> list[str]:
    return [m for m in settings.models if MODELS[m].trains or m == BASELINE]


def _find(question: str) -> Find:
    def find(dataset: Dataset, day: date, model: str | None, settings: RunSettings, lake: Lake) -> Sequence[Version]:
        found = []
        for name in _models(settings):
            for partition in lake.partitions(dataset.name, f"evaluation_{question}", name):
                made, _, split = partition.partition(".")
                inside = day - timedelta(days=WINDOW_DAYS) <= date.fromisoformat(made) < day
                if split == ROLLING.name and inside:
                    found.append(lake.require(Ref(dataset.name, f"evaluation_{question}", partition, name)))
        return found

    return find


def _compute(work: Work) -> Summary:
    from ml import drift as measures
    from ml import drift_page
    from ml.asof import AsOf, AsOfPaths

    asof = AsOf.open(
        AsOfPaths(
            dataset=work.dataset.name,
            features=work.one("article_features").file("features.parquet"),
            interactions=work.one("interactions").file("interactions.parquet"),
            popularity=work.one("popularity_tensor").file("popularity.safetensors"),
            content={},
            impressions=[],
            declared=work.dataset if work.dataset.declared else None,
        )
    )
    first = max(work.dataset.first_day, work.day - timedelta(days=WINDOW_DAYS))
    last = work.day - timedelta(days=1)
    result = measures.drift(asof, first, last)
    names = _category_names(work)
    found: dict[str, Any] = {
        "dataset": work.dataset.name,
        "first": str(first),
        "last": str(last),
        "convention": CONVENTION,
        "psi_convention": PSI.format(days=measures.REFERENCE_DAYS, sample=measures.SAMPLE),
        "days": result.days,
        "mix": [
            {**row, "category": names.get(row["category_id"], f"category {row['category_id']}")} for row in result.mix
        ],
        "features": result.features,
        "metrics": _metrics(work),
    }
    (work.out / "drift.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    badge = "simulated data" if work.dataset.synthetic else ""
    (work.out / "drift.html").write_text(drift_page.page(found, badge), encoding="utf-8")
    rows = {}
    for name in ("days", "mix", "features", "metrics"):
        if found[name]:
            rows[f"{name}.parquet"] = write_parquet(pa.Table.from_pylist(found[name]), work.out / f"{name}.parquet")
    newest = [r for r in result.features if r["day"] == str(last)]
    figures = {f"psi.{r['feature']}": r["psi"] for r in newest}
    today = result.days[-1] if result.days and result.days[-1]["day"] == str(last) else {}
    figures |= {k: float(v) for k, v in today.items() if isinstance(v, (int, float))}
    worst = max(newest, key=lambda r: r["psi"], default=None)
    return Summary(
        rows=rows,
        metrics=figures,
        metadata={"largest PSI": worst or "none"},
        labels=inview_label("; ".join(sorted({r[SYNTHETIC] for r in found["metrics"]} - {""}))),
        artifacts=["drift.json", "drift.html"],
    )


def _metrics(work: Work) -> list[dict[str, Any]]:
    """Figures of the evaluations that the lake holds, by test day and model."""
    rows = []
    for question in QUESTIONS:
        for version in work.inputs[f"evaluation_{question}"]:
            with reading(version.file("metrics.json")):
                rows += _shown(question, version)
    return rows


def _shown(question: str, version: Version) -> list[dict[str, Any]]:
    """The figures of one evaluation that are shown over the days."""
    rows = []
    metrics = read_metrics(version.file("metrics.json"))
    protocols, made = metrics["protocols"], metrics.get(SYNTHETIC, "")
    for asked, protocol, metric in SHOWN:
        entry = protocols.get(protocol, {}).get(metric) if asked == question else None
        if entry and entry["value"] is not None:
            named = {"day": version.ref.partition.split(".")[0], "model": version.ref.model}
            named |= {"question": question, "protocol": protocol, "metric": metric, SYNTHETIC: made}
            rows.append(named | {name: entry[name] for name in ("value", "low", "high", "n")})
    return rows


def _category_names(work: Work) -> dict[int, str]:
    wanted = schema.some(schema.ARTICLES, "category_id", "category")
    table = read_table(work.one("article_features").file("features.parquet"), wanted)
    pairs = zip(table["category_id"].to_pylist(), table["category"].to_pylist(), strict=True)
    return {-1: "unknown"} | {i: name for i, name in pairs if i is not None and name}


DRIFT = Stage(
    name="drift",
    group="evaluation",
    description="Popularity skew, category mix, catalogue turnover, PSI of features and metrics over the days.",
    needs=(
        Need("interactions", "interactions"),
        Need("article_features", "article_features"),
        Need("popularity_tensor", "popularity_tensor"),
        *(
            Kept(f"evaluation_{q}", f"evaluation_{q}", lambda _: (-WINDOW_DAYS, -1), model="every", find=_find(q))
            for q in QUESTIONS
        ),
    ),
    modules=("assets.drift", "ml.drift", "ml.drift_page"),
    recipe=_recipe,
    compute=_compute,
    kinds=("html", "parquet"),
)
