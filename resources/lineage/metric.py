"""Which number is meant, and what it was read from.

Belongs here: addresses of numbers in reports and their place in the graph. Does not belong here: the graph itself
(`resources.lineage.graph`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from types import NoneType
from typing import Any

from ml.errors import DataError, UsageError
from ml.strangers import FORM, read_object, reading
from ml.synthetic import SYNTHETIC
from resources.lineage.archive import POINTER, Finding, Kept, Partition, read_partition
from resources.lineage.graph import Graph, walk
from resources.ref import Ref

REPORT = "evaluation_report"
REPORT_FILE, METRICS_FILE = "report.json", "metrics.json"
SHOWN = "rq2"
"""The question whose figures rest on in-view lists."""
QUESTIONS = ("rq1", "rq2", "rq3")
ADDRESSED = (*QUESTIONS, "segments")
"""Parts of a report whose figures have an address."""
REPORT_REMEDY = "see `newsrec audit verify --all`, or make the report anew"
_ADDRESS = re.compile(
    r"(?:(?P<dataset>[a-z]\w*)/)?(?:(?P<day>\d{4}-\d\d-\d\d)(?:\.(?P<split>\w+))?(?:#(?P<version>[0-9a-f]{4,16}))?/)?"
    r"(?:(?P<model>[^/:#]+):)?(?P<metric>[^/:#]+)"
)


@dataclass(frozen=True, slots=True)
class Address:
    """One number of one model in one report. `metric` is its path in the report, such as `rq1.in_session.recall@20`;
    `version` a folder name (or its start) of a superseded report, "" for the current one.

    >>> str(Address.parse("simulated/2023-05-17.rolling/snert:rq2.auc"))
    'simulated/2023-05-17.rolling/snert:rq2.auc'
    """

    dataset: str
    day: str
    split: str
    model: str
    metric: str
    version: str = ""

    def __str__(self) -> str:
        version = f"#{self.version}" if self.version else ""
        return f"{self.dataset}/{self.day}.{self.split}{version}/{self.model}:{self.metric}"

    @property
    def report(self) -> Ref:
        """Where the report lies."""
        return Ref(self.dataset, REPORT, f"{self.day}.{self.split}")

    @property
    def question(self) -> str:
        """`rq1`, `rq2`, `rq3` or `segments`."""
        return self.metric.split(".")[0]

    @classmethod
    def parse(
        cls,
        text: str,
        dataset: str = "simulated",
        day: str = "",
        split: str = "rolling",
        model: str = "snert",
        version: str = "",
    ) -> "Address":
        """`METRIC` or `[DATASET/]DAY[.SPLIT][#VERSION]/[MODEL:]METRIC`; what the text leaves out is taken from the
        other arguments. Raises UsageError for anything else."""
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise UsageError(
                f"{text!r} names no number: write METRIC, such as rq1.in_session.recall@20, or "
                "DATASET/DAY.SPLIT[#VERSION]/MODEL:METRIC"
            )
        given = {k: v for k, v in found.groupdict().items() if v}
        defaults = {"dataset": dataset, "day": day, "split": split, "model": model, "version": version}
        address = cls(**{**defaults, **given})
        if address.day:
            try:
                date.fromisoformat(address.day)
            except ValueError as error:
                raise UsageError(f"{address.day!r} is no day: write it as YYYY-MM-DD") from error
        return address


@dataclass(frozen=True, slots=True)
class Number:
    """A number found: its address, its entry in the report (`value`, often `low`, `high`, `n`), the digests of the
    report and of the evaluation that holds it ("" where the report does not say), and, where it rests on in-view lists
    that nobody was shown, how they were made."""

    address: Address
    entry: dict[str, Any]
    report: str
    evaluation: str
    synthetic: str = ""

    @property
    def value(self) -> float | None:
        """The figure, None where it was not measured."""
        return self.entry.get("value")


def newest_day(root: Path, dataset: str, split: str) -> str:
    """Last as-of day with a report. Raises UsageError where there is none."""
    days = sorted(p.parent.name.split(".")[0] for p in (root / dataset / REPORT).glob(f"*.{split}/{POINTER}"))
    if not days:
        command = f"newsrec run --dataset {dataset} --split {split}"
        raise UsageError(f"no report of {dataset} with split {split} in {root}: run `{command}`")
    return days[-1]


def find_report(root: Path, address: Address) -> tuple[Partition, str]:
    """The report's partition and the manifest digest of the version meant. Raises UsageError where there is none."""
    partition = read_partition(root, address.report)
    if address.version:
        names = [n for n in partition.versions if n.startswith(address.version)]
        if len(names) != 1:
            have = ", ".join(partition.versions) or "none"
            raise UsageError(f"{address.report} has no single version {address.version!r}: it has {have}")
        return partition, partition.versions[names[0]].digest
    if not partition.current:
        if partition.findings:
            raise UsageError(f"{partition.findings[0]}: run `newsrec audit verify --all` to see what is left")
        raise UsageError(f"no report {address.report} in {root}: run `{address.report.command}`")
    return partition, partition.current


def complete(root: Path, address: Address) -> Address:
    """The address with its day, the last one reported where none was given."""
    return address if address.day else replace(address, day=newest_day(root, address.dataset, address.split))


def lineage(root: Path, address: Address) -> tuple[Number, Graph]:
    """The number and the graph under it: the report, the evaluation that measured it, and all that this came from.

    Raises UsageError when report, model or metric do not exist.
    """
    partition, digest = find_report(root, address)
    kept = partition.by_digest.get(digest) or _stand_in(partition, address)
    report = _read(kept.path / REPORT_FILE)
    models = report["models"]
    if address.model not in models:
        raise UsageError(f"no model {address.model!r} in {address.report}: it has {', '.join(sorted(models))}")
    entry = _entry(models[address.model], address.metric, str(address.report))
    ref = Ref(address.dataset, f"evaluation_{address.question}", address.report.partition, address.model)
    graph = walk(root, [(address.report, digest)], only={digest: [str(ref)]})
    with reading(kept.path / REPORT_FILE, REPORT_REMEDY):
        evaluation = str(models[address.model].get("manifest", {}).get(address.question, ""))
    made = report.get(SYNTHETIC, "") if SHOWN in address.metric.split(".")[:2] else ""
    number = Number(address, entry, digest, evaluation, made)
    graph.nodes[digest].findings += _agreement(number, graph, ref)
    return number, graph


def report_graph(root: Path, address: Address, read: dict[Ref, Partition] | None = None) -> Graph:
    """The graph under a whole report. `read`: partitions that were read before."""
    _, digest = find_report(root, address)
    return walk(root, [(address.report, digest)], read=read)


def numbers(report: dict[str, Any], parts: Iterable[str] = QUESTIONS) -> dict[tuple[str, str], dict[str, Any]]:
    """Every measured figure in these parts of a report: (model, metric path) to its entry."""
    found: dict[tuple[str, str], dict[str, Any]] = {}

    def collect(model: str, path: str, value: Any) -> None:
        if isinstance(value, dict) and "value" in value:
            if isinstance(value["value"], (int, float)):
                found[model, path] = value
        elif isinstance(value, dict):
            for name, inner in value.items():
                collect(model, f"{path}.{name}", inner)

    for model, entries in report["models"].items():
        for part in parts:
            collect(model, part, entries.get(part, {}))
    return found


def figure(metrics: dict[str, Any], metric: str) -> float | None:
    """The value of `metric` (a path in the report) in an evaluation's metrics.json; None where it has none."""
    entry = measurement(metrics, metric)
    return None if entry is None else float(entry["value"])


def measurement(metrics: dict[str, Any], metric: str) -> dict[str, Any] | None:
    """The entry of `metric` in an evaluation's metrics.json: its value and what stands beside it; None without one."""
    question, *path = metric.split(".")
    protocols = metrics.get("protocols", {})
    places = [protocols] if question == "rq1" else list(protocols.values())
    for place in places:
        value: Any = place
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, dict) and value.get("value") is not None:
            return value
    return None


def _stand_in(partition: Partition, address: Address) -> Kept:
    name = partition.pointer["version"] if partition.pointer else address.version
    kept = next((k for n, k in partition.versions.items() if n.startswith(name)), None)
    if kept is None or not (kept.path / REPORT_FILE).is_file():
        raise UsageError(f"{address.report}: version {name} is missing: run `newsrec audit verify --all`")
    return kept


def _read(path: Path) -> dict[str, Any]:
    found = read_object(path, REPORT_REMEDY)
    if not isinstance(found.get("models"), dict) or not all(isinstance(m, dict) for m in found["models"].values()):
        raise DataError(f"{path} is no report: {REPORT_REMEDY}")
    return found


def _entry(model: dict[str, Any], metric: str, where: str) -> dict[str, Any]:
    value: Any = model
    for name in metric.split("."):
        if not isinstance(value, dict) or name not in value:
            have = ", ".join(sorted(value)) if isinstance(value, dict) else "nothing below"
            raise UsageError(f"{where} has no {metric!r}: at {name!r} it has {have}")
        value = value[name]
    if isinstance(value, dict) and isinstance(value.get("value", ""), (int, float, NoneType)):
        return value
    if isinstance(value, (int, float)):
        return {"value": float(value)}
    below = ", ".join(sorted(value)) if isinstance(value, dict) else "nothing below"
    raise UsageError(f"{where}: {metric!r} is no number, go on with one of {below}")


def _agreement(number: Number, graph: Graph, ref: Ref) -> list[Finding]:
    """Whether the report's figure is that of the evaluation whose manifest it names."""
    where = str(number.address.report)
    nodes = graph.find(ref)
    if not nodes:
        return [Finding(where, "number", f"the report does not name {ref} as input")]
    node = nodes[0]
    found = []
    if number.evaluation != node.id:
        found.append(Finding(where, "number", f"report.json names another manifest of {ref} than the report's own"))
    if node.kept is None or node.state in ("missing", "erased"):
        return found
    try:
        measured = figure(read_object(node.kept.path / METRICS_FILE), number.address.metric)
    except (OSError, DataError, *FORM):
        return [*found, Finding(str(ref), "number", f"{METRICS_FILE} cannot be read")]
    if measured != number.value:
        found.append(Finding(where, "number", f"says {number.value}, its evaluation {ref} says {measured}"))
    return found
