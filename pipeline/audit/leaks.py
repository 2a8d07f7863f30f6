"""`newsrec audit leaks`: did anything that a model learned from, or was told, come from the future?

Belongs here: days of inputs, columns that know the future, overlap of training and test targets, all from published
versions. Does not belong here: the as-of door and its tests (`ml.asof`).
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml import schema
from ml.datasets import Dataset, dataset
from ml.parquet import read_batches, read_schema, read_table
from ml.splits import Split, split
from ml.strangers import reading
from resources.lineage.archive import Finding
from resources.lineage.graph import Graph, Node

DAILY = ("raw_parquet", "articles", "clicks", "impressions", "article_embeddings")
"""Stages whose partition is a day of data; those of the others are days as of which they know the log."""
TOTALS = ("total_inviews", "total_pageviews", "total_read_time")
NEXT = ("next_read_time", "next_scroll_percentage")
"""Columns of the published logs that sum up or look at what came after."""
MOMENTS = (schema.CLICK_TIME, schema.PUBLISHED)
WINDOWS = ("interactions", "article_features", "session_splits", "popularity_tensor")
ROWS = 1 << 20
READABLE = ("intact", "superseded")
UNREAD = "unread"
"""Kind of a finding that says what could not be looked at."""
LEARNED_FROM = ("session_splits", "interactions")
"""Inputs of a checkpoint that say which clicks were its targets."""
TARGETS = schema.some(schema.INTERACTIONS, schema.USER_ID, schema.CLICK_TIME, schema.ARTICLE_ID)


def leaks(graph: Graph) -> dict[str, Any]:
    """All checks over every checkpoint and prediction in the graph: `ok`, `findings`, and what was looked at."""
    found: list[Finding] = []
    seen = {"versions": 0, "inputs": 0, "tables": 0, "targets": 0, "test_cases": 0}
    for node in graph.nodes.values():
        if node.ref.stage == "checkpoint":
            seen["versions"] += 1
            limit, run_split = _limit(node, fit=True)
            below = _below(graph, node)
            seen["inputs"] += len(below)
            found += _newer(node, below, limit, run_split)
            found += _unread(node, [n for n in (node, *below) if n.manifest is None])
            direct = [graph.nodes[i] for i in node.inputs]
            found += _unread(node, direct)
            for source in (n for n in direct if n.state in READABLE):
                seen["tables"] += len(_tables(source))
                found += _future(node, source, limit)
        if node.ref.stage == "predictions":
            seen["versions"] += 1
            limit, run_split = _limit(node, fit=False)
            below = _below(graph, node)
            seen["inputs"] += len(below)
            found += _newer(node, below, limit, run_split)
            found += _unread(node, [n for n in (node, *below) if n.manifest is None])
            found += _overlap(graph, node, seen)
    unique = list(dict.fromkeys(found))
    return {
        "ok": not any(f.broken for f in unique),
        "looked_at": seen,
        "findings": [{"ref": f.ref, "kind": f.kind, "message": f.message, "broken": f.broken} for f in unique],
    }


def render(answer: dict[str, Any]) -> str:
    """For the terminal."""
    lines, found = [], answer["findings"]
    for f in found:
        broken = "BROKEN" if f["kind"] == UNREAD else "LEAK"
        lines.append(f"{broken if f['broken'] else 'note'}  {f['ref']}: {f['message']}")
    seen = answer["looked_at"]
    lines.append(
        f"{seen['versions']} checkpoints and predictions, {seen['inputs']} inputs below them, {seen['tables']} tables "
        f"read, {seen['targets']:,} training targets against {seen['test_cases']:,} test cases"
    )
    leaking = sum(f["broken"] and f["kind"] != UNREAD for f in found)
    limits = " in what could be read" if any(f["kind"] == UNREAD for f in found) else ""
    lines.append(f"{leaking or 'no'} leak{'s' if leaking > 1 else ''} found{limits}")
    return "\n".join(lines)


def _unread(node: Node, sources: Iterable[Node]) -> Iterator[Finding]:
    """Those of `sources` that cannot be read, and are thus not checked for `node`: erased ones break nothing."""
    for source in sources:
        if source.state not in READABLE:
            message = f"not checked: {source.ref} is {source.state}"
            yield Finding(str(node.ref), UNREAD, message, broken=source.state != "erased")


def _silent(node: Node, source: Node, lacks: Iterable[str]) -> Iterator[Finding]:
    """What `source` ought to name or hold, and does not: that cannot be checked for `node`."""
    for name in lacks:
        yield Finding(str(node.ref), UNREAD, f"not checked: {source.ref} names no {name}")


def _about(node: Node) -> tuple[Dataset, date, Split]:
    day, _, name = node.ref.partition.partition(".")
    return dataset(node.ref.dataset), date.fromisoformat(day), split(name or "rolling")


def _limit(node: Node, fit: bool) -> tuple[date, Split]:
    """The first day of which nothing may be known: by the model, or at the end of the test span."""
    _, day, run_split = _about(node)
    return date.fromordinal(day.toordinal() + (run_split.fit_days if fit else run_split.end_days)), run_split


def _below(graph: Graph, node: Node) -> list[Node]:
    """Everything that a version was made from, but not what a checkpoint in between was made from."""
    seen: dict[str, Node] = {}
    todo = list(node.inputs)
    while todo:
        id_ = todo.pop()
        if id_ not in seen:
            seen[id_] = graph.nodes[id_]
            if seen[id_].ref.stage != "checkpoint":
                todo += seen[id_].inputs
    return list(seen.values())


def _newer(node: Node, below: list[Node], limit: date, run_split: Split) -> Iterator[Finding]:
    """Inputs of days from `limit` on (days of data), or as of days after it."""
    for source in below:
        day = date.fromisoformat(source.ref.partition.split(".")[0])
        too_new = day >= limit if source.ref.stage in DAILY else day > limit
        if too_new:
            message = f"reads {source.ref}, newer than its split {run_split.name} allows (nothing from {limit} on)"
            yield Finding(str(node.ref), "newer", message)


def _tables(node: Node) -> list[Path]:
    files = (node.manifest or {}).get("files", []) if node.kept else []
    return [node.kept.path / f["name"] for f in files if node.kept and f["name"].endswith(".parquet")]


def _future(node: Node, source: Node, limit: date) -> Iterator[Finding]:
    """Columns of a checkpoint's input that sum up the future, or times from the limit on."""
    known = dataset(node.ref.dataset)
    end = known.clock.start(limit)
    for path in _tables(source):
        names = read_schema(path).names
        for name in names:
            if name in (*TOTALS, *NEXT):
                yield Finding(str(node.ref), "column", f"{source.ref}: {path.name} has column {name}, known only later")
        for name in (n for n in MOMENTS if n in names):
            latest = _latest(path, name)
            if latest is not None and latest >= end:
                when = datetime.fromtimestamp(latest / 1000, UTC).isoformat(timespec="seconds")
                message = f"{source.ref}: {path.name} holds {name} {when}, after what the model may know"
                yield Finding(str(node.ref), "column", message)
        if schema.MODIFIED in names:
            late = _later(path, schema.MODIFIED, end)
            if late:
                message = f"{source.ref}: {late} articles are in the version of a later correction (docs/choices.md)"
                yield Finding(str(node.ref), "column", message, broken=False)


def _latest(path: Path, column: str) -> int | None:
    """Largest time in ms of a column, batch by batch."""
    latest = None
    for times in _column_times(path, column):
        top = pc.max(times).as_py()
        latest = top if latest is None or (top is not None and top > latest) else latest
    return latest


def _later(path: Path, column: str, end: int) -> int:
    return sum(pc.sum(pc.greater_equal(times, end)).as_py() or 0 for times in _column_times(path, column))


def _column_times(path: Path, column: str) -> Iterator[pa.ChunkedArray]:
    """The times of a column in ms, int64, batch by batch."""
    for batch in read_batches(path, ROWS, [column]):
        with reading(path):
            times = batch.column(0).cast(schema.TIME).cast(pa.int64())
        yield times


def _overlap(graph: Graph, node: Node, seen: dict[str, int]) -> Iterator[Finding]:
    """Test cases that were training or validation targets of the checkpoint they are predicted with; and, by manifest
    alone, the latest target against the first test case."""
    checkpoints = [graph.nodes[i] for i in node.inputs if graph.nodes[i].ref.stage == "checkpoint"]
    if not checkpoints:
        return
    if node.state not in READABLE:
        yield from _unread(node, [node])
        return
    cases = next((p for p in _tables(node) if p.name == "cases.parquet"), None)
    if cases is None:
        yield from _silent(node, node, ["cases.parquet"])
        return
    tested = read_table(cases, TARGETS)
    seen["test_cases"] += len(tested)
    for checkpoint in checkpoints:
        sources = {graph.nodes[i].ref.stage: graph.nodes[i] for i in checkpoint.inputs}
        lacks = [stage for stage in LEARNED_FROM if stage not in sources]
        unread = [
            *_unread(node, [sources[stage] for stage in LEARNED_FROM if stage in sources]),
            *_silent(node, checkpoint, lacks),
        ]
        yield from unread
        if unread:
            continue
        learned = _targets(*(sources[stage] for stage in LEARNED_FROM))
        seen["targets"] += len(learned)
        both = len(np.intersect1d(_packed(learned), _packed(tested)))
        if both:
            yield Finding(str(node.ref), "overlap", f"{both} test cases are targets that {checkpoint.ref} learned from")
        if len(learned) and len(tested):
            last, first = (_times(t) for t in (learned, tested))
            if last.max() >= first.min():
                message = f"{checkpoint.ref} learned from a target at or after the first test case"
                yield Finding(str(node.ref), "overlap", message)


def _targets(sessions: Node, interactions: Node) -> pa.Table:
    """(user, time, article) of the targets of a checkpoint's sessions."""
    assert sessions.kept is not None
    with reading(sessions.kept.path):
        (ranges,), (clicks,) = _tables(sessions), _tables(interactions)
    rows = read_table(ranges, schema.some(schema.SESSIONS, "target"))["target"]
    known = read_table(clicks, TARGETS)
    with reading(ranges):
        return known.take(rows)


def _times(table: pa.Table) -> np.ndarray:
    times: np.ndarray = _integers(table[schema.CLICK_TIME])
    return times


def _integers(column: pa.ChunkedArray) -> np.ndarray:
    ints = column.cast(schema.TIME).cast(pa.int64()) if pa.types.is_timestamp(column.type) else column.cast(pa.int64())
    values: np.ndarray = ints.to_numpy()
    return values


def _packed(table: pa.Table) -> np.ndarray:
    """Rows as one structured array, for set operations."""
    columns = [_integers(table[n]) for n in (schema.USER_ID, schema.CLICK_TIME, schema.ARTICLE_ID)]
    packed = np.empty(len(table), dtype=[("user", np.int64), ("time", np.int64), ("article", np.int64)])
    for name, values in zip(("user", "time", "article"), columns, strict=True):
        packed[name] = values
    return packed
