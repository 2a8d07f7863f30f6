"""Every model of the registry: no look ahead, batches, candidates against catalogue, and what each counts."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ml.asof import AsOf
from ml.bootstrap import means
from ml.clock import MS_PER_MINUTE, minute_start
from ml.errors import UsageError
from ml.features import FittedFeatures
from ml.hashing import mix
from ml.metrics import RankedLists, auc
from ml.models import MODELS, Embeds, Model, model_spec
from ml.models.cooccurrence import WINDOW_MINUTES, sum_of_shares
from ml.predict import PROTOCOLS, score_candidates, top_lists
from ml.snert import SnertNet, save_weights
from tests.ml.interests import small_recipe
from tests.ml.leaks import poisoned
from tests.ml.worlds import START_MS, tiny_world

DAY_3 = START_MS + 3 * 86_400_000
NOW = DAY_3 + 9 * 3_600_000 + 31_000
Load = Callable[[str], Model]


@pytest.fixture(scope="module")
def asof() -> AsOf:
    return tiny_world(n_users=400)


@pytest.fixture(scope="module")
def load(asof: AsOf, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Loads a model by name; those that train get a checkpoint with random weights ("snert on coclick": with vectors
    that change in time)."""

    def loaded(name: str) -> Model:
        name, _, families = name.partition(" on ")
        spec = MODELS[name]
        changes = {"families": (*families.split("+"), "time", "popularity", "interaction")} if families else {}
        return spec.load(_checkpoint(asof, tmp_path_factory.mktemp(name), **changes) if spec.trains else None)

    return loaded


def _checkpoint(asof: AsOf, folder: Path, **changes: object) -> Path:
    recipe = small_recipe(**changes)
    fitted = FittedFeatures.fit(recipe, asof, np.flatnonzero(asof.clicks.time < DAY_3))
    torch.manual_seed(0)
    save_weights(SnertNet(fitted.spec, recipe), folder / "model.safetensors")
    fitted.save(folder)
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    return folder


def some_users(asof: AsOf) -> np.ndarray:
    """Readers of the log, and one that it does not know."""
    return np.concatenate([np.unique(asof.clicks.user)[::9], [5]])


def busy_time(asof: AsOf) -> int:
    """The time of a click whose minute already holds another one, late in the log."""
    time = np.sort(asof.clicks.time[asof.clicks.time >= NOW])
    return int(time[1:][minute_start(time[1:]) == minute_start(time[:-1])][0])


@pytest.mark.parametrize("name", [*(n for n, spec in MODELS.items() if spec.strict), "snert on coclick"])
def test_events_at_or_after_t_change_no_bit(name: str, asof: AsOf, load: Load) -> None:
    time = busy_time(asof)
    users, model = some_users(asof), load(name)
    views = [asof, asof.truncated(time), poisoned(asof, time)]
    cases = [view.cases(users, np.full(len(users), time)) for view in views]
    scores = [model.catalogue_scores(view, time, c) for view, c in zip(views, cases, strict=True)]
    assert scores[0].shape == (len(users), asof.available(np.array([time]))[0])
    rows = np.random.default_rng(1).integers(0, scores[0].shape[1], 3 * len(users)).astype(np.int32)
    offsets = np.arange(len(users) + 1) * 3
    chosen = [model.candidate_scores(view, c, offsets, rows) for view, c in zip(views, cases, strict=True)]
    for known in (scores, chosen):
        assert known[0].dtype == np.float32
        assert all(np.array_equal(known[0], other) for other in known[1:])


def test_the_paper_window_counts_the_current_minute(asof: AsOf, load: Load) -> None:
    time = busy_time(asof)
    cases = asof.cases(np.array([5]), np.array([time]))
    model = load("popular_15_paper_window")
    assert [n for n, spec in MODELS.items() if not spec.strict] == [model.name]
    seen = model.catalogue_scores(asof, time, cases)[0]
    first = minute_start(np.array(time)) - 14 * MS_PER_MINUTE
    inside = (asof.clicks.time >= first) & (asof.clicks.time < first + 15 * MS_PER_MINUTE)
    assert np.array_equal(seen, np.bincount(asof.clicks.article[inside], minlength=len(asof.catalogue))[: len(seen)])
    assert not np.array_equal(seen, model.catalogue_scores(asof.truncated(time), time, cases)[0])


@pytest.mark.parametrize("name", MODELS)
def test_batches_and_order_do_not_matter(name: str, asof: AsOf, load: Load) -> None:
    users, model = some_users(asof), load(name)
    cases = asof.cases(users, np.full(len(users), NOW))
    together = model.catalogue_scores(asof, NOW, cases)
    order = np.random.default_rng(0).permutation(len(users))
    tolerance = 1e-5 if MODELS[name].trains else 0
    np.testing.assert_allclose(model.catalogue_scores(asof, NOW, cases.take(order)), together[order], atol=tolerance)
    for b in range(0, len(users), 5):
        alone = model.catalogue_scores(asof, NOW, cases.take(np.array([b])))
        np.testing.assert_allclose(alone[0], together[b], atol=tolerance)
    assert model.catalogue_scores(asof, NOW, cases.take(np.zeros(0, dtype=int))).shape == (0, together.shape[1])


@pytest.mark.parametrize("name", MODELS)
def test_candidates_score_as_the_catalogue_does(name: str, asof: AsOf, load: Load) -> None:
    rng, model = np.random.default_rng(3), load(name)
    time = NOW + rng.integers(0, 6 * 3_600_000, 30)
    cases = asof.cases(rng.choice(asof.clicks.user, 30), time)
    size = rng.integers(0, 6, 30)
    offsets = np.concatenate([[0], np.cumsum(size)])
    rows = rng.integers(0, asof.available(time).min(), offsets[-1]).astype(np.int32)
    expected = [
        model.catalogue_scores(asof, int(t), cases.take(np.array([b])))[0, rows[offsets[b] : offsets[b + 1]]]
        for b, t in enumerate(time)
    ]
    tolerance = 1e-5 if MODELS[name].trains else 0
    np.testing.assert_allclose(
        model.candidate_scores(asof, cases, offsets, rows), np.concatenate(expected), atol=tolerance
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_registry_says_what_the_model_is(name: str, load: Load) -> None:
    model, spec = load(name), model_spec(name)
    assert model.name == spec.name == name
    assert (
        (model.trains, model.embeds)
        == (spec.trains, spec.embeds)
        == (spec.recipe is not None, isinstance(model, Embeds))
    )


@pytest.mark.parametrize("name", MODELS)
def test_readers_without_history_get_a_list(name: str, asof: AsOf, load: Load) -> None:
    cases = asof.cases(np.array([5]), np.array([NOW]))
    rows, scores = top_lists(asof, load(name), NOW, cases, dict.fromkeys(PROTOCOLS, 20))["in_session"]
    assert len(np.unique(rows[0])) == 20 and np.isfinite(scores).all()


@pytest.mark.parametrize(("name", "minutes"), [("popular_15", 15), ("popular_60", 60), ("popular_1440", 1440)])
def test_popularity_is_a_count_of_clicks(name: str, minutes: int, asof: AsOf, load: Load) -> None:
    cases = asof.cases(np.array([5, 6]), np.array([NOW, NOW]))
    scores = load(name).catalogue_scores(asof, NOW, cases)
    stop = minute_start(np.array(NOW))
    inside = (asof.clicks.time >= stop - minutes * MS_PER_MINUTE) & (asof.clicks.time < stop)
    expected = np.bincount(asof.clicks.article[inside], minlength=len(asof.catalogue))[: scores.shape[1]]
    assert expected.any() and np.array_equal(scores, np.stack([expected, expected]))


def test_cooccurrence_is_a_count_of_pairs(asof: AsOf, load: Load) -> None:
    users = some_users(asof)
    cases = asof.cases(users, np.full(len(users), NOW))
    together = load("cooccurrence").catalogue_scores(asof, NOW, cases)
    summed = load("cooccurrence_popular").catalogue_scores(asof, NOW, cases)
    clicks, stop = asof.clicks, int(minute_start(np.array(NOW)))
    recent = np.bincount(
        clicks.article[(clicks.time >= stop - 15 * MS_PER_MINUTE) & (clicks.time < stop)], minlength=150
    )
    for b in range(len(users)):
        expected = np.zeros(150)
        if cases.stop[b] > cases.first[b]:
            last = clicks.article[cases.stop[b] - 1]
            for j in np.flatnonzero((clicks.time >= stop - WINDOW_MINUTES * MS_PER_MINUTE) & (clicks.time < stop)):
                i = j - 1
                while i >= 0 and clicks.user[i] == clicks.user[j] and clicks.session[i] == clicks.session[j]:
                    pair = {int(clicks.article[i]), int(clicks.article[j])}
                    if last in pair and len(pair) == 2:
                        expected[(pair - {int(last)}).pop()] += 1
                    i -= 1
        n = together.shape[1]
        assert np.array_equal(together[b], expected[:n])
        shares = expected / max(expected.sum(), 1) + recent / max(recent.sum(), 1)
        np.testing.assert_allclose(summed[b], shares[:n], rtol=1e-6)
    assert together.any()


def test_shares_of_nothing_are_zero() -> None:
    zero, one = np.array([0]), np.array([1])
    assert sum_of_shares(zero, zero, zero, zero) == 0
    assert sum_of_shares(one, 4 * one, one, 2 * one) == 0.75


def test_random_is_even_and_independent(asof: AsOf, load: Load) -> None:
    users = np.arange(300)
    cases = asof.cases(users, np.full(300, NOW))
    scores = load("random").catalogue_scores(asof, NOW, cases)
    counts = np.histogram(scores, bins=20, range=(0, 1))[0]
    expected = scores.size / 20
    assert np.sum((counts - expected) ** 2 / expected) < 43.8  # chi-square, 19 degrees of freedom, p = .001
    correlation = np.corrcoef(scores)[np.triu_indices(300, 1)]
    assert abs(correlation.mean()) < 0.005
    next_minute = asof.cases(users, np.full(300, NOW + MS_PER_MINUTE))
    later = load("random").catalogue_scores(asof, NOW + MS_PER_MINUTE, next_minute)
    assert not np.any(later[:, :50] == scores[:, :50])


@pytest.mark.parametrize("constant", [False, True])
def test_chance_has_an_auc_of_one_half(constant: bool, asof: AsOf, load: Load) -> None:
    shown = asof.impressions
    cases = asof.cases(shown.user, shown.time)
    scores = score_candidates(asof, load("random"), cases, shown.offsets, shown.article)
    with pytest.warns(UserWarning, match="one class"):
        values = auc(RankedLists.rank(shown.clicked, np.zeros_like(scores) if constant else scores, shown.offsets))
    found = means(values[:, None], shown.user)[0]
    assert found.n > 1000 and found.low <= 0.5 <= found.high


def test_mix_is_splitmix64() -> None:
    # First outputs of the generator seeded with 0 and with 1234567 (reference code of Vigna, prng.di.unimi.it).
    assert mix(np.uint64(0)) == 0xE220A8397B1DCDAF
    assert mix(np.uint64(1234567)) == 6457827717110365317


def test_an_unknown_model_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"popular_15.*snert"):
        model_spec("most_popular")


def test_the_registry_does_not_import_torch() -> None:
    code = "import sys, ml.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
