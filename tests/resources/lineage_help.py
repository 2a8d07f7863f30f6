"""A small lake with the stages of a real one, for tests of lineage: two days, two models, one report."""

import json
from pathlib import Path
from typing import Any

from resources.lake import Lake, Ref, Version
from resources.manifest import input_names

DATASET, DAY, PARTITION = "simulated", "2023-05-18", "2023-05-18.rolling"
RQ1 = {"thesis": {"recall@20": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}}}
RQ2 = {"in_view": {"auc": {"value": 0.75, "low": 0.7, "high": 0.8, "n": 9}}}
SOURCES = {"clicks.csv": "ab" * 32}


def publish(lake: Lake, ref: Ref, files: dict[str, str], inputs: list[Version], **more: Any) -> Version:
    """Publish text files with a record like that of a real run."""
    with lake.staging(ref) as staged:
        for name, text in files.items():
            (staged.path / name).write_text(text)
        check = {"name": "ids", "passed": True, "blocking": True, "count_bad": 0, "examples": [], "description": "d"}
        recipe = more.get("recipe", {"seed": 3})
        key = f"key of {ref} {sorted(v.manifest_digest for v in inputs)} {json.dumps(recipe)}"
        record = {
            "dagster_run": "d1", "mlflow_run": f"m {ref}", "device": "cpu", "seconds": 1.0, "asked_by": "t",
            **more.get("record", {}),
        }  # fmt: skip
        rows = more.get("rows", dict.fromkeys(files, 7))
        named = input_names((v.ref, v) for v in inputs)
        return lake.publish(staged, named, key, recipe, {"ml.x": "c"}, rows, [check], record)


def small_lake(root: Path, recall: float = 0.5, seed: int = 3, clicks: str = "day", made: str = "") -> Lake:
    """raw_parquet and clicks of two days, interactions, checkpoint, predictions, evaluations and report; `made`: how
    its in-view lists were made, where nobody was shown them."""
    lake = Lake(root)
    days = ["2023-05-16", "2023-05-17"]
    raw = [
        publish(lake, Ref(DATASET, "raw_parquet", d), {"raw.bin": f"{clicks} {d}"}, [], recipe={"sources": SOURCES})
        for d in days
    ]
    tables = [
        publish(lake, Ref(DATASET, "clicks", d), {"clicks.bin": f"clicks {clicks} {d}"}, [r], recipe={"rules": "r"})
        for d, r in zip(days, raw, strict=True)
    ]
    known = publish(lake, Ref(DATASET, "interactions", DAY), {"interactions.bin": f"i {clicks}"}, tables, recipe={})
    recipe = {"recipe": {"name": "snert_quick"}, "seed": seed, "split": "rolling"}
    model = publish(
        lake,
        Ref(DATASET, "checkpoint", PARTITION, "snert"),
        {"model.safetensors": f"w{seed} {clicks}"},
        [known],
        recipe=recipe,
    )
    rq1 = {"thesis": {"recall@20": {**RQ1["thesis"]["recall@20"], "value": recall}}}
    models: dict[str, Any] = {}
    evaluations = []
    for name, needs in (("snert", [model]), ("popular_15", [])):
        lists = publish(
            lake, Ref(DATASET, "predictions", PARTITION, name), {"top.bin": f"{name}{seed} {clicks}"}, [*needs, known]
        )
        entry: dict[str, Any] = {"manifest": {}}
        for question, protocols in (("rq1", rq1), ("rq2", RQ2)):
            beside = {"dataset": DATASET, "conventions": {}, "paired": {}, "counts": {}, "span": {}}
            text = json.dumps({"rq": question, "protocols": protocols, "model": name, "of": clicks, **beside})
            ref = Ref(DATASET, f"evaluation_{question}", PARTITION, name)
            version = publish(lake, ref, {"metrics.json": text}, [lists], recipe={})
            evaluations.append(version)
            entry[question] = protocols if question == "rq1" else protocols["in_view"]
            entry["manifest"][question] = version.manifest_digest
        models[name] = entry
    about = {"dataset": DATASET, "as_of": DAY, "split": "rolling", "baseline": "popular_15", "synthetic_inview": made}
    report = {**about, "models": models, "published": {}, "conventions": {}, "notes": []}
    publish(lake, Ref(DATASET, "evaluation_report", PARTITION), {"report.json": json.dumps(report)}, evaluations)
    return lake


def every_file(root: Path) -> list[Path]:
    """All files of a lake that an audit reads, sorted: not locks, not what is being written."""
    files = (p for p in root.rglob("*") if p.is_file())
    return sorted(p for p in files if not p.relative_to(root).parts[0].startswith("."))


def rewrite(path: Path, data: bytes) -> None:
    """Change a file of the lake, which is sealed against writing."""
    path.chmod(0o644)
    path.write_bytes(data)


def flip(path: Path, place: int, bit: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    rewrite(path, bytes(data))
