"""SNeRT: the network's invariants and the registry's model (metric_cases.md, section 4)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from ml.asof import AsOf
from ml.clock import MS_PER_DAY, MS_PER_HOUR, minute_start
from ml.errors import DataError
from ml.features import FittedFeatures
from ml.inputs import HistoryInputs, article_inputs, history_inputs
from ml.log import Cases
from ml.models.snert import Snert
from ml.predict import predict, recommend
from ml.recipes import RECIPES, Perturbation
from ml.snert import ArticleTables, SnertNet, save_weights
from tests.ml.interests import START, World, small_recipe, write_world
from tests.ml.leaks import poisoned

NOW = START + 2 * MS_PER_DAY + 6 * MS_PER_HOUR + 17_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"), readers=60)


@pytest.fixture(scope="module")
def asof(world: World) -> AsOf:
    return world.open()


@pytest.fixture(scope="module")
def model(asof: AsOf) -> Snert:
    return make_model(asof)


def make_model(asof: AsOf, **changes: object) -> Snert:
    recipe = small_recipe(**changes)
    fitted = FittedFeatures.fit(recipe, asof, np.arange(len(asof.clicks) // 2))
    torch.manual_seed(0)
    return Snert(SnertNet(fitted.spec, recipe), fitted, recipe)


def cases_at(asof: AsOf, time: int, n: int = 40) -> Cases:
    """Readers of the log, and one who has never clicked."""
    user = np.r_[np.arange(n), 999_999]
    return asof.cases(user, np.full(n + 1, time))


def test_vectors_have_unit_length(model: Snert, asof: AsOf) -> None:
    users = model.user_vectors(asof, cases_at(asof, NOW))
    articles = model.article_vectors(asof, NOW, np.arange(50))
    assert users.shape == (41, 16) and articles.shape == (50, 16) and users.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(np.r_[users, articles], axis=1), 1, rtol=1e-5)


def test_scores_are_inner_products(model: Snert, asof: AsOf) -> None:
    cases = cases_at(asof, NOW)
    available = int(asof.available(np.array([NOW]))[0])
    expected = model.user_vectors(asof, cases) @ model.article_vectors(asof, NOW, np.arange(available)).T
    np.testing.assert_allclose(model.catalogue_scores(asof, NOW, cases), expected, atol=1e-5)


def test_batched_equals_one_by_one(model: Snert, asof: AsOf) -> None:
    cases = cases_at(asof, NOW)
    together = model.catalogue_scores(asof, NOW, cases)
    for b in range(len(cases)):
        alone = model.catalogue_scores(asof, NOW, cases.take(np.array([b])))
        np.testing.assert_allclose(alone[0], together[b], atol=1e-5)
    order = np.random.default_rng(0).permutation(len(cases))
    np.testing.assert_allclose(model.catalogue_scores(asof, NOW, cases.take(order)), together[order], atol=1e-5)


def test_an_exact_index_over_the_vectors_ranks_as_the_scores_do(model: Snert, asof: AsOf) -> None:
    cases = cases_at(asof, NOW)
    scores = model.catalogue_scores(asof, NOW, cases)
    vectors = model.article_vectors(asof, NOW, np.arange(scores.shape[1]))
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    _, found = index.search(model.user_vectors(asof, cases), 20)
    best = np.sort(np.take_along_axis(scores, found, axis=1), axis=1)[:, ::-1]
    np.testing.assert_allclose(best, np.sort(scores, axis=1)[:, ::-1][:, :20], atol=1e-5)


def test_candidates_score_as_the_catalogue_does(model: Snert, asof: AsOf) -> None:
    times = minute_start(np.array([NOW, NOW + MS_PER_HOUR, NOW + 2 * MS_PER_HOUR])) + np.array([0, 31_000, 59_999])
    cases = asof.cases(np.array([3, 4, 5]), times)
    rows = np.random.default_rng(1).integers(0, 60, 24).astype(np.int32)
    offsets = np.array([0, 5, 5, 24])
    got = model.candidate_scores(asof, cases, offsets, rows)
    for b, owner in enumerate(np.repeat(np.arange(3), np.diff(offsets))):
        expected = model.catalogue_scores(asof, int(times[owner]), cases.take(np.array([owner])))[0, rows[b]]
        assert got[b] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("spoil", [poisoned, lambda view, time: view.truncated(time)])
@pytest.mark.parametrize("seed", range(3))
def test_events_at_or_after_t_change_no_bit(
    model: Snert, asof: AsOf, seed: int, spoil: Callable[[AsOf, int], AsOf]
) -> None:
    time = int(np.random.default_rng(seed).choice(asof.clicks.time))
    other = spoil(asof, time)
    users = np.arange(60)
    cases, same = (view.cases(users, np.full(60, time)) for view in (asof, other))
    rows = np.random.default_rng(seed).integers(0, int(asof.available(np.array([time]))[0]), 300).astype(np.int32)
    offsets = np.arange(61) * 5
    fresh = Snert(model.net, model.fitted, model.recipe)
    assert np.array_equal(model.catalogue_scores(asof, time, cases), fresh.catalogue_scores(other, time, same))
    mine, theirs = (m.candidate_scores(v, c, offsets, rows) for m, v, c in ((model, asof, cases), (fresh, other, same)))
    assert np.array_equal(mine, theirs)


def test_scoring_other_times_in_between_changes_no_bit(model: Snert, asof: AsOf) -> None:
    cases = cases_at(asof, NOW)
    before = model.catalogue_scores(asof, NOW, cases)
    model.catalogue_scores(asof, NOW + MS_PER_DAY // 2, cases_at(asof, NOW + MS_PER_DAY // 2))
    assert np.array_equal(before, model.catalogue_scores(asof, NOW, cases))


def test_vectors_of_the_catalogue_are_those_of_its_articles_in_every_minute(model: Snert, asof: AsOf) -> None:
    fresh = Snert(model.net, model.fitted, model.recipe)
    for time in (NOW, NOW + 59_000, NOW + MS_PER_DAY // 2, NOW):
        rows = np.arange(int(asof.available(np.array([time]))[0]))
        found = fresh.catalogue_vectors(asof, time)
        np.testing.assert_allclose(found, model.article_vectors(asof, time, rows), atol=1e-6)
        assert np.array_equal(found, Snert(model.net, model.fitted, model.recipe).catalogue_vectors(asof, time))


def test_content_versions_are_those_of_the_time(asof: AsOf, tmp_path: Path) -> None:
    model = make_model(asof)
    content = asof.content("body")
    rows = np.arange(len(asof.catalogue))
    since = np.r_[content.since, np.full(len(rows), NOW + MS_PER_HOUR)]
    versions = type(content).versions(np.r_[rows, rows], since, np.r_[content.vectors, -content.vectors], len(rows))
    moving = AsOf(
        asof.dataset, asof.catalogue, asof.clicks, asof.impressions, asof._popularity, {"body": versions}, asof.articles
    )
    time = NOW + 2 * MS_PER_HOUR
    cases = cases_at(asof, NOW)
    assert np.array_equal(model.catalogue_scores(asof, NOW, cases), model.catalogue_scores(moving, NOW, cases))
    later = model.article_vectors(moving, time, rows[:100])
    assert not np.allclose(later, model.article_vectors(asof, time, rows[:100]), atol=1e-3)
    after = model.catalogue_scores(moving, time, cases_at(asof, time))
    users = model.user_vectors(moving, cases_at(asof, time))
    np.testing.assert_allclose(after[:, :100], users @ later.T, atol=1e-5)


def padded(net: SnertNet, history: HistoryInputs, vectors: torch.Tensor, extra: float) -> torch.Tensor:
    """Reader vectors with two more positions whose content is `extra`, masked out."""
    x, mask = net.user.embed(vectors, history)
    noise = torch.full((len(x), 2, x.shape[2]), extra)
    x, mask = torch.cat([x, noise], dim=1), torch.cat([mask, torch.zeros(len(x), 2, dtype=torch.bool)], dim=1)
    return net.user.pool(x, mask)


@pytest.mark.parametrize("n", [1, 7, 40])
def test_padding_changes_nothing(model: Snert, asof: AsOf, n: int) -> None:
    history = history_inputs(asof, model.fitted, cases_at(asof, NOW, n), 8)
    with torch.inference_mode():
        vectors = model.net.article(ArticleTables.build(asof, model.fitted), history.articles)
        plain = model.net.user(vectors, history)
        zeros, huge = padded(model.net, history, vectors, 0.0), padded(model.net, history, vectors, 1e4)
    assert torch.equal(zeros, huge)
    torch.testing.assert_close(plain, zeros, atol=1e-6, rtol=0)


def test_attention_on_padding_is_exactly_zero(model: Snert, asof: AsOf) -> None:
    history = history_inputs(asof, model.fitted, cases_at(asof, NOW), 8)
    with torch.inference_mode():
        vectors = model.net.article(ArticleTables.build(asof, model.fitted), history.articles)
        x, mask = model.net.user.embed(vectors, history)
        weights = model.net.user.attention(model.net.user.encode(x, mask), mask)
    assert torch.all(weights[~mask] == 0) and torch.all(weights[mask] > 0)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))


def test_an_empty_history_has_a_vector_of_its_own(model: Snert, asof: AsOf) -> None:
    nobody = asof.cases(np.array([10**9, 10**9 + 1]), np.array([NOW, NOW + MS_PER_DAY]))
    vectors = model.user_vectors(asof, nobody)
    assert np.array_equal(vectors[0], vectors[1]) and np.isfinite(vectors).all()
    assert model.user_vectors(asof, nobody.take(np.zeros(0, dtype=np.int64))).shape == (0, 16)


def test_only_the_last_clicks_count(model: Snert, asof: AsOf) -> None:
    cases = cases_at(asof, START + 3 * MS_PER_DAY)
    length = model.recipe.session_length
    assert np.any(cases.stop - cases.first > length)
    cut = Cases(cases.user, cases.time, np.maximum(cases.first, cases.stop - length), *_rest(cases))
    assert np.array_equal(model.user_vectors(asof, cases), model.user_vectors(asof, cut))


def _rest(cases: Cases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return cases.stop, cases.session_start, cases.context


def test_history_inputs_by_hand(asof: AsOf, model: Snert) -> None:
    cases = cases_at(asof, NOW)
    got = history_inputs(asof, model.fitted, cases, 8)
    clicks = asof.clicks
    for b in range(len(cases)):
        mine = np.flatnonzero(got.owner == b)
        rows = [r for r in range(len(clicks)) if clicks.user[r] == cases.user[b] and clicks.time[r] < NOW][-8:]
        assert got.articles.row[mine].tolist() == clicks.article[rows].tolist()
        assert got.slot[mine].tolist() == list(range(len(rows)))[::-1]
        following = np.r_[clicks.time[rows][1:], NOW][: len(rows)]
        edges = [10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800]
        gaps = (following - clicks.time[rows]) / 1000
        assert got.gap[mine].tolist() == [1 + sum(g >= e for e in edges) for g in gaps]
        known = clicks.time[rows] + 1000 * clicks.read_time[rows] <= NOW
        assert ((got.read[mine] > 0) == known).all()
        assert ((got.running[mine] == 1) == (np.array(rows) >= cases.session_start[b])).all()


def test_history_articles_are_as_of_their_own_clicks(asof: AsOf, model: Snert) -> None:
    cases = cases_at(asof, NOW, 10)
    got = history_inputs(asof, model.fitted, cases, 8)
    click = np.concatenate([np.arange(max(f, s - 8), s) for f, s in zip(cases.first, cases.stop, strict=True)])
    clicks = asof.clicks
    expected = article_inputs(asof, model.fitted, clicks.time[click], clicks.article[click][:, None])
    assert np.array_equal(got.articles.dynamic, expected.dynamic)


def test_without_trustworthy_times_the_gap_is_no_feature(tmp_path: Path) -> None:
    asof = write_world(tmp_path, readers=8, name="globo").open()
    model = make_model(asof)
    got = history_inputs(asof, model.fitted, asof.cases(np.arange(8), np.full(8, NOW)), 8)
    assert set(got.gap.tolist()) == {0} and set(got.running.tolist()) <= {0, 1}


def test_static_and_finish_equal_the_whole(model: Snert, asof: AsOf) -> None:
    tables = ArticleTables.build(asof, model.fitted)
    inputs = article_inputs(asof, model.fitted, np.full(3, NOW), np.arange(30).reshape(3, 10))
    version = {f: torch.from_numpy(v) for f, v in inputs.version.items()}
    with torch.inference_mode():
        static = model.net.article.static(tables, torch.from_numpy(inputs.row), version)
        parts = model.net.article.finish(static, torch.from_numpy(inputs.dynamic))
        assert torch.equal(parts, model.net.article(tables, inputs))


def test_training_mode_without_noise_equals_inference(asof: AsOf) -> None:
    model = make_model(asof, perturbation={}, dropout=0.0)
    tables = ArticleTables.build(asof, model.fitted)
    inputs = article_inputs(asof, model.fitted, np.full(4, NOW), np.random.default_rng(0).integers(0, 9, (4, 25)))
    with torch.no_grad():
        expected = model.net.article(tables, inputs)
        model.net.train()
        torch.testing.assert_close(model.net.article(tables, inputs), expected, atol=1e-6, rtol=0)


def test_a_family_is_dropped_for_whole_articles(asof: AsOf) -> None:
    half = {"popularity": Perturbation(drop_family=0.5)}
    model = make_model(asof, perturbation=half)
    values = torch.ones(2000, 14)
    model.net.train()
    kept = model.net.article._keep("popularity", values)
    assert set(kept.sum(1).tolist()) == {0.0, 14.0}
    assert 0.4 < float((kept[:, 0] > 0).float().mean()) < 0.6
    model.net.eval()
    assert torch.equal(model.net.article._keep("popularity", values), values)


def save(model: Snert, folder: Path) -> None:
    save_weights(model.net, folder / "model.safetensors")
    model.fitted.save(folder)
    (folder / "recipe.json").write_text(model.recipe.model_dump_json())


def test_a_checkpoint_scores_as_the_model_that_was_saved(model: Snert, asof: AsOf, tmp_path: Path) -> None:
    save(model, tmp_path)
    cases = cases_at(asof, NOW)
    loaded = Snert.load(tmp_path, asof)
    assert np.array_equal(loaded.catalogue_scores(asof, NOW, cases), model.catalogue_scores(asof, NOW, cases))


def _nan(weights: dict[str, torch.Tensor]) -> None:
    weights["user.query"][0] = float("nan")


def _other_shape(weights: dict[str, torch.Tensor]) -> None:
    weights["user.query"] = weights["user.query"][:-1].clone()


def _absent(weights: dict[str, torch.Tensor]) -> None:
    del weights["user.query"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [(_nan, "NaN or infinity"), (_other_shape, r"is F32 \[15\], expected is F32 \[16\]"), (_absent, "is missing, exp")],
)
def test_damaged_weights_are_refused_in_one_line(
    model: Snert, tmp_path: Path, damage: Callable[[dict[str, torch.Tensor]], None], said: str
) -> None:
    save(model, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    damage(weights)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=said) as error:
        Snert.load(tmp_path)
    assert "\n" not in str(error.value) and "user.query" in str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.json", "features.json", "features.safetensors"])
def test_a_missing_or_truncated_file_is_refused(model: Snert, tmp_path: Path, name: str) -> None:
    save(model, tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:20])
    with pytest.raises(DataError, match="train again"):
        Snert.load(tmp_path)


def test_vectors_of_another_size_are_refused(model: Snert, asof: AsOf, tmp_path: Path) -> None:
    save(model, tmp_path)
    content = asof.content("body")
    wider = type(content)(np.tile(content.vectors, 2), content.offsets, content.since)
    other = AsOf(
        asof.dataset, asof.catalogue, asof.clicks, asof.impressions, asof._popularity, {"body": wider}, asof.articles
    )
    with pytest.raises(DataError, match="16 dimensions, the model was trained with 8"):
        Snert.load(tmp_path, other)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_builds_and_scores(asof: AsOf, name: str) -> None:
    recipe = RECIPES[name]
    fitted = FittedFeatures.fit(recipe, asof, np.arange(200))
    model = Snert(SnertNet(fitted.spec, recipe), fitted, recipe)
    assert np.isfinite(model.catalogue_scores(asof, NOW, cases_at(asof, NOW, 3))).all()


def test_recommend_gives_what_predict_stored_also_where_the_session_is_the_sources_own(
    model: Snert, asof: AsOf, tmp_path: Path
) -> None:
    changed = asof.clicks.session.copy()
    changed[1::2] += 1  # sessions that the 30-minute rule would join
    asof = AsOf(
        asof.dataset, asof.catalogue, replace(asof.clicks, session=changed), asof.impressions, asof._popularity,
        {family: asof.content(family) for family in model.fitted.spec.content_dims}, asof.articles,
    )  # fmt: skip
    predict(asof, model, (NOW, NOW + MS_PER_DAY), 40, tmp_path)
    cases = {row["case"]: row for row in pq.read_table(tmp_path / "cases.parquet").to_pylist()}
    other = 0
    for row in pq.read_table(tmp_path / "top.parquet").to_pylist():
        if row["protocol"] != "thesis":
            continue
        case = cases[row["case"]]
        user, time = case["user_id"], round(case["time"].timestamp() * 1000)
        (click,) = np.flatnonzero((asof.clicks.user == user) & (asof.clicks.time == time))
        session = int(asof.clicks.session[click])
        found = recommend(asof, model, user, time, 50, exclude_read=False, session=session)
        assert [a for a, _ in found] == row["articles"]
        np.testing.assert_allclose([s for _, s in found], row["scores"], atol=1e-5)
        by_rule = recommend(asof, model, user, time, 50, exclude_read=False)
        other += not np.allclose([s for _, s in by_rule], row["scores"], atol=1e-5)
    assert other, "the session changes no score here: the test cannot fail"
