"""`newsrec validate`: which dataset a folder holds, and the report by its contract.

Belongs here: choosing the contract. Does not belong here: the check (`ml.log_check`), printing
(`pipeline.validate_text`).
"""

from collections.abc import Callable
from pathlib import Path

from ml.datasets import DATASETS, OWN, Dataset
from ml.errors import DataError, UsageError
from ml.log_check import LogReport, check_log, check_undeclared
from ml.own_log import declared_dataset
from ml.readers import READERS, Reader
from ml.readers.own_log import LOG_FILE, table_files
from resources.source import sealed_folder


def report_on(root: Path, asked: str | None, progress: Callable[[str], None]) -> LogReport:
    """The report on the log at `root`, by the contract of the dataset `asked` for, or of the one that it looks like."""
    try:
        dataset = dataset_of(root, asked)
    except DataError as error:
        return check_undeclared(root, error, progress)
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
    if asked is None and not (root / LOG_FILE).is_file() and not any(table_files(root, "clicks")):
        raise UsageError(
            f"{root} has the layout of no dataset{_almost(root)}: name one with --dataset, or see docs/own_log.md"
        )
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


def _almost(root: Path) -> str:
    """Entries that are almost those of a layout, by the layouts that have most of them, for the end of a clause."""
    found = {name: [s for s in layout.strays(root) if s.vacant] for name, layout in READERS.items()}
    score = {name: len(some) + sum(_holds(root / s.name, READERS[name]) for s in some) for name, some in found.items()}
    names = [name for name, n in score.items() if n == max(score.values()) > 0]
    said = ", ".join(f"{s.name} is {s.why or f'almost {s.meant}'}" for s in found[names[0]][:3]) if names else ""
    return f" ({said} of {' or '.join(names)})" if said else ""


def _holds(folder: Path, layout: Reader) -> bool:
    """Whether a folder has files that are named like some of a layout's."""
    return any((folder / Path(name).name).is_file() for name in layout.names)
