"""The simulator: layout, statistics, the oracle's truth, determinism, and bundles that are whole or absent."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from ml.errors import DataError, UsageError
from ml.oracle import Oracle
from ml.simulator import PRESETS, SIZES, Size, bundle, calibrate, compare, play, report, simulate
from ml.simulator.check import _auc
from ml.simulator.compare import number, table
from ml.simulator.config import TABLOID, VERSION, preset_named
from ml.simulator.expected import CONFIDENCE, EXPECTED, Measured
from ml.simulator.page import log_life
from ml.simulator.text import CATEGORIES, FILLER, TOPICS, draw_texts

REPOSITORY = Path(__file__).parents[2]
PUBLISHED_ARTICLE_COLUMNS = [
    "article_id",
    "title",
    "subtitle",
    "last_modified_time",
    "premium",
    "body",
    "published_time",
    "image_ids",
    "article_type",
    "url",
    "ner_clusters",
    "entity_groups",
    "topics",
    "category",
    "subcategory",
    "category_str",
    "total_inviews",
    "total_pageviews",
    "total_read_time",
    "sentiment_score",
    "sentiment_label",
]
FILES = {
    *(f"{split}/{name}.parquet" for split in ("train", "validation") for name in ("behaviors", "history")),
    *(f"oracle/{name}" for name in ("inview.parquet", "readers.parquet", "articles.parquet", "README.md")),
    "articles.parquet",
    "simulation.json",
}
START = np.datetime64("2023-04-27T07:00", "us")
SECOND = pl.duration(seconds=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny bundle, shared: do not change it."""
    out = tmp_path_factory.mktemp("simulated") / "tiny"
    simulate(out, "tiny", 0)
    return out


@pytest.fixture
def micro(monkeypatch):
    """The name of a size that takes a fraction of a second."""
    monkeypatch.setitem(SIZES, "micro", Size("micro", 60, 200, 20, 60, 1, 1, 1, 60))
    return "micro"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def behaviors(root: Path, split: str) -> pl.DataFrame:
    return pl.read_parquet(root / split / "behaviors.parquet")


def history(root: Path, split: str) -> pl.DataFrame:
    """One row a click."""
    return pl.read_parquet(root / split / "history.parquet").explode(pl.exclude("user_id"))


def both(root: Path) -> pl.DataFrame:
    return pl.concat([behaviors(root, "train"), behaviors(root, "validation")])


# --- layout


@pytest.mark.real
@pytest.mark.parametrize("name", ["behaviors", "history"])
def test_layout_is_the_published_one(tiny, real_data, name):
    published = pq.read_schema(real_data("ebnerd_slice") / "train" / f"{name}.parquet").remove_metadata()
    for split in ("train", "validation"):
        assert pq.read_schema(tiny / split / f"{name}.parquet").remove_metadata() == published


def test_files_and_article_columns(tiny):
    assert set(contents(tiny)) == FILES
    assert pq.read_schema(tiny / "articles.parquet").names == PUBLISHED_ARTICLE_COLUMNS
    articles = pl.read_parquet(tiny / "articles.parquet")
    assert articles["article_id"].is_unique().all()
    assert articles["published_time"].is_sorted()
    assert set(articles["category_str"]) == set(CATEGORIES)
    assert (articles["last_modified_time"] >= articles["published_time"]).all()
    assert articles.select("title", "subtitle", "body").null_count().sum_horizontal().item() == 0


def test_days_of_the_splits(tiny):
    """Three days each, day boundary 07:00 UTC."""
    day = np.timedelta64(1, "D")
    spans = {"train": (3, 6), "validation": (6, 9)}
    for split, (first, end) in spans.items():
        times = behaviors(tiny, split)["impression_time"].to_numpy()
        assert START + first * day <= times.min() < START + first * day + np.timedelta64(1, "h")
        assert START + end * day - np.timedelta64(1, "h") <= times.max() < START + end * day
        assert np.all(np.diff(times) >= np.timedelta64(0))
        read = history(tiny, split)["impression_time_fixed"].to_numpy()
        assert read.min() >= START
        assert read.max() < START + first * day


def clicked_at():
    """An impression's click: after the seconds on its list."""
    return pl.col("impression_time") + pl.duration(seconds=pl.col("read_time"))


def test_histories_hold_the_clicks_of_earlier_weeks(tiny):
    """Validation's history is train's history and train's clicks, to the value."""
    key = ["user_id", "impression_time_fixed", "article_id_fixed"]
    earlier = history(tiny, "train").select("user_id", *(f"{c}_fixed" for c in ("impression_time", "article_id")))
    clicked = behaviors(tiny, "train").explode("article_ids_clicked")
    last_second = pl.col("impression_time").dt.offset_by("-7h").dt.truncate("1d").dt.offset_by("1d7h") - SECOND
    clicked = clicked.select(
        "user_id",
        pl.min_horizontal(clicked_at(), last_second).alias("impression_time_fixed"),
        pl.col("article_ids_clicked").alias("article_id_fixed"),
        pl.col("next_read_time").alias("read_time_fixed"),
        pl.col("next_scroll_percentage").alias("scroll_percentage_fixed"),
    )
    later = history(tiny, "validation")
    assert pl.concat([earlier.select(key), clicked.select(key)]).sort(key).equals(later.select(key).sort(key))
    of_train = later.filter(pl.col("impression_time_fixed") >= clicked["impression_time_fixed"].min())
    assert of_train.select(clicked.columns).sort(key).equals(clicked.sort(key))


def test_impressions_are_consistent(tiny):
    log = both(tiny)
    assert log["impression_id"].is_unique().all()
    inview, clicked = pl.col("article_ids_inview"), pl.col("article_ids_clicked")
    assert log.select(clicked.list.set_difference(inview).list.len().sum()).item() == 0
    assert log.select((inview.list.n_unique() == inview.list.len()).all()).item()
    lengths = log.select(inview.list.len()).to_series()
    assert lengths.is_between(2, 20).all()
    assert (lengths >= 5).mean() > 0.999, "shorter only where a topic has too few related articles"
    published = pl.read_parquet(tiny / "articles.parquet", columns=["article_id", "published_time"])
    shown = (
        log.select("impression_time", inview.alias("article_id")).explode("article_id").join(published, "article_id")
    )
    assert shown.select((pl.col("published_time") < pl.col("impression_time")).all()).item()
    assert len(shown) == log.select(inview.list.len().sum()).item()


def test_sessions_are_of_one_reader_and_reading_ends_before_the_next_impression(tiny):
    log = behaviors(tiny, "validation").sort("session_id", "impression_time")
    assert log.group_by("session_id").agg(pl.col("user_id").n_unique())["user_id"].max() == 1
    assert log["session_id"].n_unique() < 0.6 * len(log)
    known = clicked_at() + pl.duration(seconds=pl.col("next_read_time"))
    gaps = log.with_columns((pl.col("impression_time").shift(-1).over("session_id") - known).alias("gap"))
    assert gaps["gap"].drop_nulls().min() >= pl.select(pl.duration(seconds=0)).item()
    page = log.with_columns(pl.col("article_ids_clicked").list.first().shift(1).over("session_id").alias("last"))
    below = page.filter(pl.col("article_id").is_not_null() & pl.col("last").is_not_null())
    assert len(below) > 100
    assert (below["article_id"] == below["last"]).all()


# --- statistics


def test_statistics(tiny):
    """In the ranges of other seeds; what a model can know lies between popularity and truth."""
    figures, text = report(tiny)
    assert text.count(" inside") == len(EXPECTED["tabloid", "tiny"].figures) and "OUTSIDE" not in text
    assert figures["popular_15_inview_auc"] + 0.02 < figures["personal_inview_auc"] < figures["oracle_inview_auc"]
    assert 0.003 < figures["clicks_per_impression"] - 1 < 0.006


@pytest.mark.slow
def test_statistics_of_the_demo(tmp_path):
    """Popularity is strong, and there is room above it in both tasks."""
    summary = simulate(tmp_path / "demo", "demo", 1)
    assert summary.articles <= 4_000
    figures, _ = report(tmp_path / "demo")
    assert 26_000 <= figures["clicks_per_day"] <= 33_000
    assert 3 <= figures["clicked_age_median_hours"] <= 6
    assert 0.67 <= figures["front_page_share"] <= 0.75
    assert 0.66 <= figures["popular_15_recall@20"] <= 0.8
    assert 0.67 <= figures["popular_15_inview_auc"] <= 0.74
    assert 0.8 <= figures["oracle_inview_auc"] <= 0.86
    assert figures["personal_recall@20"] >= figures["popular_15_recall@20"] + 0.03
    assert figures["personal_inview_auc"] >= figures["popular_15_inview_auc"] + 0.03


def test_a_regional_newspaper_is_less_concentrated_and_more_personal(tiny, tmp_path):
    """Document 1, Sec. 6.2, at the smallest size."""
    simulate(tmp_path / "regional", "tiny", 0, preset="regional")
    tabloid, regional = report(tiny)[0], report(tmp_path / "regional")[0]
    assert regional["top_5_share_15_min"] < tabloid["top_5_share_15_min"] - 0.03
    room = [f["personal_recall@20"] - f["popular_15_recall@20"] for f in (tabloid, regional)]
    assert room[1] > room[0]


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_other_seeds_lie_in_the_range_that_the_measured_ones_imply(tmp_path, preset):
    for seed in range(1, 9):
        simulate(tmp_path / str(seed), "tiny", seed, preset=preset)
        assert "OUTSIDE" not in report(tmp_path / str(seed))[1], seed


def lines_of(text: str) -> dict[str, str]:
    """Lines of a table by figure."""
    return {line.split()[0]: line for line in text.splitlines() if line}


def test_the_report_judges_by_target_at_large_and_by_other_seeds_elsewhere(monkeypatch):
    found = {"gini_15_min": 0.89, "clicks_per_day": 1.3, "inview_median": 9.0, "front_page_share": 0.76}
    measured = Measured("1-9", {"clicks_per_day": (1.0, 0.01), "inview_median": (9, 5), "gini_15_min": (0.1, 0.01)})
    for size in ("tiny", "large"):
        monkeypatch.setitem(EXPECTED, ("tabloid", size), measured)
    tiny, large = (lines_of(table(found, "tabloid", size, 1)) for size in ("tiny", "large"))
    for lines, gini in ((tiny, "OUTSIDE"), (large, "inside")):
        assert lines["clicks_per_day"].endswith("OUTSIDE") and lines["inview_median"].endswith("inside")
        assert "0.888 to 0.948 (document 1, Eq. A.3, Fig. 3.2: .918)" in lines["gini_15_min"]
        assert lines["gini_15_min"].endswith(gini)
    assert tiny["front_page_share"].endswith("0.76") and large["front_page_share"].endswith("OUTSIDE")


def test_without_a_published_figure_or_a_measured_range_the_report_says_so():
    found = {"gini_15_min": 0.89, "clicks_per_day": 1.3}
    regional = table(found, "regional", "large", 1)
    assert "document 1" not in regional and "inside" not in regional and "OUTSIDE" not in regional
    assert "target: none, no figure is published" in regional
    assert "expected here: not measured for regional, large" in regional
    both = {(preset, size) for preset in PRESETS for size in ("tiny", "demo")}
    assert set(EXPECTED) == {*both, ("tabloid", "small")}
    for (preset, size), measured in EXPECTED.items():
        text = table({name: mean for name, (mean, _) in measured.figures.items()}, preset, size, 1)
        assert text.count(" inside") == len(measured.figures) and f"seeds {measured.seeds} gave" in text
        assert ("document 1" in text) == (preset == "tabloid")


def doc_rows() -> list[str]:
    """The table of EXPECTED in docs/simulator.md."""
    sides = list(EXPECTED.values())
    rows = [["figure", *(f"`{preset}`, {size}" for preset, size in EXPECTED)], ["---"] * (1 + len(sides))]
    for name in max((s.figures for s in sides), key=len):
        found = [s.figures.get(name) for s in sides]
        texts = [f"{number(f[0])} ± {number(float(f'{f[1]:.2g}'))}" if f else "too few articles" for f in found]
        rows.append([name, *texts])
    return [f"| {' | '.join(row)} |" for row in rows]


def test_the_documented_table_is_that_of_the_module():
    assert "\n".join(doc_rows()) in (REPOSITORY / "docs" / "simulator.md").read_text()


def test_too_few_articles_are_said_not_printed_as_nan(tiny):
    figures, text = report(tiny, 200, 50)
    lines = lines_of(text)
    for name in ("lifecycle_median_hours", "lifecycle_peak_minutes"):
        assert np.isnan(figures[name]) and "too few articles  " in lines[name]
        assert lines[name].endswith(
            f"  {figures['lifecycle_articles']:.0f} with 1,000 clicks and a full life in the log, 10 needed"
        )
    assert "nan" not in text.lower()


@given(st.floats(0, 2e6), st.floats(0, 2e6), st.floats(0, 1e3))
def test_a_verdict_is_what_the_printed_numbers_say(value, mean, deviation):
    measured = {("tabloid", "tiny"): Measured("11-16", {"clicks_per_day": (mean, deviation)})}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "EXPECTED", measured)
        line = lines_of(table({"clicks_per_day": value}, "tabloid", "tiny", 1))["clicks_per_day"]
    _, low, to, high, reached, verdict = line.replace(",", "").split()
    assert to == "to" and verdict == ("inside" if float(low) <= float(reached) <= float(high) else "OUTSIDE")


def test_the_range_holds_one_more_seed_as_often_as_it_says():
    """Student's t with 3 degrees of freedom: 12.924 at .9995. And over many draws of seeds."""
    band = Measured("1-3,8", {"a": (100.0, 2.0), "b": (1.0, 2.0)}).band
    assert band("a") == pytest.approx((100 - 12.924 * 2 * 1.25**0.5, 100 + 12.924 * 2 * 1.25**0.5), abs=1e-3)
    assert band("b").low == 0 and band("c") is None
    reach = (Measured("1-6", {"a": (100.0, 1.0)}).band("a").high - 100) / 1
    drawn = np.random.default_rng(0).normal(size=(200_000, 7))
    distance = np.abs(drawn[:, 6] - drawn[:, :6].mean(axis=1)) / drawn[:, :6].std(axis=1, ddof=1)
    assert np.mean(distance <= reach) == pytest.approx(CONFIDENCE, abs=3e-4)


def test_a_bundle_of_another_version_is_not_judged(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(compare, "VERSION", 99)
    with pytest.raises(DataError, match="simulate it anew"):
        report(tiny, 200, 50)
    with pytest.raises(DataError, match="no marker"):
        report(tmp_path)


def test_positions_carry_no_information(tiny):
    lists = both(tiny).select("article_ids_inview", pl.col("article_ids_clicked").list.first().alias("clicked"))
    for size in (7, 10):
        some = lists.filter(pl.col("article_ids_inview").list.len() == size)
        shown = np.array(some["article_ids_inview"].to_list())
        at = np.argmax(shown == some["clicked"].to_numpy()[:, None], axis=1)
        assert chisquare(np.bincount(at, minlength=size)).pvalue > 0.001
        first = np.argmin(shown, axis=1)
        assert chisquare(np.bincount(first, minlength=size)).pvalue > 0.001


def test_readers_rarely_click_again_what_they_have_read(tiny):
    clicks = pl.concat(
        [
            history(tiny, "validation").select("user_id", pl.col("article_id_fixed").alias("article")),
            behaviors(tiny, "validation")
            .explode("article_ids_clicked")
            .select("user_id", pl.col("article_ids_clicked").alias("article")),
        ]
    )
    assert 0.005 < 1 - clicks.n_unique() / len(clicks) < 0.2


@given(st.floats(100, 1000))
def test_attraction_peaks_minutes_after_publication(tau):
    """The derivative of log g vanishes at rho log(1 + tau / rho)."""
    age = np.arange(0, 120, 0.01)
    rise = TABLOID.rise_minutes
    life = log_life(age, np.full(len(age), tau), rise)
    peak = rise * np.log1p(tau / rise)
    assert abs(age[np.argmax(life)] - peak) <= 0.02
    assert life[0] == -np.inf
    assert np.argmax(life) < len(life) - 1


# --- the oracle


def test_oracle_probabilities_belong_to_the_lists_and_sum_to_one(tiny):
    log = both(tiny)
    oracle = Oracle.open(tiny)
    offsets, articles, probability = oracle.inview(log["impression_id"].to_numpy())
    np.testing.assert_array_equal(articles, log["article_ids_inview"].explode().to_numpy())
    np.testing.assert_allclose(np.add.reduceat(probability, offsets[:-1]), 1, atol=1e-5)
    assert np.all(probability > 0)


def test_oracle_gives_any_impressions_in_the_order_asked(tiny):
    log = both(tiny)
    chosen = np.array([40, 7, 40, 1_000])
    offsets, articles, _ = Oracle.open(tiny).inview(log["impression_id"].to_numpy()[chosen])
    lists = [articles[a:b].tolist() for a, b in pairwise(offsets.tolist())]
    assert lists == [log["article_ids_inview"][int(i)].to_list() for i in chosen]


def calibration_z(probability: np.ndarray, clicked: np.ndarray) -> float:
    """Largest distance, in standard deviations, of clicks from expected clicks over bins of probability."""
    bins = np.digitize(probability, np.quantile(probability, np.linspace(0, 1, 13)[1:-1]))
    expected, observed = np.bincount(bins, probability), np.bincount(bins, clicked)
    return float(np.max(np.abs(observed - expected) / np.sqrt(np.bincount(bins, probability * (1 - probability)))))


def test_oracle_probabilities_match_click_frequencies(tiny):
    log = both(tiny)
    offsets, articles, probability = Oracle.open(tiny).inview(log["impression_id"].to_numpy())
    first = log["article_ids_clicked"].list.first().to_numpy()
    clicked = articles == np.repeat(first, np.diff(offsets))
    assert clicked.sum() == len(log)
    assert calibration_z(probability, clicked) < 4
    sharper = probability**1.2
    sharper /= np.repeat(np.add.reduceat(sharper, offsets[:-1]), np.diff(offsets))
    assert calibration_z(sharper, clicked) > 8


def test_interest_shows_in_clicks_and_reading(tiny):
    log = both(tiny)
    oracle = Oracle.open(tiny)
    order = np.argsort(oracle.article_id)
    offsets, articles, _ = oracle.inview(log["impression_id"].to_numpy())
    rows = order[np.searchsorted(oracle.article_id, articles, sorter=order)]
    interests = oracle.interests[np.searchsorted(oracle.user, log["user_id"].to_numpy())]
    match = (np.repeat(interests, np.diff(offsets), axis=0) * oracle.topics[rows]).sum(axis=1)
    clicked = articles == np.repeat(log["article_ids_clicked"].list.first().to_numpy(), np.diff(offsets))
    assert match[clicked].mean() > 1.3 * match[~clicked].mean()
    read = np.log(log["next_read_time"].to_numpy())
    strong, weak = np.quantile(match[clicked], [0.75, 0.25])
    assert read[match[clicked] > strong].mean() > read[match[clicked] < weak].mean() + 0.3


def test_oracle_names_what_is_missing(tiny, tmp_path):
    with pytest.raises(DataError, match="only simulated bundles"):
        Oracle.open(tmp_path)
    with pytest.raises(DataError, match="99999999"):
        Oracle.open(tiny).inview(np.array([1, 99_999_999]))


def test_auc_of_the_report_is_the_rank_statistic():
    """Lists [.9*, .1, .5], [.2*, .2, .8]: (1 + 1) / 2 and (.5 + 0) / 2."""
    scores = np.array([0.9, 0.1, 0.5, 0.2, 0.2, 0.8])
    positive = np.array([True, False, False, True, False, False])
    assert _auc(scores[positive], scores, np.array([0, 3, 6]), positive) == pytest.approx((1 + 0.25) / 2)


# --- text


def test_words_follow_the_topic(tiny):
    articles = pl.read_parquet(tiny / "articles.parquet")
    oracle = Oracle.open(tiny)
    text = (articles["title"] + " " + articles["subtitle"] + " " + articles["body"]).str.to_lowercase()
    words = text.str.extract_all(r"[a-z]+").to_list()
    counts = np.array([[sum(w in topic.words for w in row) for topic in TOPICS] for row in words], dtype=float)
    np.testing.assert_array_equal(articles["article_id"].to_numpy(), oracle.article_id)
    assert np.mean(counts.argmax(axis=1) == oracle.topics.argmax(axis=1)) > 0.97
    shares = counts / counts.sum(axis=1, keepdims=True)
    assert np.corrcoef(shares.ravel(), oracle.topics.ravel())[0, 1] > 0.9
    assert articles["title"].str.split(" ").list.len().is_between(4, 9).all()
    assert 35 < articles["body"].str.split(" ").list.len().mean() < 45
    assert articles["body"].str.contains(r"[.!?]$").all()


def test_vocabularies_are_large_and_distinct():
    for topic in TOPICS:
        assert len(set(topic.words)) >= 24
        assert not set(topic.words) & set(FILLER)
        others = {w for other in TOPICS if other is not topic for w in other.words}
        assert len(set(topic.words) - others) >= 16, topic.name


def test_texts_of_no_articles():
    assert draw_texts(np.zeros((0, len(TOPICS)), np.float32), np.zeros(0, np.int8), np.random.default_rng(0)).body == []


# --- bundles as a whole


def test_equal_seeds_give_equal_bytes(tmp_path, micro):
    first, second, other = (simulate(tmp_path / name, micro, seed) for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    assert first == second
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    ours, theirs = contents(tmp_path / "a"), contents(tmp_path / "c")
    same = {name for name in ours if ours[name] == theirs[name]}
    assert same == {"oracle/README.md"}
    assert other.seed == 6


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_tiny_is_the_same_again_with_any_number_of_workers(tiny, tmp_path, monkeypatch, workers):
    """Threads share a round's sessions in pieces of 16 here, so that each has many."""
    monkeypatch.setattr(play, "SHARE", 16)
    simulate(tmp_path / "again", "tiny", 0, workers=workers)
    assert contents(tmp_path / "again") == contents(tiny)


def test_presets_differ_and_are_recorded(tmp_path, micro):
    for preset in ("tabloid", "regional"):
        assert simulate(tmp_path / preset, micro, 1, preset=preset).preset == preset
        assert json.loads((tmp_path / preset / "simulation.json").read_text())["preset"] == preset
    assert (tmp_path / "tabloid/train/behaviors.parquet").read_bytes() != (
        tmp_path / "regional/train/behaviors.parquet"
    ).read_bytes()
    assert simulate(tmp_path / "tabloid", micro, 1, preset="regional", replace=True).generated
    assert contents(tmp_path / "tabloid") == contents(tmp_path / "regional")


def test_constants_are_tried_by_name():
    changed = calibrate.changed(TABLOID, ["related=3", "click_match=1.5"])
    assert (changed.related, changed.click_match, changed.slot_power) == (3, 1.5, TABLOID.slot_power)
    assert calibrate.seeds_of("1-3,7") == [1, 2, 3, 7]
    for bad in ("nothing=1", "related=x", "second_click=2"):
        with pytest.raises(UsageError, match=bad.split("=")[0]):
            calibrate.changed(TABLOID, [bad])
    with pytest.raises(UsageError, match="seeds"):
        calibrate.seeds_of("a")


def test_marker_names_every_file_with_its_digest(tiny):
    marker = json.loads((tiny / "simulation.json").read_text())
    assert (marker["size"], marker["seed"]) == ("tiny", 0)
    assert set(marker["files"]) == FILES - {"simulation.json"}
    for name, entry in marker["files"].items():
        assert entry["sha256"] == hashlib.sha256((tiny / name).read_bytes()).hexdigest()


def test_a_bundle_that_is_there_is_left_alone(tmp_path, micro):
    calls = []
    first = simulate(tmp_path / "out", micro, 1, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    again = simulate(tmp_path / "out", micro, 1, lambda done, total: calls.append((done, total)))
    assert (first.generated, again.generated) == (True, False)
    assert again.clicks == first.clicks
    assert len(calls) == 3
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}


def test_another_bundle_gives_way_only_when_told_to(tmp_path, micro, monkeypatch):
    out = tmp_path / "out"
    simulate(out, micro, 1)
    whole = contents(out)
    there = "micro, seed 1, model version"
    with pytest.raises(UsageError, match=f"another bundle .tabloid, {there}.*tabloid, micro, seed 2.* --replace"):
        simulate(out, micro, 2)
    with pytest.raises(UsageError, match=f"another bundle .tabloid, {there}.*regional, {there}"):
        simulate(out, micro, 1, preset="regional")
    with monkeypatch.context() as patch:
        patch.setattr(bundle, "VERSION", VERSION + 1)
        with pytest.raises(UsageError, match=f"model version {VERSION}. .* model version {VERSION + 1}"):
            simulate(out, micro, 1)
    assert contents(out) == whole
    assert simulate(out, micro, 2, replace=True).generated and contents(out) != whole
    assert simulate(out, micro, 1, replace=True).generated and contents(out) == whole
    assert not simulate(out, micro, 1, replace=True).generated, "what is there is not made again"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("damage", [None, b"cut"])
def test_a_damaged_bundle_is_named_and_mended_when_told_to(tmp_path, micro, damage):
    out = tmp_path / "out"
    simulate(out, micro, 1)
    whole = contents(out)
    (out / "articles.parquet").unlink() if damage is None else (out / "articles.parquet").write_bytes(damage)
    with pytest.raises(UsageError, match=r"its articles\.parquet is missing or has another length: .* --replace"):
        simulate(out, micro, 1)
    assert simulate(out, micro, 1, replace=True).generated and contents(out) == whole


def test_a_flipped_byte_is_damage_too(tmp_path, micro):
    out = tmp_path / "out"
    simulate(out, micro, 1)
    whole = contents(out)
    data = bytearray(whole["oracle/readers.parquet"])
    data[len(data) // 2] ^= 1
    (out / "oracle/readers.parquet").write_bytes(data)
    with pytest.raises(UsageError, match=r"oracle/readers\.parquet has other bytes than simulation\.json .* --replace"):
        simulate(out, micro, 1)
    assert simulate(out, micro, 1, replace=True).generated and contents(out) == whole


@pytest.mark.parametrize("text", ["[]", '{"a":', '{"preset": "tabloid"}', "[" * 100_000])
def test_a_bundle_whose_marker_is_damaged_gives_way_when_told_to(tmp_path, micro, text):
    out = tmp_path / "out"
    simulate(out, micro, 1)
    whole = contents(out)
    assert set(whole) == {*bundle.LAYOUT, "simulation.json"}
    (out / "simulation.json").write_text(text)
    with pytest.raises(UsageError, match=r"damaged bundle, whose simulation\.json is no marker .* --replace"):
        simulate(out, micro, 1)
    assert simulate(out, micro, 1, replace=True).generated and contents(out) == whole


@pytest.mark.parametrize("entry", ["folder", "a/b"])
def test_a_folder_that_holds_empty_folders_is_refused_before_anything_is_played(tmp_path, micro, entry):
    (tmp_path / "out" / entry).mkdir(parents=True)
    calls = []
    with pytest.raises(UsageError, match="is not empty"):
        simulate(tmp_path / "out", micro, 1, lambda done, total: calls.append(done))
    assert calls == [] and (tmp_path / "out" / entry).is_dir()


def test_an_empty_folder_is_filled(tmp_path, micro):
    (tmp_path / "out").mkdir()
    assert simulate(tmp_path / "out", micro, 1).generated


def test_days_that_landed_beside_a_bundle_are_no_obstacle_and_never_deleted(tmp_path, micro):
    out = tmp_path / "out"
    simulate(out, micro, 1)
    (out / "landing" / "2023-05-01").mkdir(parents=True)
    (out / "landing" / "2023-05-01" / "_COMPLETE").touch()
    assert not simulate(out, micro, 1).generated
    with pytest.raises(UsageError, match=r"landing/2023-05-01/_COMPLETE, which is no part"):
        simulate(out, micro, 2, replace=True)
    assert (out / "landing" / "2023-05-01" / "_COMPLETE").is_file()


def test_a_failure_leaves_nothing_behind(tmp_path, micro, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(bundle, "write_latent", fail)
    with pytest.raises(OSError, match="disk full"):
        simulate(tmp_path / "out", micro, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_bundle(tmp_path, micro, monkeypatch):
    simulate(tmp_path / "out", micro, 1)
    before = contents(tmp_path / "out")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(bundle, "write_latent", fail)
    with pytest.raises(OSError, match="disk full"):
        simulate(tmp_path / "out", micro, 2, replace=True)
    assert contents(tmp_path / "out") == before


def test_foreign_folders_are_refused(tmp_path, micro):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no simulated bundle"):
        simulate(out, micro, 1)
    assert (out / "thesis.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="is a file"):
        simulate(out / "thesis.txt", micro, 1)
    for text in ("[]", "{", '{"preset": "tabloid", "size": "tiny", "seed": 1, "version": 3, "files": {"a": 1}}'):
        (out / "simulation.json").write_text(text)
        for replace in (False, True):
            with pytest.raises(UsageError, match=r"thesis\.txt, which is no part"):
                simulate(out, micro, 1, replace=replace)
    assert (out / "thesis.txt").read_text() == "mine"


def test_foreign_files_in_a_bundle_are_not_deleted(tmp_path, micro):
    simulate(tmp_path / "out", micro, 1)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        simulate(tmp_path / "out", micro, 2, replace=True)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_used(tmp_path, micro):
    (tmp_path / "out").mkdir()
    assert simulate(tmp_path / "out", micro, 1).generated
    assert set(contents(tmp_path / "out")) == FILES


@pytest.mark.parametrize(
    ("size", "seed", "message"),
    [
        ("huge", 0, "tiny, tiny_weeks, demo, small, week, large"),
        ("tiny", -1, "-1 is no seed"),
        ("tiny", 2**63, "no seed: give a whole number from 0 to 9223372036854775807"),
    ],
)
def test_bad_requests_are_refused(tmp_path, size, seed, message):
    with pytest.raises(UsageError, match=message):
        simulate(tmp_path / "out", size, seed)
    assert not (tmp_path / "out").exists()


def test_unknown_presets_and_no_workers_are_refused(tmp_path):
    with pytest.raises(UsageError, match="tabloid, regional"):
        preset_named("weekly")
    with pytest.raises(UsageError, match="workers"):
        simulate(tmp_path / "out", "tiny", 0, workers=0)


def test_report_names_an_incomplete_bundle(tmp_path, micro):
    simulate(tmp_path / "out", micro, 1)
    (tmp_path / "out" / "articles.parquet").unlink()
    with pytest.raises(DataError, match=r"articles\.parquet is missing"):
        report(tmp_path / "out")
