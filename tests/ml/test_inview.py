"""Synthetic in-view lists: what is in them, what is not, and how it is drawn."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ml import schema
from ml.datasets import SyntheticInView
from ml.inview import synthesise

MINUTE = 60_000
DAY = 19_478 * 86_400_000
ROW = st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 40 * MINUTE))
CHOICE = st.builds(
    SyntheticInView,
    synthesise=st.sampled_from(["popularity", "uniform"]),
    length=st.integers(2, 6),
    window_minutes=st.integers(1, 30),
    seed=st.integers(0, 3),
)


def clicks_of(rows: list[tuple[int, int, int]]) -> pa.Table:
    """Canonical clicks from (reader, article, ms of the day)."""
    ordered = sorted(set(rows), key=lambda r: (r[2], r[0], r[1]))
    plain = [{"user_id": u, "article_id": a, "time": DAY + t, "device": u} for u, a, t in ordered]
    columns = {
        f.name: pa.array([r.get(f.name) for r in plain], pa.int64() if f.name == "time" else f.type)
        for f in schema.CLICKS
    }
    return pa.table(columns).cast(schema.CLICKS)


@given(st.lists(ROW, max_size=30), CHOICE)
@settings(max_examples=120, deadline=None)
def test_a_list_holds_the_click_and_what_others_clicked_in_the_window_before(rows, choice):
    clicks = clicks_of(rows)
    lists, figures = synthesise(clicks, choice)
    assert lists.schema.equals(schema.IMPRESSIONS)
    log = list(zip(*(clicks[c].cast(pa.int64()).to_pylist() for c in ("user_id", "article_id", "time")), strict=True))
    found = {}
    for row in lists.to_pylist():
        index = row["impression_id"] - 19_478 * 2**32 - 1
        found[index] = row
        user, article, time = log[index]
        assert (row["user_id"], row["clicked"], row["device"]) == (user, [article], user)
        assert row["synthetic_inview"] == str(choice)
    for index, (user, article, time) in enumerate(log):
        now = time // MINUTE
        window = {a for _, a, t in log if now - choice.window_minutes <= t // MINUTE < now}
        candidates = window - {a for u, a, _ in log if u == user}
        others = min(len(candidates), choice.length - 1)
        if not others:
            assert index not in found
            continue
        inview = found[index]["inview"]
        assert article in inview and len(inview) == len(set(inview)) == others + 1
        assert set(inview) - {article} <= candidates
    assert figures == {
        "clicks": len(log),
        "lists": len(found),
        "short": sum(len(r["inview"]) < choice.length for r in found.values()),
        "without_candidates": len(log) - len(found),
    }
    assert lists.equals(synthesise(clicks, choice)[0])


@given(st.lists(ROW, max_size=25), st.lists(ROW, max_size=10), CHOICE, st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_later_clicks_of_other_readers_change_nothing(rows, later, choice, cut):
    """Readers of later clicks are others, so that who has read what stays."""
    before = [r for r in rows if r[2] < cut * MINUTE]
    after = [(u + 100, a + 50, cut * MINUTE + t) for u, a, t in later]
    first = {r["impression_id"]: r["inview"] for r in synthesise(clicks_of(before), choice)[0].to_pylist()}
    both = {r["impression_id"]: r["inview"] for r in synthesise(clicks_of(before + after), choice)[0].to_pylist()}
    assert first == {k: both[k] for k in first}
    assert len(set(before)) >= len(first)


def draws(kind: str) -> tuple[Counter[int], Counter[int]]:
    """How often each article is drawn first-come, and the places of clicked articles, over many minutes with one window
    of 8 clicks on article 1, 3 on 2 and 1 on 3; the lists hold one other article."""
    rows = [(1000 + i, article, i) for i, article in enumerate([1] * 8 + [2] * 3 + [3])]
    rows += [(i, 100, MINUTE + i) for i in range(900)]
    lists, _ = synthesise(clicks_of(rows), SyntheticInView(synthesise=kind, length=2, window_minutes=1))
    shown = [r["inview"] for r in lists.to_pylist()]
    assert len(shown) == 900
    return Counter(a for s in shown for a in s if a != 100), Counter(s.index(100) for s in shown)


@pytest.mark.parametrize(("kind", "shares"), [("popularity", [8 / 12, 3 / 12, 1 / 12]), ("uniform", [1 / 3] * 3)])
def test_draws_follow_their_distribution_and_places_are_shuffled(kind, shares):
    found, places = draws(kind)
    for article, share in zip((1, 2, 3), shares, strict=True):
        assert abs(found[article] / 900 - share) < 4 * np.sqrt(share * (1 - share) / 900)
    assert abs(places[0] / 900 - 0.5) < 4 * np.sqrt(0.25 / 900)


def test_short_pools_are_drawn_without_replacement_in_proportion():
    """Of three candidates two are drawn: article 3 (weight 1 of 12) comes first or second with the probability that
    drawing one after another gives."""
    rows = [(1000 + i, article, i) for i, article in enumerate([1] * 8 + [2] * 3 + [3])]
    rows += [(i, 100, MINUTE + i) for i in range(900)]
    lists, _ = synthesise(clicks_of(rows), SyntheticInView(synthesise="popularity", length=3, window_minutes=1))
    holds = np.mean([3 in r["inview"] for r in lists.to_pylist()])
    expected = 1 / 12 + 8 / 12 * (1 / 4) + 3 / 12 * (1 / 9)
    assert abs(holds - expected) < 4 * np.sqrt(expected * (1 - expected) / 900)


def test_another_seed_draws_other_lists():
    rows = [(i, i % 17, i * 1000) for i in range(600)]
    one, two = (
        synthesise(clicks_of(rows), SyntheticInView(synthesise="uniform", length=5, seed=s))[0]["inview"].to_pylist()
        for s in (1, 2)
    )
    assert one != two


@pytest.mark.parametrize(
    "fields", [{"length": 1}, {"synthesise": "magic"}, {"seed": -1}, {"window_minutes": 0}, {"x": 1}]
)
def test_a_choice_is_checked(fields):
    with pytest.raises(ValidationError):
        SyntheticInView(**({"synthesise": "uniform"} | fields))
