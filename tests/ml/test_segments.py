"""Segments: labels by hand, figures against brute force, and what an absent or empty segment says."""

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml import schema
from ml.articles import ARTICLE_FEATURES
from ml.bootstrap import ratios
from ml.clock import DayClock
from ml.metrics import RankedLists
from ml.segments import (
    CATEGORY,
    DEVICE,
    DIMENSIONS,
    SUBSCRIBER,
    Labeller,
    Labels,
    Sources,
    _apart,
    evaluate_segments,
    safe,
    segment_coverage,
    segment_means,
)
from ml.stored import InViewLists, TopLists
from tests.ml.test_evaluate import case, folder_of, impression

MINUTE, HOUR = 60_000, 3_600_000
START = 1_684_393_200_000
"""2023-05-18 07:00 UTC, 09:00 in Copenhagen."""
SPAN = {"start_ms": START, "end_ms": START + 24 * HOUR, "dataset": "simulated"}
CLOCK = DayClock(7, "Europe/Copenhagen")


def random_lists(seed: int, n: int = 400):
    rng = np.random.default_rng(seed)
    reader = rng.integers(0, 60, n)
    values = {"a": rng.random(n), "b": np.where(rng.random(n) < 0.3, np.nan, rng.random(n))}
    codes = {"x": rng.integers(0, 4, n), "y": rng.integers(0, 2, n)}
    codes["x"][codes["x"] == 2] = 3
    return reader, values, Labels(codes, {"x": ["p", "q", "r", "s"], "y": ["no", "yes"]}, {})


@pytest.mark.parametrize("seed", [0, 1])
def test_means_and_intervals_equal_masks_over_the_same_draws(seed):
    reader, values, labels = random_lists(seed)
    found = segment_means(values, labels, reader, seed=7)
    for dimension, codes in labels.codes.items():
        for s, name in enumerate(labels.names[dimension]):
            mine, entry = codes == s, found[dimension][name]
            assert entry["lists"] == mine.sum() and entry["readers"] == len(set(reader[mine].tolist()))
            for metric, value in values.items():
                valid = mine & ~np.isnan(value)
                if not valid.any():
                    assert metric not in entry
                    continue
                above, below = np.where(valid, np.nan_to_num(value), 0.0), valid.astype(float)
                (slow,) = ratios(above[:, None], below[:, None], reader, seed=7)
                assert entry[metric]["value"] == pytest.approx(np.mean(value[valid]), abs=1e-12)
                assert entry[metric]["low"] == pytest.approx(slow.low, abs=1e-9)
                assert entry[metric]["high"] == pytest.approx(slow.high, abs=1e-9)
                assert entry[metric]["n"] == valid.sum()


def test_an_empty_segment_says_so_and_has_no_figure():
    reader, values, labels = random_lists(0)
    entry = segment_means(values, labels, reader)["x"]["r"]
    assert entry == {"lists": 0, "readers": 0, "empty": "no test list is in this segment"}


def test_one_reader_has_a_value_without_an_interval():
    labels = Labels({"x": np.array([0, 0, 1])}, {"x": ["p", "q"]}, {})
    found = segment_means({"a": np.array([1.0, 0.0, 1.0])}, labels, np.array([5, 5, 6]))
    assert found["x"]["p"]["a"] == {"value": 0.5, "low": None, "high": None, "n": 2}


def test_coverage_by_segment_counts_distinct_articles():
    keys = {schema.USER_ID: np.array([1, 2, 3]), "case": np.arange(3)}
    lists = TopLists(keys, np.array([1, 2, 2, 3, 9]), np.array([0, 2, 4, 5]), np.ones(3, bool))
    labels = Labels({"x": np.array([0, 0, 1])}, {"x": ["p", "q"]}, {})
    found = segment_coverage(lists, labels, 10)["x"]
    assert found["p"]["coverage"]["value"] == pytest.approx(3 / 10)
    assert found["q"]["coverage"]["value"] == pytest.approx(1 / 10)
    assert found["q"]["coverage"]["low"] is None


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


@pytest.fixture
def world(tmp_path):
    """Two readers: 1 has three earlier clicks, 2 none before the span; articles 10 (fresh, sport), 11 (old, no
    category), 12 (two hours old, news)."""
    published = {11: START - 48 * HOUR, 12: START - 2 * HOUR, 10: START}
    features = [
        {"article_id": a, "published": at(t), "premium": 0} | c
        for (a, t), c in zip(
            published.items(),
            [{}, {"category_id": 2, "category": "news: a.b"}, {"category_id": 1, "category": "sport"}],
            strict=True,
        )
    ]
    pq.write_table(pa.Table.from_pylist(features, schema=ARTICLE_FEATURES), tmp_path / "features.parquet")
    log = [(1, START - 3 * HOUR), (1, START - 2 * HOUR), (1, START - HOUR), (1, START + 30 * MINUTE)]
    log += [(2, START + 10 * MINUTE), (2, START + 40 * MINUTE)]
    articles = [11, 11, 12, 10, 12, 11]
    rows = [
        {"user_id": u, "time": at(t), "article_id": a, "session_id": 0} for (u, t), a in zip(log, articles, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.INTERACTIONS), tmp_path / "interactions.parquet")
    said = [{"device": 2, "subscriber": True}, {"device": 1, "subscriber": None}]
    clicks = [{"user_id": r["user_id"], "time": r["time"], "article_id": r["article_id"]} for r in (rows[3], rows[5])]
    clicks = [c | s for c, s in zip(clicks, said, strict=True)]
    pq.write_table(pa.Table.from_pylist(clicks, schema=schema.CLICKS), tmp_path / "clicks.parquet")
    pq.write_table(schema.IMPRESSIONS.empty_table(), tmp_path / "impressions.parquet")
    files = (tmp_path / f"{n}.parquet" for n in ("interactions", "features"))
    return Sources(*files, [tmp_path / "clicks.parquet"], [tmp_path / "impressions.parquet"])


def named(labels: Labels) -> dict[str, list[str]]:
    return {d: [labels.names[d][c] for c in codes.tolist()] for d, codes in labels.codes.items()}


def test_labels_of_cases_by_hand(world):
    keys = {
        schema.USER_ID: np.array([1, 2, 2]),
        schema.CLICK_TIME: np.array([START + 30 * MINUTE, START + 40 * MINUTE, START + 26 * MINUTE]),
        schema.ARTICLE_ID: np.array([10, 11, 12]),
    }
    labels = Labeller(world, SPAN, CLOCK).of_cases(keys)
    assert list(labels.codes) == list(DIMENSIONS) and labels.left_out == {}
    assert named(labels) == {
        "readers": ["returning", "new", "new"],
        "subscriber": ["yes", "unknown", "unknown"],
        "device": ["2", "1", "unknown"],
        "category": ["sport", "unknown", "news_ a_b"],
        "article_age": ["under_1h", "older", "under_6h"],
        "hour": ["09", "09", "09"],
        "history": ["2_to_4", "1", "1"],
    }


def test_the_clicks_of_the_test_days_are_read_once(world, monkeypatch):
    from ml import segments

    read = []
    original = segments.read_table
    monkeypatch.setattr(segments, "read_table", lambda path, *more: read.append(path) or original(path, *more))
    keys = {schema.USER_ID: np.array([1]), schema.CLICK_TIME: np.array([START]), schema.ARTICLE_ID: np.array([10])}
    labeller = Labeller(world, SPAN, CLOCK)
    assert named(labeller.of_cases(keys)) == named(labeller.of_cases(keys))
    assert [p for p in read if p in world.clicks] == list(world.clicks)


def test_ages_at_the_bounds(world):
    times = np.array([START + 59 * MINUTE, START + 60 * MINUTE, START + 6 * HOUR, START + 24 * HOUR - 1])
    keys = {schema.USER_ID: np.ones(4, int), schema.CLICK_TIME: times, schema.ARTICLE_ID: np.full(4, 10)}
    labels = Labeller(world, SPAN, CLOCK).of_cases(keys)
    assert named(labels)["article_age"] == ["under_1h", "under_6h", "under_24h", "under_24h"]


def test_impressions_with_clicks_of_two_kinds_are_several(world):
    keys = {schema.IMPRESSION_ID: np.arange(3), schema.USER_ID: np.ones(3, int)}
    keys |= {schema.CLICK_TIME: np.full(3, START + 30 * MINUTE)}
    clicked, offsets = np.array([1, 1, 0, 1, 0, 0], bool), np.array([0, 3, 5, 6])
    ranked = RankedLists.rank(clicked, np.zeros(6), offsets)
    shown = InViewLists(keys, np.array([10, 12, 11, 12, 10, 10]), clicked, offsets, ranked)
    labels = Labeller(world, SPAN, CLOCK).of_impressions(shown)
    assert named(labels)["category"] == ["several", "news_ a_b", "unknown"]
    assert named(labels)["article_age"] == ["several", "under_6h", "unknown"]
    assert DEVICE not in labels.codes and labels.left_out[SUBSCRIBER] == "the log does not say the subscriber"


def test_what_the_log_lacks_is_absent_with_the_reason(world, tmp_path):
    table = pq.read_table(world.features)
    bare = table.set_column(2, "category_id", pa.nulls(3, pa.int32()))
    pq.write_table(bare, tmp_path / "bare.parquet")
    sources = Sources(world.interactions, tmp_path / "bare.parquet", [], [])
    keys = {schema.USER_ID: np.array([1]), schema.CLICK_TIME: np.array([START]), schema.ARTICLE_ID: np.array([10])}
    labels = Labeller(sources, SPAN, CLOCK).of_cases(keys)
    assert set(labels.left_out) == {CATEGORY, DEVICE, SUBSCRIBER}
    assert not set(labels.codes) & {CATEGORY, DEVICE, SUBSCRIBER}


def test_the_whole_file_from_stored_predictions(world, tmp_path):
    from ml.evaluate import evaluate_rq1, evaluate_rq2

    t = START + 30 * MINUTE
    cases = [case(0, 1, 10, time=t), case(1, 2, 11, time=START + 40 * MINUTE)]
    shown = [impression(5, 1, [1, 0], [0.9, 0.1]) | {"time": t, "articles": [10, 11]}]
    folder = folder_of(tmp_path / "p", cases, [(0, "thesis", [10, 12]), (1, "thesis", [10, 12])], shown)
    (folder / "span.json").write_text(json.dumps(SPAN | {"minutes": [1], "catalogue_available": 3}))
    evaluate_rq1(folder, None, tmp_path / "rq1")
    evaluate_rq2(folder, None, tmp_path / "rq2")
    keys = [schema.USER_ID, schema.CLICK_TIME, schema.ARTICLE_ID]
    (tmp_path / "rq3").mkdir()
    per_case = pq.read_table(tmp_path / "rq1" / "per_case.parquet", columns=keys)
    pq.write_table(per_case.append_column("novelty", pa.array([1.0, 3.0])), tmp_path / "rq3" / "per_case.parquet")
    files = {q: tmp_path / q / "per_case.parquet" for q in ("rq1", "rq2", "rq3")}
    found = evaluate_segments(folder, files, world, CLOCK, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == found
    figures = found["protocols"]["all"]
    assert figures["rq1"]["thesis"]["device"]["2"]["recall@20"]["value"] == 1
    assert figures["rq1"]["thesis"]["device"]["1"]["recall@20"]["value"] == 0
    assert figures["rq2"]["category"]["sport"]["auc"]["value"] == 1
    assert figures["rq3"]["readers"]["new"]["novelty"]["value"] == 3
    assert figures["rq3"]["readers"]["new"]["coverage"]["value"] == pytest.approx(2 / 3)
    assert figures["rq1"]["thesis"]["hour"]["03"] == {
        "lists": 0, "readers": 0, "empty": "no test list is in this segment"
    }  # fmt: skip
    assert "in_session" not in figures["rq1"]


def test_names_can_stand_in_the_address_of_a_number():
    assert safe("a.b/c:d#e") == "a_b_c_d_e"


def test_two_names_stay_two_segments():
    assert _apart(["news_sport", "a", "news_sport", "several"]) == ["news_sport_0", "a", "news_sport_2", "several_3"]
