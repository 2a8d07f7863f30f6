"""What a stage of the pipeline is: its inputs, its recipe and its body, declared once.

Belongs here: the declaration that the Dagster graph, the plan and the command line all read. Does not
belong here: the stages themselves (one module each) and their assembly into assets (`assets.build`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ml.datasets import Dataset
from ml.models import MODELS
from ml.splits import ROLLING, Split, split
from ml.synthetic import SYNTHETIC
from resources.bindings import RunSettings, Tools
from resources.lake import Lake, Ref, Version

if TYPE_CHECKING:
    from ml.asof import AsOfPaths

BASELINE = "popular_15"
Models = Literal["none", "every", "trained", "embedding"]
Offsets = Callable[[Split], tuple[int | None, int]]


@dataclass(frozen=True, slots=True)
class Need:
    """An input: partitions `offsets(split)` (first, last; first None: from the log's first day) of `stage`, relative
    to the partition that needs them. `model`: of the same model, of the baseline, or of every model of the run."""

    name: str
    stage: str
    offsets: Offsets = lambda _: (0, 0)
    model: Literal["same", "baseline", "every"] | None = None

    def within(self, settings: RunSettings) -> "Need":
        """The need as the run's settings shape it."""
        return self


@dataclass(frozen=True, slots=True)
class SpanNeed(Need):
    """An input over the span of days before the partition's own, as long as the run's settings say."""

    offsets: Offsets = lambda _: (None, -1)

    def within(self, settings: RunSettings) -> Need:
        """The need with the offsets of the settings' span."""
        return replace(self, offsets=lambda _: (-settings.span_days or None, -1))


Find = Callable[[Dataset, date, str | None, RunSettings, Lake], Sequence[Version]]


def _nothing(*_: object) -> Sequence[Version]:
    return ()


@dataclass(frozen=True, slots=True)
class Kept(Need):
    """What the lake holds of `stage`, as `find(dataset, day, model, settings, lake)` chooses, for stages that look
    back: it is read as it stands, never made first. `offsets` only draw the arrow in the UI."""

    find: Find = _nothing


@dataclass(frozen=True, slots=True)
class Work:
    """What a body gets: where it stands, its inputs by name, where to write. `unfinished` is a folder of this recipe
    key that outlives a killed process until the output is published; None where nothing may be gone on from."""

    dataset: Dataset
    day: date
    model: str | None
    settings: RunSettings
    inputs: Mapping[str, Sequence[Version]]
    out: Path
    tools: Tools
    progress: Callable[[str], None]
    unfinished: Path | None = None

    @property
    def split(self) -> Split:
        """The split of this run."""
        return split(self.settings.split)

    def one(self, name: str) -> Version:
        """The only version of an input."""
        (version,) = self.inputs[name]
        return version

    def asof_paths(self) -> "AsOfPaths":
        """Files of the as-of door, from the inputs of `AS_OF_NEEDS`."""
        from ml.asof import AsOfPaths

        content: dict[str, list[Path]] = {}
        for version in self.inputs["article_embeddings"]:
            for file in sorted(version.files("*.parquet")):
                content.setdefault(file.stem, []).append(file)
        return AsOfPaths(
            dataset=self.dataset.name,
            features=self.one("article_features").file("features.parquet"),
            interactions=self.one("interactions").file("interactions.parquet"),
            popularity=self.one("popularity_tensor").file("popularity.safetensors"),
            content=content,
            impressions=[v.file("impressions.parquet") for v in self.inputs["impressions"]],
            declared=self.dataset if self.dataset.declared else None,
        )


@dataclass(slots=True)
class Summary:
    """What a body reports beside the files it wrote: rows by file, figures for the tracker, UI metadata, PNG plots,
    and files of the output that the tracker keeps as artifacts. `labels`: words that must stand beside the figures
    wherever they are shown, in the UI and as tags of the tracker."""

    rows: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    plots: dict[str, bytes] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)
    curves: list[dict[str, float]] = field(default_factory=list)


def inview_label(made: str | None) -> dict[str, str]:
    """Labels of figures that rest on in-view lists that nobody was shown, as `made` says; none where it is empty."""
    return {SYNTHETIC: made} if made else {}


def no_recipe(*_: object) -> dict[str, Any]:
    """The recipe of a stage that nothing but its inputs and code determines."""
    return {}


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: an asset per dataset, or per dataset and model.

    `modules`: those whose source is part of the recipe key, its own first; what they import from `ml` counts too.
    `daily`: partitions are days of data (else as-of days). `by_split`: the output depends on what the split fits on, on
    what it tests, or on the run's span of days, so the lake keeps one partition per day and split, or per day and
    span. `day_recipe`: what the recipe says of the partition's day alone. `after(tools, version, who)`: what follows
    from a new publication outside the lake's partitions; it may be done twice.
    """

    name: str
    group: str
    description: str
    needs: tuple[Need, ...]
    modules: tuple[str, ...]
    recipe: Callable[[Dataset, RunSettings, Tools, str | None], dict[str, Any]]
    compute: Callable[[Work], Summary]
    daily: bool = False
    by_split: Literal["no", "fit", "test", "span"] = "no"
    models: Models = "none"
    table: str | None = None
    pool: str | None = None
    kinds: tuple[str, ...] = ()
    day_recipe: Callable[[Dataset, date, Tools], dict[str, Any]] = no_recipe
    after: Callable[[Tools, Version, str], None] | None = None

    def sources(self, model: str | None) -> tuple[str, ...]:
        """Modules whose source is part of the recipe key of `model`'s asset: those of what it was trained by, too."""
        return self.modules + (MODELS[model].modules if model and self.models in ("trained", "embedding") else ())

    def ref(self, dataset: Dataset, day: date, settings: RunSettings, model: str | None) -> Ref:
        """Where this stage's output lies in the lake."""
        named = {"no": "", "fit": f".{split(settings.split).fit_name}", "test": f".{settings.split}"}
        named["span"] = f".{settings.span}"
        return Ref(dataset.name, self.name, f"{day}{named[self.by_split]}", model)


def days_of(need: Need, day: date, run_split: Split, dataset: Dataset) -> list[date]:
    """The partition days that `need` names, before they are cut to the days that hold data."""
    first, last = need.offsets(run_split)
    start = dataset.first_day if first is None else day + timedelta(days=first)
    end = day + timedelta(days=last)
    return [start + timedelta(days=i) for i in range((end - start).days + 1)]


def fit_needs() -> tuple[Need, ...]:
    """Inputs of the as-of door for fitting: nothing that the split does not allow."""
    return _as_of_needs(lambda s: s.fit_days, lambda s: (s.train[0] // 24, s.fit_days - 1))


def test_needs() -> tuple[Need, ...]:
    """Inputs of the as-of door for scoring the test span."""
    return _as_of_needs(lambda s: s.end_days, lambda s: (s.test_days[0], s.test_days[-1]))


def _as_of_needs(end: Callable[[Split], int], impressions: Offsets) -> tuple[Need, ...]:
    at_end: Offsets = lambda s: (end(s), end(s))  # noqa: E731
    return (
        Need("interactions", "interactions", at_end),
        Need("article_features", "article_features", at_end),
        Need("popularity_tensor", "popularity_tensor", at_end),
        Need("article_embeddings", "article_embeddings", lambda s: (None, end(s) - 1)),
        Need("impressions", "impressions", impressions),
    )


__all__ = [
    "BASELINE",
    "ROLLING",
    "Kept",
    "Need",
    "SpanNeed",
    "Stage",
    "Summary",
    "Work",
    "days_of",
    "fit_needs",
    "inview_label",
    "no_recipe",
    "test_needs",
]
