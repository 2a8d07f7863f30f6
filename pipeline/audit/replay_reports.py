"""`newsrec audit replay` without a number: every number of whole reports computed again, in one fresh process.

Belongs here: which numbers a report has, and how they compare with the evaluations that ran again. Does not belong
here: running stages again (`pipeline.audit.replay`).
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ml.errors import NewsrecError, UsageError
from ml.strangers import read_object
from pipeline.audit.replay import Again, Level, Spec, counted, first_difference, in_fresh_process
from resources.lineage.archive import POINTER, Partition
from resources.lineage.graph import Graph
from resources.lineage.metric import (
    ADDRESSED,
    METRICS_FILE,
    REPORT,
    REPORT_FILE,
    Address,
    measurement,
    numbers,
    report_graph,
)
from resources.ref import Ref
from resources.version import Version

Json = dict[str, Any]
ANY = "rq1"
"""Of a whole report's address only dataset, day, split and version count."""
SHOWN = 20
"""Differing numbers of a report that the answer names."""


def current_reports(root: Path, dataset: str) -> list[Address]:
    """Every report of the dataset that a pointer names, by day. Raises UsageError where there is none."""
    names = sorted(p.parent.name for p in (root / dataset / REPORT).glob(f"*/{POINTER}"))
    if not names:
        raise UsageError(f"no report of {dataset} in {root}: run `newsrec run --dataset {dataset}`")
    return [Address.parse(f"{name}/{ANY}", dataset) for name in names]


def replay_reports(root: Path, reports: Sequence[Address], level: Level, data_root: Path | None, device: str) -> Json:
    """Run the stages under `reports` again: `ok`, the counts of all numbers, and an answer for each report."""
    with tempfile.TemporaryDirectory(prefix="newsrec-replay-") as scratch:
        given = str(data_root.absolute()) if data_root else ""
        named = tuple(str(r) for r in reports)
        return in_fresh_process(Spec(str(root), level, scratch, reports=named, data_root=given, device=device))


def compare_reports(spec: Spec) -> Json:
    """The work of the fresh process. A report that cannot be replayed has an `error`, and the others go on."""
    answers: list[Json] = []
    read: dict[Ref, Partition] = {}
    for number, text in enumerate(spec.reports, 1):
        address = Address.parse(text)
        answer = _one(spec, address, read)
        said = answer["error"] or f"{answer['identical']:,} of {answer['numbers']:,} numbers identical"
        print(f"[{number}/{len(spec.reports)}] {answer['report']}: {said}", file=sys.stderr, flush=True)
        answers.append(answer)
    total, same = (sum(a[name] for a in answers) for name in ("numbers", "identical"))
    ok = all(not a["error"] and a["identical"] == a["numbers"] for a in answers)
    return {"ok": ok, "level": spec.level, "numbers": total, "identical": same, "reports": answers}


def _one(spec: Spec, address: Address, read: dict[Ref, Partition]) -> Json:
    """One report: how many of its numbers came out `identical`, with their intervals; the first that differ, the stages
    that ran again, notes; or why it could not be done."""
    version = f"#{address.version}" if address.version else ""
    answer: Json = {"report": f"{address.report}{version}", "numbers": 0, "identical": 0, "differ": [], "stages": []}
    answer |= {"notes": [], "error": ""}
    try:
        graph = report_graph(Path(spec.lake), address, read)
        report = _report(graph)
        stored = numbers(report, ADDRESSED)
        answer["numbers"] = len(stored)
        again = Again.of(spec, replace(address, model=next(iter(report["models"]))), graph)
        again.run()
        answer |= {"stages": again.stages, "notes": again.notes}
        differ = list(differing(again.version, address, stored))
        answer |= {"identical": len(stored) - len(differ), "differ": differ[:SHOWN]}
    except NewsrecError as error:
        answer["error"] = str(error)
    return answer


def _report(graph: Graph) -> Json:
    node = graph.nodes[graph.roots[0]]
    if node.kept is None or node.state not in ("intact", "superseded"):
        raise UsageError(f"{node.ref} is {node.state}: run `newsrec audit verify`")
    return read_object(node.kept.path / REPORT_FILE)


def differing(
    version: Callable[[Ref], Version], address: Address, stored: dict[tuple[str, str], Json]
) -> Iterator[Json]:
    """Of the `stored` numbers of a report those that the evaluations given by `version` say otherwise, each with both
    entries and the first digit that differs."""
    metrics: dict[Ref, Json] = {}
    for (model, metric), entry in stored.items():
        ref = Ref(address.dataset, f"evaluation_{metric.split('.')[0]}", address.report.partition, model)
        if ref not in metrics:
            metrics[ref] = json.loads(version(ref).file(METRICS_FILE).read_text(encoding="utf-8"))
        now = measurement(metrics[ref], metric)
        if now != entry:
            value = None if now is None else float(now["value"])
            first = first_difference(float(entry["value"]), value) or "the figure is the same, its interval is not"
            yield {"model": model, "metric": metric, "stored": entry, "replayed": now, "difference": first}


def render(answer: Json) -> str:
    """For the terminal."""
    lines = []
    for report in answer["reports"]:
        if report["error"]:
            lines.append(f"{report['report']}: not replayed: {report['error']}")
        lines += [f"{report['report']} {d['model']} {d['metric']}: {d['difference']}" for d in report["differ"]]
        lines += [f"note  {note}" for note in report["notes"]]
    lines = list(dict.fromkeys(lines))
    stages = [s for r in answer["reports"] for s in r["stages"]]
    seconds = sum(s["seconds"] for s in stages)
    lines.append(
        f"{len(answer['reports'])} reports, {len(stages)} partitions made again in {seconds:.1f} s, {counted(stages)}: "
        f"{answer['identical']:,} of {answer['numbers']:,} numbers identical, from {answer['level']}"
    )
    return "\n".join(lines)
