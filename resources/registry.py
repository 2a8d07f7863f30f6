"""The MLflow model registry: every retrain a version, the champion an alias.

Belongs here: registered models, their versions and aliases. Does not belong here: who is champion (the lake's record in
`resources.champion` is the truth, the alias follows it) and runs (`resources.tracker`).
"""

from typing import TYPE_CHECKING, Any

from resources.ref import Ref
from resources.tracker import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
MANIFEST, WHO, WHY = "newsrec.manifest", "newsrec.champion_who", "newsrec.champion_why"
REGISTERED_LATER = "what was published stays; run again once the store can be reached, and the registry is told of it"
FOLLOWS_LATER = "the record of champions stands; the registry follows it with the next `newsrec challenge` or `promote`"
PAGE = 200


def model_name(ref: Ref) -> str:
    """Name of the registered model of a checkpoint: dataset, model and split.

    >>> model_name(Ref("simulated", "checkpoint", "2023-05-18.rolling", "snert"))
    'newsrec.simulated.snert.rolling'
    """
    return f"newsrec.{ref.dataset}.{ref.model}.{ref.partition.split('.')[1]}"


def register(tracker: Tracker, ref: Ref, manifest: str, run_id: str | None = None) -> str:
    """The registry's version of a checkpoint, made where there is none; its number. The alias `challenger` is on the
    newest version, whatever an earlier try left undone. Raises TrackerError where the store cannot be told."""
    with tracker.reaching(REGISTERED_LATER):
        return _registered(tracker, ref, manifest, run_id)


def crown(tracker: Tracker, ref: Ref, manifest: str, who: str, why: str) -> None:
    """Put the alias `champion` on a checkpoint's version (registered first where it is not), tagged with who made it
    champion and why. Nothing is written where it stands so already. Raises TrackerError where the store cannot be
    told."""
    tags = {WHO: who, WHY: why}
    with tracker.reaching(FOLLOWS_LATER):
        client, name = tracker.client, model_name(ref)
        present = _at(client, name, CHAMPION)
        if present is not None and {MANIFEST: manifest, **tags}.items() <= present.tags.items():
            return
        version = _registered(tracker, ref, manifest)
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
        client.set_registered_model_alias(name, CHAMPION, version)


def note_refusal(tracker: Tracker, ref: Ref, manifest: str, why: str) -> None:
    """Say at a challenger's version why it was refused. Raises TrackerError where the store cannot be told."""
    with tracker.reaching(FOLLOWS_LATER):
        version = _registered(tracker, ref, manifest)
        tracker.client.set_model_version_tag(model_name(ref), version, "newsrec.refused", why)


def _registered(tracker: Tracker, ref: Ref, manifest: str, run_id: str | None = None) -> str:
    client, name = tracker.client, model_name(ref)
    if not client.search_registered_models(f"name = '{name}'", max_results=1):
        client.create_registered_model(name, description="Checkpoints in the lake; newsrec.manifest names each.")
    version = _find(client, name, manifest)
    if version is None:
        tags = {MANIFEST: manifest, "newsrec.ref": str(ref), "newsrec.as_of": ref.partition.split(".")[0]}
        made = client.create_model_version(name, source=f"newsrec://{ref}", run_id=run_id, tags=tags)
        version = str(made.version)
    newest = _at(client, name, CHALLENGER)
    if newest is None or int(newest.version) < int(version):
        client.set_registered_model_alias(name, CHALLENGER, version)
    return version


def _at(client: "MlflowClient", name: str, alias: str) -> "ModelVersion | None":
    """The version that an alias is on; None without the alias, or without the model."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _find(client: "MlflowClient", name: str, manifest: str) -> str | None:
    found: Any = client.search_model_versions(f"name = '{name}' AND tags.`{MANIFEST}` = '{manifest}'", max_results=PAGE)
    return str(found[0].version) if found else None
