"""Decay: how a checkpoint does 1 to k days after it was made, beside the model retrained for each of these days.

Belongs here: rows of evaluations by age, paired differences, the page. Does not belong here: evaluating (`ml.evaluate`)
and which evaluations there are (`assets.decay`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from ml import schema
from ml.bootstrap import paired_means
from ml.figures import Panel, panels
from ml.report_tables import LABELS
from ml.segments import per_case_of
from ml.sheet import Section, estimate, sheet
from ml.synthetic import marked

SHOWN = (
    ("rq1", "thesis", "recall@20"), ("rq1", "thesis", "ndcg@20"), ("rq1", "in_session", "recall@20"),
    ("rq2", "in_view", "auc"), ("rq3", "thesis", "novelty"), ("rq3", "thesis", "coverage"),
)  # fmt: skip
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AtAge:
    """One day's evaluations by question: `metrics` (content of metrics.json) and the file of per-case values."""

    metrics: Mapping[str, Json]
    per_case: Mapping[str, Path]


def decay(day: date, old: Mapping[int, AtAge], new: Mapping[int, AtAge]) -> list[Json]:
    """Rows by age in days (0: its own day) and metric: the old checkpoint's entry `value`, `low`, `high`; `retrained`,
    the entry of the model made for that very day where it exists; `difference`, retrained less old on the same lists
    (null where they are not the same, and for coverage, which is no mean over lists); and `synthetic_inview`, how the
    lists were made where nobody was shown them."""
    rows = []
    for age in sorted(old):
        for question, protocol, metric in SHOWN:
            entry = _entry(old[age], question, protocol, metric)
            if entry is None:
                continue
            theirs = _entry(new[age], question, protocol, metric) if age in new and age > 0 else None
            difference = _paired(old[age], new[age], question, protocol, metric) if theirs is not None else None
            named = {"age": age, "day": str(day), "question": question, "protocol": protocol, "metric": metric}
            named[schema.SYNTHETIC] = old[age].metrics[question].get(schema.SYNTHETIC, "")
            kept = {name: entry[name] for name in ("value", "low", "high", "n")}
            rows.append(named | kept | {"retrained": theirs, "difference": difference})
    return rows


def _entry(tested: AtAge, question: str, protocol: str, metric: str) -> Json | None:
    entry = tested.metrics.get(question, {}).get("protocols", {}).get(protocol, {}).get(metric)
    return entry if entry and entry["value"] is not None else None


def _paired(old: AtAge, new: AtAge, question: str, protocol: str, metric: str) -> Json | None:
    if metric == "coverage":
        return None
    wanted = protocol if question == "rq1" else ""
    keys, ours = per_case_of(old.per_case[question], question, wanted)
    other, theirs = per_case_of(new.per_case[question], question, wanted)
    if any(not np.array_equal(keys[name], other[name]) for name in keys):
        return None
    interval = paired_means(theirs[metric][:, None], ours[metric][:, None], keys[schema.USER_ID])[0].to_json()
    return {"difference": interval.pop("value")} | interval


def page(found: Json, badge: str = "") -> str:
    """HTML of `decay.json`."""
    tested = sorted({row["age"] for row in found["rows"]})
    lead = (
        f"The checkpoint of {found['model']} as of {found['as_of']}, never trained again, tested on its own day and up "
        f"to {max(tested, default=0)} days later. Beside it the model retrained for each day, where the lake has one."
    )
    sections = []
    for wanted in SHOWN:
        rows = [r for r in found["rows"] if (r["question"], r["protocol"], r["metric"]) == wanted]
        if rows:
            sections.append(_section(wanted, rows))
    if found["missing"]:
        sections.append(Section("Not tested", "", "", ["day", "why"], found["missing"]))
    return sheet(f"{found['dataset']}: decay of {found['model']} as of {found['as_of']}", lead, sections, badge)


def _section(wanted: tuple[str, str, str], rows: Sequence[Json]) -> Section:
    lines = {"same checkpoint": _line(rows, None)}
    if any(r["retrained"] for r in rows):
        lines["retrained"] = _line([r for r in rows if r["retrained"]], "retrained")
    title = marked(f"{wanted[0].upper()} {LABELS[wanted[2]]}, {wanted[1]}", rows[0][schema.SYNTHETIC])
    panel = Panel("", "days after the as-of day", "", lines, ticks={float(r["age"]): str(r["age"]) for r in rows})
    table = [
        [str(r["age"]), estimate(r), estimate(r["retrained"]), estimate(r["difference"], "difference"), f"{r['n']:,}"]
        for r in rows
    ]
    columns = ["age in days", "same checkpoint", "retrained", "retrained less same", "lists"]
    drawing = panels("-".join(wanted), [panel], width=5.6) if len(rows) > 1 else ""
    return Section(title, "", drawing, columns, table)


def _line(rows: Sequence[Json], key: str | None) -> tuple[np.ndarray, np.ndarray]:
    values = [(r[key] if key else r)["value"] for r in rows]
    return np.array([r["age"] for r in rows], dtype=float), np.array(values, dtype=float)
