"""The dataset's source files: where they are, what their bytes are, and their one split into days.

Belongs here: data roots, fingerprints, the cache of the split. Does not belong here: parsing (`ml.readers`).
"""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path

from filelock import FileLock

from ml.datasets import Dataset
from ml.errors import DataError, LakeError
from ml.readers import reader
from resources.code import source_digest
from resources.manifest import canonical, digest, file_digest
from resources.places import REPOSITORY
from resources.staging import temporary_folder

FINGERPRINTS = "fingerprints.json"
SPLIT = ".split"
ORACLE = "oracle"


def no_progress(_message: str) -> None:
    """For callers who do not watch."""


class DatasetSource:
    """`lake`: root of the lake, below which the caches lie. `roots`: data root by dataset name; a dataset without one
    is read from `data/<name>` in the repository."""

    def __init__(self, lake: Path, roots: Mapping[str, Path] | None = None) -> None:
        self._lake = Path(lake).absolute()
        self._roots = dict(roots or {})

    def root(self, dataset: Dataset) -> Path:
        """The folder that holds the dataset. Raises DataError when there is none."""
        path = self._roots.get(dataset.name, REPOSITORY / "data" / dataset.name)
        if not path.is_dir():
            raise DataError(
                f"no folder {path} for dataset {dataset.name}: give --data-root, or NEWSREC_DATA_ROOT with "
                f"NEWSREC_DATASET={dataset.name}"
            )
        return path.absolute()

    def fingerprint(self, dataset: Dataset) -> dict[str, str]:
        """sha256 by relative name of the files that the dataset's reader reads. A file is hashed again only when its
        size or modification time has changed."""
        root = self.root(dataset)
        return self._hashes(root, reader(dataset.reader).sources(root))

    def oracle(self, dataset: Dataset) -> Path | None:
        """The simulator's sealed `oracle/` folder, None where the source has none."""
        path = self.root(dataset) / ORACLE
        return path if path.is_dir() else None

    def oracle_digest(self, dataset: Dataset) -> str | None:
        """Digest of the oracle's files, None where there are none."""
        path = self.oracle(dataset)
        return digest(self._hashes(path, (p for p in path.rglob("*") if p.is_file()))) if path is not None else None

    def split(self, dataset: Dataset, progress: Callable[[str], None] = no_progress) -> Path:
        """A folder with one folder per day of data (`YYYY-MM-DD/`), cut from the source files in one pass.

        Made once for the same bytes and the same reader; processes that ask at the same time wait for the first.
        """
        key = digest({"files": self.fingerprint(dataset), "code": source_digest(["ml.readers"])})[:16]
        home = self._lake / SPLIT / dataset.name
        home.mkdir(parents=True, exist_ok=True)
        target = home / key
        with FileLock(home / f"{key}.lock"):
            if not target.is_dir():
                with temporary_folder(self._lake / ".staging") as folder:
                    reader(dataset.reader).split(self.root(dataset), dataset, folder, progress)
                    folder.rename(target)
        return target

    def days(self, dataset: Dataset, progress: Callable[[str], None] = no_progress) -> list[date]:
        """The days that hold data, in order. Raises DataError when there is none."""
        names = [p.name for p in self.split(dataset, progress).iterdir() if p.is_dir()]
        days = sorted(date.fromisoformat(n) for n in names)
        if not days:
            raise DataError(f"{self.root(dataset)} holds no row of {dataset.first_day} to {dataset.last_day}")
        return days

    def _hashes(self, root: Path, files: Iterable[Path]) -> dict[str, str]:
        """sha256 by name relative to `root`, from the cache where size and modification time are as they were."""
        cache = self._lake / ".cache" / FINGERPRINTS
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(cache.with_suffix(".lock")):
            known = _load(cache)
            found: dict[str, str] = {}
            before = len(known)
            for path in sorted(files):
                stat = path.stat()
                key = f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}"
                if key not in known:
                    known[key] = file_digest(path)
                found[path.relative_to(root).as_posix()] = known[key]
            if len(known) != before:
                temporary = cache.with_suffix(".new")
                temporary.write_bytes(canonical(known))
                temporary.replace(cache)
        return found


def _load(cache: Path) -> dict[str, str]:
    if not cache.exists():
        return {}
    try:
        return dict(json.loads(cache.read_bytes()))
    except (ValueError, TypeError) as error:
        raise LakeError(f"{cache} is damaged ({error}): remove it, it is only a cache") from error
