"""Decay: rows by age, and the paired difference to the retrained model only where the lists are the same."""

from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml import schema
from ml.decay import AtAge, decay, page

DAY = date(2023, 5, 4)


MADE = "synthetic: uniform"


def at_age(folder, value, values, users=(1, 2, 3)):
    folder.mkdir()
    time = pa.array([1, 2, 3], schema.TIME)
    columns = {"user_id": list(users), "time": time, "article_id": [7, 8, 9], "protocol": ["thesis"] * 3}
    pq.write_table(pa.table(columns | {"recall@20": values}), folder / "per_case.parquet")
    entry = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 3}
    return AtAge({"rq1": {"protocols": {"thesis": {"recall@20": entry}}}}, {"rq1": folder / "per_case.parquet"})


def test_rows_by_age_with_the_retrained_model_beside(tmp_path):
    old = {
        0: at_age(tmp_path / "o0", 0.8, [1.0, 1.0, 0.0]),
        1: at_age(tmp_path / "o1", 0.6, [1.0, 0.0, 0.0]),
        2: at_age(tmp_path / "o2", 0.5, [1.0, 0.0, 0.0]),
    }
    new = {
        0: old[0],
        1: at_age(tmp_path / "n1", 0.7, [1.0, 1.0, 0.0]),
        2: at_age(tmp_path / "n2", 0.9, [1.0, 1.0, 1.0], users=(1, 2, 4)),
    }
    rows = decay(DAY, old, new)
    assert [(r["age"], r["value"]) for r in rows] == [(0, 0.8), (1, 0.6), (2, 0.5)]
    assert rows[0]["retrained"] is None and rows[0]["difference"] is None
    assert rows[1]["retrained"]["value"] == 0.7
    assert rows[1]["difference"]["difference"] == pytest.approx(1 / 3)
    assert rows[2]["retrained"]["value"] == 0.9 and rows[2]["difference"] is None
    found = {
        "dataset": "simulated",
        "model": "snert",
        "as_of": str(DAY),
        "rows": rows,
        "missing": [["2023-05-25", "not evaluated yet"]],
    }
    text = page(found)
    assert "<svg" in text and "retrained" in text and "2023-05-25" in text
    assert page(found) == text


def test_lists_that_nobody_was_shown_are_marked():
    entry = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3}
    metrics = {
        "rq1": {"protocols": {"thesis": {"recall@20": entry}}},
        "rq2": {"protocols": {"in_view": {"auc": entry}}, "synthetic_inview": MADE},
    }
    rows = decay(DAY, {0: AtAge(metrics, {})}, {})
    assert {r["question"]: r["synthetic_inview"] for r in rows} == {"rq1": "", "rq2": MADE}
    text = page({"dataset": "globo", "model": "snert", "as_of": str(DAY), "rows": rows, "missing": []})
    assert "RQ2 AUC, in_view (synthetic)" in text and text.count("(synthetic)") == 1
