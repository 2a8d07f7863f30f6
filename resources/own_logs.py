"""Logs that declare themselves, made known to a process: from their `log.toml`, or as the lake remembers them.

Belongs here: where a declaration is found. Does not belong here: its form (`ml.own_log`), the registry (`ml.datasets`).
"""

import os
from pathlib import Path

from pydantic import TypeAdapter

from ml.datasets import DATASETS, OWN, Dataset, dataset, register
from ml.errors import UsageError
from resources.lake import Lake
from resources.staging import temporary_folder
from resources.untrusted import record_bytes, taking_apart

REMEMBERED = ".logs"
_FORM = TypeAdapter(Dataset)


def learn(name: str, root: Path | None, lake: Path) -> Dataset:
    """The dataset called `name`, known to this process from then on.

    One that the system does not bring along is read from the `log.toml` in `root`, else in the folder that the
    environment names for it, else from what the lake remembers of its last run. `own` is the log in that folder,
    whatever its name. Raises UsageError or DataError.
    """
    from ml.own_log import declared_dataset, read_log_file
    from ml.readers.own_log import LOG_FILE

    if name in DATASETS:
        return DATASETS[name]
    root = root or _configured_root(name)
    if root is None:
        return _recalled(name, lake)
    if not (root / LOG_FILE).is_file() and name != OWN:
        return dataset(name)
    said = read_log_file(root).name
    if name not in (OWN, said):
        raise UsageError(f"{root / LOG_FILE} calls the log {said!r}, not {name!r}: use --dataset {said}")
    found = register(declared_dataset(root))
    _remember(found, lake)
    return found


def learn_configured() -> None:
    """Registers the log that NEWSREC_DATASET and NEWSREC_DATA_ROOT name, where it declares itself."""
    from ml.own_log import declared_dataset, read_log_file
    from ml.readers.own_log import LOG_FILE

    name = os.environ.get("NEWSREC_DATASET", "")
    root = _configured_root(name)
    if name and name not in DATASETS and root is not None:
        said = read_log_file(root).name
        if name not in (OWN, said):
            raise UsageError(f"{root / LOG_FILE} calls the log {said!r}, not {name!r}: set NEWSREC_DATASET={said}")
        register(declared_dataset(root))


def learn_remembered(lake: Path) -> None:
    """Registers all own logs that the lake remembers."""
    for path in sorted((lake / REMEMBERED).glob("*.json")):
        _recalled(path.stem, lake)


def _configured_root(name: str) -> Path | None:
    root = os.environ.get("NEWSREC_DATA_ROOT", "")
    return Path(root) if root and os.environ.get("NEWSREC_DATASET", "") == name else None


def _remember(found: Dataset, lake: Path) -> None:
    path = lake / REMEMBERED / f"{found.name}.json"
    content = _FORM.dump_json(found)
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Lake(lake).changing(REMEMBERED), temporary_folder(lake / ".staging") as folder:
            (folder / path.name).write_bytes(content)
            (folder / path.name).replace(path)


def _recalled(name: str, lake: Path) -> Dataset:
    from ml.own_log import require_declared

    path = lake / REMEMBERED / f"{name}.json"
    if name == OWN or "/" in name or not path.is_file():
        if name == OWN:
            raise UsageError("--dataset own names no log: add --data-root, or use the name in its log.toml")
        return dataset(name)
    remedy = "remove it, and run with --data-root once more"
    data = record_bytes(path, remedy)
    with taking_apart(path, remedy):
        found = _FORM.validate_json(data)
        require_declared(found)
        if found.name != name:
            raise ValueError(f"it is called {found.name!r}")
    return register(found)
