"""The page of a promotion decision: criteria, champion against challenger, by segment.

Belongs here: what stands on it. Does not belong here: layout (`ml.sheet`), the rule (`ml.promotion`), measuring
(`ml.duel`). All of it follows from decision.json.
"""

from typing import Any

from ml.report_tables import LABELS
from ml.segments import TITLES
from ml.sheet import Section, estimate, sheet
from ml.synthetic import SYNTHETIC, marked

Json = dict[str, Any]
SHOWN = (
    ("rq1", "thesis", ("recall@20", "ndcg@20")), ("rq1", "in_session", ("recall@20",)),
    ("rq2", "in_view", ("auc", "ndcg@10")), ("rq3", "thesis", ("ild", "serendipity", "novelty", "coverage")),
)  # fmt: skip


def page(decision: Json, badge: str = "") -> str:
    """HTML of `decision.json`."""
    champion = decision["champion"]
    against = f"against the champion {champion['ref']}" if champion else "with no champion to meet"
    verdict = "becomes champion" if decision["promote"] else "is refused"
    lead = f"{decision['challenger']['ref']} {verdict}, {against}: {decision['why']}."
    sections = [_criteria(decision), _figures(decision), *_segments(decision), _origin(decision)]
    title = f"{decision['dataset']}: promotion of {decision['model']} as of {decision['as_of']}"
    return sheet(title, lead, sections, badge)


def _criteria(decision: Json) -> Section:
    words = {True: "+ holds", False: "! fails", None: "does not apply"}
    rows = [[c["name"], words[c["passed"]], c["measured"], c["required"]] for c in decision["criteria"]]
    note = "Differences are challenger less champion on the same lists, with 95 % intervals over readers."
    return Section("Criteria", note, "", ["criterion", "", "measured", "required"], rows)


def _figures(decision: Json) -> Section:
    rows = []
    made = _made(decision)
    for rq, protocol, metrics in SHOWN:
        sides = {
            side: decision["figures"][rq].get(side, {}).get(protocol, {})
            for side in ("challenger", "champion", "paired")
        }
        for metric in metrics:
            if metric in sides["challenger"]:
                shown = [estimate(sides[side].get(metric)) for side in ("challenger", "champion")]
                difference = _marked(sides["paired"].get(metric))
                rows.append([marked(f"{rq.upper()} {LABELS[metric]}", made.get(rq)), protocol, *shown, difference])
    for tower, ours in decision["erank"]["challenger"].items():
        theirs = decision["erank"].get("champion", {}).get(tower)
        shown = [f"{ours:.3f}", f"{theirs:.3f}" if theirs is not None else "–"]
        rows.append([f"relative effective rank, {tower}", "", *shown, ""])
    latency = [decision["latency"].get(side, {}) for side in ("challenger", "champion")]
    for name in ("median", "p95"):
        rows.append(
            [f"latency, {name}", "", *(f"{e[name]:.1f} ms" if e.get(name) is not None else "–" for e in latency), ""]
        )
    columns = ["figure", "protocol", "challenger", "champion", "difference"]
    return Section("Champion against challenger", "", "", columns, rows)


def _segments(decision: Json) -> list[Section]:
    """One folded table a dimension: paired differences by segment."""
    metrics = {"rq1": "recall@20", "rq2": "auc", "rq3": "novelty"}
    found = {rq: by for rq, by in decision["segments"].items() if by}
    sections = []
    for dimension, title in TITLES.items():
        names = list(dict.fromkeys(s for by in found.values() for s in by.get(dimension, {})))
        if not names:
            continue
        rows = []
        for name in names:
            entries = {rq: by.get(dimension, {}).get(name, {}) for rq, by in found.items()}
            counts = next((e for e in entries.values() if e.get("lists")), {"lists": 0, "readers": 0})
            size = f"{counts['lists']:,} lists of {counts['readers']:,} readers" if counts["lists"] else "empty"
            rows.append([name, size, *(_marked(entries[rq].get(metrics[rq])) for rq in found)])
        made = _made(decision)
        columns = ["segment", "", *(marked(f"Δ {LABELS[metrics[rq]]}", made.get(rq)) for rq in found)]
        sections.append(Section(f"By segment: {title}", "", "", columns, rows, folded=True))
    return sections


def _made(decision: Json) -> dict[str, str]:
    """By question how its lists were made, where nobody was shown them."""
    return {"rq2": decision[SYNTHETIC]}


def _origin(decision: Json) -> Section:
    rows = [["challenger", decision["challenger"]["ref"], decision["challenger"]["manifest"]]]
    if decision["champion"]:
        rows.append(["champion", decision["champion"]["ref"], decision["champion"]["manifest"]])
    return Section("Where they come from", "", "", ["", "checkpoint", "manifest"], rows)


def _marked(entry: Json | None) -> str:
    """A paired difference, marked where its interval excludes 0."""
    text = estimate(entry, "difference")
    if not entry or entry.get("low") is None:
        return text
    return f"+ {text}" if entry["low"] > 0 else f"! {text}" if entry["high"] < 0 else text
