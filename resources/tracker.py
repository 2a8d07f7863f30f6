"""The experiment tracker: one MLflow run per asset and partition, linked to the lake by digests.

Belongs here: opening, continuing, filling and closing MLflow runs, and making good what a dead process or a store that
was away left open. Does not belong here: the store's first set-up (`resources.tracking_store`), the files that outlive
a process (`resources.open_runs`) and what is worth logging (`assets/`).
"""

import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.errors import LakeError, NewsrecError, TransientError
from resources.lake import Lake, Version
from resources.open_runs import OpenRun, OpenRuns
from resources.ref import Ref
from resources.tracking_store import default_uri, experiment_id, open_store
from resources.transient import is_transient
from resources.version import read_manifest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

METRICS_PER_CALL, PARAMS_PER_CALL, TAGS_PER_CALL = 800, 100, 100
PARAM_LENGTH = 6000
DIGEST_LENGTH = 36
KIND = "newsrec.ref"
KEY = "newsrec.recipe_key"
DAGSTER_RUN = "newsrec.dagster_run"
MANIFEST, LEDGER_HEAD = "newsrec.manifest", "newsrec.ledger_head"
ENDED = "newsrec.ended"


class TrackerError(NewsrecError):
    """The tracking store is away, locked, or will not take what it is told."""


class TrackerAway(TrackerError, TransientError):
    """The tracking store may answer in a moment."""


class TrackedRun:
    """One open run. What is logged is collected and sent in few calls when the run closes, also after an error."""

    def __init__(self, client: "MlflowClient", run_id: str, url: str, kept: OpenRun | None = None) -> None:
        self.run_id = run_id
        self.url = url
        self._client = client
        self._kept = kept
        self._artifacts: list[Path] = []
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
        """A file to be copied to the run's artifacts."""
        self._artifacts.append(path)

    def input(self, name: str, digest: str) -> None:
        """A dataset that went in, by our name and manifest digest."""
        self._inputs[name] = digest

    def about_to_publish(self, artifacts: Sequence[str]) -> None:
        """Keep what was collected, and which files of the output are artifacts, where it outlives this process: the
        store is told of it later if this process or the store fails from here on."""
        if self._kept is None:
            return
        metrics = [[m.key, m.value, m.timestamp, m.step] for m in self._metrics]
        report = {"run_id": self.run_id, "params": self._params, "metrics": metrics, "tags": self._tags}
        self._kept.keep({**report, "inputs": self._inputs, "artifacts": list(artifacts)})

    def published(self, version: Version, artifacts: Sequence[str] = ()) -> None:
        """The output is `version`; `artifacts` are names of its files."""
        self.tags({KIND: str(version.ref), MANIFEST: version.manifest_digest, LEDGER_HEAD: version.ledger_head})
        for name in artifacts:
            self.artifact(version.file(name))

    def _again(self, report: Mapping[str, Any]) -> None:
        """Collect once more what `about_to_publish` kept."""
        from mlflow.entities import Metric

        self._params, self._tags, self._inputs = report["params"], report["tags"], report["inputs"]
        self._metrics = [Metric(*m) for m in report["metrics"]]

    def flush(self) -> None:
        """Send what was collected."""
        from mlflow.entities import Param, RunTag

        for path in self._artifacts:
            self._client.log_artifact(self.run_id, str(path))

        params = _chunks([Param(k, v) for k, v in self._params.items()], PARAMS_PER_CALL)
        tags = _chunks([RunTag(k, v) for k, v in self._tags.items()], TAGS_PER_CALL)
        metrics = _chunks(self._metrics, METRICS_PER_CALL)
        for p, t, m in zip_longest(params, tags, metrics, fillvalue=()):
            self._client.log_batch(self.run_id, metrics=list(m), params=list(p), tags=list(t))
        if self._inputs:
            self._client.log_inputs(self.run_id, [_dataset(n, d) for n, d in self._inputs.items()])
        self._params, self._metrics, self._tags, self._inputs, self._artifacts = {}, [], {}, {}, []


class Tracker:
    """Runs in the store at `uri` (default `MLFLOW_TRACKING_URI`, or `mlflow.db` in the repository). mlflow is imported
    on first use, not here. With `home`, runs that were left open are closed, and published outputs that the store was
    not told of are reported, by the next call of `mend`."""

    def __init__(self, uri: str | None = None, home: Path | None = None) -> None:
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri()
        self._open_runs = OpenRuns(home) if home is not None else None
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

        A second try of the same Dagster run on the same `ref` continues the run of the first. Raises TrackerError where
        the store cannot be reached.
        """
        with self._open_runs.enter(ref, dagster_run_id) if self._open_runs else nullcontext() as kept:
            with self.reaching("nothing was published; run again once the store can be reached"):
                experiment = self.experiment(ref.dataset)
                run_id = self._open(experiment, ref, dagster_run_id, {**(tags or {}), KEY: recipe_key})
            run = TrackedRun(self.client, run_id, f"#/experiments/{experiment}/runs/{run_id}", kept)
            try:
                yield run
            except BaseException:
                with self._in_passing():
                    run.flush()
                with self._in_passing():
                    self.client.set_terminated(run_id, "FAILED")
                    if kept is not None:
                        kept.settled = kept.report is None  # else `mend` finds out whether it was published
                raise
            with self.reaching("what was published stays, and the next run tells the store of it"):
                try:
                    run.flush()
                except Exception:
                    with self._in_passing():
                        self.client.set_terminated(run_id, "FAILED")
                    raise
                self._close(run_id, "FINISHED", kept)

    @contextmanager
    def reaching(self, remedy: str) -> Iterator[None]:
        """Errors of the store become one line that ends in `remedy`: TrackerAway where it may answer in a moment, else
        TrackerError."""
        try:
            yield
        except NewsrecError:
            raise
        except _store_errors() as error:
            where = re.sub(r"//[^/@]*@", "//", self.uri)
            kind = TrackerAway if is_transient(error) else TrackerError
            raise kind(f"MLflow store {where}: {_first_line(error)}: {remedy}") from error

    def mend(self, lake: Lake) -> list[str]:
        """Close the runs of dead processes, and tell the store of what they published; one line for each, and for what
        cannot be mended yet."""
        if self._open_runs is None:
            return []
        with self._open_runs.dead() as (runs, said):
            for number, run in enumerate(runs):
                try:
                    with self.reaching("it is told by a later run"):
                        said.append(self._settle(run, lake))
                except LakeError as error:
                    said.append(f"MLflow run of {run.ref} stays open: {error}")
                except TrackerError as error:
                    return [*said, f"{len(runs) - number} MLflow runs are still to be closed: {error}"]
        return [line for line in said if line]

    def _settle(self, run: OpenRun, lake: Lake) -> str:
        """Bring the store up to date on one run of a dead process; says what was done."""
        found = self._found(self.experiment(run.ref.dataset), run.ref, run.dagster_run)
        if found is None:
            run.settled = True
            return ""
        run_id = str(found.info.run_id)
        version = _published_by(lake, run, run_id)
        if version is None or run.report is None:
            self.client.set_tag(run_id, ENDED, "its process ended before its output was published")
            self._close(run_id, "FAILED" if found.info.status == "FAILED" else "KILLED", run)
            return f"MLflow run {run_id} of {run.ref}: closed, its process had ended before it published anything"
        again = TrackedRun(self.client, run_id, "")
        again._again(run.report)
        there = version.path.is_dir()
        again.published(version, [name for name in run.report["artifacts"] if there and version.file(name).is_file()])
        if not there:
            again.tags({ENDED: "its version has been removed from the lake since"})
        try:
            again.flush()
        except Exception as error:
            if getattr(error, "error_code", "") != "INVALID_PARAMETER_VALUE":
                raise
            self._close(run_id, "FAILED", run)
            return f"MLflow run {run_id} of {run.ref}: the store refuses it for good ({_first_line(error)})"
        self._close(run_id, "FINISHED", run)
        return f"MLflow run {run_id} of {run.ref}: told of what was published"

    def _close(self, run_id: str, status: str, kept: OpenRun | None) -> None:
        self.client.set_terminated(run_id, status)
        if kept is not None:
            kept.settled = True

    @contextmanager
    def _in_passing(self) -> Iterator[None]:
        """The error that is already on its way counts more than one of the store; what was left open is mended."""
        try:
            yield
        except _store_errors():
            logging.getLogger("resources").warning("MLflow store %s could not be told of a failure", self.uri)

    def _found(self, experiment: str, ref: Ref, dagster_run_id: str) -> "Run | None":
        wanted = f"tags.`{KIND}` = '{ref}' AND tags.`{DAGSTER_RUN}` = '{dagster_run_id}'"
        return next(iter(self.client.search_runs([experiment], wanted, max_results=1)), None)

    def _open(self, experiment: str, ref: Ref, dagster_run_id: str, tags: Mapping[str, str]) -> str:
        found = self._found(experiment, ref, dagster_run_id)
        if found is not None:
            run_id = str(found.info.run_id)
            self.client.update_run(run_id, status="RUNNING")
            return run_id
        own = {**tags, KIND: str(ref), DAGSTER_RUN: dagster_run_id}
        return str(self.client.create_run(experiment, tags=own, run_name=str(ref)).info.run_id)


def _published_by(lake: Lake, run: OpenRun, run_id: str) -> Version | None:
    """The version that the run published, as its ledger entry names it, whether it is still there or not; None where it
    did not get as far as being current."""
    current, reached = lake.current(run.ref), False
    for entry in reversed(lake.history(run.ref)):
        reached = reached or (current is not None and entry.digest == current.ledger_head)
        if reached and entry.record["run"].get("mlflow_run") == run_id:
            made = entry.record["publication"]
            path = lake.folder(run.ref) / made["version"]
            manifest = read_manifest(path)[0] if path.is_dir() else {}
            return Version(run.ref, path, manifest, made["manifest"], made["recipe_key"], entry.digest)
    return None


def _store_errors() -> tuple[type[Exception], ...]:
    """What the client raises where its store is away, locked or refuses."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


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
