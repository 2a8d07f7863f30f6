"""The decision rule on constructed evidence: each criterion alone decides."""

from dataclasses import replace

import pytest

from ml.promotion import Evidence, Rules, decide
from ml.promotion_page import page


def paired(difference, low, high):
    return {"difference": difference, "low": low, "high": high}


GOOD = Evidence(
    champion=True,
    paired={name: paired(0.01, -0.009, 0.03) for name in ("recall", "auc", "coverage")},
    erank={"readers": (0.6, 0.7), "articles": (0.8, 0.8)},
    latency_ms=20.0,
    faults=(),
)


def failed(evidence: Evidence, rules: Rules = Rules()) -> list[str]:  # noqa: B008
    decision = decide(evidence, rules)
    names = [c.name for c in decision.criteria if c.passed is False]
    assert decision.promote == (not names)
    assert all(name in decision.why for name in names)
    return names


def test_no_loss_beyond_the_margin_is_promoted():
    assert failed(GOOD) == []
    assert decide(GOOD, Rules()).why == "every criterion holds"


@pytest.mark.parametrize(
    ("name", "label"), [("recall", "RQ1 Recall@20"), ("auc", "RQ2 AUC"), ("coverage", "RQ3 coverage")]
)
def test_a_lower_bound_below_the_margin_refuses(name, label):
    worse = replace(GOOD, paired={**GOOD.paired, name: paired(0.02, -0.0101, 0.05)})
    assert failed(worse) == [label]
    assert failed(worse, replace(Rules(), **{name: 0.0102})) == []
    at_the_margin = replace(GOOD, paired={**GOOD.paired, name: paired(0.0, -0.01, 0.01)})
    assert failed(at_the_margin) == []


def test_a_mean_loss_within_the_margin_is_tolerated_and_a_gain_without_certainty_is_not():
    assert failed(replace(GOOD, paired={**GOOD.paired, "recall": paired(-0.005, -0.008, -0.002)})) == []
    assert failed(replace(GOOD, paired={**GOOD.paired, "recall": paired(0.05, -0.02, 0.12)})) == ["RQ1 Recall@20"]


def test_a_collapsed_rank_refuses():
    assert failed(replace(GOOD, erank={"readers": (0.09, None)})) == ["effective rank, readers"]
    assert failed(replace(GOOD, erank={"readers": (0.3, 0.7)})) == ["effective rank, readers"]
    assert failed(replace(GOOD, erank={"readers": (0.36, 0.7)})) == []
    assert failed(replace(GOOD, erank={"articles": (float("nan"), 0.7)})) == ["effective rank, articles"]
    assert failed(replace(GOOD, erank={})) == []


def test_latency_over_budget_or_unknown_refuses():
    assert failed(replace(GOOD, latency_ms=250.1)) == ["latency"]
    assert failed(replace(GOOD, latency_ms=250.0)) == []
    assert failed(replace(GOOD, latency_ms=float("nan"))) == ["latency"]


def test_a_broken_manifest_refuses():
    assert failed(replace(GOOD, faults=["a/b/c: bytes differ", "more"])) == ["manifest"]
    assert "a/b/c: bytes differ and 1 more" in decide(replace(GOOD, faults=["a/b/c: bytes differ", "x"]), Rules()).why


def test_what_the_log_cannot_measure_is_no_criterion_but_recall_must_be():
    without = {n: e for n, e in GOOD.paired.items() if n != "auc"}
    assert failed(replace(GOOD, paired=without)) == []
    assert failed(replace(GOOD, paired={})) == ["RQ1 Recall@20", "RQ3 coverage"]
    assert failed(replace(GOOD, paired={**GOOD.paired, "recall": paired(0.1, None, None)})) == ["RQ1 Recall@20"]


def test_the_first_challenger_only_has_to_be_sound():
    first = replace(GOOD, champion=False, paired={}, erank={"readers": (0.2, None)})
    assert failed(first) == []
    assert failed(replace(first, latency_ms=900.0)) == ["latency"]


def test_the_page_shows_the_verdict_and_escapes_names():
    segment = {"lists": 3, "readers": 2, "recall@20": paired(-0.2, -0.3, -0.1)}
    decision = {
        "dataset": "simulated", "as_of": "2023-05-05", "split": "rolling", "model": "snert", "synthetic_inview": "",
        "challenger": {"ref": "new", "manifest": "a" * 64}, "champion": {"ref": "old", "manifest": "b" * 64},
        **decide(GOOD, Rules()).to_json(),
        "figures": {rq: {} for rq in ("rq1", "rq2", "rq3")} | {"rq1": {"challenger": {}, "champion": {}, "paired": {}}},
        "segments": {"rq1": {"category": {"<script>": segment}}},
        "erank": {"challenger": {"readers": 0.6}, "champion": {"readers": 0.7}},
        "latency": {"challenger": {"median": 1.0, "p95": None}},
    }  # fmt: skip
    text = page(decision, "simulated data")
    assert "new becomes champion, against the champion old" in text
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert 'class="down">-0.2000 [-0.3000, -0.1000]' in text
    assert "http" not in text


def test_lists_that_nobody_was_shown_are_marked():
    segment = {"lists": 3, "readers": 2, "recall@20": paired(0, 0, 0), "auc": paired(0, 0, 0)}
    entry = {"value": 0.5, "low": 0.4, "high": 0.6}
    side = {"in_view": {"auc": entry}}
    made = replace(GOOD, synthetic="synthetic: uniform", paired={**GOOD.paired, "auc": paired(0.0, -0.2, 0.2)})
    assert failed(made) == ["RQ2 AUC (synthetic)"]
    decision = {
        "dataset": "globo", "as_of": "2017-10-05", "split": "rolling", "model": "snert",
        "synthetic_inview": made.synthetic, "champion": None, "challenger": {"ref": "new", "manifest": "a" * 64},
        **decide(made, Rules()).to_json(),
        "figures": {rq: {} for rq in ("rq1", "rq2", "rq3")} | {"rq2": {"challenger": side}},
        "segments": {rq: {"category": {"sport": segment}} for rq in ("rq1", "rq2")},
        "erank": {"challenger": {}}, "latency": {},
    }  # fmt: skip
    text = page(decision)
    for marked in ("<td>RQ2 AUC (synthetic)</td>", "<th>Δ AUC (synthetic)</th>", "<th>Δ Recall@20</th>"):
        assert marked in text
