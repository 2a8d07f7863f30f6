"""`decay`: the evaluations of one checkpoint by its age, beside those of the models retrained since.

Belongs here: which evaluations the lake holds. Does not belong here: rows and page (`ml.decay`).
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
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
from resources.lineage.archive import read_partition

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
    aged = [old_partition(work.day, a) for a in ages]
    others = of_other_checkpoints(work.tools.lake.root, by_name, aged)
    same = {q: {p: v for p, v in found.items() if (q, p) not in others} for q, found in by_name.items()}
    old = {a: t for a in ages if (t := _tested(same, aged[a])) is not None}
    new = {a: t for a in ages if (t := _tested(by_name, new_partition(work.day, a))) is not None}
    missing = [[str(work.day + timedelta(days=a)), why] for a in ages if (why := _lacks(aged[a], a in old, others))]
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


def of_other_checkpoints(
    lake: Path, by_name: Mapping[str, Mapping[str, Version]], partitions: Sequence[str]
) -> set[tuple[str, str]]:
    """(question, partition) of the evaluations that do not come from the checkpoint of the first one among
    `partitions`, by their manifests; also where what they were made from is gone and nobody can say."""
    origin: set[str] = set()
    others = set()
    for partition in partitions:
        for question, found in by_name.items():
            if partition in found:
                theirs = _checkpoints(lake, found[partition])
                origin = origin or theirs
                if not origin & theirs:
                    others.add((question, partition))
    return others


def _checkpoints(lake: Path, evaluation: Version) -> set[str]:
    """Manifest digests of the checkpoints that an evaluation's predictions come from: more than one where another gave
    the same bytes."""
    predictions = _made_from(lake, evaluation.ref, evaluation.manifest_digest, "predictions")
    return {d for ref, digest in predictions for _, d in _made_from(lake, ref, digest, "checkpoint")}


def _made_from(lake: Path, ref: Ref, digest: str, stage: str) -> set[tuple[Ref, str]]:
    """Inputs from `stage`, of the same model, of the version of `ref` with this manifest digest: by its manifest, and
    by later publications of the same bytes."""
    held = read_partition(lake, ref)
    kept = held.by_digest.get(digest)
    named = [kept.manifest["inputs"]] if kept is not None and kept.manifest is not None else []
    for entry in held.ledger:
        publication = entry.record.get("publication", {})
        if publication.get("manifest") == digest:
            named.append(publication["inputs"])
    found = {(Ref.of_input(name), made) for inputs in named for name, made in inputs.items()}
    return {(r, made) for r, made in found if (r.stage, r.model) == (stage, ref.model)}


def _lacks(partition: str, tested: bool, others: Collection[tuple[str, str]]) -> str:
    """Why an age has no figures, or not those of every question; "" where it has them."""
    of_another = [q for q in QUESTIONS if (q, partition) in others]
    if of_another:
        return f"{', '.join(of_another)} evaluated with another checkpoint: run `newsrec decay` again"
    return "" if tested else "not evaluated yet"


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
