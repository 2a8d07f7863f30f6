"""Fuzzing of every reader: the quick part, the long run, and proofs that the harness sees a loss."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ml.readers import canonical, ebnerd, mind, own_log, reader, rules
from ml.readers import ebnerd_days as cut
from ml.readers.breaches import Breach
from ml.readers.mind import MindReader
from tests.fuzz import oracle
from tests.fuzz.run import Ledger, run
from tests.fuzz.subjects import SUBJECTS


def said(ledger: Ledger) -> str:
    """The failed cases, for the test's message."""
    return "\n".join(f"case {f.number} ({f.reader}, {f.kind}) {f.what}: {f.said}" for f in ledger.failed[:5])


def test_no_traceback_and_no_loss() -> None:
    ledger = run(240, seed=0)
    assert not ledger.failed, said(ledger)
    assert ledger.cases.total() == 240
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
@pytest.mark.parametrize(
    ("module", "name", "cases"),
    [(cut, "ebnerd", 120), (canonical, "ebnerd", 40), (mind, "mind", 40), (own_log, "own", 40)],
)
def test_the_harness_sees_rows_that_vanish(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, cases: int, broken: Callable[..., rules.Judged]
) -> None:
    monkeypatch.setattr(module, "judge", broken)
    ledgers = (run(5, seed=0, names=[name], first=first) for first in range(0, cases, 5))
    failed = [f for ledger in ledgers for f in ledger.failed]
    assert any(f.what == "loss" or "neither published nor quarantined" in f.said for f in failed)


@pytest.mark.parametrize("name", ["ebnerd", "mind", "own"])
def test_the_harness_sees_remarks_that_are_forgotten(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(canonical, "remarked", lambda *_: ())
    ledgers = (run(5, seed=0, names=[name], first=first) for first in range(0, 60, 5))
    assert any("remarks: " in f.said for ledger in ledgers for f in ledger.failed)


@pytest.mark.parametrize("module", [ebnerd, mind, own_log])
def test_the_harness_sees_ids_of_several_days(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    monkeypatch.setattr(module, "mark_reused", lambda *_: None)
    name = "own" if module is own_log else module.__name__.rsplit(".", 1)[-1]
    ledgers = (run(5, seed=0, names=[name], first=first) for first in range(0, 120, 5))
    assert any("impressions: quarantined" in f.said for ledger in ledgers for f in ledger.failed)


def test_the_harness_sees_a_report_that_contradicts_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MindReader, "breaches", lambda self, root: [Breach("error", "refused", "", "", 1, "none")])
    ledger = run(20, seed=0, names=["mind"])
    assert any("the reader takes the log" in f.said for f in ledger.failed)


@pytest.mark.parametrize("name", sorted(SUBJECTS))
def test_an_undamaged_source_loses_nothing_but_what_its_layout_names(name: str, tmp_path: Path) -> None:
    subject, rng = SUBJECTS[name], np.random.default_rng(3)
    for number in range(8):
        root, out = tmp_path / f"{number}-in", tmp_path / f"{number}-out"
        root.mkdir()
        source = subject.make(rng)
        source.write(root, rng)
        found, dataset = reader(subject.reader), subject.dataset(root)
        days = {d: found.tables(out / str(d), dataset, d) for d in found.split(root, dataset, out)}
        assert subject.losses(source, root, out, days) == []
        reasons = {(row["table"], row["reason"]) for row in oracle.held_back_at_split(out)}
        local = {(table, "unknowable_local_time") for table in ("articles", "clicks", "impressions")}
        assert reasons <= found.expected | local
