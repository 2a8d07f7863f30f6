"""Erasing a reader, in an order that a kill cannot spoil.

Belongs here: the order of the steps, and what is told about them. Does not belong here: the steps.

1. The list names the reader (by keyed digest): from here on nothing takes their rows in again.
2. Kept drops and corrections are rewritten; days cut from source files are removed, to be cut without the reader, as
   are half trained models, which saw the reader and would be trained on.
3. Every current version with rows is published anew without them, inputs before users. Old ones stay readable.
4. When no current version has rows, those that have are buried, users before inputs.

Where the lake has a bucket, each of these goes there as it is done; at the end, objects that nobody names are removed:
a process killed while it uploaded may have left rows in them.

Killed at any point, the same command (or `--resume`, which needs no id) finds what still holds rows and goes on; until
then each partition has its old version or its new one.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ml.errors import LakeError
from resources.bucket.care import sweep as sweep_bucket
from resources.disk.collect import remove_caches
from resources.drops import iso
from resources.erasure import deliveries, versions
from resources.erasure.book import Book, Readers, Request
from resources.lake import Lake
from resources.landing import now_ms
from resources.lineage.graph import Graph, walk_all

TRAINED = "checkpoint"
ROUNDS = 5
LEFT = (
    "the data root is not the lake's and was not touched: every run leaves the reader's rows there out, and says so",
    "Dagster's event log may show rows of the reader among the examples of checks and quarantines of older runs",
    "models, indexes, popularity counts and metrics were computed with the reader and hold no row of theirs; `newsrec "
    "run` makes new ones, `newsrec lake gc` removes the old ones in time",
)


@dataclass
class Outcome:
    """What an erasure found and did. `rows` by stage, of all versions; `models` that had seen the reader; what stands
    on erased versions and can be shown but not replayed any more, by stage, reports by name."""

    request: str
    at: str
    rows: Counter[str] = field(default_factory=Counter)
    rewritten: list[str] = field(default_factory=list)
    buried: list[str] = field(default_factory=list)
    kept_files: int = 0
    models: list[dict[str, Any]] = field(default_factory=list)
    unverifiable: dict[str, list[str]] = field(default_factory=dict)

    def json(self, dry_run: bool) -> dict[str, Any]:
        """As plain values."""
        return {
            **{"request": self.request, "at": self.at, "dry_run": dry_run, "rows": dict(self.rows)},
            **{"rewritten": self.rewritten, "erased": self.buried, "kept_file_rows": self.kept_files},
            **{"models": self.models, "unverifiable": self.unverifiable, "left": list(LEFT)},
        }


def look(lake: Lake, dataset: str, user: int) -> dict[str, Any]:
    """What erasing a reader would touch; nothing is changed or recorded."""
    readers = Book(lake.root, dataset).unrecorded(user)
    held = versions.holding(lake.root, dataset, readers)
    found = Outcome("", "", +Counter(versions.stages_of(held)))
    found.rewritten = [str(h.ref) for h in held if h.current]
    found.buried = [f"{h.ref}/{h.kept.name}" for h in reversed(held)]
    found.kept_files = deliveries.holding(lake.root, dataset, readers).total()
    _tell(walk_all(lake.root), {h.digest for h in held}, found)
    return found.json(dry_run=True)


def erase(
    lake: Lake, dataset: str, user: int, why: str, who: str, now: datetime, say: Callable[[str], None], name: str = ""
) -> dict[str, Any]:
    """Erase a reader from the lake; a request that was recorded before is taken up again. Waits for a running plan."""
    with _alone(lake, dataset, say):
        request = Book(lake.root, dataset).ask(user, why, who, now, name)
        return _carry_out(lake, dataset, request, who, now, say)


def resume(lake: Lake, dataset: str, who: str, now: datetime, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Carry out all requests that were recorded and not finished."""
    with _alone(lake, dataset, say):
        waiting = [r for r in Book(lake.root, dataset).requests() if not r.done]
        return [_carry_out(lake, dataset, r, who, now, say) for r in waiting]


def _alone(lake: Lake, dataset: str, say: Callable[[str], None]) -> Any:
    if lake.mirror is not None:
        lake.mirror.store.require_fit()  # a bucket that keeps old versions would keep the reader
    return lake.alone(dataset, lambda: say(f"a run of {dataset} is at work in this lake: waiting until it has ended"))


def _carry_out(
    lake: Lake, dataset: str, request: Request, who: str, now: datetime, say: Callable[[str], None]
) -> dict[str, Any]:
    book = Book(lake.root, dataset)
    readers = book.readers(request.name)
    outcome = Outcome(request.name, request.at)
    outcome.kept_files = deliveries.erase(lake.root, dataset, readers, request, iso(now_ms()))
    remove_caches(lake, [dataset])
    for _ in range(ROUNDS):
        lake.catch_up()
        held = versions.holding(lake.root, dataset, readers)
        if not held:
            break
        outcome.rows += Counter(versions.stages_of(held))
        say(f"{request.name}: {len(held)} versions hold rows")
        _rewrite_all(lake, held, readers, request, who, outcome)
        for h in reversed(held):
            versions.bury(lake, h, request)
            outcome.buried.append(f"{h.ref}/{h.kept.name}")
    else:
        raise LakeError(f"{dataset} was written to all the time: run the same command again when no run is at work")
    remove_caches(lake, [dataset])
    if lake.mirror is not None:
        with lake.publishing():
            sweep_bucket(lake.mirror, (f"{dataset}/", f"{deliveries.HOME}/{dataset}/"), -timedelta(days=1))
    book.done(request, now)
    graph = walk_all(lake.root)
    gone = {n.id for n in graph.nodes.values() if n.tombstone and n.tombstone["request"] == request.name}
    _tell(graph, gone, outcome)
    return outcome.json(dry_run=False)


def _rewrite_all(
    lake: Lake, held: Iterable[versions.Holding], readers: Readers, request: Request, who: str, outcome: Outcome
) -> None:
    mates: dict[Any, list[Any]] = {}
    for h in held:
        mates.setdefault(h.ref, []).append(h.kept)
    for h in held:
        if h.current:
            versions.rewrite(lake, h, mates[h.ref], readers, request, who)
            outcome.rewritten.append(str(h.ref))
    for ref, kept in mates.items():
        versions.name_in_ledger(lake, ref, kept, request, who)


def _tell(graph: Graph, gone: set[str], outcome: Outcome) -> None:
    """What stands on the versions `gone`, and the models among it."""
    touched = set(gone)
    for node in graph.order():
        if node.id not in touched and touched & set(node.inputs):
            touched.add(node.id)
            if node.state in ("erased", "missing"):
                continue
            where = f"{node.ref}#{node.version}"
            outcome.unverifiable.setdefault(node.ref.stage, []).append(where)
            if node.ref.stage == TRAINED:
                current = graph.partitions[node.ref].current == node.id
                entry = {"ref": str(node.ref), "version": node.version, "manifest": node.id, "current": current}
                outcome.models.append({**entry, "mlflow_run": node.run.get("mlflow_run")})
