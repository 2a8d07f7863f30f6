"""`dataset_analysis`: what the log looks like over a span of days.

Belongs here: gathering the daily tables of the span and writing what was measured. Does not belong here: measuring
(`ml.analysis.measure`) and the page's layout (`ml.analysis.page`).
"""

import hashlib
import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets import plots
from assets.stage import Need, SpanNeed, Stage, Summary, Work, inview_label
from ml.datasets import Dataset
from ml.synthetic import SYNTHETIC
from resources.bindings import RunSettings, Tools
from resources.lake import write_parquet

if TYPE_CHECKING:
    from ml.analysis.measure import Analysis

TABLES = ("articles", "clicks", "impressions")


def _recipe(dataset: Dataset, settings: RunSettings, tools: Tools, model: str | None) -> dict[str, Any]:
    from ml.analysis import page

    return {"span": settings.span, "template": hashlib.sha256(page.template()).hexdigest()}


def _compute(work: Work) -> Summary:
    import pyarrow.csv

    from ml.analysis import page
    from ml.analysis.log import SpanFiles
    from ml.analysis.measure import analyse
    from ml.harmless import for_spreadsheets

    found = analyse(SpanFiles(work.dataset, **{name: _by_day(work, name) for name in TABLES}), work.progress)
    (work.out / "analysis.json").write_text(json.dumps(found.report, indent=1, allow_nan=False) + "\n")
    (work.out / "analysis.html").write_text(page.render(found))
    rows = {}
    for name, table in found.tables.items():
        path = work.out / "tables" / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        rows[path.relative_to(work.out).as_posix()] = write_parquet(table, path)
        pyarrow.csv.write_csv(for_spreadsheets(table), path.with_suffix(".csv"))
    measures = {name: entry["value"] for name, entry in found.report["measures"].items()}
    return Summary(
        rows=rows,
        metrics={name: float(value) for name, value in measures.items() if value is not None},
        metadata={"span": found.report["span"], "left_out": found.report["left_out"]},
        labels=inview_label(found.report[SYNTHETIC]),
        plots=_plots(found),
        artifacts=["analysis.json", "analysis.html"],
    )


def _by_day(work: Work, name: str) -> dict[date, Path]:
    return {date.fromisoformat(v.ref.partition): v.file(f"{name}.parquet") for v in work.inputs[name]}


def _plots(found: "Analysis") -> dict[str, bytes]:
    """Small pictures of Fig. 3.1 and 3.2 and of the days, for the asset's page."""
    tables = {name: table.to_pydict() for name, table in found.tables.items()}
    drawn = {}
    if "lorenz" in tables:
        at, mean, sigma = (tables["lorenz"][c] for c in ("articles", "clicks", "sigma"))
        drawn["lorenz"] = plots.line(at, mean, "share of articles", "share of clicks", sigma)
    if "lifecycle" in tables:
        at, mean = (tables["lifecycle"][c] for c in ("age_minutes", "popularity"))
        drawn["lifecycle"] = plots.line([minutes / 60 for minutes in at], mean, "hours", "relative popularity")
    days = tables["days"]
    drawn["clicks_by_day"] = plots.line(days["day"], days["clicks"], "", "clicks a day")
    return drawn


DATASET_ANALYSIS = Stage(
    name="dataset_analysis",
    group="analysis",
    description="Lifecycles, inequality of clicks, categories, growth, readers and freshness over a span of days.",
    needs=(
        Need("articles", "articles", lambda _: (None, -1)),
        SpanNeed("clicks", "clicks"),
        SpanNeed("impressions", "impressions"),
    ),
    modules=("assets.analysis", "ml.analysis"),
    recipe=_recipe,
    compute=_compute,
    by_split="span",
    kinds=("parquet", "html"),
)
