"""Exact top lists against a full sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ml import topk
from ml.topk import top_k, top_ks


def by_sorting(scores: np.ndarray, k: int, banned: set[int]) -> list[int]:
    """Columns by score, ties newest (highest) first, without the banned ones."""
    return [c for c in sorted(range(len(scores)), key=lambda c: (-scores[c], -c)) if c not in banned][:k]


@given(
    scores=hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(0, 40)), elements=st.integers(-3, 3)),
    k=st.integers(1, 12),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_it_equals_a_sort(scores: np.ndarray, k: int, data: st.DataObject) -> None:
    banned = [data.draw(st.lists(st.integers(-1, 45), max_size=8)) for _ in scores]
    offsets = np.concatenate([[0], np.cumsum([len(b) for b in banned])]).astype(np.int64)
    excluded = np.array([c for b in banned for c in b], dtype=np.int32)
    columns, best = top_k(scores, k, offsets, excluded)
    assert columns.shape == best.shape == (len(scores), k)
    for b, row in enumerate(scores):
        expected = by_sorting(row, k, set(banned[b]))
        assert columns[b, : len(expected)].tolist() == expected
        assert np.array_equal(best[b, : len(expected)], row[expected])
        assert np.all(columns[b, len(expected) :] == -1) and np.isnan(best[b, len(expected) :]).all()


def test_many_columns_and_a_view_of_one_row() -> None:
    scores = np.random.default_rng(0).poisson(0.3, 5000).astype(np.float32)
    shared = np.broadcast_to(scores, (3, 5000))
    columns, _ = top_k(shared, 50, np.zeros(4, np.int64), np.zeros(0, np.int32))
    assert [c.tolist() for c in columns] == [by_sorting(scores, 50, set())] * 3


@given(
    scores=hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(0, 150)), elements=st.integers(-3, 3)),
    spare=st.sampled_from([0, 1, 50]),
    repeated=st.booleans(),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_several_lists_of_a_row_equal_sorts(
    scores: np.ndarray, spare: int, repeated: bool, data: st.DataObject
) -> None:
    if repeated:
        scores = np.broadcast_to(scores[0], scores.shape)
    wanted, rules = [], []
    for k in (3, 12):
        banned = [data.draw(st.lists(st.integers(-1, 150), max_size=20)) for _ in scores]
        offsets = np.concatenate([[0], np.cumsum([len(b) for b in banned])]).astype(np.int64)
        wanted.append((k, (offsets, np.array([c for b in banned for c in b], dtype=np.int32))))
        rules.append(banned)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk, "_SPARE", spare)
        lists = top_ks(scores, wanted)
    for (k, _), banned, (columns, best) in zip(wanted, rules, lists, strict=True):
        for b, row in enumerate(scores):
            expected = by_sorting(row, k, set(banned[b]))
            assert columns[b].tolist() == expected + [-1] * (k - len(expected))
            assert np.array_equal(best[b, : len(expected)], row[expected])


def test_the_whole_top_may_be_excluded() -> None:
    scores = np.arange(1000, dtype=np.float32)[None]
    columns, _ = top_k(scores, 5, np.array([0, 700]), np.arange(300, 1000))
    assert columns.tolist() == [[299, 298, 297, 296, 295]]
