"""MLflow runs that processes of this lake have open, and what the store has yet to be told of them.

Belongs here: one small file a run, from before the run exists in the store until the store knows its end; finding those
whose process is dead. Does not belong here: talking to the store (`resources.tracker`).
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ml.durable import write_flushed
from ml.errors import NewsrecError
from resources.manifest import canonical
from resources.ref import Ref
from resources.untrusted import record_object, taking_apart

_MOST_FIGURES = 1_000_000


@dataclass(slots=True)
class OpenRun:
    """One run: what it is of, and `report`, what the store is to be told once the output is published (None until the
    output is about to be). `settled`: the store knows its end."""

    path: Path
    ref: Ref
    dagster_run: str
    report: dict[str, Any] | None = None
    settled: bool = field(default=False)

    def keep(self, report: dict[str, Any] | None = None) -> None:
        """Write the file, flushed to disk and all or nothing."""
        self.report = report
        temporary = self.path.with_suffix(".new")
        write_flushed(temporary, canonical({"ref": str(self.ref), "dagster_run": self.dagster_run, "report": report}))
        temporary.replace(self.path)


class OpenRuns:
    """The files in `home`. A process holds a lock on those of its own runs for as long as it lives."""

    def __init__(self, home: Path) -> None:
        self.home = home

    @contextmanager
    def enter(self, ref: Ref, dagster_run: str) -> Iterator[OpenRun]:
        """A new open run; its file goes at the end of the block if it is settled, else it stays for `dead`."""
        self.home.mkdir(parents=True, exist_ok=True)
        path = self.home / f"{secrets.token_hex(8)}.json"
        lock = FileLock(path.with_suffix(".lock"))
        with self._alone():
            lock.acquire()
        run = OpenRun(path, ref, dagster_run)
        try:
            run.keep()
            yield run
        finally:
            path.with_suffix(".new").unlink(missing_ok=True)
            if run.settled or not path.exists():
                path.unlink(missing_ok=True)
                path.with_suffix(".lock").unlink(missing_ok=True)
            lock.release()

    @contextmanager
    def dead(self) -> Iterator[tuple[list[OpenRun], list[str]]]:
        """Open runs whose process is gone, for one process at a time, and one line for each file that cannot be read;
        those that are settled in the block are removed at its end."""
        if not self.home.is_dir() or not any(self.home.glob("*.lock")):
            yield [], []
            return
        with self._alone():
            held = [lock for path in sorted(self.home.glob("*.lock")) if (lock := _free(path)) is not None]
            found, said = [], []
            try:
                for lock in held:
                    path = Path(lock.lock_file).with_suffix(".json")
                    path.with_suffix(".new").unlink(missing_ok=True)
                    try:
                        found += [_read(path)] if path.exists() else []
                    except NewsrecError as error:
                        said.append(str(error))
                yield found, said
            finally:
                for run in found:
                    if run.settled:
                        run.path.unlink(missing_ok=True)
                for lock in held:
                    if not Path(lock.lock_file).with_suffix(".json").exists():
                        Path(lock.lock_file).unlink(missing_ok=True)
                    lock.release()

    def _alone(self) -> FileLock:
        return FileLock(self.home / "sweep")


def _free(path: Path) -> FileLock | None:
    """The lock at `path`, taken, or None where a living process holds it."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def _read(path: Path) -> OpenRun:
    remedy = "remove it, then see newsrec audit reconcile"
    value = record_object(path, remedy)
    with taking_apart(path, remedy):
        report = value["report"]
        if report is not None:
            texts = [report["run_id"], *report["artifacts"]]
            texts += [t for name in ("params", "tags", "inputs") for pair in report[name].items() for t in pair]
            figures = [(str(key), float(figure), int(at), int(step)) for key, figure, at, step in report["metrics"]]
            if not all(isinstance(text, str) for text in texts) or len(figures) > _MOST_FIGURES:
                raise ValueError("its report has another form")
        return OpenRun(path, Ref.parse(value["ref"]), str(value["dagster_run"]), report)
