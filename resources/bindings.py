"""Dagster resources: the configurable face of lake, source, encoder, device and tracker, and the settings of a run.

Belongs here: configuration fields and how they become the plain objects of this room. Does not belong here: what
those objects do.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, ValidationError

from ml.datasets import OWN, Dataset, SyntheticInView
from ml.errors import UsageError
from ml.models import MODELS
from ml.seeds import MOST_SEED
from ml.splits import split
from resources import running
from resources.gpu import Device
from resources.lake import Lake
from resources.places import lake_root

if TYPE_CHECKING:
    from ml.recipes import Recipe
    from resources.engine import Engine
    from resources.source import DatasetSource
    from resources.text_encoder import TextEncoder
    from resources.tracker import Tracker

BUDGETS = {"smoke": 200, "quick": 10_000, "full": 100_000}
DEFAULT_MODELS = tuple(sorted(MODELS, key=lambda name: not MODELS[name].trains))
"""All models, those that train first."""


class RunSettings(dg.ConfigurableResource):  # type: ignore[type-arg]
    """What a run asks for; the parts that a stage uses enter its recipe key."""

    split: str = Field(default="rolling", description="rolling, thesis or lag_K")
    profile: str = Field(default="quick", description="smoke: 200 test cases; quick: 10,000; full: 100,000")
    seed: int = Field(default=1, ge=0, le=MOST_SEED, description="seed of training and of the sample of test minutes")
    recipe: str = Field(default="snert_quick", description="recipe of the trained model, by name")
    models: list[str] = Field(default=list(DEFAULT_MODELS), description="models of the report")
    text_families: list[str] = Field(
        default=[], description="content families to encode: body, title, image; none: the dataset's own choice"
    )
    span_days: int = Field(default=0, ge=0, description="days before its own that dataset_analysis covers; 0: all")
    inview: str = Field(default="", description="in-view lists to synthesise for a click-only log: popularity, uniform")
    inview_length: int = Field(default=10, description="articles in a synthesised list")
    margin_recall: float = Field(default=0.01, ge=0, description="promotion: loss of RQ1 Recall@20 that is tolerated")
    margin_auc: float = Field(default=0.01, ge=0, description="promotion: loss of RQ2 AUC that is tolerated")
    margin_coverage: float = Field(default=0.01, ge=0, description="promotion: loss of RQ3 coverage that is tolerated")
    erank_floor: float = Field(default=0.1, ge=0, le=1, description="promotion: lowest relative effective rank")
    latency_budget_ms: float = Field(default=250.0, gt=0, description="promotion: budget of a list's slowest 5 %")
    decay_days: int = Field(default=7, ge=1, le=60, description="days after its own that decay tests a checkpoint on")
    inview_seed: int = Field(default=1, description="seed of synthesised lists")

    @property
    def span(self) -> str:
        """Name of the span: `all`, or `7d` for seven days."""
        return f"{self.span_days}d" if self.span_days else "all"

    def inview_of(self, dataset: Dataset) -> SyntheticInView | None:
        """The in-view lists that this run, or else the log itself, wants synthesised. Raises UsageError for a log that
        has lists, and for an unknown choice."""
        if not self.inview:
            return dataset.inview
        if dataset.has_impressions:
            raise UsageError(f"{dataset.name} brings in-view lists along: leave --inview out")
        try:
            fields = {"synthesise": self.inview, "length": self.inview_length, "seed": self.inview_seed}
            return SyntheticInView.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise UsageError(f"in-view lists, {first['loc'][0]} {first['input']!r}: {first['msg']}") from error

    @property
    def budget(self) -> int:
        """Test cases to score. Raises UsageError for an unknown profile."""
        if self.profile not in BUDGETS:
            raise UsageError(f"unknown profile {self.profile!r}: use {', '.join(BUDGETS)}")
        return BUDGETS[self.profile]

    def recipe_of(self, model: str | None) -> "Recipe":
        """The recipe that `model` is trained with."""
        from ml.recipes import recipe

        name = MODELS[model or ""].recipe
        return recipe(self.recipe if name in (None, "snert_quick") else name)


def run_settings(split_name: str = "rolling", models: str | None = None, **given: Any) -> RunSettings:
    """The settings of a run: the `given` ones that are not None, `models` as names with commas, and for the rest
    NEWSREC_RECIPE, NEWSREC_PROFILE and NEWSREC_MODELS where they are set. Most Popular 15 min, to which all are
    compared, is always among the models. Raises UsageError for a value that means nothing."""
    from ml.recipes import recipe

    split(split_name)
    source = "NEWSREC_MODELS" if models is None else "--models"
    asked = os.environ.get("NEWSREC_MODELS") or None if models is None else models
    names = list(DEFAULT_MODELS) if asked is None else [m.strip() for m in asked.split(",") if m.strip()]
    unknown = [m for m in names if m not in MODELS]
    if unknown or not names:
        said = f"unknown model {unknown[0]!r} in {source}" if unknown else f"{source} names no model"
        raise UsageError(f"{said}: choose from {', '.join(sorted(MODELS))}")
    if "popular_15" not in names:
        names.append("popular_15")
    chosen: dict[str, Any] = {f: os.environ.get(f"NEWSREC_{f.upper()}") for f in ("recipe", "profile")}
    chosen = {f: v for f, v in chosen.items() if v} | {f: v for f, v in given.items() if v is not None}
    settings = RunSettings(split=split_name, models=names, **chosen)
    recipe(settings.recipe)
    _ = settings.budget
    return settings


def default_settings() -> RunSettings:
    """The settings of runs that nobody gives others."""
    return run_settings()


@dataclass(frozen=True)
class Tools:
    """The plain objects that bodies use."""

    lake: Lake
    source: "DatasetSource"
    encoder: "TextEncoder"
    device: Device
    tracker: "Tracker"

    def engine(self) -> "Engine":
        """A fresh DuckDB engine that spills below the lake."""
        from resources.engine import Engine

        return Engine(self.lake.root / ".spill")


class ToolBox(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where things live and run. Empty fields take the environment's or the repository's default."""

    lake: str = Field(default="", description="root of the lake; default NEWSREC_LAKE or ./lake")
    data_root: str = Field(default="", description="folder of the dataset that NEWSREC_DATASET names")
    dataset: str = Field(default="", description="dataset that data_root belongs to; default NEWSREC_DATASET")
    device: str = Field(default="auto", description="auto, cpu or cuda")
    encoder: str = Field(
        default="", description="packaged-minilm or a Hugging Face name; default NEWSREC_TEXT_ENCODER, else the former"
    )
    encoder_revision: str = Field(
        default="", description="pinned revision of a Hugging Face encoder; default NEWSREC_TEXT_ENCODER_REVISION"
    )
    pooling: str = Field(default="", description="cls or mean; default NEWSREC_TEXT_POOLING, else mean")
    watermark_hours: float | None = Field(
        default=None, ge=0, description="a day closes so long after its end; default: NEWSREC_WATERMARK_HOURS, else 6"
    )
    tracking_uri: str = Field(default="", description="MLflow store; default MLFLOW_TRACKING_URI or mlflow.db here")

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Says that the process of a launched run works on it, before its first step waits for a pool."""
        if context.run is not None and running.is_launched(context.run):
            with suppress(OSError):  # the step, which says it again, names the fault in one line
                running.at_work_to_the_end(self._lake_root, context.run.run_id)

    @property
    def _lake_root(self) -> Path:
        return (Path(self.lake) if self.lake else lake_root()).absolute()

    def tools(self) -> Tools:
        """The objects that this configuration describes, made once a process: Dagster copies the resource for every
        run, but loaded weights and open stores outlive a run."""
        name = self.dataset or os.environ.get("NEWSREC_DATASET", "")
        root = self.data_root or os.environ.get("NEWSREC_DATA_ROOT", "")
        if name == OWN and root:
            from ml.own_log import read_log_file

            name = read_log_file(Path(root)).name
        return _make_tools(
            self._lake_root,
            (name, Path(root)) if name and root else None,
            (
                self.encoder or os.environ.get("NEWSREC_TEXT_ENCODER") or "packaged-minilm",
                self.encoder_revision or os.environ.get("NEWSREC_TEXT_ENCODER_REVISION") or None,
                self.pooling or os.environ.get("NEWSREC_TEXT_POOLING") or "mean",
            ),
            self.device,
            self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or None,
            _watermark() if self.watermark_hours is None else self.watermark_hours,
        )


def _watermark() -> float | None:
    """`NEWSREC_WATERMARK_HOURS`, None where it is not set."""
    text = os.environ.get("NEWSREC_WATERMARK_HOURS", "")
    try:
        hours = float(text) if text else None
    except ValueError:
        hours = -1.0
    if hours is not None and not 0 <= hours < float("inf"):
        raise UsageError(f"NEWSREC_WATERMARK_HOURS={text!r} is no number of hours: write for example 6")
    return hours


@cache
def _make_tools(
    lake: Path,
    root: tuple[str, Path] | None,
    encoder: tuple[str, str | None, str],
    device: str,
    tracking_uri: str | None,
    watermark_hours: float | None,
) -> Tools:
    from resources.source import DatasetSource
    from resources.text_encoder import TextEncoder
    from resources.tracker import Tracker

    return Tools(
        lake=Lake(lake),
        source=DatasetSource(lake, dict([root] if root else []), watermark_hours),
        encoder=TextEncoder(*encoder, device=device, download=os.environ.get("HF_HUB_OFFLINE") == "0"),
        device=Device(device),
        tracker=Tracker(tracking_uri, lake / ".tracking"),
    )
