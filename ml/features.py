"""Features of Tab. A.5 (document 1): which families a model uses, their transformations fitted on training data.

Belongs here: feature families, fitted scalers and vocabularies, and the arrays a network reads for (article, time)
pairs and for history clicks. Does not belong here: what was known at t (`ml.asof`, the only source of anything that
moves with time), counts over text (`ml.articles`), tensors and batches (`ml.inputs`).

Choices where the paper is silent or contradicts itself: age is log1p then RobustScaler (Tab. A.5, not Eq. 3.1's mean
and deviation); a popularity window gives two values, log1p of the count and log1p of 10,000 times the share of all
clicks in the window (log1p of a share alone is almost the identity); scalers are fitted on clicked training articles
as of their clicks; scaled values are clipped to ±8; an unknown value is 0 after scaling.
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from safetensors.numpy import load_file, save_file

from ml.articles import NUMERIC, SENTIMENT, ArticleTable
from ml.asof import AsOf
from ml.clock import minute_start
from ml.errors import DataError
from ml.recipes import AUTO, CONTENT_FAMILIES, Family, Recipe, Width
from ml.strangers import read_model
from ml.tensors import Layout, load_tensors

LOGGED = (
    "body_word_count",
    "body_sentence_count",
    "body_unique_ratio",
    "body_exclamation_count",
    "body_comma_count",
)
QUANTILE = "body_digit_ratio"
N_TIME, N_AGE, N_POPULARITY = 6, 1, 14
CLIP = 8.0
SHARE_SCALE = 10_000.0
GAP_EDGES_S = np.array([10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800], np.float64)
"""Upper bounds (exclusive), in seconds, of the buckets 1.. of the time between interactions; 0 is "not used"."""
READ_EDGES_S = np.array([1, 5, 10, 20, 30, 60, 120, 300, 600], np.float64)
"""Upper bounds (exclusive), in seconds, of the read-time buckets 1..; 0 is "not known"."""
INVENTED_TIMES = frozenset({"globo"})
"""Datasets whose last click of a session carries an invented time: the gap between clicks is no feature there."""
_FIT_CLICKS = 200_000
_QUANTILES = 1000
_THRESHOLD = 1e-7
_LAYOUTS = {
    "numeric_centre": Layout("F64", (len(NUMERIC),)),
    "numeric_scale": Layout("F64", (len(NUMERIC),)),
    "quantiles": Layout("F64", (None,)),
    "dynamic_centre": Layout("F32 or F64", (N_AGE + N_POPULARITY,)),
    "dynamic_scale": Layout("F32 or F64", (N_AGE + N_POPULARITY,)),
}
"""The arrays of `features.safetensors`."""


class FeatureSpec(BaseModel):
    """The families in use on one dataset, with the sizes that the network depends on. `content_dims` in the order of
    `CONTENT_FAMILIES`; `categories` is the vocabulary, code 0 being unknown and code i + 1 being `categories[i]`;
    `gap` False where the time between clicks is invented."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    families: tuple[Family, ...]
    content_dims: dict[str, Width]
    categories: tuple[int, ...] = Field(max_length=1_000_000)
    gap: bool

    @field_validator("content_dims")
    @classmethod
    def _in_order(cls, dims: dict[str, int]) -> dict[str, int]:
        """JSON is written with sorted names."""
        return {f: dims[f] for f in sorted(dims, key=lambda f: [*CONTENT_FAMILIES, f].index(f))}

    @model_validator(mode="after")
    def _consistent(self) -> "FeatureSpec":
        if len(set(self.families)) != len(self.families):
            raise ValueError(f"a feature family is named twice: {', '.join(self.families)}")
        if set(self.content_dims) != set(self.families) & set(CONTENT_FAMILIES):
            raise ValueError(f"content_dims has {', '.join(self.content_dims)}, families {', '.join(self.families)}")
        if any(a >= b for a, b in pairwise((-1, *self.categories, 2**31))):
            raise ValueError("categories are not ascending codes")
        return self

    @property
    def width(self) -> int:
        """Number of values `FittedFeatures.dynamic` gives for an article at a time."""
        return (N_TIME + N_AGE) * ("time" in self.families) + N_POPULARITY * ("popularity" in self.families)

    @property
    def blocks(self) -> dict[str, slice]:
        """The columns of each family within the dynamic values."""
        blocks: dict[str, slice] = {}
        start = 0
        for family, size in (("time", N_TIME + N_AGE), ("popularity", N_POPULARITY)):
            if family in self.families:
                blocks[family] = slice(start, start + size)
                start += size
        return blocks


def resolve_families(recipe: Recipe, asof: AsOf) -> tuple[Family, ...]:
    """The recipe's families as far as the data has them.

    `auto` becomes `body` where there are body vectors, else `title`, else `coclick`, else nothing; `meta` goes where
    every article's metadata is unknown. A content family asked for by name must exist: DataError otherwise.
    """
    families: list[Family] = []
    for family in recipe.families:
        if family == AUTO:
            families += [f for f in ("body", "title", "coclick") if _dim(asof, f) > 0][:1]
        elif family in CONTENT_FAMILIES and _dim(asof, family) == 0:
            raise DataError(
                f"recipe {recipe.name!r} uses {family} vectors, but the data has none: materialise "
                f"article_embeddings for it or use a recipe without (snert_quick adapts to the data)"
            )
        elif family != "meta" or _has_meta(asof.articles):
            families.append(family)
    return tuple(dict.fromkeys(families))


def _dim(asof: AsOf, family: str) -> int:
    return asof.content(family).dim if family in asof.families else 0


def _has_meta(articles: ArticleTable) -> bool:
    return bool(np.any(articles.category >= 0) or np.any(articles.premium >= 0) or np.any(~np.isnan(articles.numeric)))


@dataclass(frozen=True, slots=True)
class FittedFeatures:
    """Transformations fitted on one training set; apply to any later state of the same log.

    `numeric_centre`, `numeric_scale` float64 [11] (order of `NUMERIC`), `quantiles` float64 [Q] of the digit ratio,
    `dynamic_centre`, `dynamic_scale` float32 or float64 [15] (age, then 7 log counts, then 7 log shares).
    """

    spec: FeatureSpec
    numeric_centre: np.ndarray
    numeric_scale: np.ndarray
    quantiles: np.ndarray
    dynamic_centre: np.ndarray
    dynamic_scale: np.ndarray

    @classmethod
    def fit(cls, recipe: Recipe, asof: AsOf, targets: np.ndarray) -> "FittedFeatures":
        """Fit on the training clicks at rows `targets` of `asof.clicks` (int64 [N], N >= 1).

        Age and popularity are taken as of each click (an even sample of at most 200,000), metadata once for each
        clicked article, the category vocabulary from the same articles. Raises DataError without targets.
        """
        from sklearn import preprocessing

        if len(targets) == 0:
            raise DataError("no training clicks to fit features on: choose an as-of day with clicks in the days before")
        families = resolve_families(recipe, asof)
        rows = asof.clicks.article[targets]
        clicked = np.unique(rows)
        spec = FeatureSpec(
            families=families,
            content_dims={f: _dim(asof, f) for f in CONTENT_FAMILIES if f in families},
            categories=tuple(int(c) for c in np.unique(asof.articles.category[clicked]) if c >= 0),
            gap=asof.dataset.name not in INVENTED_TIMES,
        )
        sample = targets[np.linspace(0, len(targets) - 1, min(len(targets), _FIT_CLICKS)).astype(np.int64)]
        raw = raw_dynamic(asof, minute_start(asof.clicks.time[sample]), asof.clicks.article[sample][:, None])[:, 0]
        scaler = preprocessing.RobustScaler().fit(raw)
        return cls(spec, *_fit_numeric(asof.articles.numeric[clicked]), scaler.center_, scaler.scale_)

    def numeric(self, articles: ArticleTable) -> np.ndarray:
        """Scaled numeric metadata of all articles, float32 [A, 11]; 0 where unknown."""
        raw = _logged(articles.numeric)
        scaled = (raw - self.numeric_centre) / self.numeric_scale
        column = NUMERIC.index(QUANTILE)
        scaled[:, column] = to_normal(raw[:, column], self.quantiles)
        return np.nan_to_num(np.clip(scaled, -CLIP, CLIP), nan=0.0).astype(np.float32)

    def category_codes(self, articles: ArticleTable) -> np.ndarray:
        """Vocabulary codes of all articles' categories, int64 [A]; 0 where unknown or not seen in training."""
        vocabulary = np.array(self.spec.categories, dtype=np.int64)
        if len(vocabulary) == 0:
            return np.zeros(len(articles), dtype=np.int64)
        where = np.minimum(np.searchsorted(vocabulary, articles.category), len(vocabulary) - 1)
        return np.where(vocabulary[where] == articles.category, where + 1, 0).astype(np.int64)

    def dynamic(self, asof: AsOf, time_ms: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What moves with time, for article `rows[b, k]` (int [B, K]) as of the minute of `time_ms[b]`: float32
        [B, K, width].

        Minute, hour and weekday as sine and cosine of the publisher's local time (6) and scaled age (1) where the
        family `time` is used; scaled log counts and log shares of the seven windows (14) where `popularity` is.
        """
        out = np.empty((*rows.shape, self.spec.width), dtype=np.float32)
        if self.spec.width == 0:
            return out
        time_ms = minute_start(time_ms)
        scaled = raw_dynamic(asof, time_ms, rows)
        scaled -= self.dynamic_centre.astype(np.float32)
        scaled /= self.dynamic_scale.astype(np.float32)
        np.clip(scaled, -CLIP, CLIP, out=scaled)
        blocks = self.spec.blocks
        if "time" in blocks:
            out[:, :, :N_TIME] = cyclical(asof.clock.local_minutes(time_ms))[:, None]
            out[:, :, N_TIME : N_TIME + N_AGE] = scaled[:, :, :N_AGE]
        if "popularity" in blocks:
            out[:, :, blocks["popularity"]] = scaled[:, :, N_AGE:]
        return out

    def save(self, folder: Path) -> None:
        """Write `features.json` (families, vocabularies) and `features.safetensors` (arrays) into `folder`."""
        text = json.dumps(self.spec.model_dump(mode="json"), indent=1, sort_keys=True)
        (folder / "features.json").write_text(text + "\n", encoding="utf-8")
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in FittedFeatures.__slots__[1:]}
        save_file(arrays, folder / "features.safetensors")

    @classmethod
    def load(cls, folder: Path) -> "FittedFeatures":
        """Read what `save` wrote. Raises DataError naming the file that is damaged or missing."""
        spec = read_model(FeatureSpec, folder / "features.json", "train again")
        path = folder / "features.safetensors"
        arrays = load_tensors(path, _LAYOUTS, load_file, "train again")
        for name, array in arrays.items():
            if not np.all(np.isfinite(array)):
                raise DataError(f"{path}: array {name!r} is not finite: train again")
            if name.endswith("_scale") and not np.all(array > 0):
                raise DataError(f"{path}: array {name!r} divides by what is not above 0: train again")
        quantiles = arrays["quantiles"]
        if not 1 <= len(quantiles) <= _QUANTILES or np.any(np.diff(quantiles) < 0):
            raise DataError(f"{path}: {len(quantiles)} quantiles, or not in order: train again")
        return cls(spec, *(arrays[name] for name in FittedFeatures.__slots__[1:]))


def raw_dynamic(asof: AsOf, time_ms: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Unscaled age and popularity of `rows[b, k]` as of `time_ms[b]`: log1p(minutes), 7 x log1p(count), 7 x
    log1p(10,000 x share); float32 [B, K, 15]."""
    counts = asof.counts(time_ms, rows).astype(np.float32)
    totals = np.maximum(asof.totals(time_ms), 1).astype(np.float32)
    out = np.empty((*rows.shape, N_AGE + N_POPULARITY), dtype=np.float32)
    out[:, :, 0] = asof.age_minutes(time_ms, rows)
    out[:, :, 1:8] = counts
    np.multiply(counts, (SHARE_SCALE / totals)[:, None], out=out[:, :, 8:])
    return np.log1p(out, out=out)


def cyclical(local_minutes: np.ndarray) -> np.ndarray:
    """Sine and cosine of minute of the hour, hour and weekday from minutes since Monday 00:00; float32 [..., 6]."""
    minute, hour, weekday = local_minutes % 60, local_minutes // 60 % 24, local_minutes // 1440
    angle = 2 * np.pi * np.stack([minute / 60, hour / 24, weekday / 7], axis=-1)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(*local_minutes.shape, N_TIME).astype(np.float32)


def gap_bucket(seconds: np.ndarray) -> np.ndarray:
    """Buckets 1..15 of the seconds between interactions, int64, any shape."""
    return np.searchsorted(GAP_EDGES_S, seconds, side="right").astype(np.int64) + 1


def read_bucket(seconds: np.ndarray) -> np.ndarray:
    """Buckets 1..10 of read times in seconds, 0 where NaN (not known); int64, any shape."""
    bucket = np.searchsorted(READ_EDGES_S, np.nan_to_num(seconds, nan=0.0), side="right").astype(np.int64) + 1
    return np.where(np.isnan(seconds), 0, bucket)


def to_normal(values: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Map values to a standard normal by their place among `quantiles` (as scikit-learn's QuantileTransformer with
    normal output does); NaN stays."""
    from scipy.special import ndtri

    references = np.linspace(0, 1, len(quantiles))
    forward = np.interp(values, quantiles, references)
    backward = -np.interp(-values, -quantiles[::-1], -references[::-1])
    share = 0.5 * (forward + backward)
    share = np.where(values + _THRESHOLD > quantiles[-1], 1.0, share)
    share = np.where(values - _THRESHOLD < quantiles[0], 0.0, share)
    edge = ndtri(_THRESHOLD - np.spacing(1))
    return np.where(np.isnan(values), np.nan, np.clip(ndtri(share), edge, -edge))


def _logged(numeric: np.ndarray) -> np.ndarray:
    raw = numeric.astype(np.float64)
    columns = [NUMERIC.index(name) for name in LOGGED]
    raw[:, columns] = np.log1p(raw[:, columns])
    return raw


def _fit_numeric(numeric: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre and scale of each numeric column and the quantiles of the digit ratio; columns without any known value get
    centre 0 and scale 1."""
    from sklearn import preprocessing

    raw = _logged(numeric)
    centre, scale = np.zeros(len(NUMERIC)), np.ones(len(NUMERIC))
    quantiles = np.linspace(0, 1, 2)
    for i, name in enumerate(NUMERIC):
        known = raw[~np.isnan(raw[:, i]), i : i + 1]
        if len(known) == 0:
            continue
        if name == SENTIMENT:
            standard = preprocessing.StandardScaler().fit(known)
            centre[i], scale[i] = standard.mean_[0], standard.scale_[0]
        elif name == QUANTILE:
            fitted = preprocessing.QuantileTransformer(
                n_quantiles=min(_QUANTILES, len(known)), output_distribution="normal", subsample=None
            ).fit(known)
            quantiles = fitted.quantiles_[:, 0]
        else:
            robust = preprocessing.RobustScaler(quantile_range=(1.0, 99.0)).fit(known)
            centre[i], scale[i] = robust.center_[0], robust.scale_[0]
    return centre, scale, quantiles
