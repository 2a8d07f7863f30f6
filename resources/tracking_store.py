"""The MLflow store: where it is, and its first set-up, once, however many processes start at the same time.

Belongs here: URI, schema set-up, experiments. Does not belong here: runs (`resources.tracker`).
"""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ml.errors import UsageError
from resources.places import REPOSITORY

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
SERVERS = ("http://", "https://")


def default_uri() -> str:
    """`mlflow.db` in the repository."""
    return f"{SQLITE}{REPOSITORY / 'mlflow.db'}"


def open_store(uri: str) -> "MlflowClient":
    """A client of the store at `uri`. Raises UsageError for anything but sqlite or a tracking server.

    The first use creates the tables; processes that start together wait for each other, since MLflow's own set-up
    fails when it runs twice at once.
    """
    if not uri.startswith((SQLITE, *SERVERS)):
        raise UsageError(f"MLflow tracking URI {uri!r}: use sqlite:///FILE or the address of a tracking server")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from mlflow import MlflowClient

    with _set_up_lock(uri):
        client = MlflowClient(uri)
        client.get_experiment("0")
    return client


def experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    """Id of the experiment `name`, made where there is none, with its artifacts in `mlruns/` beside the store."""
    with _set_up_lock(uri):
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(client.create_experiment(name, artifact_location=_artifacts(uri, name)))


def _set_up_lock(uri: str) -> AbstractContextManager[Any]:
    if not uri.startswith(SQLITE):
        return nullcontext()
    path = Path(uri.removeprefix(SQLITE)).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(path.name + ".lock"))


def _artifacts(uri: str, name: str) -> str | None:
    if not uri.startswith(SQLITE):
        return None
    return (Path(uri.removeprefix(SQLITE)).absolute().parent / "mlruns" / name).as_uri()
