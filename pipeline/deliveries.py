"""The commands `landing`, `land` and `correct`: what arrives for a log, and how a closed day is changed.

Belongs here: who asked, what is told. Does not belong here: the rules (`resources.days`) and the argument parsing
(`pipeline.cli`).
"""

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from ml.datasets import Dataset
from resources.drops import Drop, iso, land
from resources.landing import now_ms
from resources.source import DatasetSource


def asked_by() -> str:
    """Who runs this process."""
    return os.environ.get("USER") or f"uid {os.getuid()}"


def take_arrivals(source: DatasetSource, dataset: Dataset, say: Callable[[str], None]) -> None:
    """Takes in the complete drops and tells of every drop that is new or that was left alone, and of entries of the
    data root that are not read though they almost bear a name of the log's files."""
    for stray in source.strays(dataset):
        if stray.meant:
            say(f"not read: {stray.line}")
    before = {str(d.day) for d in source.landing(dataset).log().drops}
    for drop in source.take(dataset, asked_by()):
        if drop.state != "taken" or drop.name not in before:
            say(drop.line)


def land_files(source: DatasetSource, dataset: Dataset, folder: Path, day: date) -> Path:
    """Checks the files of `folder` as the reader reads them, and makes them the drop of `day`."""
    source.landing(dataset).check(folder, day)
    return land(folder, source.root(dataset), day, now_ms())


def status(source: DatasetSource, dataset: Dataset) -> dict[str, Any]:
    """All drops as they stand, and all corrections, as JSON."""
    landing = source.landing(dataset)
    corrections = [
        {k: r[k] for k in ("day", "at", "who", "why", "from", "rows", "files", "replaces")}
        for r in landing.records()
        if r["kind"] == "correction"
    ]
    return {"dataset": dataset.name, "drops": [_shown(d) for d in landing.judged()], "corrections": corrections}


def _shown(drop: Drop) -> dict[str, Any]:
    arrived = None if drop.arrived is None else iso(drop.arrived)
    return {
        "day": drop.name,
        "state": drop.state,
        "rows": drop.rows,
        "late": drop.late,
        "arrived": arrived,
        "why": drop.why,
    }


def text(found: dict[str, Any]) -> str:
    """The status for the terminal."""
    lines = [f"{'drop':12}{'state':12}{'rows':>10}{'late':>10}  {'arrived':31}why"] if found["drops"] else ["no drops"]
    for d in found["drops"]:
        rows, late = (f"{d[k]:,}" if d[k] is not None else "" for k in ("rows", "late"))
        lines.append(f"{d['day']:12}{d['state']:12}{rows:>10}{late:>10}  {d['arrived'] or '':31}{d['why']}".rstrip())
    for c in found["corrections"]:
        lines.append(f"correction of {c['day']} at {c['at']} by {c['who']}: {c['why']} ({c['rows']:,} rows)")
    return "\n".join(lines)
