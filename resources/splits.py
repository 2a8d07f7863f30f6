"""Source files cut into days, once for the same bytes and the same reader; and the digests of files.

Belongs here: the cache of file digests and the cache of what is cut or merged from files. Does not belong here: which
files a dataset has (`resources.source`, `resources.landing`) and parsing (`ml.readers`).
"""

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from filelock import FileLock

from ml.datasets import Dataset
from ml.errors import DamagedLake, DataError
from ml.readers import reader
from resources.code import source_digest
from resources.erasure.book import Book
from resources.erasure.rows import strip_folder
from resources.manifest import canonical, digest, file_digest
from resources.staging import temporary_folder
from resources.untrusted import record_object

FINGERPRINTS = "fingerprints.json"
FINGERPRINT_BYTES = 64 << 20
SPLIT = ".split"
KEY_DIGITS = 16


class Splits:
    """The caches below the lake's root `lake`. Safe for many processes at once: whoever asks for what another process
    is making waits for it. What is cached can be made again from the source files."""

    def __init__(self, lake: Path) -> None:
        self._lake = lake

    def cut(self, dataset: Dataset, root: Path, files: Mapping[str, str], progress: Callable[[str], None]) -> Path:
        """A folder with one folder per day of data (`YYYY-MM-DD/`), cut from the files below `root` in one pass.

        `files`: their sha256 by name relative to `root`. Raises DataError as the reader does, and when a file changes
        while it is read: the folder would hold other bytes than its key names.
        """
        paths = [root / name for name in files]

        def fill(out: Path) -> None:
            before = self.hashes(root, paths), [_stamp(p) for p in paths]
            reader(dataset.reader).split(root, dataset, out, progress)
            if before != (dict(files), [_stamp(p) for p in paths]):
                raise DataError(f"{root}: a source file changed while it was read: run again when it is still")

        return self.made(dataset, {"files": dict(files)}, fill)

    def made(self, dataset: Dataset, what: Mapping[str, object], fill: Callable[[Path], object]) -> Path:
        """The folder that `fill` fills for `what` (JSON) and the readers' source; filled only when it is not there.
        Rows of erased readers are left out, and the folder says so (`resources.erasure.rows`)."""
        erased = Book(self._lake, dataset.name).readers()
        what = {**what, "erased": erased.digest} if erased else what
        if dataset.declared:
            what = {**what, **dataset.facts, "days": [str(dataset.first_day), str(dataset.last_day)]}
        key = digest({**what, "code": _code()})[:KEY_DIGITS]
        home = self._lake / SPLIT / dataset.name
        home.mkdir(parents=True, exist_ok=True)
        target = home / key
        if not target.is_dir():
            with FileLock(home / f"{key}.lock"):
                if not target.is_dir():
                    with temporary_folder(self._lake / ".staging") as folder:
                        fill(folder)
                        if erased:
                            strip_folder(folder, erased)
                        _flush(folder)
                        folder.rename(target)
        return target

    def hashes(self, root: Path, files: Iterable[Path]) -> dict[str, str]:
        """sha256 by name relative to `root`. A file is hashed again only when its size or modification time has
        changed."""
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


def _stamp(path: Path) -> tuple[int, int, int, int]:
    """What changes whenever a file is written to or replaced."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _flush(folder: Path) -> None:
    """Everything below a folder to disk."""
    for path in (folder, *folder.rglob("*")):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@functools.cache
def _code() -> str:
    """Digest of the readers' source, looked up once a process."""
    return source_digest(["ml.readers"])


def _load(cache: Path) -> dict[str, str]:
    if not cache.exists():
        return {}
    found = record_object(cache, "remove it, it is only a cache", FINGERPRINT_BYTES)
    if not all(isinstance(value, str) for value in found.values()):
        raise DamagedLake(f"{cache} holds what is no digest: remove it, it is only a cache")
    return found
