"""The page of drift: figures and tables by day.

Belongs here: what stands on it. Does not belong here: layout (`ml.sheet`), measures (`ml.drift`).
"""

from typing import Any

import numpy as np

from ml.figures import Panel, panels
from ml.report_tables import LABELS
from ml.sheet import Section, estimate, sheet
from ml.synthetic import SYNTHETIC, marked

Json = dict[str, Any]
SKEW = ("gini", "top_5_share")
TURNOVER = (
    "articles_new_since_yesterday", "clicks_on_articles_not_clicked_yesterday", "clicks_on_articles_of_the_day",
    "jaccard_with_yesterday",
)  # fmt: skip
DRAWN = 6


def page(found: Json, badge: str = "") -> str:
    """HTML of `drift.json`."""
    lead = f"Days {found['first']} to {found['last']}. {found['convention']}"
    sections = [_days(found), _psi(found), _mix(found), *_metrics(found)]
    return sheet(f"{found['dataset']}: drift up to {found['last']}", lead, sections, badge)


def _days(found: Json) -> Section:
    rows = [[_text(v) for v in day.values()] for day in found["days"]]
    columns = [name.replace("_", " ") for name in (found["days"][0] if found["days"] else {})]
    names = [("Popularity skew", SKEW), ("Catalogue turnover", TURNOVER)]
    drawn = [_panel(title, {n: [(d["day"], d[n]) for d in found["days"]] for n in wanted}) for title, wanted in names]
    return Section("Popularity skew and catalogue turnover", "", _draw("days", drawn), columns, rows)


def _psi(found: Json) -> Section:
    names = list(dict.fromkeys(row["feature"] for row in found["features"]))
    days = list(dict.fromkeys(row["day"] for row in found["features"]))
    value = {(row["feature"], row["day"]): row["psi"] for row in found["features"]}
    worst = sorted(names, key=lambda n: -max(value.get((n, d), 0.0) for d in days))
    lines = {n: [(d, value[n, d]) for d in days if (n, d) in value] for n in worst[:DRAWN]}
    rows = [[n, *(_text(value.get((n, d))) for d in days)] for n in worst]
    title = f"Population stability index of the features (the {DRAWN} that moved most are drawn)"
    return Section(title, found["psi_convention"], _draw("psi", [_panel("PSI", lines)]), ["feature", *days], rows)


def _mix(found: Json) -> Section:
    share = {(row["category"], row["day"]): row["share"] for row in found["mix"]}
    days = list(dict.fromkeys(row["day"] for row in found["mix"]))
    names = sorted({n for n, _ in share}, key=lambda n: -sum(share.get((n, d), 0.0) for d in days))
    lines = {n: [(d, share.get((n, d), 0.0)) for d in days] for n in names[:DRAWN]}
    rows = [[n, *(_text(share.get((n, d))) for d in days)] for n in names]
    return Section("Category mix of the clicks", "", _draw("mix", [_panel("share", lines)]), ["category", *days], rows)


def _metrics(found: Json) -> list[Section]:
    """A table and a drawing a metric: models by test day."""
    sections = []
    for metric in dict.fromkeys((r["question"], r["protocol"], r["metric"]) for r in found["metrics"]):
        rows = [r for r in found["metrics"] if (r["question"], r["protocol"], r["metric"]) == metric]
        made = next((r[SYNTHETIC] for r in rows if r[SYNTHETIC]), "")
        title = marked(f"{metric[0].upper()} {LABELS[metric[2]]}, {metric[1]}", made)
        lines = {
            model: [(r["day"], r["value"]) for r in rows if r["model"] == model]
            for model in dict.fromkeys(r["model"] for r in rows)
        }
        drawing = _draw("-".join(metric), [_panel("", lines)])
        table = [[r["day"], r["model"], estimate(r)] for r in rows]
        sections.append(Section(title, "", drawing, ["test day", "model", "value"], table))
    return sections


def _panel(title: str, lines: dict[str, list[tuple[str, float | None]]]) -> Panel | None:
    known = {name: [(d, v) for d, v in points if v is not None] for name, points in lines.items()}
    known = {name: points for name, points in known.items() if points}
    days = sorted({d for points in known.values() for d, _ in points})
    if len(days) < 2:
        return None
    place = {d: i for i, d in enumerate(days)}
    drawn = {
        name: (np.array([place[d] for d, _ in points], dtype=float), np.array([v for _, v in points]))
        for name, points in known.items()
    }
    step = max(1, len(days) // 6)
    return Panel(title, "", "", drawn, ticks={float(i): d[5:] for i, d in enumerate(days) if i % step == 0})


def _draw(name: str, shown: list[Panel | None]) -> str:
    drawn = [panel for panel in shown if panel is not None]
    return panels(name, drawn, width=5.2) if drawn else ""


def _text(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
