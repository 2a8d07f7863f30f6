"""Bytes of the lake by dataset and stage, and of all that lies beside the stages.

Belongs here: counting. Does not belong here: what may go (`resources.disk.collect`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.disk.collect import folder_bytes
from resources.disk.reach import reach, read_all, roots

HIDDEN = {
    ".staging": "staging leftovers",
    ".spill": "staging leftovers",
    ".split": "caches",
    ".cache": "caches",
    ".landing": "drops and corrections",
}
"""What the hidden folders of a lake hold; others are `books`: ledgers and locks of the lake as a whole."""

BOOKS = "books"


@dataclass
class Stage:
    """Versions and bytes of one stage (all its models). `superseded` is reached from something current or kept,
    `unreachable` from nothing; `books` are pointers, ledgers, tombstones, signatures."""

    dataset: str
    stage: str
    current: int = 0
    superseded: int = 0
    unreachable: int = 0
    books: int = 0
    versions: int = 0

    @property
    def total(self) -> int:
        """All bytes."""
        return self.current + self.superseded + self.unreachable + self.books


def usage(lake: Path) -> dict[str, Any]:
    """`stages`: one entry a stage; `beside`: bytes by what they are and where; `total`: all bytes below the root."""
    stages = list(_stages(lake))
    beside: list[dict[str, Any]] = []
    for path in sorted(p for p in lake.iterdir() if p.name.startswith(".")):
        kind = HIDDEN.get(path.name, BOOKS)
        inner = sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() and kind == "caches" else []
        for folder in inner:
            beside.append({"kind": kind, "place": f"{path.name}/{folder.name}", "bytes": folder_bytes(folder)})
        rest = (folder_bytes(path) if path.is_dir() else path.lstat().st_size) - sum(folder_bytes(f) for f in inner)
        beside.append({"kind": kind, "place": path.name, "bytes": rest})
    told = [
        {
            **{"dataset": s.dataset, "stage": s.stage, "versions": s.versions, "current": s.current},
            **{"superseded": s.superseded, "unreachable": s.unreachable, "books": s.books, "total": s.total},
        }
        for s in stages
    ]
    total = sum(s.total for s in stages) + sum(b["bytes"] for b in beside)
    return {"lake": str(lake), "total": total, "stages": told, "beside": [b for b in beside if b["bytes"]]}


def _stages(lake: Path) -> Iterator[Stage]:
    read = read_all(lake)
    reached = reach(read, roots(lake, read)).digests
    places = sorted(p for p in lake.glob("[a-z]*/*") if p.is_dir())
    found = {(p.parent.name, p.name): Stage(p.parent.name, p.name) for p in places}
    for ref, partition in read.items():
        entry = found[ref.dataset, ref.stage]
        for kept in partition.versions.values():
            size = folder_bytes(kept.path)
            entry.versions += 1
            named = partition.pointer["version"] if partition.pointer else ""
            if kept.name == named:
                entry.current += size
            elif kept.digest in reached:
                entry.superseded += size
            else:
                entry.unreachable += size
    for (dataset, stage), entry in found.items():
        entry.books = folder_bytes(lake / dataset / stage) - entry.current - entry.superseded - entry.unreachable
        yield entry


def render(answer: dict[str, Any]) -> str:
    """For the terminal."""
    columns = ("current", "superseded", "unreachable", "books", "total")
    lines = [f"{'dataset/stage':40}{'versions':>9}" + "".join(f"{c:>13}" for c in columns)]
    for s in answer["stages"]:
        sizes = "".join(f"{shown(s[c]):>13}" for c in columns)
        lines.append(f"{s['dataset'] + '/' + s['stage']:40}{s['versions']:>9}{sizes}")
    lines += [f"{b['kind'] + ': ' + b['place']:40}{'':61}{shown(b['bytes']):>13}" for b in answer["beside"]]
    return "\n".join([*lines, f"{'total':40}{'':61}{shown(answer['total']):>13}"])


def shown(size: int) -> str:
    """Bytes with their unit, of 1000.

    >>> shown(1_234_567)
    '1.2 MB'
    """
    value, units = float(size), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 1000 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
