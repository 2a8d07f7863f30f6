"""The index: exact where it should be, good enough elsewhere, stored and loaded whole."""

import json

import numpy as np
import pytest

from ml import retrieval
from ml.errors import DataError
from ml.retrieval import ArticleIndex, build_index, inverted_lists, load_index, refreshed, search

FILES = ("index.faiss", "ids.npy", "choice.json")


def clustered_vectors(articles, dimension, seed, clusters):
    """Unit vectors around common centres, and queries drawn alike."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, dimension))
    points = centres[rng.integers(0, clusters, articles + 1000)]
    points += rng.normal(scale=0.7, size=points.shape)
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return points[:articles], points[articles:]


@pytest.fixture(scope="module")
def clusters():
    vectors, queries = clustered_vectors(4000, 16, seed=3, clusters=80)
    return vectors, queries[:200]


@pytest.fixture
def small_counts_as_large(monkeypatch):
    monkeypatch.setattr(retrieval, "EXACT_BELOW", 1000)


def brute_force(vectors, ids, queries, k):
    scores = queries @ vectors.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return ids[best], np.take_along_axis(scores, best, axis=1)


def test_few_articles_are_searched_exactly(tmp_path, clusters):
    vectors, queries = clusters
    ids = np.arange(4000) * 10 + 7
    choice = build_index(vectors, ids, queries, tmp_path)
    assert (choice["kind"], choice["recall@20"], choice["parameters"]) == ("Flat", 1.0, {})
    found, scores = search(load_index(tmp_path), queries, 20)
    expected, exact = brute_force(vectors, ids, queries, 20)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(scores, exact, atol=1e-6)


def test_many_articles_get_the_cheapest_kind_that_recalls_enough(tmp_path, clusters, small_counts_as_large):
    vectors, queries = clusters
    choice = build_index(vectors, np.arange(4000), queries, tmp_path)
    good = [c for c in choice["candidates"] if c["recall@20"] >= 0.99]
    assert choice["kind"] != "Flat"
    assert choice["distances_per_query"] == min(c["distances_per_query"] for c in good)
    assert {c["kind"].split(",")[0].rstrip("0123456789") for c in choice["candidates"]} == {"Flat", "IVF", "HNSW"}
    found, _ = search(load_index(tmp_path), queries, 20)
    expected, _ = brute_force(vectors, np.arange(4000), queries, 20)
    recall = np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(found, expected, strict=True)])
    assert recall == pytest.approx(choice["recall@20"], abs=1e-6)


def test_vectors_without_structure_fall_back_to_the_exact_index(tmp_path, small_counts_as_large, monkeypatch):
    monkeypatch.setattr(retrieval, "_PROBES", (1,))
    monkeypatch.setattr(retrieval, "_EF_SEARCH", (20,))
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(3000, 48)), rng.normal(size=(50, 48))
    assert build_index(vectors, np.arange(3000), queries, tmp_path)["kind"] == "Flat"


def test_same_input_same_bytes(tmp_path, clusters, small_counts_as_large):
    vectors, queries = clusters
    for name in ("a", "b"):
        build_index(vectors, np.arange(4000), queries, tmp_path / name, seed=4)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert "latency" not in (tmp_path / "a" / "choice.json").read_text()


@pytest.mark.parametrize("name", FILES)
def test_an_incomplete_or_foreign_folder_is_refused(tmp_path, clusters, name):
    vectors, queries = clusters
    build_index(vectors, np.arange(4000), queries, tmp_path / "whole")
    build_index(vectors[:9], np.arange(9), queries, tmp_path / "other")
    part = (tmp_path / "whole" / name).read_bytes()
    (tmp_path / "whole" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(DataError, match="build it anew"):
        load_index(tmp_path / "whole")
    if name != "choice.json":
        (tmp_path / "whole" / name).write_bytes(part[: len(part) // 2])
        with pytest.raises(DataError, match=rf"{name}: n.* build it anew"):
            load_index(tmp_path / "whole")
    (tmp_path / "whole" / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        load_index(tmp_path / "whole")


def test_ids_are_plain_int64_without_pickle(tmp_path, clusters):
    vectors, queries = clusters
    build_index(vectors, np.arange(4000, dtype=np.int32), queries, tmp_path)
    assert np.load(tmp_path / "ids.npy", allow_pickle=False).dtype == np.int64
    assert json.loads((tmp_path / "choice.json").read_text())["articles"] == 4000


def test_fewer_articles_than_asked_for(tmp_path):
    vectors = np.eye(3, dtype=np.float32)
    build_index(vectors, np.array([5, 6, 7]), np.zeros((0, 3), dtype=np.float32), tmp_path)
    found, scores = search(load_index(tmp_path), vectors[:1], 5)
    assert found.tolist() == [[5, 6, 7, -1, -1]] or found.tolist() == [[5, 7, 6, -1, -1]]
    assert scores[0, 0] == 1 and np.isneginf(scores[0, 3:]).all()


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    three, queries = np.eye(3), np.zeros((1, 3))
    for vectors, ids, some in ((three, np.arange(2), queries), (three, np.arange(3), np.zeros((1, 4)))):
        with pytest.raises(DataError, match="cannot have"):
            build_index(vectors, ids, some, tmp_path)
    with pytest.raises(DataError, match="finite matrix"):
        build_index(three * np.nan, np.arange(3), queries, tmp_path)
    build_index(three, np.arange(3), queries, tmp_path)
    with pytest.raises(DataError, match="dimension 4 for an index of dimension 3"):
        search(load_index(tmp_path), np.zeros((1, 4)))


def test_the_caller_s_thread_count_stays(tmp_path, clusters, small_counts_as_large):
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    build_index(*clusters[:1], np.arange(4000), clusters[1], tmp_path)
    assert faiss.omp_get_max_threads() == 2
    faiss.omp_set_num_threads(before)


def near(vectors, distance, seed=0):
    """Unit vectors at about a distance from others."""
    noise = np.random.default_rng(seed).normal(size=vectors.shape)
    moved = vectors + distance * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def all_lists(vectors):
    """An index that looks into every list: exact as long as no vector is lost."""
    index = inverted_lists(vectors)
    index.nprobe = index.nlist
    return ArticleIndex(index, np.arange(len(vectors)) + 50, {"articles": len(vectors)})


@pytest.mark.parametrize("distance", [0.01, 1.0])
def test_a_refreshed_index_holds_the_new_vectors_and_later_articles(clusters, distance):
    vectors, queries = clusters
    old = all_lists(vectors[:3900])
    before = search(old, queries, 20)
    new, ids = near(vectors, distance), np.arange(4000) + 50
    live = refreshed(old, new, ids, turn=7)
    found, scores = search(live, queries, 20)
    expected, exact = brute_force(new, ids, queries, 20)
    np.testing.assert_allclose(scores, exact, atol=1e-6)
    assert np.mean(found == expected) > 0.999 and live.choice["articles"] == 4000
    again = search(old, queries, 20)
    assert np.array_equal(before[0], again[0]) and np.array_equal(before[1], again[1])


def test_only_what_moved_or_has_its_turn_changes_its_list(clusters):
    vectors = clusters[0]
    old = all_lists(vectors)
    new = near(vectors, 0.01)
    far = np.arange(100, 140)
    new[far] = -vectors[far]
    was, now = (retrieval._lists_of(old.index, v, turn=3) for v in (vectors, new))
    best = old.index.quantizer.search(new, 1)[1][:, 0]
    looked_at = np.isin(np.arange(4000), far) | (np.arange(4000) % 60 == 3)
    assert np.array_equal(now[looked_at], best[looked_at])
    assert np.array_equal(now[~looked_at], was[~looked_at])
    hour = old
    for turn in range(60):
        hour = refreshed(hour, new, hour.ids, turn)
    assert np.array_equal(retrieval._lists_of(hour.index, new, turn=0), best)


def test_an_exact_index_is_refreshed_whole(tmp_path, clusters):
    vectors, queries = clusters
    build_index(vectors[:50], np.arange(50), queries, tmp_path)
    live = refreshed(load_index(tmp_path), vectors[:60], np.arange(60), turn=0)
    assert np.array_equal(search(live, queries, 5)[0], brute_force(vectors[:60], np.arange(60), queries, 5)[0])


def test_a_refresh_with_other_articles_is_refused(clusters):
    index = all_lists(clusters[0][:2000])
    for vectors, ids in (
        (clusters[0][:1999], index.ids[:1999]),
        (clusters[0][:2000], index.ids + 1),
        (clusters[0][:2000], index.ids[:1999]),
        (clusters[0][:2000, :8], index.ids),
    ):
        with pytest.raises(DataError, match="of the 2000 articles of the index"):
            refreshed(index, vectors, ids, turn=0)
