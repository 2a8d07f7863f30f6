"""Drift: PSI against its definition written out, and daily measures against sets."""

import math
from datetime import timedelta

import numpy as np
import pytest

from ml.drift import drift, psi, psi_of_codes
from ml.drift_page import page
from tests.ml.worlds import tiny_world


def psi_by_hand(reference, values, bins=10):
    known = [v for v in reference if not math.isnan(v)]
    edges = sorted(set(np.quantile(known, [i / bins for i in range(1, bins)]).tolist()))

    def shares(some):
        cells = [0.5] * (len(edges) + 2)
        for v in some:
            cells[len(edges) + 1 if math.isnan(v) else sum(e < v for e in edges)] += 1
        return cells

    p, q = shares(values), shares(reference)
    used = [i for i in range(len(p)) if p[i] > 0.5 or q[i] > 0.5]
    p, q = ([c[i] for i in used] for c in (p, q))
    p, q = ([v / sum(c) for v in c] for c in (p, q))
    return sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_psi_equals_its_definition(seed):
    rng = np.random.default_rng(seed)
    reference, values = rng.normal(size=300).round(1), rng.normal(0.7, 2, size=90).round(1)
    reference[rng.random(300) < 0.1] = np.nan
    values[rng.random(90) < 0.2 * seed] = np.nan
    assert psi(reference, values) == pytest.approx(psi_by_hand(reference.tolist(), values.tolist()), abs=1e-12)


def test_psi_of_the_same_shares_is_nothing_and_of_others_is_not():
    same = np.repeat(np.arange(10.0), 100)
    assert psi(same, same) == 0
    assert psi(same, same + 5) > 1
    assert psi(np.full(9, np.nan), np.full(9, np.nan)) == 0


def test_psi_of_categories_by_hand():
    p, q = [1.5, 3.5, 0.5], [2.5, 0.5, 2.5]
    expected = sum((a / 5.5 - b / 5.5) * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert psi_of_codes(np.array([1, 1, 3, 3]), np.array([1, 2, 2, 2])) == pytest.approx(expected)


def test_days_by_brute_force():
    world = tiny_world(seed=3, n_users=40, n_articles=50)
    log, clock = world.clicks, world.clock
    first, last = clock.day_of(int(log.time.min())), clock.day_of(int(log.time.max()))
    found = drift(world, first, last)
    by_day: dict[str, list[int]] = {}
    for article, time in zip(log.article.tolist(), log.time.tolist(), strict=True):
        by_day.setdefault(str(clock.day_of(time)), []).append(article)
    assert [d["day"] for d in found.days] == sorted(by_day) and len(by_day) > 1
    for row in found.days:
        clicks, day = by_day[row["day"]], row["day"]
        yesterday = by_day.get(str(clock.day_of(clock.start(first)).fromisoformat(day) - timedelta(days=1)))
        assert row["clicks"] == len(clicks) and row["articles"] == len(set(clicks))
        if yesterday is None:
            assert row["jaccard_with_yesterday"] is None
            continue
        now, old = set(clicks), set(yesterday)
        assert row["jaccard_with_yesterday"] == pytest.approx(len(now & old) / len(now | old))
        assert row["articles_new_since_yesterday"] == pytest.approx(len(now - old) / len(now))
        share = sum(a not in old for a in clicks) / len(clicks)
        assert row["clicks_on_articles_not_clicked_yesterday"] == pytest.approx(share)
    mix = [r for r in found.mix if r["day"] == str(first)]
    assert sum(r["share"] for r in mix) == pytest.approx(1)
    assert {r["day"] for r in found.features} == set(sorted(by_day)[1:])
    assert {"age", "clicks_15min", "category"} <= {r["feature"] for r in found.features}


def test_metrics_of_lists_that_nobody_was_shown_are_marked():
    entry = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3, "day": "2023-05-04", "model": "snert"}
    shown = {"question": "rq1", "protocol": "thesis", "metric": "recall@20", "synthetic_inview": ""}
    made = {"question": "rq2", "protocol": "in_view", "metric": "auc", "synthetic_inview": "synthetic: uniform"}
    found = {"dataset": "globo", "first": "a", "last": "b", "convention": "", "psi_convention": ""}
    text = page(found | {"days": [], "mix": [], "features": [], "metrics": [entry | shown, entry | made]})
    assert "RQ2 AUC, in_view (synthetic)" in text and text.count("(synthetic)") == 1
