"""A lineage graph as indented lines for the terminal.

Belongs here: layout of the tree. Does not belong here: what the nodes say (`resources.lineage.payload`).
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from ml.synthetic import SYNTHETIC, marked

Json = dict[str, Any]
SERIES = 4
"""From so many sibling days of one stage on, the tree shows them as one line."""


def tree(data: Json, full: bool = False) -> str:
    """The page for the terminal: the number, its tree, what was checked, and findings."""
    lines = [*_head(data), ""]
    seen: set[str] = set()
    for root in data["roots"]:
        lines += _branch(data["nodes"], [root], "", seen, full)
    counts = ", ".join(f"{n} {state}" for state, n in data["counts"].items() if n)
    lines += ["", f"{len(data['nodes'])} nodes: {counts}", f"checked: {data['checked']}"]
    lines += [f"{'BROKEN' if f['broken'] else 'note'}  {f['ref']}: {f['message']}" for f in data["findings"]]
    return "\n".join(lines)


def _head(data: Json) -> list[str]:
    number = data["number"]
    if number is None:
        return [data["title"]]
    interval = f" [{number['low']}, {number['high']}]" if "low" in number else ""
    where = f"{number['model']}, {number['dataset']} as of {number['as_of']}, split {number['split']}"
    metric = marked(number["metric"], number.get(SYNTHETIC))
    return [f"{metric} = {number['value']}{interval}  {where}"]


def _branch(nodes: Json, ids: list[str], indent: str, seen: set[str], full: bool) -> Iterator[str]:
    for (name, _), group in groupby(ids, key=lambda i: (nodes[i]["stage"], nodes[i]["model"])):
        members = list(group)
        if len(members) >= SERIES and not full:
            yield from _series(nodes, name, members, indent, seen, full)
            continue
        for id_ in members:
            if id_ in seen:
                yield f"{indent}{_label(nodes[id_])}  (shown above)"
                continue
            seen.add(id_)
            yield from (f"{indent}{line}" for line in _lines(nodes[id_]))
            yield from _branch(nodes, nodes[id_]["inputs"], indent + "  ", seen, full)


def _series(nodes: Json, name: str, members: list[str], indent: str, seen: set[str], full: bool) -> Iterator[str]:
    days = sorted(nodes[i]["partition"] for i in members)
    states = ", ".join(sorted({nodes[i]["state"] for i in members}))
    fresh = [i for i in members if i not in seen]
    if not fresh:
        yield f"{indent}{name} {days[0]} .. {days[-1]}: {len(days)} partitions  (shown above)"
        return
    rows = sum(nodes[i]["rows"] or 0 for i in members)
    size = sum(nodes[i]["bytes"] or 0 for i in members)
    more = "" if name == "source file" else f", {rows:,} rows, {size:,} bytes"
    yield f"{indent}{name} {days[0]} .. {days[-1]}: {len(days)} partitions{more}  {states}"
    seen.update(fresh)
    below = list(dict.fromkeys(j for i in members for j in nodes[i]["inputs"]))
    below.sort(key=lambda i: (nodes[i]["stage"], nodes[i]["partition"]))
    yield from _branch(nodes, below, indent + "  ", seen, full)


def _label(node: Json) -> str:
    return f"{node['stage']}{'/' + node['model'] if node['model'] else ''} {node['partition']}"


def _lines(node: Json) -> Iterator[str]:
    if node["stage"] == "source file":
        yield f"source file {node['partition']}  sha256 {node['content']}"
        return
    rows = "" if node["rows"] is None else f"  {node['rows']:,} rows"
    state = node["state"] if not node["erased"] else f"erased on {node['erased']['at'][:10]} by request"
    yield f"{_label(node)}  version {node['version']}{rows}  sha256 {node['content']}  {state}"
    facts = []
    if node["seed"] is not None:
        facts.append(f"seed {node['seed']}")
    recipe = [f"{k}={_brief(v)}" for k, v in node["recipe"].items() if k not in ("seed", "sources")]
    facts += [f"recipe {' '.join(recipe)}"] if recipe else []
    if node["commit"]:
        facts.append(f"commit {node['commit'][:12]}{' with changes' if node['dirty'] else ''}")
    facts += [f"device {node['device']}"] if node["device"] else []
    if node["checks"]["of"]:
        facts.append(f"checks {node['checks']['passed']}/{node['checks']['of']}")
    facts += [f"MLflow run {node['mlflow_run']}"] if node["mlflow_run"] else []
    facts += [f"made {node['at'][:19]}Z"] if node["at"] else []
    if facts:
        yield f"    {'; '.join(facts)}"


def _brief(value: Any, length: int = 60) -> str:
    text = str(value.get("name", value)) if isinstance(value, dict) else str(value)
    return text if len(text) <= length else f"{text[:length]}…"
