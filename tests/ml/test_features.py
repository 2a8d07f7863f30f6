"""Features: transformations against scikit-learn, unknown values, cyclical time, the as-of door, storage."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file
from sklearn.preprocessing import QuantileTransformer, RobustScaler, StandardScaler

from ml.articles import NUMERIC
from ml.asof import AsOf
from ml.clock import MS_PER_DAY, minute_start
from ml.errors import DataError
from ml.features import (
    CLIP,
    LOGGED,
    QUANTILE,
    FittedFeatures,
    cyclical,
    gap_bucket,
    raw_dynamic,
    read_bucket,
    resolve_families,
    to_normal,
)
from ml.popularity import Popularity
from tests.ml.interests import START, World, small_recipe, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"), readers=40)


@pytest.fixture(scope="module")
def fitted(world: World) -> FittedFeatures:
    asof = world.open()
    return FittedFeatures.fit(small_recipe(), asof, np.arange(0, len(asof.clicks), 2))


def test_metadata_equals_scikit_learn(world: World, fitted: FittedFeatures) -> None:
    asof = world.open()
    clicked = np.unique(asof.clicks.article[::2])
    raw = asof.articles.numeric.astype(np.float64)
    got = fitted.numeric(asof.articles)
    for i, name in enumerate(NUMERIC):
        column = np.log1p(raw[:, [i]]) if name in LOGGED else raw[:, [i]]
        train = column[clicked][~np.isnan(column[clicked, 0])]
        if name == "sentiment_score":
            scaler = StandardScaler()
        elif name == QUANTILE:
            n = min(1000, len(train))
            scaler = QuantileTransformer(n_quantiles=n, output_distribution="normal", subsample=None)
        else:
            scaler = RobustScaler(quantile_range=(1.0, 99.0))
        expected = np.nan_to_num(np.clip(scaler.fit(train).transform(column)[:, 0], -CLIP, CLIP), nan=0.0)
        np.testing.assert_allclose(got[:, i], expected, atol=1e-6)


def test_age_and_popularity_equal_scikit_learn_fitted_at_the_clicks(world: World, fitted: FittedFeatures) -> None:
    asof = world.open()
    clicks = asof.clicks.take(np.arange(len(asof.clicks)) % 2 == 0)
    train = raw_dynamic(asof, minute_start(clicks.time), clicks.article[:, None])[:, 0]
    time = asof.clicks.time[:50]
    rows = np.random.default_rng(0).integers(0, 20, (50, 7))
    raw = raw_dynamic(asof, minute_start(time), rows)
    expected = np.clip(RobustScaler().fit(train).transform(raw.reshape(-1, 15)), -CLIP, CLIP)
    got = fitted.dynamic(asof, time, rows)
    assert got.shape == (50, 7, 21) and got.dtype == np.float32
    np.testing.assert_allclose(got[:, :, 6:].reshape(-1, 15), expected, atol=2e-6)


def test_popularity_values_are_log_counts_and_log_shares(world: World) -> None:
    asof = world.open()
    time = np.array([START + 2 * MS_PER_DAY])
    rows = np.arange(int(asof.available(time)[0]))[None]
    raw = raw_dynamic(asof, time, rows)[0]
    day = (asof.clicks.time >= time[0] - MS_PER_DAY) & (asof.clicks.time < time[0])
    counts = np.bincount(asof.clicks.article[day], minlength=rows.shape[1])[: rows.shape[1]]
    np.testing.assert_allclose(raw[:, 7], np.log1p(counts), rtol=1e-6)
    np.testing.assert_allclose(raw[:, 14], np.log1p(1e4 * counts / day.sum()), rtol=1e-5)
    np.testing.assert_allclose(raw[:, 0], np.log1p((time[0] - asof.catalogue.published[rows[0]]) / 60_000), rtol=1e-5)


def test_values_depend_on_the_minute_only(world: World, fitted: FittedFeatures) -> None:
    asof = world.open()
    time = minute_start(asof.clicks.time[100:110])
    rows = np.tile(np.arange(30), (10, 1))
    early, late = fitted.dynamic(asof, time, rows), fitted.dynamic(asof, time + 59_999, rows)
    assert np.array_equal(early, late)


def test_events_at_or_after_t_change_nothing(world: World, fitted: FittedFeatures) -> None:
    asof = world.open()
    time = np.sort(asof.clicks.time)[[len(asof.clicks) // 2]]
    rows = np.arange(int(asof.available(time)[0]))[None]
    assert np.array_equal(fitted.dynamic(asof, time, rows), fitted.dynamic(asof.truncated(int(time[0])), time, rows))


def test_local_time_is_cyclical() -> None:
    asof_minutes = np.array([0, 6 * 60, 12 * 60 + 15])  # Monday 00:00, 06:00, 12:15
    got = cyclical(asof_minutes)
    np.testing.assert_allclose(got[0], [0, 1, 0, 1, 0, 1], atol=1e-7)
    np.testing.assert_allclose(got[1], [0, 1, 1, 0, 0, 1], atol=1e-7)
    np.testing.assert_allclose(got[2], [1, 0, 0, -1, 0, 1], atol=1e-6)


def test_summer_time_of_the_publisher_counts(world: World, fitted: FittedFeatures) -> None:
    asof = world.open()
    noon = np.array([int(datetime(2023, 5, 22, 10, 0, tzinfo=UTC).timestamp() * 1000)])  # Monday 12:00 in Copenhagen
    got = fitted.dynamic(asof, noon, np.zeros((1, 1), dtype=np.int64))[0, 0, :6]
    np.testing.assert_allclose(got, [0, 1, 0, -1, 0, 1], atol=1e-6)


def test_buckets() -> None:
    assert gap_bucket(np.array([0, 9.9, 10, 604_800])).tolist() == [1, 1, 2, 15]
    assert read_bucket(np.array([np.nan, 0, 1, 1e6])).tolist() == [0, 1, 2, 10]


def test_a_category_unseen_in_training_is_unknown(world: World, fitted: FittedFeatures) -> None:
    asof = world.open()
    articles = asof.articles
    codes = fitted.category_codes(articles)
    assert fitted.spec.categories == (10, 11, 12, 13)
    assert np.array_equal(codes, articles.category - 9)
    later = type(articles)(articles.article_id, articles.category + 2, articles.premium, articles.numeric)
    assert set(fitted.category_codes(later)[articles.category >= 12]) == {0}


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float64, st.integers(2, 40), elements=st.floats(0, 1, width=32)))
def test_to_normal_equals_scikit_learn(values: np.ndarray) -> None:
    n = len(values)
    scaler = QuantileTransformer(n_quantiles=n, output_distribution="normal", subsample=None).fit(values[:, None])
    probe = np.concatenate([values, [-1.0, 0.5, 2.0]])
    expected = scaler.transform(probe[:, None])[:, 0]
    np.testing.assert_allclose(to_normal(probe, scaler.quantiles_[:, 0]), expected, atol=1e-6)
    assert np.isnan(to_normal(np.array([np.nan]), scaler.quantiles_[:, 0])[0])


def test_auto_takes_body_then_coclick_then_nothing(world: World) -> None:
    asof = world.open()
    body = asof.content("body")
    for content, expected in (({"coclick": body, "body": body}, ["body"]), ({"coclick": body}, ["coclick"]), ({}, [])):
        popularity = Popularity.build(asof.clicks.article, asof.clicks.time, len(asof.catalogue))
        log = (asof.dataset, asof.catalogue, asof.clicks, asof.impressions)
        families = resolve_families(small_recipe(), AsOf(*log, popularity, content, asof.articles))
        assert families == (*expected, "meta", "time", "popularity", "interaction")


def test_metadata_is_left_out_where_all_of_it_is_unknown(tmp_path: Path) -> None:
    asof = write_world(tmp_path, readers=5, name="globo").open()
    assert resolve_families(small_recipe(), asof) == ("time", "popularity", "interaction")
    fitted = FittedFeatures.fit(small_recipe(), asof, np.arange(len(asof.clicks)))
    assert fitted.spec.gap is False and fitted.spec.categories == ()


def test_a_family_asked_for_by_name_must_exist(world: World) -> None:
    with pytest.raises(DataError, match="image vectors"):
        resolve_families(small_recipe(families=("image", "time")), world.open())


def test_no_targets_are_an_error(world: World) -> None:
    with pytest.raises(DataError, match="no training clicks"):
        FittedFeatures.fit(small_recipe(), world.open(), np.zeros(0, dtype=np.int64))


def test_storage_keeps_everything(world: World, fitted: FittedFeatures, tmp_path: Path) -> None:
    asof = world.open()
    fitted.save(tmp_path)
    again = FittedFeatures.load(tmp_path)
    time, rows = asof.clicks.time[:9], np.tile(np.arange(5), (9, 1))
    assert again.spec == fitted.spec
    assert np.array_equal(again.dynamic(asof, time, rows), fitted.dynamic(asof, time, rows))
    assert np.array_equal(again.numeric(asof.articles), fitted.numeric(asof.articles))


@pytest.mark.parametrize("damage", ["json", "missing", "short", "nan"])
def test_damaged_storage_is_refused_in_one_line(fitted: FittedFeatures, tmp_path: Path, damage: str) -> None:
    fitted.save(tmp_path)
    arrays = load_file(tmp_path / "features.safetensors")
    if damage == "json":
        (tmp_path / "features.json").write_text(json.dumps({"families": ["sound"]}))
    elif damage == "missing":
        (tmp_path / "features.safetensors").unlink()
    else:
        scale = arrays["dynamic_scale"]
        arrays["dynamic_scale"] = scale[:3] if damage == "short" else scale * np.nan
        save_file(arrays, tmp_path / "features.safetensors")
    with pytest.raises(DataError, match="train again") as error:
        FittedFeatures.load(tmp_path)
    assert "\n" not in str(error.value)
