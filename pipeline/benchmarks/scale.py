"""`newsrec bench scale`: a log of the size of EB-NeRD large on one machine, from the bundle to the evaluation.

Belongs here: the log with its vectors, the settings of the run, what each asset took. Does not belong here: the run
itself (`pipeline.run`).

The work stays in `NEWSREC_SCALE` (default `data/scale/SIZE` in the repository): run the same command again after an
interruption and it goes on; remove the folder to begin anew. Seconds and peak memory of an asset are those that its
ledger keeps, whichever try made it.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema, simulator
from ml.benchmarks.common import row, size_of, timed
from ml.datasets import dataset
from ml.durable import replace_whole
from ml.recipes import Recipe
from pipeline.plan import Node, make_plan
from pipeline.run import as_of_day, execute, report_goals
from resources.bindings import RunSettings, ToolBox
from resources.lake import Lake
from resources.places import REPOSITORY

SIZES = {"quick": "demo", "paper": "large"}
PROMISED_MINUTES, PROMISED_GIB = 90.0, 12.0
STEPS, CASES = 500, 20_000
_DIMENSIONS = 300
_VECTORS = "document_vector.parquet"
_SEED = 1


class ScaleSettings(RunSettings):
    """500 steps of training and 20,000 test cases, for the trained model and the baseline."""

    @property
    def budget(self) -> int:
        """Test cases to score."""
        return CASES

    def recipe_of(self, model: str | None) -> Recipe:
        """The recipe of `model`, cut to so many steps."""
        return super().recipe_of(model).model_copy(update={"steps": STEPS})


def bench_scale(size: str = "quick") -> dict[str, Any]:
    """Minutes of all assets and the highest memory of any, each against its promise, and both by asset. `size`: `quick`
    (the simulator's demo) or `paper` (its large size, about 65 M clicks)."""
    asked = size_of(SIZES, size)
    folder = Path(os.environ.get("NEWSREC_SCALE") or REPOSITORY / "data" / "scale" / size)
    folder.mkdir(parents=True, exist_ok=True)
    log, clicks = _log(folder / "log", asked)
    nodes, lake = _run(folder, log)
    assets = costs(nodes, lake)
    total, peak = sum(a["seconds"] for a in assets), max(a["peak_mib"] for a in assets)
    results = [
        row("all assets / promise", total / 60, PROMISED_MINUTES, "min"),
        row("peak memory / promise", peak / 1024, PROMISED_GIB, "GiB"),
    ]
    described = {"log": asked, "clicks": clicks, "steps": STEPS, "cases": CASES}
    return {"bench": "scale", "size": described, "results": results, "assets": assets}


def _log(root: Path, size: str) -> tuple[Path, int]:
    """The bundle with published vectors, made where it is not there; its clicks."""
    summary, seconds = timed(
        lambda: simulator.simulate(root, size, _SEED, lambda done, of: _say(f"simulated day {done} of {of}"))
    )
    if summary.generated:
        _say(f"{summary.clicks:,} clicks in {seconds:.0f} s")
    if not (root / _VECTORS).exists():
        write_vectors(root)
    return root, summary.clicks


def write_vectors(root: Path) -> None:
    """Vectors of all articles as a published artifact: signed counts of hashed words, unit length."""
    from sklearn.feature_extraction.text import HashingVectorizer

    articles = pq.read_table(root / "articles.parquet", columns=[schema.ARTICLE_ID, "body"])
    hashing = HashingVectorizer(n_features=_DIMENSIONS, norm="l2")
    vectors = hashing.transform(articles["body"].to_pylist()).toarray().astype(np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), _DIMENSIONS).cast(pa.list_(pa.float32()))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({schema.ARTICLE_ID: articles[schema.ARTICLE_ID], "document_vector": lists}), sink)
    replace_whole(root / _VECTORS, sink.getvalue().to_pybytes())


def _run(folder: Path, log: Path) -> tuple[Sequence[Node], Lake]:
    """Materialises what is missing; all partitions that the report stands on."""
    os.environ["DAGSTER_HOME"] = str(folder / "dagster")
    (folder / "dagster").mkdir(exist_ok=True)
    toolbox = ToolBox(
        lake=str(folder / "lake"), dataset="simulated", data_root=str(log), device="cpu",
        tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
    )  # fmt: skip
    known, settings = dataset("simulated"), ScaleSettings(models=["snert", "popular_15"])
    goals = report_goals(as_of_day(known, settings, toolbox, None), settings)
    execute(known, settings, toolbox, goals, _say)
    return make_plan(known, settings, toolbox.tools(), goals).nodes, toolbox.tools().lake


def costs(nodes: Sequence[Node], lake: Lake) -> list[dict[str, Any]]:
    """By asset, in order of the graph: partitions, seconds in all, highest memory of one (MiB), bytes."""
    found: dict[str, dict[str, Any]] = {}
    for node in nodes:
        name = "/".join(filter(None, (node.stage.name, node.model)))
        run = lake.history(node.ref)[-1].record["run"]
        entry = found.setdefault(name, {"asset": name, "partitions": 0, "seconds": 0.0, "peak_mib": 0, "bytes": 0})
        entry["partitions"] += 1
        entry["seconds"] += float(run["seconds"])
        entry["peak_mib"] = max(entry["peak_mib"], int(run["peak_mib"]))
        entry["bytes"] += sum(f["bytes"] for f in lake.require(node.ref).manifest["files"])
    return list(found.values())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
