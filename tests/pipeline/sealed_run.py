"""Ingestion and features of the bundle ROOT into the lake LAKE, in a process that watches itself.

Run as `python -m tests.pipeline.sealed_run ROOT LAKE`; prints, as a JSON list, the files below ROOT that Python
opened (audit event `open`; native readers pass it by, so the test watches the folder as well). Belongs here: what
leaves the sealed oracle alone. Does not belong here: what is expected (`test_sealed_oracle`).
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

OPENED: list[str] = []
ROOT, LAKE = (Path(p).absolute() for p in sys.argv[1:3])
TABLES = ("articles", "clicks", "impressions")
FEATURES = ("interactions", "article_features", "popularity_tensor")


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Notes the files below ROOT."""
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        path = Path(os.fsdecode(arguments[0])).absolute()
        if path.is_relative_to(ROOT):
            OPENED.append(str(path))


def main() -> None:
    """Readers, cut and tables by themselves, then a planned run; with `--open-the-oracle` only what evaluation does."""
    import dagster as dg

    from assets.graph import BY_NAME
    from ml.datasets import dataset
    from ml.readers import reader
    from pipeline.run import execute
    from resources.bindings import RunSettings, ToolBox
    from resources.source import DatasetSource

    simulated = dataset("simulated")
    if "--open-the-oracle" in sys.argv:
        DatasetSource(LAKE / "lake", {simulated.name: ROOT}).oracle_digest(simulated)
        return
    days = reader(simulated.reader).split(ROOT, simulated, LAKE / "cut")
    for day in days:
        reader(simulated.reader).tables(LAKE / "cut" / str(day), simulated, day)
    tools = ToolBox(
        lake=str(LAKE / "lake"),
        dataset="simulated",
        data_root=str(ROOT),
        tracking_uri=f"sqlite:///{LAKE / 'mlflow.db'}",
        device="cpu",
    )
    asof = days[-1] + timedelta(days=1)
    goals = [(BY_NAME[name], days[-1], None) for name in TABLES]
    goals += [(BY_NAME[name], asof, None) for name in FEATURES]
    goals.append((BY_NAME["session_splits"], days[-2], None))
    with dg.DagsterInstance.get():
        execute(simulated, RunSettings(), tools, goals, lambda _: None)


if __name__ == "__main__":
    sys.addaudithook(watch)
    main()
    print(json.dumps(sorted(set(OPENED))))
