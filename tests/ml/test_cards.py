"""The cards say what they must, from what they are given."""

import pytest

from ml.cards import BIASES, LICENCES, data_card, model_card
from ml.datasets import DATASETS

ROWS = {"clicks": {"2023-05-16": 10, "2023-05-17": 1000}, "articles": {"2023-05-16": 3}}
ENTRY = {"value": 0.5, "low": 0.25, "high": 0.75}
REPORT = {
    "dataset": "simulated", "as_of": "2023-05-18", "split": "rolling", "notes": ["Plumbing only."],
    "models": {
        "snert": {"rq1": {"thesis": {"recall@20": ENTRY}}, "rq2": {"auc": ENTRY}, "rq3": {"coverage": ENTRY}},
        "popular_15_paper_window": {"rq1": {"thesis": {"recall@20": {"value": None, "low": None, "high": None}}}},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_dataset_has_licence_and_biases(name):
    card = data_card(DATASETS[name], "2023-05-18", ROWS, 7, {"clicks.csv": "ab" * 32})
    assert LICENCES[name] in card
    assert all(bias in card for bias in BIASES[name])
    assert "2023-05-16 to 2023-05-17 (2 days)" in card
    assert "| clicks | 1,010 | 2 |" in card and "| articles | 3 | 1 |" in card
    assert f"| clicks.csv | {'ab' * 32} |" in card
    assert DATASETS[name].note in card


def test_the_model_card_has_a_section_a_model_with_its_figures():
    checkpoint = {"recipe": {"name": "snert_quick", "dim": 64}, "seed": 3, "targets": 1234, "manifest": "cd" * 32}
    card = model_card(REPORT, {"snert": checkpoint})
    assert "> Plumbing only." in card
    snert, popular = card.split("## ")[1:3]
    assert "recipe snert_quick (dim 64), seed 3, 1,234 targets" in snert and "cd" * 32 in snert
    assert snert.count("0.5000 [0.2500, 0.7500]") == 3
    assert "Training: none" in popular and "target" in popular and "Recall" not in popular


def test_lists_that_nobody_was_shown_are_marked():
    made = "synthetic: uniform"
    rows = {**ROWS, "impressions": {"2023-05-16": 4}}
    card = data_card(DATASETS["globo"], "2023-05-18", rows, 7, {}, made)
    assert f"Impressions: {made}" in card and "| impressions (synthetic) | 4 | 1 |" in card
    assert "Impressions: no" in data_card(DATASETS["globo"], "2023-05-18", rows, 7, {})
    models = {name: {**entry, "synthetic_inview": made} for name, entry in REPORT["models"].items()}
    assert "- RQ2 AUC (synthetic): 0.5" in model_card({**REPORT, "models": models}, {})
    assert "synthetic" not in model_card(REPORT, {})
