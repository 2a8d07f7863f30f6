"""Tables of figures by segment, for the report's page and for the terminal.

Belongs here: which figures stand in which table. Does not belong here: segments and intervals (`ml.segments`), the page
(`ml.report`). All of it follows from report.json.
"""

import io
from collections.abc import Sequence
from typing import Any

from ml.errors import UsageError
from ml.report_tables import LABELS, Cell, Table, figure_cell
from ml.segments import DIMENSIONS, TITLES
from ml.synthetic import SYNTHETIC, marked

COLUMNS = (
    ("rq1", "thesis", "recall@20"), ("rq1", "in_session", "recall@20"), ("rq1", "thesis", "ndcg@20"),
    ("rq2", "", "auc"), ("rq2", "", "ndcg@10"),
    ("rq3", "", "ild"), ("rq3", "", "serendipity"), ("rq3", "", "novelty"), ("rq3", "", "coverage"),
)  # fmt: skip
"""The figures shown; report.json has all."""
TERMINAL_COLUMNS = tuple(COLUMNS[i] for i in (0, 1, 3, 8))
Json = dict[str, Any]


def segment_tables(
    report: Json, models: Sequence[str], columns: Sequence[tuple[str, str, str]] = COLUMNS
) -> list[Table]:
    """One table a dimension, a row for each segment and each of `models` that was measured."""
    found = _measured(report, models)
    tables = [_table(report, found, dimension, columns) for dimension in DIMENSIONS]
    return [table for table in tables if table.rows]


def segment_text(report: Json, dimension: str, width: int = 160) -> str:
    """One dimension's table of all models of the report, for the terminal. Raises UsageError for an unknown one."""
    from rich.console import Console
    from rich.table import Table as RichTable

    if dimension not in DIMENSIONS:
        raise UsageError(f"no segments {dimension!r}: choose from {', '.join(DIMENSIONS)}")
    found = _table(report, _measured(report, list(report["models"])), dimension, TERMINAL_COLUMNS)
    if not found.rows:
        reasons = [e.get("segments_left_out", {}) for e in report["models"].values()]
        why = next((r[dimension] for by_rq in reasons for r in by_rq.values() if dimension in r), "not measured")
        return f"{found.title}: left out, {why}"
    console = Console(file=io.StringIO(), width=width, color_system=None, markup=False, highlight=False, emoji=False)
    shown = RichTable(box=None, pad_edge=False)
    for column in (found.title, *found.columns):
        shown.add_column(column, no_wrap=True)
    for name, cells in found.rows:
        shown.add_row(name, *(f"{cell.value} {cell.interval}".strip() for cell in cells))
    console.print(shown)
    return console.file.getvalue().rstrip("\n")  # type: ignore[attr-defined]


def _measured(report: Json, models: Sequence[str]) -> Json:
    return {m: report["models"][m]["segments"] for m in models if "segments" in report["models"][m]}


def _table(report: Json, found: Json, dimension: str, wanted: Sequence[tuple[str, str, str]]) -> Table:
    by_column = {
        column: {m: _by_segment(figures, column, dimension) for m, figures in found.items()} for column in wanted
    }
    columns = {c: by_model for c, by_model in by_column.items() if any(by_model.values())}
    segments = list(dict.fromkeys(s for by_model in columns.values() for by in by_model.values() for s in by))
    rows = []
    for segment in segments:
        counts = {
            c[0]: by_model[m][segment] for c, by_model in columns.items() for m in by_model if segment in by_model[m]
        }
        if not any(entry["lists"] for entry in counts.values()):
            rows.append((f"{segment}: no test list", [Cell() for _ in columns]))
            continue
        lists = next(entry for entry in counts.values() if entry["lists"])
        for model in found:
            name = f"{segment} ({lists['lists']:,} lists, {lists['readers']:,} readers), {model}"
            digest = report["models"][model]["manifest"].get("segments", "unknown")
            source = f"{model}, evaluation_segments, manifest {digest}"
            entries = [(c, columns[c][model].get(segment, {}).get(c[2])) for c in columns]
            rows.append((name, [figure_cell(c[2], e, source) for c, e in entries]))
    made = {"rq2": report.get(SYNTHETIC)}
    titles = [
        marked(f"{LABELS[metric]}{f', {protocol}' if protocol else ''}", made.get(rq))
        for rq, protocol, metric in columns
    ]
    return Table(
        "segments",
        TITLES[dimension],
        report["conventions"].get("segments", {}).get(dimension, ""),
        titles,
        rows,
        [],
        "",
    )


def _by_segment(figures: Json, column: tuple[str, str, str], dimension: str) -> Json:
    question, protocol, _ = column
    place = figures.get(question, {})
    return (place.get(protocol, {}) if protocol else place).get(dimension, {})
