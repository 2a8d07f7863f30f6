"""Metrics against numbers that others computed, brute force over tie orders, and scikit-learn."""

import math
import warnings
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from ml import metrics
from ml.errors import DataError


def ragged(lists, dtype=float):
    """Flat values and offsets of a list of lists."""
    flat = np.array([x for one in lists for x in one], dtype=dtype)
    return flat, np.cumsum([0] + [len(one) for one in lists])


def ranked(labels, scores):
    flat, offsets = ragged(scores)
    return metrics.RankedLists.rank(ragged(labels, bool)[0], flat, offsets)


def one(metric, labels, scores, **kwargs):
    return float(metric(ranked([labels], [scores]), **kwargs)[0])


# --- Published cases: the EB-NeRD benchmark's evaluator -----------------------------------------------------------

EBNERD_LABELS = [[1, 0, 0], [1, 1, 0], [1, 0, 0, 0]]
EBNERD_SCORES = [[0.2, 0.3, 0.5], [0.18, 0.7, 0.1], [0.18, 0.2, 0.1, 0.1]]


def test_ebnerd_evaluator():
    lists = ranked(EBNERD_LABELS, EBNERD_SCORES)
    assert metrics.auc(lists).mean() == pytest.approx(0.5555555555555556, abs=1e-15)
    assert metrics.mrr_mind(lists) == pytest.approx([1 / 3, 3 / 4, 1 / 2], abs=1e-15)
    assert metrics.mrr_mind(lists).mean() == pytest.approx(0.5277777777777778, abs=1e-15)
    assert metrics.mrr(lists) == pytest.approx([1 / 3, 1, 1 / 2], abs=1e-15)
    assert metrics.mrr(lists).mean() == pytest.approx(0.6111111, abs=1e-7)
    assert metrics.ndcg(lists, 5).mean() == pytest.approx(0.7103099178571526, abs=1e-15)
    assert metrics.ndcg(lists, 10).mean() == pytest.approx(0.7103099178571526, abs=1e-15)


def test_ebnerd_dcg_and_mrr_of_one_list():
    labels, scores = [1, 0, 0, 1, 0], [0.5, 0.2, 0.1, 0.8, 0.4]
    ideal = 1 + 1 / math.log2(3)
    assert one(metrics.ndcg, labels, scores, k=10) * ideal == pytest.approx(1.6309297535714575, abs=1e-15)
    assert one(metrics.mrr_mind, labels, scores) == 0.75


def test_perfect_ranking_of_two_clicks_in_four():
    labels, scores = [1, 1, 0, 0], [4, 3, 2, 1]
    assert one(metrics.mrr_mind, labels, scores) == 0.75
    assert one(metrics.mrr, labels, scores) == 1.0


VECTORS = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])


def test_ebnerd_intra_list_diversity():
    got = metrics.ild(VECTORS, np.array([0, 1, 2, 1, 1]), np.array([0, 3, 5]))
    assert got[0] == pytest.approx(0.022588438516842262, abs=1e-15)
    assert got[1] == pytest.approx(0, abs=1e-15)


def test_ebnerd_serendipity():
    got = metrics.serendipity(VECTORS, np.array([0, 1]), np.array([0, 2]), np.array([2, 0]), np.array([0, 2]))
    assert got == pytest.approx([0.016941328887631724], abs=1e-15)


def test_ebnerd_novelty():
    share, offsets = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 0.9, 0.9, 1, 0.5]), np.array([0, 5, 10])
    got = metrics.novelty(share, np.arange(10), offsets)
    assert got == pytest.approx([1.9405499757656586, 0.29120185606703], abs=1e-14)


def test_ebnerd_coverage():
    assert metrics.coverage(np.array([1, 2, 3, 4, 5, 5, 6]), 10) == 0.6


def test_ebnerd_labels_from_lists():
    shown, offsets = ragged([[1, 2, 3], [4, 5, 6], [7, 8]], np.int64)
    clicked, clicked_offsets = ragged([[2, 3, 4], [3, 5], []], np.int64)
    got = metrics.labels_from_lists(shown, offsets, clicked, clicked_offsets)
    assert got.tolist() == [0, 1, 1, 0, 1, 0, 0, 0]


def test_ebnerd_submission_ranks():
    scores, offsets = ragged([[0.2, 0.1, 0.3], [0.4, 0.2, 0.1, 0.3]])
    assert metrics.submission_ranks(scores, offsets).tolist() == [2, 3, 1, 1, 3, 4, 2]


# --- Published cases: one list, several libraries -----------------------------------------------------------------

LIBRARIES = [
    ([1, 0, 0, 1, 0], [0.1, 0.2, 0.1, 0.8, 0.4], 0.850345, 0.863780),
    ([1, 0, 0], [0.5, 0.5, 0.5], 0.5, 0.710310),
    ([0, 0, 1], [0.5, 0.5, 0.5], 1.0, 0.710310),
    ([1, 1, 0, 0], [0.9, 0.8, 0.1, 0], 1, 1),
    ([1, 1, 0, 0], [0.9, 0.1, 0.8, 0], 0.919721, 0.919721),
]


def ndcg_mind(labels, scores, k):
    """MIND's code: ties in the order of numpy's argsort, reversed."""

    def dcg(order):
        gains = 2 ** np.take(labels, order[:k]) - 1
        return np.sum(gains / np.log2(np.arange(len(gains)) + 2))

    return dcg(np.argsort(scores)[::-1]) / dcg(np.argsort(labels)[::-1])


@pytest.mark.parametrize(("labels", "scores", "mind", "averaged"), LIBRARIES)
def test_ndcg_of_one_list_in_several_libraries(labels, scores, mind, averaged):
    assert one(metrics.ndcg, labels, scores, k=5) == pytest.approx(averaged, abs=5e-7)
    assert ndcg_mind(labels, scores, 5) == pytest.approx(mind, abs=5e-7)
    assert ndcg_score([labels], [scores], k=5) == pytest.approx(averaged, abs=5e-7)


# --- Properties ----------------------------------------------------------------------------------------------------

SCORE = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0]) | st.floats(-1e3, 1e3)
LIST = st.lists(st.tuples(st.booleans(), SCORE), min_size=1, max_size=12)
MANY = st.lists(LIST, min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(MANY)
def test_equal_to_scikit_learn(lists):
    labels, scores = ([[pair[i] for pair in items] for items in lists] for i in (0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
        both = ranked(labels, scores)
        areas, gains = metrics.auc(both), {k: metrics.ndcg(both, k) for k in (1, 5, 10)}
    for i, (label, score) in enumerate(zip(labels, scores, strict=True)):
        if len(set(label)) == 2:
            assert areas[i] == pytest.approx(roc_auc_score(label, score), abs=1e-12)
        else:
            assert math.isnan(areas[i])
        for k, values in gains.items():
            if not any(label):
                assert math.isnan(values[i])
            elif len(label) > 1:  # scikit-learn refuses a single document
                assert values[i] == pytest.approx(ndcg_score([label], [score], k=k), abs=1e-12)


def by_definition(label_in_order):
    ranks = [r for r, hit in enumerate(label_in_order, 1) if hit]
    return 1 / ranks[0], sum(1 / r for r in ranks) / len(ranks)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0, 1, 2])), min_size=1, max_size=6))
def test_reciprocal_ranks_are_means_over_the_orders_of_ties(items):
    if not any(label for label, _ in items):
        items = [(True, items[0][1]), *items[1:]]
    orders = [o for o in permutations(items) if all(a[1] >= b[1] for a, b in pairwise(o))]
    expected = np.mean([by_definition([label for label, _ in o]) for o in orders], axis=0)
    labels, scores = zip(*items, strict=True)
    assert one(metrics.mrr, labels, scores) == pytest.approx(expected[0], abs=1e-12)
    assert one(metrics.mrr_mind, labels, scores) == pytest.approx(expected[1], abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(MANY, st.randoms(use_true_random=False))
def test_neither_input_order_nor_neighbours_decide(lists, random):
    shuffled = [random.sample(items, len(items)) for items in lists]

    def values(some):
        both = ranked([[a for a, _ in items] for items in some], [[b for _, b in items] for items in some])
        return np.stack([metrics.auc(both), metrics.mrr(both), metrics.mrr_mind(both), metrics.ndcg(both, 5)])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
        together, alone = values(lists), np.concatenate([values([items]) for items in lists], axis=1)
        np.testing.assert_allclose(values(shuffled), together, rtol=0, atol=1e-12)
        np.testing.assert_allclose(alone, together, rtol=0, atol=1e-12)


def test_constant_score_is_worth_one_half():
    assert one(metrics.auc, [1, 0, 0, 1, 0], [0.3] * 5) == 0.5


def test_random_scores_are_worth_one_half_within_their_error():
    rng = np.random.default_rng(5)
    labels, scores = rng.random((4000, 10)) < 0.3, rng.random((4000, 10))
    keep = labels.any(axis=1) & ~labels.all(axis=1)
    offsets = np.arange(0, 10 * keep.sum() + 1, 10)
    area = metrics.auc(metrics.RankedLists.rank(labels[keep].ravel(), scores[keep].ravel(), offsets))
    assert abs(area.mean() - 0.5) < 4 * area.std() / np.sqrt(len(area))


@pytest.mark.parametrize(("name", "left_out"), [("auc", 3), ("mrr", 2), ("mrr_mind", 2)])
def test_empty_truth_is_nan_with_a_count(name, left_out):
    lists = ranked([[0, 0], [1, 0], [], [1, 1]], [[1, 2], [2, 1], [], [1, 2]])
    with pytest.warns(metrics.UndefinedMetricWarning, match=f"{left_out} of 4 lists"):
        got = getattr(metrics, name)(lists)
    assert np.isnan(got).sum() == left_out
    assert got[1] == 1.0


def test_bad_ragged_lists_are_refused():
    with pytest.raises(DataError, match="2 of 3 scores are NaN"):
        metrics.RankedLists.rank(np.zeros(3, bool), np.array([np.nan, 1, np.nan]), np.array([0, 3]))
    with pytest.raises(DataError, match="2 labels for 3 scores"):
        metrics.RankedLists.rank(np.zeros(2, bool), np.zeros(3), np.array([0, 3]))
    for offsets in ([0, 2], [1, 3], [0, 2, 1, 3], []):
        with pytest.raises(DataError, match="offsets"):
            metrics.RankedLists.rank(np.zeros(3, bool), np.zeros(3), np.array(offsets))


# --- One target a case ---------------------------------------------------------------------------------------------


def test_metrics_of_a_single_target():
    articles, offsets = ragged([[7, 8, 9], [7, 8], [], [5, 5, 6]], np.int64)
    rank = metrics.target_rank(np.array([9, 1, 4, 5]), articles, offsets)
    assert rank.tolist() == [3, 0, 0, 1]
    assert metrics.recall_at(rank, 2).tolist() == [0, 0, 0, 1]
    assert metrics.recall_at(rank, 3).tolist() == [1, 0, 0, 1]
    assert metrics.ndcg_at(rank, 3) == pytest.approx([1 / 2, 0, 0, 1])
    assert metrics.mrr_at(rank, 3) == pytest.approx([1 / 3, 0, 0, 1])
    assert metrics.mrr_at(rank, 2).tolist() == [0, 0, 0, 1]


@given(st.integers(0, 30), st.sampled_from([5, 20]))
def test_single_target_ndcg_is_the_general_one(rank, k):
    labels = [place == rank for place in range(1, 41)] if rank else [False] * 40 + [True]
    scores = -np.arange(len(labels))
    assert metrics.ndcg_at(np.array([rank]), k)[0] == pytest.approx(one(metrics.ndcg, labels, scores, k=k), abs=1e-12)


# --- Vectors -------------------------------------------------------------------------------------------------------


def cosine(a, b):
    return a @ b / math.sqrt((a @ a) * (b @ b))


def test_ild_and_serendipity_equal_their_pairwise_definitions():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 7)).astype(np.float32)
    lists = [rng.integers(-1, 30, rng.integers(0, 9)) for _ in range(60)]
    read = [rng.integers(-1, 30, rng.integers(0, 9)) for _ in range(60)]
    wide = vectors.astype(np.float64)
    with pytest.warns(metrics.UndefinedMetricWarning):
        diversity = metrics.ild(vectors, *ragged(lists, np.int64))
        surprise = metrics.serendipity(vectors, *ragged(lists, np.int64), *ragged(read, np.int64))
    for i in range(60):
        ours, theirs = lists[i][lists[i] >= 0], read[i][read[i] >= 0]
        pairs = [1 - cosine(wide[a], wide[b]) for n, a in enumerate(ours) for b in ours[:n]]
        assert diversity[i] == pytest.approx(np.mean(pairs) if pairs else np.nan, abs=1e-12, nan_ok=True)
        pairs = [1 - cosine(wide[a], wide[b]) for a in ours for b in theirs]
        assert surprise[i] == pytest.approx(np.mean(pairs) if pairs else np.nan, abs=1e-12, nan_ok=True)


def test_blocks_of_lists_join_without_a_seam(monkeypatch):
    rng = np.random.default_rng(1)
    vectors, rows, offsets = rng.normal(size=(9, 3)), rng.integers(-1, 9, 120), np.arange(0, 121, 4)
    whole = metrics.ild(vectors, rows, offsets)
    monkeypatch.setattr(metrics, "_LISTS_AT_ONCE", 7)
    np.testing.assert_array_equal(metrics.ild(vectors, rows, offsets), whole)


def test_a_vector_of_zeros_has_no_direction():
    with pytest.raises(DataError, match="1 of 2 vectors"):
        metrics.ild(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([0, 1]), np.array([0, 2]))


def test_novelty_refuses_what_nobody_clicked():
    with pytest.raises(DataError, match="1 recommended articles have no positive click share"):
        metrics.novelty(np.array([0.0, 1.0]), np.array([0, 1]), np.array([0, 2]))


def test_effective_rank():
    assert metrics.effective_rank(np.eye(8)) == pytest.approx(8)
    assert metrics.relative_effective_rank(np.eye(8)) == pytest.approx(1)
    assert metrics.effective_rank(np.outer(np.arange(1, 9), np.ones(4))) == pytest.approx(1)
    share = np.array([0.75, 0.25])
    assert metrics.effective_rank(np.diag([3.0, 1.0])) == pytest.approx(np.exp(-np.sum(share * np.log(share))))
    assert metrics.relative_effective_rank(np.diag([3.0, 1.0, 0.0, 0.0])) == pytest.approx(1.7547654 / 4, abs=1e-6)
    assert math.isnan(metrics.effective_rank(np.zeros((3, 3))))


def test_effective_rank_is_of_the_uncentred_matrix():
    matrix = np.full((10, 3), 5.0)
    assert metrics.effective_rank(matrix) == pytest.approx(1)


def test_average_cosine_equals_its_definition():
    matrix = np.random.default_rng(2).normal(size=(12, 5))
    pairs = [cosine(a, b) for i, a in enumerate(matrix) for j, b in enumerate(matrix) if i != j]
    assert metrics.average_cosine(matrix) == pytest.approx(np.mean(pairs), abs=1e-14)
    assert metrics.average_cosine(np.ones((4, 3))) == pytest.approx(1)
    assert math.isnan(metrics.average_cosine(np.ones((1, 3))))
