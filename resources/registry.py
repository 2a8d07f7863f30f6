"""The MLflow model registry: every retrain a version, the champion an alias.

Belongs here: registered models, their versions and aliases. Does not belong here: who is champion (the lake's record in
`resources.champion` is the truth, the alias follows it) and runs (`resources.tracker`).
"""

from typing import TYPE_CHECKING, Any

from ml.errors import LakeError
from resources.ref import Ref
from resources.tracker import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
MANIFEST = "newsrec.manifest"
PAGE = 200


def model_name(ref: Ref) -> str:
    """Name of the registered model of a checkpoint: dataset, model and split.

    >>> model_name(Ref("simulated", "checkpoint", "2023-05-18.rolling", "snert"))
    'newsrec.simulated.snert.rolling'
    """
    return f"newsrec.{ref.dataset}.{ref.model}.{ref.partition.split('.')[1]}"


def register(tracker: Tracker, ref: Ref, manifest: str, run_id: str | None = None) -> str:
    """The registry's version of a checkpoint, made where there is none, with the alias `challenger`; its number."""
    client, name = tracker.client, model_name(ref)
    if not client.search_registered_models(f"name = '{name}'", max_results=1):
        client.create_registered_model(name, description="Checkpoints in the lake; newsrec.manifest names each.")
    version = _find(client, name, manifest)
    if version is None:
        tags = {MANIFEST: manifest, "newsrec.ref": str(ref), "newsrec.as_of": ref.partition.split(".")[0]}
        made = client.create_model_version(name, source=f"newsrec://{ref}", run_id=run_id, tags=tags)
        version = str(made.version)
        client.set_registered_model_alias(name, CHALLENGER, version)
    return version


def crown(tracker: Tracker, ref: Ref, manifest: str, who: str, why: str) -> str:
    """Put the alias `champion` on a checkpoint's version (registered first where it is not); its number."""
    version = register(tracker, ref, manifest)
    client, name = tracker.client, model_name(ref)
    client.set_registered_model_alias(name, CHAMPION, version)
    for key, value in (("newsrec.champion_who", who), ("newsrec.champion_why", why)):
        client.set_model_version_tag(name, version, key, value)
    return version


def note_refusal(tracker: Tracker, ref: Ref, manifest: str, why: str) -> None:
    """Say at a challenger's version why it was refused."""
    version = register(tracker, ref, manifest)
    tracker.client.set_model_version_tag(model_name(ref), version, "newsrec.refused", why)


def champion_manifest(tracker: Tracker, ref: Ref) -> str | None:
    """Manifest digest at the alias `champion` of the checkpoint's model; None without one."""
    from mlflow.exceptions import MlflowException

    try:
        found = tracker.client.get_model_version_by_alias(model_name(ref), CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise LakeError(f"MLflow's registry does not answer: {error}") from error
    return str(found.tags.get(MANIFEST))


def _find(client: "MlflowClient", name: str, manifest: str) -> str | None:
    found: Any = client.search_model_versions(f"name = '{name}' AND tags.`{MANIFEST}` = '{manifest}'", max_results=PAGE)
    return str(found[0].version) if found else None
