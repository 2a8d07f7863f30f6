"""An analysis as one self-contained page and as a table for the terminal.

Belongs here: layout and number formats. Does not belong here: numbers (`ml.analysis.measure`) and figures
(`ml.analysis.drawings`).
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import pyarrow as pa

from ml import published
from ml.analysis.drawings import drawings
from ml.analysis.measure import Analysis
from ml.harmless import without_controls

Json = dict[str, Any]
SHOWN_ROWS = 50
SHOWN_TABLES = ("lifespans_by_category", "categories", "days", "clicks_per_reader")
"""Tables short enough to stand on the page; a longer one is cut, and all of them lie beside it as files."""


def template() -> bytes:
    """The bytes of the page's template."""
    return resources.files("ml").joinpath("analysis/page.html.j2").read_bytes()


def render(found: Analysis) -> str:
    """The page. The same analysis gives the same bytes; nothing is loaded from elsewhere."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = environment.from_string(template().decode()).render(
        report=found.report,
        measures=[row(entry) for entry in found.report["measures"].values()],
        drawings=drawings(found),
        tables={name: _cells(found.tables[name]) for name in SHOWN_TABLES if name in found.tables},
        sizes={name: len(table) for name, table in found.tables.items()},
        published_categories=published.CATEGORIES if "categories" in found.tables else {},
    )
    return without_controls(html)


def row(entry: Mapping[str, Any]) -> dict[str, str]:
    """The texts of one measure: label, value, basis, and the published value with its place."""
    quoted = "; ".join(f"{number(p['value'], entry['unit'])} ({p['where']})" for p in entry["published"])
    return {"label": entry["label"], "value": number(entry["value"], entry["unit"]), "basis": entry["basis"]} | {
        "published": quoted
    }


def number(value: float | None, unit: str) -> str:
    """A value with its unit: shares as fractions, counts without decimals unless they are small.

    >>> number(0.918, "share"), number(5.3, "hours"), number(12345.0, "count"), number(None, "hours")
    ('0.918', '5.30 h', '12,345', '–')
    """
    if value is None:
        return "–"
    if unit == "hours":
        return f"{value:,.2f} h"
    if unit == "minutes":
        return f"{value:,.0f} min"
    if unit == "count":
        return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"
    return f"{value:,.4f}".rstrip("0").ljust(5, "0")


def _cells(table: pa.Table) -> dict[str, Any]:
    rows = [[_cell(value) for value in values.values()] for values in table.slice(0, SHOWN_ROWS).to_pylist()]
    return {"columns": [name.replace("_", " ") for name in table.column_names], "rows": rows, "of": len(table)}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1 else f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "–" if value is None else str(value)


def text_table(reports: Sequence[Json]) -> str:
    """The measures of one or more spans of a dataset for the terminal, one column a span, the published value last."""
    names = list(dict.fromkeys(name for report in reports for name in report["measures"]))
    head = ["", *(_span(report) for report in reports), "published"]
    lines = [head]
    for name in names:
        entries = [report["measures"].get(name) for report in reports]
        first = next(entry for entry in entries if entry)
        values = [number(entry["value"], entry["unit"]) if entry else "–" for entry in entries]
        lines.append([first["label"], *values, row(first)["published"]])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head) - 1)]
    texts = [
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:-1], widths[1:], strict=True)), line[-1]]
        )
        for line in lines
    ]
    notes = [f"Note: {note}" for note in dict.fromkeys(note for report in reports for note in report["notes"])]
    missing = {name: why for report in reports for name, why in report["left_out"].items()}
    absent = [f"Left out: {name}: {why}" for name, why in missing.items()]
    label = f"Published: {reports[0]['published']['label']}"
    return "\n".join(line.rstrip() for line in [f"{reports[0]['dataset']}", *texts, label, *notes, *absent])


def _span(report: Json) -> str:
    return f"{report['span']['first_day']}..{report['span']['last_day']}"
