"""Evaluation of predictions folders: hand-computed figures, brute force on a random world, refusals."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml import schema
from ml.articles import ARTICLE_FEATURES
from ml.beyond import Surroundings
from ml.errors import DataError
from ml.evaluate import evaluate_rq1, evaluate_rq2, evaluate_rq3
from ml.models import model_spec
from ml.oracle import Oracle
from ml.predict import CASES, IN_VIEW, PROTOCOLS, TOP_LISTS, predict
from ml.stored import TopLists
from tests.ml.worlds import end_ms, tiny_world

DAY_MS = 86_400_000


def write(folder, schema_, name, rows):
    pq.write_table(pa.Table.from_pylist(rows, schema=schema_), folder / name)


def case(number, user, target, **more):
    base = {"case": number, "user_id": user, "time": 60_000 * number, "article_id": target, "history": 1}
    eligible = {"thesis": True, "unread": False, "in_session": False}
    return base | eligible | {"available": 9, "target_age_minutes": 5.0} | more


def folder_of(path, cases, top, inview=()):
    """A predictions folder written by hand; `top`: (case, protocol, articles)."""
    path.mkdir()
    write(path, CASES, "cases.parquet", cases)
    lists = [{"case": c, "protocol": p, "articles": a, "scores": [0.0] * len(a)} for c, p, a in top]
    write(path, TOP_LISTS, "top.parquet", lists)
    write(path, IN_VIEW, "inview.parquet", list(inview))
    span = {"dataset": "simulated", "start_ms": 0, "end_ms": 9_000_000, "minutes": [1, 2], "catalogue_available": 9}
    (path / "span.json").write_text(json.dumps(span))
    return path


@pytest.fixture
def by_hand(tmp_path):
    """Three thesis cases: targets at rank 1, rank 3 and nowhere (not yet available); one of them also in session."""
    cases = [
        case(0, 1, 7, in_session=True),
        case(1, 1, 8),
        case(2, 2, 9, target_age_minutes=0.0),
    ]
    top = [(0, "thesis", [7, 1, 2]), (1, "thesis", [1, 2, 8]), (2, "thesis", [1, 2, 3]), (0, "in_session", [1, 7])]
    return folder_of(tmp_path / "hand", cases, top)


def test_rq1_by_hand(by_hand, tmp_path):
    found = evaluate_rq1(by_hand, None, tmp_path / "out")
    thesis = {name: entry["value"] for name, entry in found["protocols"]["thesis"].items()}
    assert thesis["recall@20"] == pytest.approx(2 / 3)
    assert thesis["ndcg@20"] == pytest.approx((1 + 1 / 2) / 3)
    assert thesis["mrr@20"] == pytest.approx((1 + 1 / 3) / 3)
    assert found["protocols"]["in_session"]["mrr@20"]["value"] == pytest.approx(1 / 2)
    assert found["protocols"]["unread"] == {}
    assert found["counts"]["thesis"] == {"lists": 3, "readers": 2, "unavailable_targets": 1}
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == found
    table = pq.read_table(tmp_path / "out" / "per_case.parquet")
    assert table.column("rank").to_pylist() == [1, 3, 0, 2]
    assert table.column("protocol").to_pylist() == ["thesis"] * 3 + ["in_session"]
    assert table.schema.field("time").type == schema.TIME


def test_rq1_paired_difference_by_hand(by_hand, tmp_path):
    cases = pq.read_table(by_hand / "cases.parquet").to_pylist()
    top = [(0, "thesis", [1, 2]), (1, "thesis", [8]), (2, "thesis", [1]), (0, "in_session", [7])]
    base = folder_of(tmp_path / "base", cases, top)
    found = evaluate_rq1(by_hand, base, tmp_path / "out")
    assert found["paired"]["thesis"]["recall@20"]["difference"] == pytest.approx(2 / 3 - 1 / 3)
    assert found["paired"]["thesis"]["mrr@20"]["difference"] == pytest.approx((1 + 1 / 3) / 3 - 1 / 3)
    assert found["paired"]["in_session"]["mrr@20"]["difference"] == pytest.approx(-1 / 2)


def impression(number, user, clicked, scores):
    articles = list(range(100, 100 + len(scores)))
    base = {"impression_id": number, "user_id": user, "time": number, "articles": articles}
    return base | {"clicked": [bool(c) for c in clicked], "scores": scores}


SHOWN = [
    impression(3, 1, [1, 0, 0], [0.2, 0.3, 0.5]),
    impression(1, 1, [1, 1, 0], [0.18, 0.7, 0.1]),
    impression(2, 2, [1, 0, 0, 0], [0.18, 0.2, 0.1, 0.1]),
    impression(9, 2, [0, 0], [0.1, 0.2]),
    impression(8, 3, [1, 1], [0.1, 0.2]),
]


def test_rq2_equals_the_ebnerd_evaluator(tmp_path):
    folder = folder_of(tmp_path / "p", [], [], SHOWN)
    found = evaluate_rq2(folder, None, tmp_path / "out")
    values = found["protocols"]["in_view"]
    assert values["auc"]["value"] == pytest.approx(0.5555555555555556, abs=1e-12)
    assert (values["auc"]["n"], values["auc"]["left_out"]) == (3, 2)
    assert values["mrr_mind"]["value"] == pytest.approx((1 / 3 + 3 / 4 + 1 / 2 + 3 / 4) / 4)
    assert values["mrr"]["value"] == pytest.approx((1 / 3 + 1 + 1 / 2 + 1) / 4)
    assert found["counts"]["in_view"] == {"lists": 5, "readers": 3, "without_click": 1, "all_clicked": 1}
    auc = pq.read_table(tmp_path / "out" / "per_case.parquet").column("auc").to_pylist()
    assert [math.isnan(x) for x in auc] == [False, False, False, True, True]


def bundle_of(root, lists):
    """A bundle's oracle that knows `lists`: rows as in SHOWN. Clicked articles have all the probability; the order of
    the articles is another one than in view."""
    rows = [
        {
            "impression_id": row["impression_id"],
            "articles": row["articles"][::-1],
            "probability": [c / max(sum(row["clicked"]), 1) for c in row["clicked"]][::-1],
        }
        for row in sorted(lists, key=lambda row: row["impression_id"])
    ]
    (root / "oracle").mkdir(parents=True)
    probability = pa.list_(pa.float32())
    fields = [("impression_id", pa.int64()), ("articles", pa.list_(pa.int64())), ("probability", probability)]
    write(root / "oracle", pa.schema(fields), "inview.parquet", rows)
    for name, key, vector in (("readers", "user_id", "interests_last_day"), ("articles", "article_id", "topics")):
        some = pa.schema([(key, pa.int64()), (vector, probability)])
        write(root / "oracle", some, f"{name}.parquet", [{key: 1, vector: [1.0]}])
    return root


def test_rq2_share_of_the_oracle_s_signal(tmp_path):
    folder = folder_of(tmp_path / "p", [], [], SHOWN[:3])
    bundle = bundle_of(tmp_path / "bundle", SHOWN)
    found = evaluate_rq2(folder, None, tmp_path / "out", oracle=bundle)
    assert found["oracle"]["auc"]["value"] == 1 and "left_out" not in found
    share = found["protocols"]["in_view"]["share_of_signal"]["value"]
    assert share == pytest.approx((0.5555555555555556 - 0.5) / 0.5)


OTHERS = [row | {"articles": [a + 1 for a in row["articles"]]} for row in SHOWN]
SHORTER = [row | {"articles": row["articles"][1:], "clicked": row["clicked"][1:]} for row in SHOWN]


@pytest.mark.parametrize(
    ("known", "held"),
    [
        (SHOWN[3:], 0),
        (SHOWN[1:], 2),
        ([SHOWN[0], *OTHERS[1:]], 1),
        (OTHERS, 0),
        ([*SHOWN[:2], *SHORTER[2:]], 2),
    ],
    ids=["landed later", "in part", "in part corrected", "an id used twice", "a list cut"],
)
def test_without_the_truth_of_every_list_the_oracle_s_figures_are_left_out(tmp_path, known, held):
    """Nothing of a part of the lists stands beside a model's figures over all of them; these stay as they are."""
    folder = folder_of(tmp_path / "p", [], [], SHOWN[:3])
    plain = evaluate_rq2(folder, None, tmp_path / "plain")
    found = evaluate_rq2(folder, None, tmp_path / "out", oracle=bundle_of(tmp_path / "bundle", known))
    assert f"holds {held} of the 3 in-view lists" in found["left_out"].pop("share_of_signal")
    assert found.pop("left_out") == {} and found == plain


def test_the_oracle_says_list_by_list_what_it_holds(tmp_path):
    """Beside a comparison of sets, on random lists of which some are renamed, reordered, cut or changed."""
    rng = np.random.default_rng(0)
    lists = [rng.permutation(12)[: rng.integers(0, 5)].tolist() for _ in range(300)]
    rows = [impression(i, 1, [1] * len(a), [0.0] * len(a)) | {"articles": a} for i, a in enumerate(lists)]
    oracle = Oracle.open(bundle_of(tmp_path, rows))
    asked = rng.integers(0, 330, 200)
    shown = [rng.permutation(12)[: rng.integers(0, 5)].tolist() for _ in asked]
    shown = [lists[i][::-1] if i < 300 and rng.random() < 0.7 else other for i, other in zip(asked, shown, strict=True)]
    expected = [i < 300 and sorted(lists[i]) == sorted(a) for i, a in zip(asked, shown, strict=True)]
    offsets = np.concatenate([[0], np.cumsum([len(a) for a in shown])])
    held = oracle.holds(asked, offsets, np.concatenate(shown).astype(np.int64))
    assert held.tolist() == expected and 50 < sum(expected) < 180
    none = np.zeros(0, dtype=np.int64)
    assert oracle.holds(none, np.zeros(1, dtype=np.int64), none).tolist() == []


def test_a_damaged_oracle_is_one_line(tmp_path):
    folder = folder_of(tmp_path / "p", [], [], SHOWN[:3])
    bundle = bundle_of(tmp_path / "bundle", SHOWN)
    inview = (bundle / "oracle" / "inview.parquet").read_bytes()
    cut = inview[:20] + bytes(len(inview) // 2 - 20) + inview[len(inview) // 2 :]
    for name, damage in (("inview", b"poison"), ("inview", cut), ("readers", inview), ("articles", None)):
        path = bundle / "oracle" / f"{name}.parquet"
        sound = path.read_bytes()
        path.unlink() if damage is None else path.write_bytes(damage)
        with pytest.raises(DataError, match="write the bundle anew") as raised:
            evaluate_rq2(folder, None, tmp_path / "out", oracle=bundle)
        assert str(path) in str(raised.value) and "\n" not in str(raised.value)
        path.write_bytes(sound)
    assert "oracle" in evaluate_rq2(folder, None, tmp_path / "out", oracle=bundle)


def test_a_dataset_without_impressions_has_no_rq2(tmp_path):
    folder = folder_of(tmp_path / "p", [], [])
    found = evaluate_rq2(folder, folder, tmp_path / "out")
    assert found["protocols"]["in_view"] == {} and found["paired"]["in_view"] == {}
    assert found["counts"]["in_view"]["lists"] == 0


# --- A random world, predicted by the baselines --------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    return tiny_world(seed=1, n_users=60, n_articles=60)


@pytest.fixture(scope="module")
def predicted(world, tmp_path_factory):
    home = tmp_path_factory.mktemp("predictions")
    for name in ("popular_15", "random"):
        predict(world, model_spec(name).load(None), (end_ms() - DAY_MS, end_ms()), 60, home / name)
    return home


def test_rq1_of_a_world_by_brute_force(predicted, tmp_path):
    found = evaluate_rq1(predicted / "random", predicted / "popular_15", tmp_path)
    cases = pq.read_table(predicted / "random" / "cases.parquet").to_pylist()
    for protocol in PROTOCOLS:
        hits = {}
        for model in ("random", "popular_15"):
            top = pq.read_table(predicted / model / "top.parquet").to_pylist()
            lists = {row["case"]: row["articles"] for row in top if row["protocol"] == protocol}
            hits[model] = [row["article_id"] in lists[row["case"]][:20] for row in cases if row[protocol]]
        entry = found["protocols"][protocol]["recall@20"]
        assert entry["value"] == pytest.approx(np.mean(hits["random"]), abs=1e-12)
        assert entry["n"] == len(hits["random"]) and entry["low"] <= entry["value"] <= entry["high"]
        difference = found["paired"][protocol]["recall@20"]["difference"]
        assert difference == pytest.approx(np.mean(hits["random"]) - np.mean(hits["popular_15"]), abs=1e-12)


def test_unavailable_targets_are_those_outside_the_prefix(world, predicted):
    lists = TopLists.read(predicted / "random", "thesis")
    expected = world.catalogue.rows(lists.keys["article_id"]) < world.available(lists.keys["time"])
    np.testing.assert_array_equal(lists.available, expected)


def cosine_distance(a, b):
    return 1 - a @ b / math.sqrt((a @ a) * (b @ b))


def test_rq3_of_a_world_by_brute_force(world, predicted, tmp_path):
    found = evaluate_rq3(predicted / "popular_15", None, tmp_path, world, "coclick")
    span = json.loads((predicted / "popular_15" / "span.json").read_text())
    cases = pq.read_table(predicted / "popular_15" / "cases.parquet").to_pylist()
    top = pq.read_table(predicted / "popular_15" / "top.parquet").to_pylist()
    lists = {row["case"]: row["articles"][:20] for row in top if row["protocol"] == "thesis"}
    ids, log = world.catalogue.article_id.tolist(), world.clicks
    inside = log.article[(log.time >= span["start_ms"]) & (log.time < span["end_ms"])].tolist()
    at_end = world.content("coclick").at(np.array([span["end_ms"]]), np.arange(len(ids))[None])[0].astype(float)
    vector = {a: v for a, v in zip(ids, at_end, strict=True) if v.any()}
    diversity, surprise, novelty = [], [], []
    for row in cases:
        articles = lists[row["case"]]
        time_ms = int(row["time"].timestamp() * 1000)
        read = [ids[a] for a in log.article[(log.user == row["user_id"]) & (log.time < time_ms)]]
        assert len(read) == row["history"]
        ours, theirs = ([vector[a] for a in some if a in vector] for some in (articles, read))
        diversity.append(np.mean([cosine_distance(a, b) for i, a in enumerate(ours) for b in ours[:i]] or [np.nan]))
        surprise.append(np.mean([cosine_distance(a, b) for a in ours for b in theirs] or [np.nan]))
        share = [(inside.count(ids.index(a)) + 1) / (len(inside) + span["catalogue_available"]) for a in articles]
        novelty.append(np.mean([-math.log2(p) for p in share]))
    values = {name: entry["value"] for name, entry in found["protocols"]["thesis"].items()}
    assert values["ild"] == pytest.approx(np.nanmean(diversity), abs=1e-10)
    assert values["serendipity"] == pytest.approx(np.nanmean(surprise), abs=1e-10)
    assert values["novelty"] == pytest.approx(np.mean(novelty), abs=1e-10)
    distinct = {a for articles in lists.values() for a in articles}
    assert values["coverage"] == pytest.approx(len(distinct) / span["catalogue_available"])


def test_rq3_categories(world, predicted, tmp_path):
    features = [
        {"article_id": i, "published": 0, "category_id": i, "category": name, "premium": 0}
        for i, name in enumerate(["sport", "news", None, "other", "crime", "music"])
    ]
    write(tmp_path, ARTICLE_FEATURES, "features.parquet", features)
    found = evaluate_rq3(predicted / "random", None, tmp_path / "out", world, None, tmp_path / "features.parquet")
    assert set(found["categories"]) == {
        "sport", "news", "category 2", "other (3)", "crime", "music", "other", "unknown"
    }  # fmt: skip
    assert sum(entry["value"] for entry in found["categories"].values()) == pytest.approx(1)
    assert sum(found["clicks_by_category"].values()) == pytest.approx(1)
    lists = TopLists.read(predicted / "random", "thesis", 20)
    category = world.catalogue.category[world.catalogue.rows(lists.articles)]
    assert found["categories"]["sport"]["value"] == pytest.approx(np.mean(category == 0))
    assert found["categories"]["unknown"]["value"] == pytest.approx(np.mean(category == -1))


def test_rare_categories_are_gathered(world, predicted, tmp_path, monkeypatch):
    monkeypatch.setattr("ml.beyond.CATEGORIES", 2)
    found = evaluate_rq3(predicted / "random", None, tmp_path, world, None)
    clicks = found["clicks_by_category"]
    named = [name for name in clicks if name.startswith("category")]
    assert len(clicks) == 4 and len(named) == 2
    assert sum(entry["value"] for entry in found["categories"].values()) == pytest.approx(1)


def test_rq3_without_vectors_says_why(predicted, world, tmp_path):
    found = evaluate_rq3(predicted / "random", predicted / "popular_15", tmp_path, world, None)
    assert set(found["left_out"]) == {"ild", "serendipity"}
    assert set(found["protocols"]["thesis"]) == {"novelty", "coverage"}
    assert set(found["paired"]["thesis"]) == {"novelty", "coverage"}
    found = evaluate_rq3(predicted / "random", None, tmp_path, world, "image")
    assert found["left_out"]["ild"] == "no image vectors at the end of the test span"


def test_rq3_paired_with_itself_is_nothing(predicted, world, tmp_path):
    found = evaluate_rq3(predicted / "random", predicted / "random", tmp_path, world, "body")
    for entry in found["paired"]["thesis"].values():
        assert (entry["difference"], entry["low"], entry["high"]) == (0, 0, 0)


def test_a_vector_of_zeros_counts_as_none(predicted):
    world = tiny_world(seed=1, n_users=60, n_articles=60)
    world.content("body").vectors[:3] = 0
    span = json.loads((predicted / "random" / "span.json").read_text())
    version = Surroundings.of(world, span, "body", None).version
    assert (version >= 0).sum() == len(world.content("body").vectors) - 3


def test_same_folder_same_bytes(predicted, world, tmp_path):
    for name in ("a", "b"):
        evaluate_rq3(predicted / "random", predicted / "popular_15", tmp_path / name, world, "body")
    for name in ("metrics.json", "per_case.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


# --- Refusals ------------------------------------------------------------------------------------------------------


def test_a_baseline_of_other_cases_is_refused(by_hand, predicted, tmp_path):
    with pytest.raises(DataError, match="other lists"):
        evaluate_rq1(by_hand, predicted / "random", tmp_path / "out")


def test_incomplete_folders_are_refused(by_hand, world, tmp_path):
    top = pq.read_table(by_hand / "top.parquet")
    pq.write_table(top.slice(1), by_hand / "top.parquet")
    with pytest.raises(DataError, match="one list for each thesis case"):
        evaluate_rq1(by_hand, None, tmp_path / "out")
    pq.write_table(top.drop_columns("articles"), by_hand / "top.parquet")
    with pytest.raises(DataError, match=r"top.parquet: no column 'articles'"):
        evaluate_rq1(by_hand, None, tmp_path / "out")
    (by_hand / "top.parquet").unlink()
    with pytest.raises(DataError, match=r"top.parquet is missing"):
        evaluate_rq1(by_hand, None, tmp_path / "out")
    (by_hand / "span.json").write_text("{}")
    with pytest.raises(DataError, match="no entry 'dataset'"):
        evaluate_rq2(by_hand, None, tmp_path / "out")
    (by_hand / "span.json").unlink()
    with pytest.raises(DataError, match=r"span.json is missing"):
        evaluate_rq2(by_hand, None, tmp_path / "out")


def test_a_log_without_the_test_span_is_refused(by_hand, world, tmp_path):
    with pytest.raises(DataError, match="no click of the test span"):
        evaluate_rq3(by_hand, None, tmp_path / "out", world, None)
