"""What the faults are done to: a lake with its MLflow store, and ways to publish into it.

Belongs here: publishing a known new content to a partition, through plain lake calls or through an asset's own body.
Does not belong here: faults and promises.

A publication is told apart by its salt, which is in the file `salt.txt` of the output.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from resources.lake import Lake, Ref
from resources.tracker import Tracker

SALT = "salt.txt"
SIZE = 200_000


@dataclass(frozen=True, slots=True)
class Home:
    """A folder with a lake and an MLflow store, and the partitions that are published into it."""

    path: Path
    refs: tuple[Ref, ...]
    publish: Callable[["Home", Ref, str, Callable[[], None]], object]
    """Publishes (home, ref, salt); calls the last argument as the publication itself begins. Raises when it fails."""

    @property
    def lake(self) -> Lake:
        """The lake."""
        return Lake(self.path / "lake")

    @property
    def uri(self) -> str:
        """The MLflow store."""
        return f"sqlite:///{self.path / 'mlflow.db'}"

    @property
    def log(self) -> Path:
        """Where a child's output goes."""
        return self.path / "child.log"

    def copy(self, to: Path) -> "Home":
        """The same in another folder."""
        shutil.copytree(self.path, to, symlinks=True)
        return replace(self, path=to)


def plain_home(path: Path) -> Home:
    """A fresh home of two partitions, published by plain calls of lake and tracker."""
    path.mkdir(parents=True)
    refs = (Ref("simulated", "clicks", "2023-05-18"), Ref("simulated", "checkpoint", "2023-05-18.rolling", "snert"))
    return Home(path, refs, publish_plainly)


def publish_plainly(home: Home, ref: Ref, salt: str, begins: Callable[[], None]) -> None:
    """What an asset's body does, without Dagster."""
    lake, tracker = home.lake, Tracker(home.uri, home.lake.root / ".tracking")
    tracker.mend(lake)
    key = hashlib.sha256(salt.encode()).hexdigest()
    with (
        lake.unfinished(key),
        tracker.run(ref, f"dagster-{salt}", key) as run,
        lake.staging(ref) as staged,
    ):
        for number in range(4):
            noise = hashlib.shake_256(f"{salt}{number}".encode()).digest(SIZE)
            (staged.path / f"part-{number}.bin").write_bytes(noise)
        (staged.path / SALT).write_text(salt)
        run.metrics({"n": 1.0})
        begins()
        run.about_to_publish([SALT])
        version = lake.publish(staged, {}, key, {"salt": salt}, {}, None, [], {"mlflow_run": run.run_id})
        run.published(version, [SALT])


def asset_home(path: Path, log: Path) -> Home:
    """The home of a lake that `newsrec run` has filled, and every partition of it as of its last day."""
    lake = Lake(path / "lake")
    refs = []
    for stage in lake.stages("simulated"):
        for model in lake.models("simulated", stage) or [None]:
            refs.append(Ref("simulated", stage, lake.partitions("simulated", stage, model)[-1], model))

    def publish(home: Home, ref: Ref, salt: str, begins: Callable[[], None]) -> None:
        publish_asset(home, ref, salt, begins, log)

    return Home(path, tuple(refs), publish)


def publish_asset(home: Home, ref: Ref, salt: str, begins: Callable[[], None], log: Path) -> None:
    """The asset's own body in a Dagster run of its own: inputs, recipe key, checks, publishing and tracking are real;
    what it computes is the current output again, and the salt."""
    import dagster as dg

    from assets.build import build_asset
    from assets.graph import BY_NAME
    from assets.stage import Summary, Work
    from ml.datasets import dataset
    from resources.bindings import RunSettings, ToolBox

    stage = BY_NAME[ref.stage]
    original = Lake.publish

    def published(self: Lake, *arguments: Any, **more: Any) -> Any:
        begins()
        return original(self, *arguments, **more)

    def copy(work: Work) -> Summary:
        current = home.lake.require(ref)
        for file in current.manifest["files"]:
            if file["name"] != SALT:
                (work.out / file["name"]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(current.path / file["name"], work.out / file["name"])
                (work.out / file["name"]).chmod(0o644)
        (work.out / SALT).write_text(salt)
        return Summary(rows=current.rows or {}, metrics={"n": 1.0}, artifacts=[SALT])

    def salted(*arguments: Any) -> dict[str, Any]:
        return {**stage.recipe(*arguments), "salt": salt}

    Lake.publish = published  # type: ignore[method-assign]
    known = dataset("simulated")
    asset = build_asset(replace(stage, compute=copy, recipe=salted), known, ref.model, BY_NAME, ["snert", "popular_15"])
    toolbox = ToolBox(
        lake=str(home.lake.root), dataset="simulated", data_root=str(log), device="cpu", tracking_uri=home.uri
    )
    day = date.fromisoformat(ref.partition.split(".")[0])
    done = dg.materialize(
        [asset],
        partition_key=day.isoformat(),
        resources={"settings": RunSettings(models=["snert", "popular_15"]), "toolbox": toolbox},
        instance=dg.DagsterInstance.ephemeral(),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    if not done.success:
        failure = next(e.step_failure_data for e in done.all_events if e.is_step_failure)
        given = failure.user_failure_data
        print(f"newsrec: {given.description}" if given and given.description else failure.error_display_string)
        raise SystemExit(1)


def build_lake(path: Path) -> None:
    """A tiny log and its lake, made by the command line in processes of its own."""
    import subprocess
    import sys

    (path / "dagster").mkdir(parents=True)
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(path / "dagster"),
        "NEWSREC_LAKE": str(path / "home" / "lake"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{path / 'home' / 'mlflow.db'}",
    }
    (path / "home").mkdir()
    log = str(path / "log")
    for arguments in (
        ("simulate", "--out", log, "--size", "tiny", "--seed", "3"),
        ("run", "--dataset", "simulated", "--data-root", log, "--models", "snert,popular_15"),
    ):
        subprocess.run([sys.executable, "-m", "pipeline.cli", *arguments], env=environment, check=True, stdout=2)
