"""Fuzzing of every reader: the quick part, the long run, and proofs that the harness sees a loss."""

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from ml.readers import canonical, rules
from ml.readers import ebnerd_days as cut
from tests.fuzz.run import Ledger, run
from tests.fuzz.subjects import SUBJECTS


def said(ledger: Ledger) -> str:
    """The failed cases, for the test's message."""
    return "\n".join(f"case {f.number} ({f.reader}, {f.kind}) {f.what}: {f.said}" for f in ledger.failed[:5])


def test_no_traceback_and_no_loss() -> None:
    ledger = run(300, seed=0)
    assert not ledger.failed, said(ledger)
    assert ledger.cases.total() == 300
    for name in SUBJECTS:
        outcomes = {what for reader, _, what in ledger.cases if reader == name}
        assert outcomes == {"published", "quarantined", "refused"}


@pytest.mark.slow
def test_no_traceback_and_no_loss_in_ten_thousand_cases() -> None:
    ledger = run(10_000, seed=0)
    print(ledger.text())
    assert not ledger.failed, said(ledger)


def _losing_judge(rows: pl.DataFrame, table: str, given: Any) -> rules.Judged:
    judged = rules.judge(rows, table, given)
    return rules.Judged(judged.kept.head(2), judged.held_back)


def _forgetful_judge(rows: pl.DataFrame, table: str, given: Any) -> rules.Judged:
    judged = rules.judge(rows, table, given)
    return rules.Judged(judged.kept, judged.held_back.slice(1))


@pytest.mark.parametrize("broken", [_losing_judge, _forgetful_judge])
@pytest.mark.parametrize(("module", "cases"), [(cut, 120), (canonical, 40)])
def test_the_harness_sees_rows_that_vanish(
    monkeypatch: pytest.MonkeyPatch, module: Any, cases: int, broken: Callable[..., rules.Judged]
) -> None:
    monkeypatch.setattr(module, "judge", broken)
    ledger = run(cases, seed=0, names=["ebnerd"])
    assert any(f.what == "loss" for f in ledger.failed)
