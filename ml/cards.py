"""Data card and model card of a report: what was used, under which terms, what it is good for, and where it errs.

Belongs here: the text of both cards. Does not belong here: the figures (`ml.report`) and finding the inputs
(`assets.report`).
"""

from collections.abc import Mapping
from typing import Any

from ml.datasets import Dataset
from ml.synthetic import SYNTHETIC, marked

LICENCES = {
    "simulated": "made by the simulator of this repository; no person's data (Apache-2.0, like the code)",
    "ebnerd": "EB-NeRD, under the terms of its publisher; it is not redistributed here, read the terms before any use",
    "globo": "academic and research use, no redistribution; cite Moreira et al. 2018, doi 10.1145/3270323.3270328",
    "mind": "MIND, research use only, no redistribution; read the terms of its publisher before any use",
}
EVERY_LOG = (
    "Exposure: readers click what was placed before them; what was never shown has no clicks, whatever its worth.",
    "Popularity: a few articles take most clicks, and metrics over clicks reward models that repeat them.",
    "Readers who return often weigh more than those who come once; intervals resample readers, not clicks.",
)
BIASES = {
    "simulated": (
        "Readers follow the simulator's rules: wins are plumbing checks and distances to its oracle, not claims.",
        "Article texts are generated and poorer than real ones.",
    ),
    "ebnerd": (
        "One Danish tabloid in one season; the behaviour weeks alone have impressions, histories reach further back.",
        "Texts are those of the last modification in the bundle, also for readers who came earlier.",
    ),
    "globo": (
        "Clicks only: no impressions, no text; an article's first click stands in for its publication.",
        "The last click of most sessions carries an invented time, exactly 30 s after the click before it.",
        "Article ids are sorted by category; the published creation time is no publication time and is not used.",
    ),
    "mind": (
        "Histories have no times, so they are no clicks here; no publication time: the first appearance stands in.",
        "Articles without a row in the news file have no text, so no claim about a text model where many lack one.",
    ),
}
USES = {
    "snert": "lists for readers with few clicks over the catalogue of the moment; two-tower transformer (document 1)",
    "random": "floor of every metric",
    "cooccurrence": "neighbours of the last click, from sessions alone",
}
Json = Mapping[str, Any]


def data_card(
    dataset: Dataset,
    as_of: str,
    rows: Mapping[str, Mapping[str, int]],
    held_back: int,
    sources: Mapping[str, str],
    made: str = "",
) -> str:
    """Markdown. `rows`: by canonical table the rows of each day that the report reaches; `held_back` rows in
    quarantine; `sources`: sha256 by source file; `made`: how in-view lists were made that nobody was shown."""
    days = sorted({day for table in rows.values() for day in table})
    span = f"{days[0]} to {days[-1]} ({len(days)} days)" if days else "none"
    names = {name: marked(name, made if name == "impressions" else "") for name in sorted(rows)}
    counts = [f"| {shown} | {sum(rows[name].values()):,} | {len(rows[name])} |" for name, shown in names.items()]
    biases = [*BIASES.get(dataset.name, ()), *EVERY_LOG]
    lines = [
        f"# Data card: {dataset.name}, as of {as_of}",
        "",
        f"- Kind: {'simulated log' if dataset.synthetic else 'click log of a newspaper'}; ids are pseudonyms",
        f"- Licence: {LICENCES.get(dataset.name, 'not known: ask whoever gave the log')}",
        f"- Span that this report reaches: {span}; days start at {dataset.clock.offset_hours:02}:00 UTC",
        f"- Impressions: {'yes' if dataset.has_impressions else made or 'no'}; "
        f"texts: {'yes' if dataset.has_text else 'no'}",
        f"- Rows kept out, with their reason, in quarantine tables: {held_back:,}",
        "",
        "| table | rows | days |",
        "|---|---|---|",
        *counts,
        "",
        "## Known biases",
        "",
        *(f"- {bias}" for bias in biases),
        *([f"- {dataset.note}"] if dataset.note and dataset.note not in biases else []),
        "",
        "## Source files",
        "",
        "| file | sha256 |",
        "|---|---|",
        *(f"| {name} | {digest} |" for name, digest in sorted(sources.items())),
    ]
    return "\n".join(lines) + "\n"


def model_card(report: Json, checkpoints: Mapping[str, Json]) -> str:
    """Markdown, one section a model. `report` as in report.json; `checkpoints`: by model its `recipe`, `seed`,
    `targets` (rows trained and validated on) and `manifest`."""
    lines = [f"# Model card: {report['dataset']}, as of {report['as_of']}, split {report['split']}", ""]
    lines += [f"> {note}\n" for note in report["notes"]]
    for name, entry in report["models"].items():
        lines += [f"## {name}", "", f"- Use: {_use(name)}", *_trained(checkpoints.get(name)), *_figures(entry), ""]
    lines += [
        "## Limits",
        "",
        f"- Measured on one test span as of {report['as_of']}; the age of model and articles moves every figure.",
        "- Nothing is known of readers who left, or of articles that nobody was shown.",
        "- A list by clicks says nothing of the truth or the worth of an article; RQ3 measures only what it names.",
    ]
    return "\n".join(lines) + "\n"


def _use(name: str) -> str:
    if name.startswith("popular"):
        paper = "; counts the current minute and with it the target, beside ours by name" if "paper" in name else ""
        return f"baseline: what most readers clicked in the last minutes{paper}"
    return USES.get(name, USES.get(name.split("_")[0], "see the registry of models"))


def _trained(checkpoint: Json | None) -> list[str]:
    if checkpoint is None:
        return ["- Training: none, it counts"]
    recipe = checkpoint["recipe"]
    facts = ", ".join(f"{k} {recipe[k]}" for k in ("dim", "layers", "heads", "negatives", "temperature") if k in recipe)
    return [
        f"- Training: recipe {recipe.get('name')} ({facts}), seed {checkpoint['seed']}, "
        f"{checkpoint['targets']:,} targets before the as-of day",
        f"- Checkpoint: manifest {checkpoint['manifest']}",
    ]


def _figures(entry: Json) -> list[str]:
    """The headline figures of each question that the model has."""
    rq1 = entry.get("rq1", {}).get("thesis", {}).get("recall@20")
    places = {
        "RQ1 Recall@20 (thesis)": rq1,
        marked("RQ2 AUC", entry.get(SYNTHETIC)): entry.get("rq2", {}).get("auc"),
        "RQ3 coverage": entry.get("rq3", {}).get("coverage"),
    }
    return [
        f"- {title}: {found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
        for title, found in places.items()
        if found and None not in (found.get("value"), found.get("low"), found.get("high"))
    ]
