"""`newsrec audit diff A B`: what changed between two numbers, and how much of the difference each change explains.

Belongs here: comparing two lineage graphs, and reruns with one thing changed. Does not belong here: how a number is
computed again (`pipeline.audit.replay`).
"""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from ml.synthetic import SYNTHETIC, marked
from resources.lineage.graph import Graph, Node
from resources.lineage.metric import REPORT, Address, Number, lineage

Json = dict[str, Any]
SETTINGS = ("split", "profile", "seed", "recorded")
AS_RECIPE = ("split", "profile", "recorded")


def diff(root: Path, a: Address, b: Address) -> Json:
    """Both figures and what lies between them: `number` (parts of the addresses), `data` (days and rows), `code`,
    `recipe`, `seed`, `environment`."""
    (first, left), (second, right) = lineage(root, a), lineage(root, b)
    return {
        "a": _side(first),
        "b": _side(second),
        "difference": None if None in (first.value, second.value) else second.value - first.value,  # type: ignore[operator]
        "number": _asked(a, b),
        "data": _data(left, right),
        "code": _by_stage(left, right, lambda n: dict(n.publication.get("code") or (n.manifest or {}).get("code", {}))),
        "recipe": _by_stage(left, right, _recipe),
        "seed": _by_stage(left, right, lambda n: {"seed": n.recipe["seed"]} if "seed" in n.recipe else {}),
        "environment": _by_stage(left, right, _environment),
    }


def attribute(
    root: Path, a: Address, b: Address, found: Json, data_root: Path | None, say: Callable[[str], None]
) -> Json:
    """Rerun A with one thing at a time taken from B, each in a scratch lake, and say what that moved.

    `data`: B's data with all settings of A. `seed` and `recipe` (recipe, split, test budget): A's data with B's value.
    `code` needs B's code checked out: done where this code is B's. What the single changes do not add up to is
    `interaction`; the environment cannot be changed from here and is part of it.
    """
    from pipeline.audit.recorded import settings_of
    from pipeline.audit.replay import replay

    (first, left), (_, right) = lineage(root, a), lineage(root, b)
    mine, theirs = settings_of(left, a.model), settings_of(right, b.model)
    base = {name: mine[name] for name in SETTINGS}
    changes: dict[str, tuple[Address, dict[str, Any]]] = {}
    if found["data"]["days_only_a"] or found["data"]["days_only_b"] or found["data"]["changed"] or a.day != b.day:
        changes["data"] = (b, base)
    if mine["seed"] != theirs["seed"]:
        changes["seed"] = (a, base | {"seed": theirs["seed"]})
    if any(mine[k] != theirs[k] for k in AS_RECIPE):
        changes["recipe"] = (a, base | {k: theirs[k] for k in AS_RECIPE})
    rows = []
    for name, (address, settings) in changes.items():
        say(f"{name}: rerun of {address} with seed {settings['seed']}, split {settings['split']}")
        answer = replay(root, address, "changed", data_root, **settings)
        rows.append(_row(name, first.value, answer["replayed"], [s["ref"] for s in answer["stages"]]))
    if found["code"]:
        rows.append(_code(root, a, found, left, first, data_root, say))
    total = found["difference"] or 0.0
    explained = sum(r["explains"] for r in rows if r["explains"] is not None)
    share = {r["what"]: (r["explains"] / total if total and r["explains"] is not None else None) for r in rows}
    return {"total": total, "rows": rows, "share": share, "interaction": total - explained}


def render(found: Json) -> str:
    """For the terminal."""
    a, b, data = found["a"], found["b"], found["data"]
    lines = [f"{n}  {marked(s['address'], s.get(SYNTHETIC))} = {s['value']}" for n, s in (("A", a), ("B", b))]
    lines.append(f"B - A = {found['difference']}")
    lines += [f"number  {k}: {v[0]} -> {v[1]}" for k, v in found["number"].items()]
    for key, title in (("days_only_a", "days only in A"), ("days_only_b", "days only in B")):
        lines += [f"data    {title}, {stage}: {_span(days)}" for stage, days in data[key].items()]
    lines += [f"data    {c['ref']}: other bytes, {c['rows_a']} rows -> {c['rows_b']}" for c in data["changed"]]
    for stage, (before, after) in data["rows"].items():
        lines.append(f"data    {stage}: {before:,} rows -> {after:,}")
    for kind in ("code", "recipe", "seed", "environment"):
        for stage, differing in found[kind].items():
            lines += [f"{kind:7} {stage}: {k}: {_short(v[0])} -> {_short(v[1])}" for k, v in differing.items()]
    if len(lines) == 3:
        lines.append("nothing differs between their lineages")
    told = found.get("attribution")
    if told is not None:
        for row in told["rows"]:
            share = told["share"][row["what"]]
            moved = row["why_not"] or f"{row['explains']:+.6g}{f' ({share:.0%})' if share is not None else ''}"
            lines.append(f"explains {row['what']:12} {moved}")
        lines.append(f"explains {'interaction':12} {told['interaction']:+.6g} (and the environment, where it differs)")
    return "\n".join(lines)


def _side(number: Number) -> Json:
    made = {SYNTHETIC: number.synthetic} if number.synthetic else {}
    return {"address": str(number.address), "value": number.value, "report": number.report, **made}


def _asked(a: Address, b: Address) -> dict[str, list[str]]:
    """Parts of the two addresses that differ."""
    pairs = {f.name: [str(getattr(a, f.name)), str(getattr(b, f.name))] for f in fields(Address)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _row(what: str, before: float | None, after: float | None, stages: list[str], why_not: str = "") -> Json:
    known = before is not None and after is not None
    moved = after - before if known else None  # type: ignore[operator]
    return {"what": what, "value": after, "explains": moved, "stages": stages, "why_not": why_not}


def _code(
    root: Path, a: Address, found: Json, left: Graph, first: Number, data_root: Path | None, say: Callable[[str], None]
) -> Json:
    """A's data and settings under the code that is checked out, where that is B's."""
    from assets.graph import BY_NAME
    from pipeline.audit.replay import replay
    from resources.code import source_digest

    for stage, modules in found["code"].items():
        known = BY_NAME.get(stage.split("/")[0])
        for module, (_, theirs) in modules.items():
            if known is None or theirs is None or source_digest([module]) != theirs:
                why = f"not rerun: the code checked out is not B's ({module}); check that out and ask again"
                return _row("code", None, None, [], why)
    raw = {"raw_parquet", "articles", "clicks", "impressions"} & {s.split("/")[0] for s in found["code"]}
    if raw:
        return _row("code", None, None, [], f"not rerun: {sorted(raw)[0]} changed too; use replay --from raw on A")
    say(f"code: rerun of {a} under the code that is checked out")
    answer = replay(root, a, "checkpoint", data_root)
    return _row("code", first.value, answer["replayed"], [s["ref"] for s in answer["stages"]])


def _name(node: Node) -> str:
    return f"{node.ref.stage}/{node.ref.model}" if node.ref.model else node.ref.stage


def _data(left: Graph, right: Graph) -> Json:
    """Raw days in one only, partitions of the same name with other bytes, and rows by stage where they differ."""
    sides = [{n.ref: n for n in g.nodes.values()} for g in (left, right)]
    only: list[dict[str, list[str]]] = []
    for mine, other in (sides, sides[::-1]):
        days: dict[str, list[str]] = {}
        for ref in sorted(mine.keys() - other.keys(), key=str):
            if ref.stage in ("raw_parquet", "impressions"):
                days.setdefault(ref.stage, []).append(ref.partition)
        only.append(days)
    both = sorted(sides[0].keys() & sides[1].keys(), key=str)
    changed = [
        {"ref": str(r), "rows_a": sides[0][r].rows, "rows_b": sides[1][r].rows}
        for r in both
        if r.model is None and r.stage != REPORT and _content(sides[0][r]) != _content(sides[1][r])
    ]
    rows: dict[str, list[dict[str, int]]] = {}
    for which, side in enumerate(sides):
        for node in side.values():
            if node.rows:
                totals = rows.setdefault(_name(node), [{}, {}])[which]
                totals[str(node.ref)] = node.rows
    sums = {stage: [sum(t.values()) for t in totals] for stage, totals in rows.items()}
    return {
        "days_only_a": only[0],
        "days_only_b": only[1],
        "changed": changed,
        "rows": {stage: pair for stage, pair in sorted(sums.items()) if pair[0] != pair[1]},
    }


def _content(node: Node) -> object:
    return (node.manifest or {}).get("content", node.id)


def _recipe(node: Node) -> Json:
    flat: Json = {}

    def put(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for k, v in value.items():
                put(f"{prefix}.{k}" if prefix else k, v)
        else:
            flat[prefix] = value

    put("", {k: v for k, v in node.recipe.items() if k not in ("seed", "sources")})
    return flat


def _environment(node: Node) -> Json:
    facts = node.environment
    flat = {k: v for k, v in facts.items() if k != "libraries"}
    return {**flat, **facts.get("libraries", {}), "device": node.run.get("device")}


def _by_stage(left: Graph, right: Graph, facts: Callable[[Node], Json]) -> dict[str, Json]:
    """Fields that differ by stage, as pairs; of the last made partition of each stage."""
    sides: list[dict[str, Json]] = []
    for graph in (left, right):
        newest: dict[str, Json] = {}
        for node in sorted(graph.nodes.values(), key=lambda n: str(n.publication.get("at", ""))):
            newest[_name(node)] = facts(node)
        sides.append(newest)
    found: dict[str, Json] = {}
    for stage in sorted(sides[0].keys() & sides[1].keys()):
        a, b = sides[0][stage], sides[1][stage]
        differing = {k: [a.get(k), b.get(k)] for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)}
        if differing:
            found[stage] = differing
    return found


def _span(days: list[str]) -> str:
    return days[0] if len(days) == 1 else f"{days[0]} .. {days[-1]} ({len(days)})"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."
