"""`gc`: removing versions that nothing reaches, after a time.

Belongs here: the retention policy, the plan, carrying it out. Does not belong here: what reaches a version
(`resources.disk.reach`).

The lake holds at every moment: whoever uses a version goes before it, each folder leaves by one rename into the staging
area, whence it is removed, now or by the next process after a kill. Nothing is published meanwhile (`Lake.publishing`),
and a publication whose inputs have gone refuses itself.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ml.durable import sync_folder
from ml.errors import LakeError, UsageError
from resources import ledger
from resources.bucket.care import sweep
from resources.disk.reach import Partitions, Reach, inputs_of, reach, read_all, roots
from resources.lake import CACHE, STAGING, Lake
from resources.lineage.archive import Kept, Partition
from resources.ref import Ref
from resources.staging import sweep as sweep_folder
from resources.staging import temporary_folder

BOOK = Path(".gc") / ledger.LEDGER
SPILL, SPLIT, AUDIT = ".spill", ".split", "audit"
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Policy:
    """How long versions stay that nothing reaches: of each partition the newest `versions`, and all that something
    newer took the place of less than `days` ago. What these were made from stays with them."""

    days: float = 14.0
    versions: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.days < 36_500 and self.versions >= 0):
            raise UsageError(f"no retention policy: {self.days} days, {self.versions} versions; both are 0 or more")


@dataclass(frozen=True, slots=True)
class Victim:
    """A version that can go."""

    ref: Ref
    name: str
    digest: str
    bytes: int
    path: Path


@dataclass
class Plan:
    """What can go, users before what they were made from; how much is reached and how much the policy keeps; damaged
    versions that are left alone; and why nothing may be removed ("" where it may)."""

    victims: list[Victim] = field(default_factory=list)
    reached: int = 0
    retained: int = 0
    left: list[str] = field(default_factory=list)
    refusal: str = ""

    @property
    def bytes(self) -> int:
        """Bytes of all victims."""
        return sum(v.bytes for v in self.victims)


def plan(lake: Path, policy: Policy, now: datetime) -> Plan:
    """What `collect` would remove. Reads manifests and ledgers, writes nothing."""
    read = read_all(lake)
    held = reach(read, roots(lake, read))
    spare = [
        (ref, kept)
        for ref, partition in read.items()
        for kept in _retained(partition, held, policy, now)
        if kept.manifest is not None
    ]
    everything = reach(read, [*roots(lake, read), *((ref, kept.digest) for ref, kept in spare)])
    found = Plan(reached=sum(k.digest in held.digests for p in read.values() for k in p.versions.values()))
    gone = {}
    for ref, partition in read.items():
        for kept in partition.versions.values():
            if kept.manifest is None:
                found.left.append(f"{ref}: version {kept.name}: {kept.fault}")
            elif kept.digest not in everything.digests:
                gone[kept.digest] = Victim(ref, kept.name, kept.digest, folder_bytes(kept.path), kept.path)
            elif kept.digest not in held.digests:
                found.retained += 1
    found.victims = [gone[digest] for digest in _users_first(read, gone)]
    if everything.blind:
        ref, digest = everything.blind[0]
        found.refusal = (
            f"{ref}: nothing tells what manifest {digest[:12]} was made from, so nobody can say what may go: run "
            "`newsrec audit verify --all` and repair the lake first"
        )
    return found


def collect(lake: Lake, policy: Policy, now: datetime, who: str) -> Plan:
    """Plan and remove; the plan is recorded before the first version goes, and that it was done after the last. Raises
    LakeError where the plan refuses."""
    book = lake.root / BOOK
    with ExitStack() as after:
        trash = after.enter_context(temporary_folder(lake.root / STAGING))
        with lake.publishing():
            made = plan(lake.root, policy, now)
            if made.refusal:
                raise LakeError(made.refusal)
            if not made.victims:
                return made
            book.parent.mkdir(exist_ok=True)
            listed = [{"ref": str(v.ref), "version": v.name, "manifest": v.digest} for v in made.victims]
            stamp = {"at": now.isoformat(timespec="milliseconds"), "who": who}
            with lake.changing(book.parent.name):
                ledger.append(book, {**stamp, "kind": "planned", "policy": _said(policy), "versions": listed})
            for number, victim in enumerate(made.victims):
                with lake.lock(victim.ref):
                    victim.path.rename(trash / str(number))
                    sync_folder(lake.folder(victim.ref))
            with lake.changing(book.parent.name):
                ledger.append(book, {**stamp, "kind": "done", "versions": len(listed), "bytes": made.bytes})
    return made


def sweep_bucket(lake: Lake) -> int:
    """Remove what uploads of killed processes left in the lake's bucket more than a day ago; how many objects."""
    if lake.mirror is None:
        return 0
    with lake.publishing():
        return sweep(lake.mirror)


def remove_caches(lake: Lake, datasets: Iterable[str]) -> int:
    """Remove what can be made again at once: days cut from source files, audit pages, states of
    trainings that are not under way, and what killed processes left.
    Text vectors stay, they are dear. Gives the bytes. No run may work on the datasets meanwhile (`Lake.alone`)."""
    homes = [lake.root / STAGING, lake.root / SPILL]
    size = sum(map(folder_bytes, homes))
    for home in homes:
        sweep_folder(home)
    size -= sum(map(folder_bytes, homes))
    with temporary_folder(lake.root / STAGING) as trash:
        for number, folder in enumerate([*(lake.root / SPLIT / d for d in datasets), lake.root / CACHE / AUDIT]):
            if folder.is_dir():
                size += folder_bytes(folder)
                folder.rename(trash / str(number))
    return size + lake.forget_unfinished()


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; 0 where there is none. Files that vanish meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        total += 0 if path.is_dir() and not path.is_symlink() else status.st_size
    return total


def superseded_at(partition: Partition, digest: str) -> datetime | None:
    """When another version took the place of the one with this manifest digest: by the first publication of another
    after its last one. None where the ledger never published it, `datetime.max` where it is the last."""
    lines = [e.record["publication"] for e in partition.ledger if "publication" in e.record]
    last = max((i for i, line in enumerate(lines) if line["manifest"] == digest), default=None)
    if last is None:
        return None
    return datetime.fromisoformat(lines[last + 1]["at"]) if last + 1 < len(lines) else _NEVER


def _retained(partition: Partition, held: Reach, policy: Policy, now: datetime) -> list[Kept]:
    """Unreached versions that the policy keeps. One that the ledger never published was left by a killed process."""
    dated = []
    for kept in partition.versions.values():
        when = superseded_at(partition, kept.digest)
        if kept.digest not in held.digests and when is not None:
            dated.append((when, kept.name, kept))
    dated.sort(reverse=True)
    limit = now - timedelta(days=policy.days)
    return [kept for place, (when, _, kept) in enumerate(dated) if place < policy.versions or when > limit]


def _users_first(read: Partitions, victims: Mapping[str, Victim]) -> list[str]:
    """The victims' digests, each before those of its inputs."""
    order: list[str] = []
    done: set[str] = set()
    for start in sorted(victims):
        stack = [(start, False)]
        while stack:
            digest, ready = stack.pop()
            if ready:
                order.append(digest)
            elif digest not in done:
                done.add(digest)
                stack.append((digest, True))
                named = inputs_of(read[victims[digest].ref], digest) or {}
                stack += [(i, False) for i in named.values() if i in victims and i not in done]
    return order[::-1]


def _said(policy: Policy) -> dict[str, float]:
    return {"days": policy.days, "versions": policy.versions}
