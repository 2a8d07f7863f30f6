"""Dagster resources: the configurable face of lake, source, encoder, device and tracker, and the settings of a run.

Belongs here: configuration fields and how they become the plain objects of this room. Does not belong here: what
those objects do.
"""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from ml.errors import UsageError
from resources.engine import Engine
from resources.gpu import Device
from resources.lake import Lake
from resources.places import lake_root
from resources.source import DatasetSource
from resources.text_encoder import TextEncoder
from resources.tracker import Tracker

if TYPE_CHECKING:
    from ml.recipes import Recipe

BUDGETS = {"quick": 10_000, "full": 100_000}
DEFAULT_MODELS = (
    "snert",
    "popular_15",
    "popular_60",
    "popular_240",
    "popular_1440",
    "popular_15_paper_window",
    "cooccurrence",
    "cooccurrence_popular",
    "random",
)


class RunSettings(dg.ConfigurableResource):  # type: ignore[type-arg]
    """What a run asks for; the parts that a stage uses enter its recipe key."""

    split: str = Field(default="rolling", description="rolling, thesis or lag_K")
    profile: str = Field(default="quick", description="quick: 10,000 test cases; full: 100,000")
    seed: int = Field(default=1, description="seed of training and of the sample of test minutes")
    recipe: str = Field(default="snert_quick", description="recipe of the trained model: snert_quick or snert_thesis")
    models: list[str] = Field(default=list(DEFAULT_MODELS), description="models of the report")
    text_families: list[str] = Field(default=["body"], description="content families to encode: body, title, image")

    @property
    def budget(self) -> int:
        """Test cases to score. Raises UsageError for an unknown profile."""
        if self.profile not in BUDGETS:
            raise UsageError(f"unknown profile {self.profile!r}: use quick or full")
        return BUDGETS[self.profile]

    def recipe_of(self, model: str | None) -> "Recipe":
        """The recipe that `model` is trained with."""
        from ml.models import MODELS
        from ml.recipes import recipe

        name = MODELS[model or ""].recipe
        return recipe(self.recipe if name in (None, "snert_quick") else name)


@dataclass(frozen=True)
class Tools:
    """The plain objects that bodies use."""

    lake: Lake
    source: DatasetSource
    encoder: TextEncoder
    device: Device
    tracker: Tracker

    def engine(self) -> Engine:
        """A fresh DuckDB engine that spills below the lake."""
        return Engine(self.lake.root / ".spill")


class ToolBox(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where things live and run. Empty fields take the environment's or the repository's default."""

    lake: str = Field(default="", description="root of the lake; default NEWSREC_LAKE or ./lake")
    data_root: str = Field(default="", description="folder of the dataset that NEWSREC_DATASET names")
    dataset: str = Field(default="", description="dataset that data_root belongs to; default NEWSREC_DATASET")
    device: str = Field(default="auto", description="auto, cpu or cuda")
    encoder: str = Field(default="packaged-minilm", description="text encoder: packaged-minilm or a Hugging Face name")
    encoder_revision: str = Field(default="", description="pinned revision of a Hugging Face encoder")
    pooling: str = Field(default="mean", description="cls or mean")
    tracking_uri: str = Field(default="", description="MLflow store; default MLFLOW_TRACKING_URI or mlflow.db here")

    def tools(self) -> Tools:
        """The objects that this configuration describes, made once a process: Dagster copies the resource for every
        run, but loaded weights and open stores outlive a run."""
        name = self.dataset or os.environ.get("NEWSREC_DATASET", "")
        root = self.data_root or os.environ.get("NEWSREC_DATA_ROOT", "")
        return _make_tools(
            Path(self.lake) if self.lake else lake_root(),
            (name, Path(root)) if name and root else None,
            (self.encoder, self.encoder_revision or None, self.pooling),
            self.device,
            self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or None,
        )


@cache
def _make_tools(
    lake: Path,
    root: tuple[str, Path] | None,
    encoder: tuple[str, str | None, str],
    device: str,
    tracking_uri: str | None,
) -> Tools:
    return Tools(
        lake=Lake(lake),
        source=DatasetSource(lake, dict([root] if root else [])),
        encoder=TextEncoder(*encoder, device=device),
        device=Device(device),
        tracker=Tracker(tracking_uri),
    )
