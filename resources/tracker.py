"""The experiment tracker: one MLflow run per asset and partition, linked to the lake by digests.

Belongs here: opening, continuing, filling and closing MLflow runs. Does not belong here: the store's first set-up
(`resources.tracking_store`) and what is worth logging (`assets/`).
"""

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.ref import Ref
from resources.tracking_store import default_uri, experiment_id, open_store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

METRICS_PER_CALL, PARAMS_PER_CALL, TAGS_PER_CALL = 800, 100, 100
PARAM_LENGTH = 6000
DIGEST_LENGTH = 36
KIND = "newsrec.ref"
KEY = "newsrec.recipe_key"
DAGSTER_RUN = "newsrec.dagster_run"


class TrackedRun:
    """One open run. What is logged is collected and sent in few calls when the run closes, also after an error."""

    def __init__(self, client: "MlflowClient", run_id: str, url: str) -> None:
        self.run_id = run_id
        self.url = url
        self._client = client
        self._params: dict[str, str] = {}
        self._metrics: list[Metric] = []
        self._tags: dict[str, str] = {}
        self._inputs: dict[str, str] = {}

    def params(self, values: Mapping[str, Any]) -> None:
        """Parameters; nested mappings become dotted names."""
        for name, value in _flat(values):
            self._params[_name(name)] = str(value)[:PARAM_LENGTH]

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Figures of one step. NaN and infinity are left out: the store has no place for them."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        finite = ((k, float(v)) for k, v in values.items() if math.isfinite(v))
        self._metrics += [Metric(_name(k), v, now, step) for k, v in finite]

    def curves(self, points: Sequence[Mapping[str, float]]) -> None:
        """Figures of many steps: one mapping each, with its `step`."""
        for point in points:
            self.metrics({k: v for k, v in point.items() if k != "step"}, step=int(point["step"]))

    def curve(self, name: str, steps: Sequence[int], values: Sequence[float]) -> None:
        """One figure over many steps."""
        self.curves([{"step": s, name: v} for s, v in zip(steps, values, strict=True)])

    def tags(self, values: Mapping[str, str]) -> None:
        """Tags; a later value replaces an earlier one."""
        self._tags |= {k: str(v) for k, v in values.items()}

    def artifact(self, path: Path) -> None:
        """Copy a file to the run's artifacts."""
        self._client.log_artifact(self.run_id, str(path))

    def input(self, name: str, digest: str) -> None:
        """A dataset that went in, by our name and manifest digest."""
        self._inputs[name] = digest

    def flush(self) -> None:
        """Send what was collected."""
        from mlflow.entities import Param, RunTag

        params = _chunks([Param(k, v) for k, v in self._params.items()], PARAMS_PER_CALL)
        tags = _chunks([RunTag(k, v) for k, v in self._tags.items()], TAGS_PER_CALL)
        metrics = _chunks(self._metrics, METRICS_PER_CALL)
        for p, t, m in zip_longest(params, tags, metrics, fillvalue=()):
            self._client.log_batch(self.run_id, metrics=list(m), params=list(p), tags=list(t))
        if self._inputs:
            self._client.log_inputs(self.run_id, [_dataset(n, d) for n, d in self._inputs.items()])
        self._params, self._metrics, self._tags, self._inputs = {}, [], {}, {}


class Tracker:
    """Runs in the store at `uri` (default `MLFLOW_TRACKING_URI`, or `mlflow.db` in the repository). mlflow is imported
    on first use, not here."""

    def __init__(self, uri: str | None = None) -> None:
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri()
        self._experiments: dict[str, str] = {}

    @cached_property
    def client(self) -> "MlflowClient":
        """The client of the store, which is set up on first use."""
        return open_store(self.uri)

    def experiment(self, name: str) -> str:
        """Id of the experiment `name`, made where there is none."""
        if name not in self._experiments:
            self._experiments[name] = experiment_id(self.client, self.uri, name)
        return self._experiments[name]

    @contextmanager
    def run(
        self, ref: Ref, dagster_run_id: str, recipe_key: str, tags: Mapping[str, str] | None = None
    ) -> Iterator[TrackedRun]:
        """A run named like `ref`, closed as FINISHED, or as FAILED when the block raises.

        A second try of the same Dagster run on the same `ref` continues the run of the first.
        """
        experiment = self.experiment(ref.dataset)
        run_id = self._open(experiment, ref, dagster_run_id, {**(tags or {}), KEY: recipe_key})
        run = TrackedRun(self.client, run_id, f"#/experiments/{experiment}/runs/{run_id}")
        status = "FAILED"
        try:
            try:
                yield run
            finally:
                run.flush()
            status = "FINISHED"
        finally:
            self.client.set_terminated(run_id, status)

    def _open(self, experiment: str, ref: Ref, dagster_run_id: str, tags: Mapping[str, str]) -> str:
        wanted = f"tags.`{KIND}` = '{ref}' AND tags.`{DAGSTER_RUN}` = '{dagster_run_id}'"
        found = self.client.search_runs([experiment], wanted, max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
            self.client.update_run(run_id, status="RUNNING")
            return run_id
        own = {**tags, KIND: str(ref), DAGSTER_RUN: dagster_run_id}
        return str(self.client.create_run(experiment, tags=own, run_name=str(ref)).info.run_id)


def _dataset(name: str, digest: str) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(name, digest[:DIGEST_LENGTH], "newsrec", f'{{"ref":"{name}","manifest":"{digest}"}}')
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "input")])


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _name(name: str) -> str:
    """MLflow allows no @ in names: `recall@20` becomes `recall_at_20`."""
    return name.replace("@", "_at_")
