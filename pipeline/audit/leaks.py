"""`newsrec audit leaks`: did anything that a model learned from, or was told, come from the future?

Belongs here: days of inputs, columns that know the future, overlap of training and test targets, all from published
versions. Does not belong here: the as-of door and its tests (`ml.asof`).
"""

from collections.abc import Iterator
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
            direct = [graph.nodes[i] for i in node.inputs]
            for source in direct:
                seen["tables"] += len(_tables(source))
                found += _future(node, source, limit)
        if node.ref.stage == "predictions":
            seen["versions"] += 1
            limit, run_split = _limit(node, fit=False)
            below = _below(graph, node)
            seen["inputs"] += len(below)
            found += _newer(node, below, limit, run_split)
            found += _overlap(graph, node, seen)
    unique = list(dict.fromkeys(found))
    return {
        "ok": not any(f.broken for f in unique),
        "looked_at": seen,
        "findings": [{"ref": f.ref, "kind": f.kind, "message": f.message, "broken": f.broken} for f in unique],
    }


def render(answer: dict[str, Any]) -> str:
    """For the terminal."""
    lines = [f"{'LEAK' if f['broken'] else 'note'}  {f['ref']}: {f['message']}" for f in answer["findings"]]
    seen = answer["looked_at"]
    lines.append(
        f"{seen['versions']} checkpoints and predictions, {seen['inputs']} inputs below them, {seen['tables']} tables "
        f"read, {seen['targets']:,} training targets against {seen['test_cases']:,} test cases"
    )
    lines.append("no leak found" if answer["ok"] else f"{sum(f['broken'] for f in answer['findings'])} leaks")
    return "\n".join(lines)


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
    cases = next((p for p in _tables(node) if p.name == "cases.parquet"), None)
    if not checkpoints or cases is None:
        return
    tested = read_table(cases, TARGETS)
    seen["test_cases"] += len(tested)
    for checkpoint in checkpoints:
        learned = _targets(graph, checkpoint)
        if learned is None:
            continue
        seen["targets"] += len(learned)
        both = len(np.intersect1d(_packed(learned), _packed(tested)))
        if both:
            yield Finding(str(node.ref), "overlap", f"{both} test cases are targets that {checkpoint.ref} learned from")
        if len(learned) and len(tested):
            last, first = (_times(t) for t in (learned, tested))
            if last.max() >= first.min():
                message = f"{checkpoint.ref} learned from a target at or after the first test case"
                yield Finding(str(node.ref), "overlap", message)


def _targets(graph: Graph, checkpoint: Node) -> pa.Table | None:
    """(user, time, article) of the targets of a checkpoint's sessions."""
    by_stage = {graph.nodes[i].ref.stage: graph.nodes[i] for i in checkpoint.inputs}
    sessions, interactions = by_stage.get("session_splits"), by_stage.get("interactions")
    if sessions is None or interactions is None or not (sessions.kept and interactions.kept):
        return None
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
