"""The lake: versioned outputs of stages on disk, published all or nothing.

Belongs here: staging, publishing, and finding the current version. Does not belong here: what an output
holds (`assets/`), and SQL over it (`resources.engine`).

Layout: `<root>/<dataset>/<stage>[/<model>]/<partition>/` holds one folder per version, `current.json` (which of
them is current) and `ledger.jsonl` (every publication).
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ml.durable import replace_whole, sync_folder, write_flushed
from ml.errors import DamagedLake, LakeError
from resources import ledger
from resources.bucket.mirror import Mirror, mirror_of
from resources.bucket.store import Overtaken
from resources.manifest import (
    FORMAT,
    MANIFEST,
    canonical,
    content_digest,
    list_files,
    publication_fault,
    recipe_key,
)
from resources.parquet import read_parquet, write_parquet
from resources.record import environment
from resources.ref import Ref, is_partition
from resources.staging import Staged, sweep, temporary_folder
from resources.version import Version, read_manifest, read_pointer, read_version, verify

POINTER = "current.json"
LOCKS = ".locks"
STAGING = ".staging"
CACHE = ".cache"
UNFINISHED = "unfinished"
ROUNDS = 5
"""Times that a publication is made, on top of those that other machines put into the bucket at the same moment."""
VERSION_DIGITS = 16

__all__ = ["Lake", "Ref", "Staged", "Version", "read_parquet", "recipe_key", "write_parquet"]


class Lake:
    """All versions below `root`. Safe for many processes at once: one writer per partition, readers never wait."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()

    @property
    def mirror(self) -> Mirror | None:
        """The lake's bucket, where it has one (`resources.bucket`)."""
        return mirror_of(self.root)

    def catch_up(self) -> None:
        """Take what other machines have published into the bucket, where the lake has one, and finish or remove what
        killed processes left. Waits for a publication that is under way. Raises BucketAway or BucketError."""
        sweep(self.root / STAGING)
        if self.mirror is not None:
            with self.publishing():
                pass

    def folder(self, ref: Ref) -> Path:
        """The folder of a partition: its versions, pointer and ledger."""
        return self.root / str(ref)

    def current(self, ref: Ref) -> Version | None:
        """The current version, or None where nothing was published. Raises LakeError when it is damaged."""
        path = self.folder(ref) / POINTER
        if not os.path.lexists(path):
            return None
        pointer = read_pointer(self.root, path, f"remove it and run: {ref.command}")
        version = read_version(ref, path.parent / pointer.version, pointer.recipe_key, pointer.ledger)
        if version.manifest_digest != pointer.manifest:
            raise DamagedLake(
                f"{path} names another manifest than {pointer.version} holds: remove it and run: {ref.command}"
            )
        return version

    def require(self, ref: Ref) -> Version:
        """The current version. Raises LakeError with the command that makes it when there is none."""
        version = self.current(ref)
        if version is None:
            raise LakeError(f"{ref} has not been materialised: run: {ref.command}")
        return version

    def datasets(self) -> list[str]:
        """Datasets with anything in the lake, sorted."""
        return _folders(self.root)

    def stages(self, dataset: str) -> list[str]:
        """Stages of a dataset that hold at least one published partition, sorted."""
        found = _folders(self.root / dataset)
        return [s for s in found if self.partitions(dataset, s) or self.models(dataset, s)]

    def models(self, dataset: str, stage: str) -> list[str]:
        """Models with at least one published partition of a stage, sorted."""
        found = _folders(self.root / dataset / stage)
        return [m for m in found if any((self.root / dataset / stage / m).glob(f"*/{POINTER}"))]

    def partitions(self, dataset: str, stage: str, model: str | None = None) -> list[str]:
        """Published partitions of a stage (of one model, where the stage has models), sorted."""
        folder = self.root / dataset / stage / (model or "")
        return sorted(p.parent.name for p in folder.glob(f"*/{POINTER}") if is_partition(p.parent.name))

    @contextmanager
    def staging(self, ref: Ref) -> Iterator[Staged]:
        """A temporary folder for the output of `ref`; removed at the end of the block unless published."""
        with temporary_folder(self.root / STAGING) as folder:
            yield Staged(ref, folder)

    def cache(self, name: str) -> Path:
        """A folder below the lake for what can be computed again at any time."""
        path = self.root / CACHE / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def unfinished(self, key: str) -> Iterator[Path]:
        """The folder in which a computation of this recipe key keeps what it can go on from after it was killed: one
        process at a time, removed at the end of the block, kept when the block raises or its process dies."""
        path = self.root / CACHE / UNFINISHED / key
        lock = self.root / LOCKS / f"unfinished~{key}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            yield path
            shutil.rmtree(path, ignore_errors=True)

    def forget_unfinished(self) -> int:
        """Remove what computations that are not under way could go on from, with their locks; the bytes."""
        size = 0
        for lock in sorted((self.root / LOCKS).glob("unfinished~*.lock")):
            held = FileLock(lock)
            try:
                held.acquire(blocking=False)
            except Timeout:
                continue
            path = self.root / CACHE / UNFINISHED / lock.stem.removeprefix("unfinished~")
            size += sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
            shutil.rmtree(path, ignore_errors=True)
            lock.unlink(missing_ok=True)
            held.release()
        return size

    @contextmanager
    def lock(self, ref: Ref) -> Iterator[None]:
        """Hold the only writing lock of a partition, across processes; may be nested in one thread. What was changed in
        its folder goes to the bucket at the end."""
        path = self.root / LOCKS / f"{str(ref).replace('/', '~')}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path, is_singleton=True), self.changing(str(ref)):
            yield

    @contextmanager
    def changing(self, folder: str) -> Iterator[None]:
        """Around every change of a partition's folder or a book's (a path below the root), so that it goes to the
        bucket, where the lake has one. Raises Overtaken where another machine has changed it at the same moment."""
        if self.mirror is None:
            yield
            return
        with self.publishing(), self.mirror.changing(folder):
            yield

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Hold the only place in the lake for moving versions in or out, across processes; taken before `lock`. While
        it is held nothing is published, so what is reachable stays as it is. What other machines have published is
        taken first."""
        path = self.root / LOCKS / "publish.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, is_singleton=True)
        with lock:
            if self.mirror is not None and lock.lock_counter == 1:
                self.mirror.catch_up()
            yield

    @contextmanager
    def alone(self, dataset: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the only place for a planned run over a dataset, across processes: runs with other settings write the
        same partitions, and a step must not find inputs that another run has put there since the plan was made.
        `waiting` is called once where another run has to end first."""
        told = False

        def wait() -> None:
            nonlocal told
            if not told:
                told = True
                waiting()

        run, wanted = self._run_locks(dataset)
        lock, turn = FileLock(run), FileLock(wanted)
        _acquire(turn, wait)
        try:
            _acquire(lock, wait)
        finally:
            turn.release()
        try:
            yield
        finally:
            lock.release()

    def _run_locks(self, dataset: str) -> tuple[Path, Path]:
        """The lock of runs over a dataset, and that which a planned run holds while it waits for the former: from then
        on no further step begins, else overlapping steps would never leave it a moment."""
        folder = self.root / LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"run~{dataset}.lock", folder / f"wanted~{dataset}.lock"

    @contextmanager
    def beside(self, dataset: str, busy: Callable[[], None]) -> Iterator[None]:
        """Hold a place for one step over a dataset beside other such steps, while no planned run is at work or waits to
        be (`alone`). Where one is, calls `busy`, which must raise: who waits here may hold what the planned run waits
        for."""
        run, wanted = self._run_locks(dataset)
        with ExitStack() as place:
            try:
                with _shared(wanted):
                    place.enter_context(_shared(run))
            except BlockingIOError:
                busy()
                raise
            yield

    def publish(
        self,
        staged: Staged,
        inputs: Mapping[str, Version],
        recipe_key: str,
        recipe: Mapping[str, Any],
        code: Mapping[str, Any],
        rows: Mapping[str, int] | None,
        checks: Sequence[Mapping[str, Any]],
        record: Mapping[str, Any],
    ) -> Version:
        """Make the staged files the current version of their partition, and write the ledger.

        A crash at any point leaves the version before it readable, in the folder and in the bucket. Bytes equal to
        those of an existing version give that version with its own manifest, so that nothing downstream changes; the
        ledger then names the inputs and the recipe of this publication. `record` is kept in the ledger only and never
        part of a digest. Raises LakeError when an input is no longer in the lake, BucketAway where the bucket does not
        answer: what was made is then in the folder, and the next call of anything that changes the lake gives it.
        """
        files = list_files(staged.path)
        manifest = {
            "format": FORMAT,
            "ref": str(staged.ref),
            "content": content_digest(files),
            "files": files,
            "inputs": {name: v.manifest_digest for name, v in inputs.items()},
            "recipe": dict(recipe),
            "recipe_key": recipe_key,
            "code": dict(code),
            "rows": None if rows is None else dict(rows),
            "checks": [dict(c) for c in checks],
        }
        write_flushed(staged.path / MANIFEST, canonical(manifest))
        _seal(staged.path)
        for _ in range(ROUNDS - 1):
            with suppress(Overtaken):
                return self._publish(staged, manifest, inputs, record)
        return self._publish(staged, manifest, inputs, record)

    def _publish(
        self, staged: Staged, made: Mapping[str, Any], inputs: Mapping[str, Version], record: Mapping[str, Any]
    ) -> Version:
        with self.publishing(), self.lock(staged.ref):
            if "erased" not in record:  # what is written in an erased version's place may come from erased ones
                _require_present(inputs.values())
            return self._make_current(staged, made, record)

    def _make_current(self, staged: Staged, made: Mapping[str, Any], record: Mapping[str, Any]) -> Version:
        folder = self.folder(staged.ref)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / made["content"][:VERSION_DIGITS]
        fresh = not target.exists()
        if fresh:
            staged.path.rename(target)
        else:
            _refresh(target, staged.path, made["content"])
        sync_folder(folder)
        manifest, digest = read_manifest(target)
        publication = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "version": target.name,
            "manifest": digest,
            "new_content": fresh,
            **{k: made[k] for k in ("ref", "content", "inputs", "recipe", "recipe_key", "code")},
            "checks": [{**c, "examples": []} for c in made["checks"]],
        }
        head = ledger.append(
            folder / ledger.LEDGER, {"publication": publication, "run": dict(record), "environment": environment()}
        )
        pointer = {"version": target.name, "manifest": digest, "recipe_key": made["recipe_key"], "ledger": head}
        replace_whole(folder / POINTER, canonical(pointer))
        return Version(staged.ref, target, manifest, digest, made["recipe_key"], head)

    def history(self, ref: Ref) -> list[ledger.Entry]:
        """Every publication of a partition, oldest first."""
        return ledger.entries(self.folder(ref) / ledger.LEDGER)

    def publication(self, ref: Ref) -> dict[str, Any]:
        """What the current publication of a partition was made from: inputs, recipe, code and checks, also where equal
        bytes kept an older manifest. Raises LakeError when there is none."""
        current = self.require(ref)
        for entry in self.history(ref):
            if entry.digest == current.ledger_head:
                publication = entry.record.get("publication")
                fault = publication_fault(publication)
                if fault or not isinstance(publication, dict):
                    raise DamagedLake(f"{ref}: the ledger's line of the current publication: {fault}: {ledger.RESTORE}")
                return publication
        raise LakeError(f"{ref}: the ledger lacks the publication that is current: run: {ref.command}")

    def verify(self, version: Version) -> list[str]:
        """What is wrong with a version's bytes, manifest and ledger, one line each; [] when nothing is."""
        path = self.folder(version.ref) / ledger.LEDGER
        found = verify(version) + ledger.problems(path)
        made = [e.record["publication"] for e in ledger.entries(path) if e.digest == version.ledger_head]
        if not made:
            found.append(f"{version.ref}: the ledger no longer holds the publication that made this version current")
        elif made[0].get("recipe_key") != version.recipe_key:
            found.append(f"{version.ref}: the pointer has another recipe key than the publication that it names")
        return found


def _acquire(lock: FileLock, waiting: Callable[[], None]) -> None:
    """Take a lock, after `waiting` where another process has it."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()


@contextmanager
def _shared(path: Path) -> Iterator[None]:
    """Hold a lock beside others that share it. Raises BlockingIOError where somebody holds it alone."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _require_present(inputs: Iterable[Version]) -> None:
    """Raises LakeError for an input that was removed since it was read: by `gc`, or because a reader was erased."""
    for version in inputs:
        if not (version.path / MANIFEST).is_file():
            raise LakeError(
                f"{version.ref}: version {version.path.name} was erased or collected while its rows were used: "
                "run the same command again"
            )


def _refresh(target: Path, staged: Path, content: str) -> None:
    """Put equal bytes over those of an existing version, which heals damage; its manifest stays unless damaged."""
    try:
        keep = read_manifest(target)[0]["content"] == content
    except LakeError:
        keep = False
    for path in sorted(p for p in staged.rglob("*") if p.is_file()):
        name = path.relative_to(staged)
        if name.as_posix() != MANIFEST or not keep:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            path.replace(target / name)
    sync_folder(target)


def _seal(folder: Path) -> None:
    """Flush every file and folder to disk; files become read-only."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            path.chmod(0o444)
        else:
            sync_folder(path)
    sync_folder(folder)


def _folders(path: Path) -> list[str]:
    if not path.is_dir():
        return []
    return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
