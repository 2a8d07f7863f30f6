"""The record of champions: what follows from it, what it refuses, and that nothing in it can be rewritten."""

import pytest

from ml.errors import LakeError, UsageError
from resources.champion import Champions, Title, all_kept
from resources.lake import Lake, Ref


def title(day: int, mark: str = "a") -> Title:
    return Title(Ref("simulated", "checkpoint", f"2023-05-{day:02d}.rolling", "snert"), mark * 64)


@pytest.fixture
def record(tmp_path):
    return Champions(Lake(tmp_path), "simulated", "snert", "rolling")


def test_nobody_is_champion_at_first(record):
    assert record.current() is None and record.acts() == [] and record.incumbent(title(4)) is None


def test_promotions_and_rollbacks_follow_from_the_record(record):
    for day in (4, 5, 6):
        record.promote(title(day), "ann", f"day {day}")
    record.settle(title(7), title(6), False, "rule", "recall fell", "d" * 64)
    assert record.current() == title(6) and record.kept() == [title(4), title(5), title(6)]
    assert record.rollback("bob", "complaints").subject == title(5)
    assert record.rollback("bob", "more complaints").subject == title(4)
    with pytest.raises(UsageError, match="no champion of snert before"):
        record.rollback("bob", "even more")
    record.promote(title(6), "ann", "fixed")
    assert record.current() == title(6) and record.kept() == [title(4), title(6)]
    told = [(a.action, a.who, a.why) for a in record.acts()]
    assert told[3:6] == [
        ("refuse", "rule", "recall fell"),
        ("rollback", "bob", "complaints"),
        ("rollback", "bob", "more complaints"),
    ]
    assert all_kept(record.lake) == [title(4), title(6)]


def test_whom_a_challenger_meets(record):
    record.promote(title(4), "rule", "first")
    record.promote(title(5), "rule", "better")
    assert record.incumbent(title(6)) == title(5)
    assert record.incumbent(title(5)) == title(4), "it does not meet itself"
    assert record.incumbent(title(5, "b")) == title(5), "a new version of the same day meets the old one"
    assert record.incumbent(title(4)) is None, "a newer champion has seen the day that it is tested on"
    record.rollback("ann", "x")
    assert record.incumbent(title(6)) == title(4)


def test_every_act_needs_a_reason_and_changes_something(record):
    with pytest.raises(UsageError, match="--why"):
        record.promote(title(4), "ann", "  ")
    record.promote(title(4), "ann", "first")
    with pytest.raises(UsageError, match="champion already"):
        record.promote(title(4), "ann", "again")
    assert len(record.acts()) == 1


def test_a_line_that_was_changed_is_found(record):
    record.promote(title(4), "ann", "first")
    record.promote(title(5), "ann", "second")
    record.path.write_bytes(record.path.read_bytes().replace(b"first", b"worst"))
    with pytest.raises(LakeError, match="line 1 was changed"):
        record.current()


def test_a_challenger_takes_the_place_of_the_champion_that_it_met(record):
    record.settle(title(4), None, True, "rule", "holds", "a" * 64)
    record.settle(title(5), title(4), True, "rule", "holds", "b" * 64)
    record.settle(title(6), title(5), False, "rule", "RQ2 AUC", "c" * 64)
    told = [(a.action, a.subject, a.decision) for a in record.acts()]
    assert told == [
        ("promote", title(4), "a" * 64),
        ("promote", title(5), "b" * 64),
        ("refuse", title(6), "c" * 64),
    ]


def test_a_decision_is_acted_on_once(record):
    assert record.settle(title(4), None, True, "rule", "holds", "d" * 64) is not None
    record.promote(title(5), "ann", "by hand")
    assert record.settle(title(4), None, True, "rule", "holds", "d" * 64) is None
    assert record.current() == title(5) and len(record.acts()) == 2


@pytest.mark.parametrize("met", [None, title(4)])
def test_a_champion_that_a_challenger_has_not_met_stays(record, met):
    """An older day weighed late, or a champion changed between decision and act."""
    record.promote(title(20), "ann", "by hand")
    record.settle(title(5), met, True, "rule", "holds", "a" * 64)
    assert record.current() == title(20)
    assert record.acts()[-1].action == "refuse" and "2023-05-20" in record.acts()[-1].why


def test_the_champion_that_passes_again_is_not_called_refused(record):
    record.promote(title(5), "ann", "by hand")
    assert record.settle(title(5), title(4), True, "rule", "holds", "a" * 64) is None
    assert [(a.action, a.subject) for a in record.acts()] == [("promote", title(5))]


def test_who_is_champion_is_asked_when_nobody_else_can_write(record, monkeypatch):
    """Another champion is made while this process waits for the record's lock."""
    record.promote(title(4), "ann", "first")
    taken = Lake.lock

    def overtaken(self, ref):
        monkeypatch.setattr(Lake, "lock", taken)
        Champions(record.lake, "simulated", "snert", "rolling").promote(title(20), "bob", "meanwhile")
        return taken(self, ref)

    monkeypatch.setattr(Lake, "lock", overtaken)
    record.settle(title(5), title(4), True, "rule", "holds", "a" * 64)
    assert record.current() == title(20)
    assert [a.action for a in record.acts()] == ["promote", "promote", "refuse"]


def test_a_champion_whose_version_is_gone_says_so(record):
    record.promote(title(4), "ann", "first")
    with pytest.raises(LakeError, match="not in the lake"):
        record.version(title(4))
