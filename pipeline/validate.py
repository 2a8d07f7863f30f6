"""`newsrec validate`: which dataset a folder holds, and the report in words.

Belongs here: choosing the contract, and printing. Does not belong here: the check (`ml.log_check`).
"""

from collections.abc import Callable
from pathlib import Path

from ml.datasets import DATASETS, OWN, Dataset
from ml.errors import DataError, UsageError
from ml.log_check import LogReport, check_log, undeclared
from ml.own_log import declared_dataset
from ml.readers.breaches import Breach
from ml.readers.own_log import LOG_FILE
from resources.source import sealed_folder


def report_on(root: Path, asked: str | None, progress: Callable[[str], None]) -> LogReport:
    """The report on the log at `root`, by the contract of the dataset `asked` for, or of the one that it looks like."""
    try:
        dataset = dataset_of(root, asked)
    except DataError as error:
        return undeclared(root, OWN, error)
    return check_log(root, dataset, progress)


def dataset_of(root: Path, asked: str | None) -> Dataset:
    """The dataset asked for, or the one whose layout the folder has. Raises UsageError where none fits, and DataError
    for a `log.toml` that says nothing usable."""
    if asked in DATASETS:
        return DATASETS[str(asked)]
    if asked is None:
        for name in _layouts(root):
            return DATASETS[name]
    if asked not in (None, OWN) and not (root / LOG_FILE).is_file():
        raise UsageError(
            f"unknown dataset {asked!r}: choose one of {', '.join(sorted(DATASETS))}, or own with a {LOG_FILE}"
        )
    if asked is None and not (root / LOG_FILE).is_file() and not (root / "clicks.parquet").is_file():
        raise UsageError(f"{root} has the layout of no dataset: name one with --dataset, or see docs/own_log.md")
    found = declared_dataset(root)
    if asked not in (None, OWN, found.name):
        raise UsageError(f"{root / LOG_FILE} calls the log {found.name!r}, not {asked!r}: use --dataset {found.name}")
    return found


def _layouts(root: Path) -> list[str]:
    """Names of the datasets whose files lie in the folder."""
    if (root / LOG_FILE).is_file():
        return []
    found = []
    if any((root / s / "behaviors.parquet").is_file() or (root / s / "history.parquet").is_file()
           for s in ("train", "validation", "test")):  # fmt: skip
        found.append("ebnerd" if sealed_folder(root) is None else "simulated")
    if any(root.glob("clicks/clicks_hour_*")):
        found.append("globo")
    if any((root / s / "behaviors.tsv").is_file() for s in ("", "train", "dev", "test")):
        found.append("mind")
    return found


def render(report: LogReport) -> str:
    """The report as text."""
    lines = [f"{report.root}: {report.dataset}, {_count(len(report.files), 'file')} read"]
    if report.days:
        lines[0] += f", {_count(len(report.days), 'day')} from {report.days[0]} to {report.days[-1]}"
    for name, counts in report.tables.items():
        told = [
            f"{counts.get(k, 0):,} {k.replace('_', ' ')}" for k in ("rows_in", "published", "quarantined", "duplicates")
        ]
        early = counts.get("before_days", 0)
        lines.append(f"{name}: {', '.join(told)}" + (f"; {early:,} held back before the days" if early else ""))
    for severity in ("error", "warning"):
        found = [b for b in report.breaches if b.severity == severity]
        lines += ["", f"{len(found)} {severity}s"] if found else []
        for breach in found:
            lines += _lines(breach)
    lines += ["", "nothing breaks the contract" if report.clean else "the contract is broken: see the errors"]
    return "\n".join(lines)


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _lines(breach: Breach) -> list[str]:
    where = " ".join(filter(None, [breach.file or "whole log", f"column {breach.column}" if breach.column else ""]))
    lines = [f"  {breach.kind}: {where}: {breach.count:,}; {breach.remedy}"]
    for example in breach.examples:
        row = f"row {example['row']}: " if example.get("row") else ""
        row = f"{example['file']} {row}" if " more files" in breach.file else row
        lines.append(f"      {row}{example['value']}")
    return lines
