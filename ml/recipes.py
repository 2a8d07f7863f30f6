"""Recipes: everything that decides how a SNeRT is built and trained, as named, typed, frozen objects.

Belongs here: the recipe types and the named recipes with the reasons for their numbers. Does not belong here: what a
feature is (`ml.features`), the network (`ml.snert`), the loop (`ml.train`). Imports no torch: planning reads recipes.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ml.errors import UsageError

Family = Literal["body", "title", "image", "coclick", "meta", "time", "popularity", "interaction"]
CONTENT_FAMILIES: tuple[Family, ...] = ("body", "title", "image", "coclick")
AUTO: Literal["auto"] = "auto"
"""In a recipe's families: the first of body, title and co-click vectors that the dataset has, else none."""

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Depth = Annotated[int, Field(ge=1, le=64)]
MOST_WEIGHTS = 200_000_000
"""Of the blocks and hidden layers together, far above any recipe here: a stranger's recipe must not ask for all
memory."""

MOST_PAIRS = 1 << 23
"""Articles that a batch may encode: targets, negatives and histories."""


class Mixture(BaseModel):
    """Shares of the four negative samplers (document 1, Eq. 4.2); `delta_minutes` is the popularity sampler's window
    Δ, `recent` the recency sampler's N."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    popularity: float = Field(default=0.4, ge=0)
    recency: float = Field(default=0.2, ge=0)
    inview: float = Field(default=0.2, ge=0)
    uniform: float = Field(default=0.2, ge=0)
    delta_minutes: Positive = 15
    recent: Positive = 4000

    @model_validator(mode="after")
    def _sum_is_one(self) -> "Mixture":
        total = self.popularity + self.recency + self.inview + self.uniform
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the four sampler shares must sum to 1, not {total:g}")
        return self


class Perturbation(BaseModel):
    """Noise on one feature family in training (document 1, Sec. 4.2): `drop_family` removes the whole family of an
    article, `drop` single values (scaled up to keep the mean), `noise` is a Gaussian standard deviation added to
    scaled values."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    drop_family: Share = 0.0
    drop: Share = 0.0
    noise: float = Field(default=0.0, ge=0)


class Recipe(BaseModel):
    """How one SNeRT is built and trained. Units: times in days, `warmup` a share of the steps, `steps` the upper limit
    (fewer where `epochs` over the training targets are fewer), `eval_every` in steps, `patience` in evaluations
    without a better validation Recall@20. `logq` scales the correction of logits for the sampler's density
    (0: the paper's plain InfoNCE; 1: the loss estimates the softmax over the whole catalogue)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(max_length=64)
    families: tuple[Family | Literal["auto"], ...]

    dim: Width
    hidden: Width
    category_dim: Width = 16
    layers: Depth
    heads: Width
    feedforward: Width
    dropout: Share = 0.1
    session_length: Width = 16

    temperature: float = Field(gt=0)
    logq: float = Field(default=0.0, ge=0, le=1)
    lambda_logdet: float = Field(ge=0)
    ridge: float = Field(default=1e-5, gt=0)
    negatives: Positive
    mixture: Mixture = Mixture()
    perturbation: dict[Family, Perturbation] = {}

    batch: Positive
    steps: Positive
    epochs: Positive
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: Share = 0.05
    clip_norm: float = Field(default=1.0, gt=0)
    eval_every: Positive
    patience: Positive
    validation_cases: Positive = 2000
    precision: Literal["float32", "bf16"] = "float32"

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not divisible by heads {self.heads}")
        if len(set(self.families)) != len(self.families):
            raise ValueError(f"a feature family is named twice: {', '.join(self.families)}")
        weights = self.layers * self.dim * (4 * self.dim + 2 * self.feedforward) + self.hidden * (
            self.hidden + self.dim
        )
        if weights > MOST_WEIGHTS:
            raise ValueError(f"a network of {weights:,} weights, at most {MOST_WEIGHTS:,} are allowed")
        if self.batch * (self.negatives + self.session_length + 1) > MOST_PAIRS:
            raise ValueError(f"batch times (negatives + session_length + 1) is more than {MOST_PAIRS:,}")
        return self


SNERT_THESIS = Recipe(
    name="snert_thesis",
    families=("body", "meta", "time", "popularity", "interaction"),
    dim=128,
    hidden=256,
    layers=4,
    heads=2,
    feedforward=512,
    session_length=16,
    temperature=0.7,
    lambda_logdet=0.0008,
    negatives=100,
    perturbation={"popularity": Perturbation(drop_family=0.1, noise=0.1)},
    batch=512,
    steps=60_000,
    epochs=3,
    lr=1e-4,
    warmup=0.05,
    eval_every=2_000,
    patience=8,
    validation_cases=10_000,
    precision="bf16",
)
"""Tab. 5.1 with the features of Tab. 5.5 row B. The paper gives no number of negatives, hidden width, feed-forward
width or dropout: those are ours."""

SNERT_QUICK = Recipe(
    name="snert_quick",
    families=(AUTO, "meta", "time", "popularity", "interaction"),
    dim=64,
    hidden=128,
    layers=2,
    heads=2,
    feedforward=128,
    session_length=16,
    temperature=0.08,
    logq=0.9,
    lambda_logdet=0.0008,
    negatives=40,
    perturbation={"popularity": Perturbation(noise=0.05)},
    batch=256,
    steps=1_000,
    epochs=4,
    lr=1e-3,
    warmup=0.05,
    eval_every=200,
    patience=4,
    validation_cases=1_500,
)
"""For two CPU cores and minutes of training. Temperature, width and λ were compared on the validation hours of the demo
and of Globo (docs/globo.md); differences there are within noise, and both curves are flat after some 600 steps."""

SNERT_SMOKE = Recipe(
    name="snert_smoke",
    families=(AUTO, "meta", "time", "popularity", "interaction"),
    dim=16,
    hidden=32,
    category_dim=4,
    layers=1,
    heads=2,
    feedforward=32,
    session_length=8,
    temperature=0.08,
    logq=0.9,
    lambda_logdet=0.0008,
    negatives=10,
    batch=64,
    steps=200,
    epochs=4,
    lr=3e-3,
    eval_every=100,
    patience=4,
    validation_cases=100,
)
"""Trains in seconds: to see whether a deployment works from drop to report, never to be compared with anything."""

RECIPES = {recipe.name: recipe for recipe in (SNERT_THESIS, SNERT_QUICK, SNERT_SMOKE)}


def recipe(name: str) -> Recipe:
    """The recipe called `name`; raises UsageError naming the known ones."""
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}: choose one of {', '.join(sorted(RECIPES))}")
    return RECIPES[name]
