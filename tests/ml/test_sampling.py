"""The four samplers against the distributions that define them (document 1, Eq. 4.2)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from ml.asof import AsOf
from ml.clock import MS_PER_DAY, MS_PER_HOUR, MS_PER_MINUTE, minute_start
from ml.sampling import Mixture, NegativeSampler, slots
from ml.sessions import MASK_WIDTH, exclusion_mask
from tests.ml.worlds import START_MS, end_ms, tiny_world

ROWS, K = 400, 50
DRAWS = ROWS * K
NO_MASK = np.full((ROWS, MASK_WIDTH), -1, dtype=np.int32)


@pytest.fixture(scope="module")
def world() -> AsOf:
    return tiny_world(days=2, n_users=400)


def busy_target(world: AsOf) -> int:
    """A click, of the second day, whose impression shows at least five unclicked articles and that many clicks precede
    in the 15 minutes before it."""
    times = world.clicks.time
    lo, hi = world.recent_clicks(times, 15)
    impression = world.impression_of(np.arange(len(times)))
    size = np.diff(world.impressions.offsets)[impression]
    fit = (times > START_MS + MS_PER_DAY) & (size >= 7)
    return int(np.argmax(np.where(fit, hi - lo, -1)))


def drawn(world: AsOf, mixture: Mixture, target: int, mask: np.ndarray = NO_MASK, seed: int = 0) -> np.ndarray:
    """`DRAWS` negatives of one target, as counts of every article."""
    targets = np.full(ROWS, target)
    sampler = NegativeSampler(world, mixture, K)
    negatives = sampler.sample(targets, world.clicks.time[targets], mask, torch.Generator().manual_seed(seed))
    assert negatives.shape == (ROWS, K)
    assert negatives.dtype == torch.int64
    return np.bincount(negatives.numpy().ravel(), minlength=len(world.catalogue))


def only(name: str, **others: int) -> Mixture:
    return Mixture(**{"popularity": 0, "recency": 0, "inview": 0, "uniform": 0, name: 1, **others})


def assert_drawn_from(counts: np.ndarray, weight: np.ndarray) -> None:
    """Chi-square test of counts against weights; nothing is drawn where the weight is 0."""
    weight = weight / weight.sum()
    assert counts.sum() == DRAWS
    assert not counts[weight == 0].any()
    expected = weight[weight > 0] * DRAWS
    assert expected.min() > 5
    assert stats.chisquare(counts[weight > 0], expected).pvalue > 1e-4


def weights(world: AsOf, target: int, recent: int) -> dict[str, np.ndarray]:
    """The four distributions of Eq. 4.2 as of a target, by definition."""
    time, n = int(world.clicks.time[target]), len(world.catalogue)
    minute = int(minute_start(np.array(time)))
    available = world.catalogue.published < minute
    clicks = world.clicks
    window = (clicks.time >= minute - 15 * MS_PER_MINUTE) & (clicks.time < minute)
    shown = np.flatnonzero(world.impressions.impression == clicks.impression[target])[0]
    span = slice(*world.impressions.offsets[shown : shown + 2])
    inview = np.zeros(n)
    inview[world.impressions.article[span][~world.impressions.clicked[span]]] = 1
    newest = np.flatnonzero(available)[-recent:]
    return {
        "uniform": available.astype(float),
        "popularity": np.bincount(clicks.article[window], minlength=n).astype(float),
        "recency": np.isin(np.arange(n), newest).astype(float),
        "inview": inview * available,
    }


@pytest.mark.parametrize("name", ["uniform", "popularity", "recency", "inview"])
def test_each_sampler_draws_from_its_distribution(world: AsOf, name: str) -> None:
    target = busy_target(world)
    weight = weights(world, target, recent=30)[name]
    assert (weight > 0).sum() > 3
    assert_drawn_from(drawn(world, only(name, recent=30), target), weight)


@pytest.mark.parametrize("name", ["uniform", "popularity", "recency", "inview"])
def test_with_a_mask_the_rest_of_the_distribution_stays(world: AsOf, name: str) -> None:
    """Removing the mask from the pool leaves the others in proportion: no bias towards their neighbours."""
    target = busy_target(world)
    weight = weights(world, target, recent=30)[name]
    likely = np.argsort(-weight, kind="stable")[:2]
    mask = np.tile(np.array([*likely, -1, likely[0], 149, *[-1] * 6], dtype=np.int32), (ROWS, 1))
    weight[[*likely, 149]] = 0
    assert (weight > 0).sum() >= 2
    assert_drawn_from(drawn(world, only(name, recent=30), target, mask), weight)


def test_the_default_mixture_is_the_weighted_sum(world: AsOf) -> None:
    target = busy_target(world)
    mixture = Mixture(recent=30)
    parts = weights(world, target, recent=30)
    weight = sum(getattr(mixture, name) * part / part.sum() for name, part in parts.items())
    counts = drawn(world, mixture, target)
    expected = weight[weight > 0] * DRAWS
    assert not counts[weight == 0].any()
    # Fixed slots a row make the draws a little more even than independent ones: the test is conservative.
    assert stats.chisquare(counts[weight > 0], expected).pvalue > 1e-4


def test_slots_hold_the_samplers_in_order(world: AsOf) -> None:
    """Fractions are exact in every row: popularity, recency, in-view, uniform."""
    target = busy_target(world)
    targets = np.full(ROWS, target)
    sampler = NegativeSampler(world, Mixture(recent=10), 20)
    rows = sampler.sample(targets, world.clicks.time[targets], NO_MASK, torch.Generator().manual_seed(3)).numpy()
    parts = weights(world, target, recent=10)
    for name, span in (("popularity", (0, 8)), ("recency", (8, 12)), ("inview", (12, 16)), ("uniform", (16, 20))):
        assert (parts[name][rows[:, slice(*span)]] > 0).all()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(sum), st.integers(0, 60))
def test_slots_round_by_at_most_one(parts: list[int], k: int) -> None:
    share = dict(zip(("popularity", "recency", "inview", "uniform"), (p / sum(parts) for p in parts), strict=True))
    found = slots(Mixture(**share), k)
    assert sum(found.values()) == k
    assert all(abs(found[name] - k * share[name]) < 1 for name in share)
    assert all(found[name] == 0 for name in share if share[name] == 0)


def test_slots_of_the_defaults() -> None:
    assert list(slots(Mixture(), 20).values()) == [8, 4, 4, 4]
    assert list(slots(Mixture(), 1).values()) == [1, 0, 0, 0]
    assert list(slots(Mixture(popularity=0.25, recency=0.25, inview=0.25, uniform=0.25), 2).values()) == [1, 1, 0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_negatives_of_real_targets_are_available_and_not_masked(seed: int) -> None:
    world = tiny_world(seed, n_users=80, n_articles=40, days=3)
    targets = np.flatnonzero(world.clicks.time > START_MS + MS_PER_HOUR)
    time = world.clicks.time[targets]
    mask = exclusion_mask(world.clicks, targets, end_ms(2))
    sampler = NegativeSampler(world, Mixture(recent=15), 12)
    found = sampler.sample(targets, time, mask, torch.Generator().manual_seed(seed)).numpy()
    assert (found < world.available(time)[:, None]).all()
    allowed = np.array(
        [a - len(np.unique(m[(m >= 0) & (m < a)])) for a, m in zip(world.available(time), mask, strict=True)]
    )
    assert ((found >= 0).all(axis=1) == (allowed > 0)).all()
    masked = (found[:, :, None] == mask[:, None, :]) & (found[:, :, None] >= 0)
    assert not masked.any()


def test_with_everything_masked_there_is_no_negative() -> None:
    world = tiny_world(n_articles=5, n_users=20)
    targets = np.arange(10)
    mask = np.tile(np.r_[np.arange(5), np.full(6, -1)].astype(np.int32), (10, 1))
    time = np.full(10, end_ms())
    for mixture in (Mixture(), only("recency", recent=2), only("inview")):
        found = NegativeSampler(world, mixture, 7).sample(targets, time, mask, torch.Generator().manual_seed(0))
        assert (found == -1).all()
    mask[3, 2] = -1
    found = NegativeSampler(world, Mixture(recent=2), 7).sample(targets, time, mask, torch.Generator().manual_seed(0))
    assert (found[3] == 2).all()
    assert (np.delete(found.numpy(), 3, axis=0) == -1).all()


def test_before_the_first_article_there_is_no_negative(world: AsOf) -> None:
    time = np.full(4, START_MS - 3 * MS_PER_DAY)
    found = NegativeSampler(world, Mixture(), 6).sample(np.arange(4), time, NO_MASK[:4], torch.Generator())
    assert (found == -1).all()


def test_without_impressions_in_view_draws_by_popularity() -> None:
    world = tiny_world(days=2, n_users=400, with_impressions=False)
    lo, hi = world.recent_clicks(world.clicks.time, 15)
    target = int(np.argmax(hi - lo))
    weight = np.bincount(world.time_sorted_articles[lo[target] : hi[target]], minlength=150).astype(float)
    assert_drawn_from(drawn(world, only("inview"), target), weight)


def test_with_an_empty_window_popularity_draws_uniformly(world: AsOf) -> None:
    time = np.full(ROWS, end_ms(2) + MS_PER_DAY)
    sampler = NegativeSampler(world, only("popularity"), K)
    found = sampler.sample(np.zeros(ROWS, dtype=np.int64), time, NO_MASK, torch.Generator().manual_seed(5)).numpy()
    assert_drawn_from(np.bincount(found.ravel(), minlength=150), np.ones(150))


def test_the_seed_decides(world: AsOf) -> None:
    target = busy_target(world)
    first, again, other = (drawn(world, Mixture(), target, seed=s) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_shares_are_checked() -> None:
    with pytest.raises(ValidationError, match="sum to 1"):
        Mixture(popularity=0.5)
    with pytest.raises(ValidationError):
        Mixture(popularity=-0.2, recency=0.8)
    with pytest.raises(ValidationError, match="frozen"):
        Mixture().popularity = 1.0  # type: ignore[misc]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cpu_generator_draws_the_same_on_cuda(world: AsOf) -> None:
    targets = np.arange(1000, 1400)
    time, mask = world.clicks.time[targets], exclusion_mask(world.clicks, targets, end_ms())
    drawn_on = [
        NegativeSampler(world, Mixture(recent=20), 20, device)
        .sample(targets, time, mask, torch.Generator().manual_seed(4))
        .cpu()
        for device in ("cpu", "cuda")
    ]
    assert torch.equal(*drawn_on)
