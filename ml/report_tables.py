"""The report's tables: which figure stands where, as text, for the page and for the terminal.

Belongs here: rows, columns, number formats, what is best. Does not belong here: the page (`ml.report`) and the figures'
computation (`ml.evaluate`). All of it follows from report.json.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml.stored import PROTOCOLS
from ml.synthetic import MARK, SYNTHETIC

LEAKING = ("popular_15_paper_window",)
"""Variants that see the running minute, as document 1 defines popularity: shown, but never the best."""

QUESTIONS = {
    "rq1": "RQ1: recommendation from the whole live catalogue",
    "rq2": "RQ2: ranking of what was in view",
    "rq3": "RQ3: beyond accuracy",
}
TITLES = {"rq2": "Impressions of the test span", "rq3": "Top-20 lists under protocol thesis"}
PROTOCOL_TITLES = {
    "thesis": "Protocol thesis: every next click, nothing excluded",
    "unread": "Protocol unread: targets and candidates that the reader has not read",
    "in_session": "Protocol in_session: next click inside a running session, not yet clicked in it",
}
LABELS = {
    "recall@5": "Recall@5",
    "recall@10": "Recall@10",
    "recall@20": "Recall@20",
    "recall@50": "Recall@50",
    "ndcg@5": "nDCG@5",
    "ndcg@10": "nDCG@10",
    "ndcg@20": "nDCG@20",
    "mrr@20": "MRR@20",
    "auc": "AUC",
    "mrr": "MRR (first click)",
    "mrr_mind": "MRR (MIND)",
    "share_of_signal": "Share of the oracle's signal",
    "ild": "Diversity (ILD)",
    "serendipity": "Serendipity",
    "novelty": "Novelty",
    "coverage": "Coverage",
}
COLUMNS = {
    "rq1": ("recall@20", "ndcg@20", "mrr@20", "recall@5", "recall@10", "recall@50"),
    "rq2": ("auc", "mrr", "mrr_mind", "ndcg@5", "ndcg@10", "share_of_signal"),
    "rq3": ("ild", "serendipity", "novelty", "coverage"),
}
TERMINAL_COLUMNS = {"rq1": ("recall@20", "ndcg@20"), "rq2": ("auc", "ndcg@10"), "rq3": COLUMNS["rq3"]}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure: texts of the value and its interval, of the paired difference and its interval; `verdict` up, down or
    even (interval holds 0) against the baseline, empty without a comparison; `source` says where it comes from."""

    value: str = ""
    interval: str = ""
    difference: str = ""
    bounds: str = ""
    verdict: str = ""
    best: bool = False
    source: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows (name, cells) under `columns`, and the published rows that stand beside them, `quoted_from` these tables.
    `label` stands beside the name of each row, but for the published ones."""

    rq: str
    title: str
    note: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]
    published: list[tuple[str, list[Cell]]]
    quoted_from: str
    label: str = ""


def text_table(report: Json, width: int = 120) -> str:
    """The main figures of a report for the terminal: value, interval, difference to the baseline (* excludes 0)."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, color_system=None, markup=False, highlight=False, emoji=False)
    console.print(f"{report['dataset']} as of {report['as_of']}, split {report['split']}")
    for note in report["notes"]:
        console.print(f"Note: {note}")
    for table in tables(report, TERMINAL_COLUMNS):
        console.print()
        console.print(f"{QUESTIONS[table.rq]}. {table.title}")
        console.print(_terminal_table(table))
    for metric, why in (pair for by_metric in left_out(report).values() for pair in by_metric.items()):
        console.print(f"\nLeft out: {LABELS.get(metric, metric)}: {why}.")
    console.print(
        f"\nΔ: paired difference to {report['baseline']}, * its 95 % interval excludes 0. "
        f"In brackets: {report['published']['label']}.",
    )
    return console.file.getvalue().rstrip("\n")  # type: ignore[attr-defined]


def _terminal_table(table: Table) -> Any:
    from rich.table import Table as RichTable

    shown = RichTable(box=None, pad_edge=False)
    shown.add_column("model", no_wrap=True)
    wide = len(table.columns) > 2
    for column in table.columns:
        shown.add_column(column, justify="right", no_wrap=True)
        shown.add_column("Δ", justify="right", no_wrap=True)
    labelled = [(f"{name}{table.label}", cells) for name, cells in table.rows]
    for name, cells in [*labelled, *((f"({name})", cells) for name, cells in table.published)]:
        values = [cell.value if wide else f"{cell.value} {cell.interval}".strip() for cell in cells]
        shown.add_row(name, *(text for pair in zip(values, map(_starred, cells), strict=True) for text in pair))
    return shown


def tables(report: Json, columns: Mapping[str, Sequence[str]] = COLUMNS) -> list[Table]:
    """All tables of a report, RQ1 by protocol first; a protocol or question without figures has none."""
    found = [_table(report, "rq1", protocol, columns["rq1"]) for protocol in PROTOCOLS]
    found += [_table(report, rq, None, columns[rq]) for rq in ("rq2", "rq3")]
    return [table for table in found if table.columns]


def left_out(report: Json) -> dict[str, dict[str, str]]:
    """By question the metrics that no model has, with the reason; the same for all models."""
    said: Json = next((entry["left_out"] for entry in report["models"].values() if "left_out" in entry), {})
    by_question = {rq: {m: why for m, why in said.items() if m in COLUMNS[rq]} for rq in ("rq1", "rq2")}
    others = {m: why for m, why in said.items() if not any(m in found for found in by_question.values())}
    return by_question | {"rq3": others}


def _values(report: Json, model: str, rq: str, protocol: str | None, part: str = "") -> Json:
    """Metrics of one model; of its paired differences with `part="paired"`."""
    entry = report["models"][model]
    found = (entry[part] if part else entry).get(rq, {})
    return found.get(protocol, {}) if protocol else found


def _table(report: Json, rq: str, protocol: str | None, wanted: Sequence[str]) -> Table:
    values = {name: _values(report, name, rq, protocol) for name in report["models"]}
    values = {name: found for name, found in values.items() if found}
    metrics = [m for m in wanted if any(m in found for found in values.values())]
    best = {m: _best(rq, {name: f[m]["value"] for name, f in values.items() if m in f}) for m in metrics}
    rows = []
    for name, found in values.items():
        paired = _values(report, name, rq, protocol, "paired")
        source = f"{name}, evaluation_{rq}, manifest {report['models'][name]['manifest'].get(rq, 'unknown')}"
        rows.append((name, [_cell(m, found.get(m), paired.get(m), name in best[m], source) for m in metrics]))
    title = PROTOCOL_TITLES[protocol] if protocol else TITLES[rq]
    quoted = _published_rows(report, rq, protocol, metrics)
    label = ""
    if rq == "rq2" and report.get(SYNTHETIC):
        title, label = f"Lists that nobody was shown, {report[SYNTHETIC]}", MARK
    return Table(rq, title, _counts(report, values, rq, protocol), [LABELS[m] for m in metrics], rows, *quoted, label)


def _best(rq: str, values: dict[str, float | None]) -> set[str]:
    """The models with the highest value, the leaking ones aside. None for RQ3, where random lists come out on top."""
    fair = {name: value for name, value in values.items() if value is not None and name not in LEAKING}
    return {name for name, value in fair.items() if value == max(fair.values())} if rq != "rq3" else set()


def _cell(metric: str, entry: Json | None, paired: Json | None, best: bool, source: str) -> Cell:
    if entry is None or entry["value"] is None:
        return Cell("–", source="no value")
    value, interval = _number(metric, entry["value"]), _bounds(metric, entry)
    if paired is None or paired["difference"] is None:
        return Cell(value, interval, best=best, source=source)
    low, high = paired["low"], paired["high"]
    verdict = "even" if low is None or low <= 0 <= high else ("up" if low > 0 else "down")
    difference = _number(metric, paired["difference"], "+")
    return Cell(value, interval, difference, _bounds(metric, paired, "+"), verdict, best, source)


def figure_cell(metric: str, entry: Json | None, source: str) -> Cell:
    """A figure with its interval, compared with nothing; a dash where there is none."""
    return _cell(metric, entry, None, False, source)


def _bounds(metric: str, entry: Json, sign: str = "") -> str:
    if entry["low"] is None:
        return ""
    return f"[{_number(metric, entry['low'], sign)}, {_number(metric, entry['high'], sign)}]"


def _number(metric: str, value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if metric == "novelty" else f"{value:{sign}.4f}"


def _starred(cell: Cell) -> str:
    """The paired difference without its interval, marked where that excludes 0."""
    return cell.difference + ("*" if cell.verdict in ("up", "down") else "")


def _counts(report: Json, values: Json, rq: str, protocol: str | None) -> str:
    """What the table rests on, as the first model that has figures counts it."""
    name = next(iter(values), None)
    counts = report["models"][name]["counts"].get(rq, {}) if name else {}
    counts = counts.get(protocol, {}) if protocol else counts
    words = {
        "lists": "impressions" if rq == "rq2" else "test cases",
        "readers": "readers",
        "unavailable_targets": "targets not yet available (misses)",
        "without_click": "without a click (left out)",
        "all_clicked": "with every article clicked (no AUC)",
    }
    return ", ".join(f"{n:,} {words[key]}" for key, n in counts.items() if n or key in ("lists", "readers"))


def _published_rows(
    report: Json, rq: str, protocol: str | None, metrics: Sequence[str]
) -> tuple[list[tuple[str, list[Cell]]], str]:
    """Rows of published figures under the same columns, and the tables that they stand in."""
    quoted = [
        figure
        for figure in report["published"]["figures"]
        if figure["rq"] == rq and protocol in (None, figure["protocol"]) and figure["metric"] in metrics
    ]
    rows = []
    for model in dict.fromkeys(figure["model"] for figure in quoted):
        by_metric = {figure["metric"]: figure for figure in quoted if figure["model"] == model}
        rows.append((model, [_published_cell(by_metric.get(m), report["published"]["source"]) for m in metrics]))
    return rows, ", ".join(sorted({figure["table"] for figure in quoted}))


def _published_cell(figure: Json | None, source: str) -> Cell:
    if figure is None:
        return Cell()
    return Cell(_number(figure["metric"], figure["value"]), source=f"{source}, {figure['table']}")
