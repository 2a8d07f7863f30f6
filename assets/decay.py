"""`decay`: the evaluations of one checkpoint by its age, beside those of the models retrained since.

Belongs here: which evaluations the lake holds. Does not belong here: rows and page (`ml.decay`).
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from assets.segments import QUESTIONS
from assets.stage import Find, Kept, Stage, Summary, Work, inview_label
from ml import sheet
from ml.datasets import Dataset
from ml.measured import read_metrics
from ml.splits import ROLLING
from ml.strangers import reading
from ml.synthetic import SYNTHETIC
from resources.bindings import RunSettings, Tools
from resources.lake import Lake, Ref, Version, write_parquet

if TYPE_CHECKING:
    from ml import decay as ageing


def _recipe(dataset: Dataset, settings: RunSettings, tools: Tools, model: str | None) -> dict[str, Any]:
    return {"days": settings.decay_days, "template": hashlib.sha256(sheet.template()).hexdigest()}


def old_partition(day: date, age: int) -> str:
    """Partition of the evaluation of the checkpoint as of `day`, `age` days later."""
    return f"{day}.{ROLLING.name}" if age == 0 else f"{day}.lag_{age}"


def new_partition(day: date, age: int) -> str:
    """Partition of the evaluation of the model made for the day that is `age` days after `day`."""
    return f"{day + timedelta(days=age)}.{ROLLING.name}"


def _find(question: str) -> Find:
    def find(dataset: Dataset, day: date, model: str | None, settings: RunSettings, lake: Lake) -> Sequence[Version]:
        ages = range(settings.decay_days + 1)
        names = dict.fromkeys([old_partition(day, a) for a in ages] + [new_partition(day, a) for a in ages])
        found = [lake.current(Ref(dataset.name, f"evaluation_{question}", name, model)) for name in names]
        return [version for version in found if version is not None]

    return find


def _compute(work: Work) -> Summary:
    from ml import decay as ageing

    by_name = {q: {v.ref.partition: v for v in work.inputs[f"evaluation_{q}"]} for q in QUESTIONS}
    ages = range(work.settings.decay_days + 1)
    old = {a: t for a in ages if (t := _tested(by_name, old_partition(work.day, a))) is not None}
    new = {a: t for a in ages if (t := _tested(by_name, new_partition(work.day, a))) is not None}
    missing = [str(work.day + timedelta(days=a)) for a in ages if a not in old]
    with reading(work.tools.lake.root / work.dataset.name):
        rows = ageing.decay(work.day, old, new)
    found = {
        "dataset": work.dataset.name,
        "as_of": str(work.day),
        "model": work.model,
        "rows": rows,
        "missing": missing,
    }
    (work.out / "decay.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    badge = "simulated data" if work.dataset.synthetic else ""
    (work.out / "decay.html").write_text(ageing.page(found, badge), encoding="utf-8")
    flat = [{k: v for k, v in r.items() if not isinstance(v, dict)} for r in rows]
    for row, full in zip(flat, rows, strict=True):
        row["retrained"] = full["retrained"]["value"] if full["retrained"] else None
        row["difference"] = full["difference"]["difference"] if full["difference"] else None
    n = write_parquet(pa.Table.from_pylist(flat), work.out / "decay.parquet") if flat else 0
    figures = {f"{r['question']}.{r['protocol']}.{r['metric']}.age_{r['age']}": r["value"] for r in rows}
    metadata = {"ages tested": sorted(old), "retrained models": sorted(a for a in new if a)}
    return Summary(
        rows={"decay.parquet": n} if flat else {},
        metrics=figures,
        metadata=metadata,
        labels=inview_label("; ".join(sorted({r[SYNTHETIC] for r in rows} - {""}))),
        artifacts=["decay.json", "decay.html"],
    )


def _tested(by_name: dict[str, dict[str, Version]], partition: str) -> "ageing.AtAge | None":
    from ml import decay as ageing

    versions = {q: found[partition] for q, found in by_name.items() if partition in found}
    if not versions:
        return None
    metrics = {q: read_metrics(v.file("metrics.json")) for q, v in versions.items()}
    return ageing.AtAge(metrics, {q: v.file("per_case.parquet") for q, v in versions.items()})


DECAY = Stage(
    name="decay",
    group="evaluation",
    description="The same checkpoint tested on its own day and 1 to k days later, beside the retrained models.",
    needs=tuple(
        Kept(f"evaluation_{q}", f"evaluation_{q}", lambda _: (0, 0), model="same", find=_find(q)) for q in QUESTIONS
    ),
    modules=("assets.decay", "ml.decay"),
    recipe=_recipe,
    compute=_compute,
    models="trained",
    kinds=("html", "parquet"),
)
