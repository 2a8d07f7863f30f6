"""Negative sampling: the mixture of four samplers of document 1 (Sec. 4.4.2, Eq. 4.2), as index arithmetic.

Belongs here: drawing negatives for training targets. Does not belong here: the shares (`ml.recipes.Mixture`), the
exclusion mask (`ml.sessions`), what is available or popular at a time (`ml.asof`).

Articles in order of publication make "available at t" a prefix, so that *uniform* is a random integer and *recency*
one among the last N of the prefix; a uniform draw from the clicks of the last Δ completed minutes is a draw in
proportion to *popularity*; *in-view* is a uniform draw from what an impression showed and was not clicked in it. No
loop over rows. Random numbers come from the caller's generator, on its device: a CPU generator gives the same draws on
every device.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ml.asof import AsOf
from ml.recipes import Mixture

__all__ = ["Mixture", "NegativeSampler", "slots"]

ROUNDS = 16
"""Draws by popularity and in view that hit the mask are drawn again this often, then uniformly."""


def slots(mixture: Mixture, k: int) -> dict[str, int]:
    """How many of `k` negatives each sampler gives, by largest remainder (ties in the order below).

    >>> slots(Mixture(), 20)
    {'popularity': 8, 'recency': 4, 'inview': 4, 'uniform': 4}
    """
    exact = {name: round(k * getattr(mixture, name), 9) for name in ("popularity", "recency", "inview", "uniform")}
    whole = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: whole[name] - exact[name])
    for name in by_remainder[: k - sum(whole.values())]:
        whole[name] += 1
    return whole


class NegativeSampler:
    """Draws `k` negatives a target: the first slots by popularity, then recency, in-view and uniform."""

    def __init__(self, asof: AsOf, mixture: Mixture, k: int, device: str = "cpu") -> None:
        self.asof, self.mixture, self.k, self.device = asof, mixture, k, device
        self.slots = slots(mixture, k)
        clicked = asof.time_sorted_articles
        offsets, unclicked = _unclicked(asof)
        self._pool = self._tensor(np.concatenate([clicked, unclicked]))
        self._shown = offsets + len(clicked)

    def sample(self, targets: np.ndarray, time_ms: np.ndarray, mask: np.ndarray, generator: torch.Generator) -> Tensor:
        """Negatives of the clicks at rows `targets` (int64 [B]) at `time_ms` (int64 [B]), none of them in `mask` (int32
        [B, 11] catalogue rows, -1 padded): int64 [B, k] catalogue rows on the sampler's device, all available at the
        time; -1 where every available article is masked.

        A target without impression draws its in-view slots by popularity; where the window holds no click, popularity
        draws uniformly. Draws are independent, so an article may be drawn twice.
        """
        available = self._tensor(self.asof.available(time_ms))[:, None]
        rules = _Rules(available, _ascending(self._tensor(mask), available))
        popular = self._popular(time_ms)
        recent = torch.clamp(available - self.mixture.recent, min=0)
        drawn = (
            _from_pool(self._pool, popular, rules, self.slots["popularity"], generator),
            _from_rows(recent, rules, self.slots["recency"], generator),
            _from_pool(self._pool, self._inview(targets, popular), rules, self.slots["inview"], generator),
            _from_rows(torch.zeros_like(available), rules, self.slots["uniform"], generator),
        )
        negatives = torch.cat(drawn, dim=1)
        row, column = torch.nonzero(negatives < 0, as_tuple=True)
        if len(row):
            instead = _from_rows(torch.zeros_like(row)[:, None], rules.of(row), 1, generator)
            negatives[row, column] = instead[:, 0]
        return negatives

    def _popular(self, time_ms: np.ndarray) -> tuple[Tensor, Tensor]:
        """Ranges of the pool: clicks of the last Δ completed minutes."""
        lo, hi = self.asof.recent_clicks(time_ms, self.mixture.delta_minutes)
        return self._tensor(lo)[:, None], self._tensor(hi)[:, None]

    def _inview(self, targets: np.ndarray, popular: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Ranges of the pool: what was shown beside each target, or `popular` where that is nothing."""
        impression = self.asof.impression_of(targets)
        lo, hi = (self._tensor(self._shown[impression + i])[:, None] for i in (0, 1))
        shown = self._tensor(impression)[:, None] >= 0
        shown &= hi > lo
        return torch.where(shown, lo, popular[0]), torch.where(shown, hi, popular[1])

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(self.device)


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a negative must satisfy: below `available` int64 [B, 1] and not in `mask` int64 [B, 11], ascending, with
    `_NOTHING` for repeats and for what is not available."""

    available: Tensor
    mask: Tensor

    def broken(self, drawn: Tensor) -> Tensor:
        """Which of int64 [B, k] must not stay."""
        masked = (drawn[:, :, None] == self.mask[:, None, :]).any(2)
        return (drawn < 0) | (drawn >= self.available) | masked

    def of(self, row: Tensor | slice) -> "_Rules":
        """The rules of some rows, int64 [n] or a slice."""
        return _Rules(self.available[row], self.mask[row])


_NOTHING = torch.iinfo(torch.int64).max


def _ascending(mask: Tensor, available: Tensor) -> Tensor:
    """The available articles of each row of the mask, ascending, each once, then `_NOTHING`."""
    mask = torch.where((mask >= 0) & (mask < available), mask, _NOTHING).sort(1).values
    mask[:, 1:] = torch.where(mask[:, 1:] == mask[:, :-1], _NOTHING, mask[:, 1:])
    return mask.sort(1).values


def _below(size: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Uniform integers in [0, size) for int64 [B, 1] sizes: int64 [B, k]; 0 where the size is 0."""
    shape = (len(size), k)
    chance = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device).to(size.device)
    return (chance * size.clamp(min=0)).long()


def _from_rows(start: Tensor, rules: _Rules, k: int, generator: torch.Generator) -> Tensor:
    """Uniform draws from the available rows from `start` (int64 [B, 1]) on that are not masked; -1 where there is none.

    The draw is a rank among the rows that may be drawn; every masked row at or below it moves it up by one.
    """
    inside = (rules.mask >= start) & (rules.mask < rules.available)
    size = rules.available - start - inside.sum(1, keepdim=True)
    row = start + _below(size, k, generator)
    for i in range(rules.mask.shape[1]):
        row = row + (inside[:, i : i + 1] & (row >= rules.mask[:, i : i + 1]))
    return torch.where(size > 0, row, -1)


def _from_pool(pool: Tensor, span: tuple[Tensor, Tensor], rules: _Rules, k: int, generator: torch.Generator) -> Tensor:
    """Uniform draws from the entries [lo, hi) of the pool (int64 [B, 1] each) that break no rule, by drawing those that
    do again up to `ROUNDS` times; -1 where that did not help."""
    lo, hi = span
    if not len(pool):
        return torch.full((len(lo), k), -1, dtype=torch.int64, device=lo.device)

    def draw(rows: Tensor | slice, k: int) -> Tensor:
        first, size = lo[rows], (hi - lo)[rows]
        found = pool[(first + _below(size, k, generator)).clamp(max=len(pool) - 1)]
        return torch.where((size <= 0) | rules.of(rows).broken(found), -1, found)

    drawn = draw(slice(None), k)
    for _ in range(ROUNDS):
        row, column = torch.nonzero((drawn < 0) & (hi > lo), as_tuple=True)
        if not len(row):
            break
        drawn[row, column] = draw(row, 1)[:, 0]
    return drawn


def _unclicked(asof: AsOf) -> tuple[np.ndarray, np.ndarray]:
    """Offsets int64 [I + 1] and rows of the articles that each impression showed, available then and not clicked."""
    shown = asof.impressions
    owner = np.repeat(np.arange(len(shown)), np.diff(shown.offsets))
    keep = ~shown.clicked & (shown.article >= 0) & (shown.article < asof.available(shown.time)[owner])
    counts = np.bincount(owner[keep], minlength=len(shown))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return offsets, shown.article[keep]
