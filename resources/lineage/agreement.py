"""Every number of every report in a graph beside the evaluation that measured it.

Belongs here: comparing report.json with the metrics.json of its inputs. Does not belong here: what a number is
(`resources.lineage.metric`), the bytes of both (`resources.lineage.check`).
"""

from dataclasses import dataclass, field
from typing import Any

from ml.errors import DataError
from ml.strangers import read_object
from resources.lineage.archive import Finding
from resources.lineage.graph import Graph, Node
from resources.lineage.metric import ADDRESSED, METRICS_FILE, REPORT, REPORT_FILE, measurement, numbers
from resources.ref import Ref

Json = dict[str, Any]


@dataclass
class Compared:
    """Of a version of a report the numbers (each with its interval) whose evaluation is in the graph: how many `agree`
    with it or `differ`, and how many stand on one that was `erased` by request, so that nothing is left to compare."""

    node: Node
    agree: int = 0
    differ: int = 0
    erased: int = 0
    findings: list[Finding] = field(default_factory=list)

    def json(self) -> Json:
        """The counts, with what they are of."""
        named = {"ref": str(self.node.ref), "version": self.node.version, "state": self.node.state}
        return named | {"agree": self.agree, "differ": self.differ, "erased": self.erased}


def compare_numbers(graph: Graph) -> list[Compared]:
    """Each number of each report of the graph; one finding an evaluation that says otherwise. What is missing or
    damaged the graph has named already."""
    return [_compare(graph, n) for n in graph.nodes.values() if n.ref.stage == REPORT and n.kept is not None]


def _compare(graph: Graph, node: Node) -> Compared:
    found, report = Compared(node), _json(node, REPORT_FILE)
    if report is None:
        found.findings.append(Finding(str(node.ref), "number", f"{REPORT_FILE} cannot be read"))
        return found
    inputs = (node.manifest or {}).get("inputs", {})
    by_evaluation: dict[Ref, dict[str, Json]] = {}
    for (model, metric), entry in numbers(report, ADDRESSED).items():
        ref = Ref(node.ref.dataset, f"evaluation_{metric.split('.')[0]}", node.ref.partition, model)
        by_evaluation.setdefault(ref, {})[metric] = entry
    for ref, entries in by_evaluation.items():
        evaluation = graph.nodes.get(inputs.get(str(ref), ""))
        if str(ref) not in inputs:
            found.differ += len(entries)
            message = f"{len(entries)} numbers are of {ref}, which is no input of the report"
            found.findings.append(Finding(str(node.ref), "number", message))
        elif evaluation is not None and evaluation.state == "erased":
            found.erased += len(entries)
        elif evaluation is not None and evaluation.kept is not None:
            _agree(found, evaluation, entries)
    return found


def _agree(found: Compared, evaluation: Node, entries: dict[str, Json]) -> None:
    metrics = _json(evaluation, METRICS_FILE)
    if metrics is None:
        found.differ += len(entries)
        found.findings.append(Finding(str(evaluation.ref), "number", f"{METRICS_FILE} cannot be read"))
        return
    other = [metric for metric, entry in entries.items() if measurement(metrics, metric) != entry]
    found.agree += len(entries) - len(other)
    found.differ += len(other)
    if other:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        said = f"{other[0]}{more}: the report says {entries[other[0]]}, its evaluation {evaluation.ref} says otherwise"
        found.findings.append(Finding(str(found.node.ref), "number", said))


def _json(node: Node, name: str) -> Json | None:
    """A file of a version as an object; None where it cannot be read as one."""
    assert node.kept is not None
    try:
        return read_object(node.kept.path / name)
    except (OSError, DataError):
        return None
