"""Training batches: which targets a step sees, its negatives and the inputs of both towers.

Belongs here: the order of targets, counter-based randomness, assembling one step's arrays. Does not belong here: the
samplers (`ml.sampling`), features (`ml.inputs`), the loop and its thread (`ml.train`).

Everything random is a function of (seed, step): a batch can be made again at any time, in any thread.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ml.asof import AsOf
from ml.errors import UsageError
from ml.features import FittedFeatures
from ml.inputs import ArticleInputs, HistoryInputs, article_inputs, history_inputs
from ml.log import Cases
from ml.popularity import WINDOWS
from ml.recipes import Mixture, Recipe
from ml.sampling import NegativeSampler

_ORDER, _NEGATIVES, _DROPOUT = range(3)


@dataclass(frozen=True, slots=True)
class Batch:
    """One step: `history` of B readers; `articles` n = B * (1 + K), the target first; `valid` bool [B, K] negatives;
    `log_q` float32 [B, 1 + K] log density of the sampler, or None; `distinct` int64 [u] positions in `articles` of
    one occurrence of each distinct article."""

    history: HistoryInputs
    articles: ArticleInputs
    valid: np.ndarray
    log_q: np.ndarray | None
    distinct: np.ndarray


def step_seed(seed: int, stream: int, step: int) -> int:
    """A 63-bit seed that depends on nothing else."""
    return int(np.random.SeedSequence([seed, stream, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def dropout_seed(seed: int, step: int) -> int:
    """The seed of dropout and noise at a step."""
    return step_seed(seed, _DROPOUT, step)


def step_targets(n_targets: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Positions int64 [batch] of the targets of a step: consecutive pieces of one permutation of all targets after
    another, the permutation of an epoch drawn from (seed, epoch)."""
    position = np.arange(step * batch, (step + 1) * batch)
    epoch, place = position // n_targets, position % n_targets
    chosen = np.empty(batch, dtype=np.int64)
    for e in np.unique(epoch):
        chosen[epoch == e] = _order(n_targets, seed, int(e))[place[epoch == e]]
    return chosen


@lru_cache(maxsize=2)
def _order(n_targets: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng(step_seed(seed, _ORDER, epoch)).permutation(n_targets)


class Batches:
    """The batches of one training run. `targets` int64 [N] click rows, `cases` and `mask` int32 [N, 11] beside them."""

    def __init__(
        self, asof: AsOf, fitted: FittedFeatures, recipe: Recipe, targets: np.ndarray, mask: np.ndarray, seed: int
    ) -> None:
        if recipe.logq and recipe.mixture.delta_minutes not in WINDOWS:
            raise UsageError(f"recipe {recipe.name!r}: with logq, delta_minutes must be one of {WINDOWS}")
        self.asof, self.fitted, self.recipe, self.seed = asof, fitted, recipe, seed
        self.targets, self.mask = targets, mask
        self.cases = target_cases(asof, targets)
        self.sampler = NegativeSampler(asof, recipe.mixture, recipe.negatives)

    def __len__(self) -> int:
        """Number of targets."""
        return len(self.targets)

    def make(self, step: int) -> Batch:
        """The batch of a step."""
        chosen = step_targets(len(self.targets), self.recipe.batch, self.seed, step)
        targets = self.targets[chosen]
        time = self.asof.clicks.time[targets]
        generator = torch.Generator().manual_seed(step_seed(self.seed, _NEGATIVES, step))
        negatives = self.sampler.sample(targets, time, self.mask[chosen], generator).numpy()
        rows = np.concatenate([self.asof.clicks.article[targets][:, None], np.maximum(negatives, 0)], axis=1)
        valid = negatives >= 0
        used = np.flatnonzero(np.pad(valid, ((0, 0), (1, 0)), constant_values=True))
        distinct = used[np.unique(rows.reshape(-1)[used], return_index=True)[1]]
        log_q = None
        if self.recipe.logq:
            log_q = self.recipe.logq * log_density(self.asof, self.recipe.mixture, time, rows)
        return Batch(
            history_inputs(self.asof, self.fitted, self.cases.take(chosen), self.recipe.session_length),
            article_inputs(self.asof, self.fitted, time, rows),
            valid,
            log_q,
            distinct,
        )


def target_cases(asof: AsOf, targets: np.ndarray) -> Cases:
    """The cases that end in the clicks at rows `targets`: what the reader had done before each."""
    clicks = asof.clicks
    return asof.cases(clicks.user[targets], clicks.time[targets], session=clicks.session[targets])


def log_density(asof: AsOf, mixture: Mixture, time_ms: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Log of the sampler's density q(a | t) at `rows[b, k]` as of `time_ms[b]`; float32 [B, K].

    Popularity over Δ (uniform where nobody clicked), recency over the last N, uniform. In-view draws are counted as
    popularity: what is shown is what is popular, and a case's own impression would make one article's density differ
    between the target and the negatives of one row.
    """
    available = np.maximum(asof.available(time_ms), 1).astype(np.float32)[:, None]
    window = WINDOWS.index(mixture.delta_minutes)
    total = asof.totals(time_ms)[:, window].astype(np.float32)[:, None]
    clicked = asof.counts(time_ms, rows)[:, :, window].astype(np.float32)
    popular = np.where(total > 0, clicked / np.maximum(total, 1), 1 / available)
    recent = np.minimum(available, mixture.recent)
    fresh = (rows >= available - recent) / recent
    share = mixture.popularity + mixture.inview
    density = share * popular + mixture.recency * fresh + mixture.uniform / available
    return np.log(np.maximum(density, 1e-9)).astype(np.float32)
