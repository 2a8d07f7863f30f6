"""What the lake holds at a moment, and what follows from what, read from its ledgers and nothing else.

Belongs here: snapshots, their differences, downstream by the ledgers' inputs. Does not belong here: the plan of the
program, which these are held against.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from resources.lineage.archive import Partition, partitions, read_partition
from resources.ref import Ref


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every partition of a lake as it lies on disk."""

    partitions: Mapping[Ref, Partition]

    @classmethod
    def of(cls, lake: Path) -> "Snapshot":
        """The lake now."""
        return cls({ref: read_partition(lake, ref) for ref in partitions(lake)})

    def downstream(self, source: Ref) -> set[Ref]:
        """Partitions whose current version was last made from `source`, directly or not; itself included."""
        users: dict[Ref, set[Ref]] = {}
        for ref, partition in self.partitions.items():
            entry = partition.publications.get(partition.current)
            for name in entry.record["publication"]["inputs"] if entry else ():
                users.setdefault(Ref.of_input(name), set()).add(ref)
        found, todo = {source}, [source]
        while todo:
            new = users.get(todo.pop(), set()) - found
            found |= new
            todo += new
        return found

    def publications(self) -> Counter[Ref]:
        """How often each partition was published."""
        return Counter({ref: sum("publication" in e.record for e in p.ledger) for ref, p in self.partitions.items()})

    def published_since(self, before: "Snapshot") -> set[Ref]:
        """Partitions with publications that `before` lacks."""
        return set(self.publications() - before.publications())

    def made_by(self, asked_by: str) -> int:
        """Publications that this run asked for."""
        entries = (e.record for p in self.partitions.values() for e in p.ledger)
        return sum(r.get("run", {}).get("asked_by") == asked_by for r in entries if "publication" in r)

    def contents(self) -> dict[str, str]:
        """Content digest of every partition's current version."""
        found = {}
        for ref, partition in self.partitions.items():
            kept = partition.by_digest.get(partition.current)
            found[str(ref)] = str((kept.manifest or {})["content"]) if kept else "none"
        return found


def tells_of(lake: Path, user: int) -> list[str]:
    """Files below the lake that tell of a reader: rows with the id, quarantined rows, and text that names it."""
    named = re.compile(rf"user_id\W{{1,4}}{user}\b")
    found = []
    for path in (p for p in sorted(lake.rglob("*")) if p.is_file()):
        if path.suffix == ".parquet":
            names = {"user_id", "row"} & set(pq.read_schema(path).names)
            table = pq.read_table(path, columns=sorted(names))
            hit = "user_id" in names and pc.any(pc.equal(table["user_id"], user)).as_py()
            hit = hit or ("row" in names and pc.any(pc.match_substring(table["row"], f":{user},")).as_py())
        else:
            hit = path.suffix in (".json", ".jsonl", ".html", ".md") and named.search(path.read_text())
        found += [str(path.relative_to(lake))] if hit else []
    return found


def by_stage(refs: Iterable[Ref]) -> str:
    """How many partitions of each stage, in words."""
    counts = Counter(ref.stage for ref in refs)
    return ", ".join(f"{n} x {stage}" if n > 1 else stage for stage, n in sorted(counts.items())) or "none"
