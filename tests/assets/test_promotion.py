"""Acting on a decision: who becomes champion, and what the record says of the others."""

import pytest

from assets.promotion import _record
from resources.champion import Champions, Title
from resources.lake import Lake, Ref


def title(day: int) -> Title:
    return Title(Ref("simulated", "checkpoint", f"2023-05-{day:02d}.rolling", "snert"), f"{day:064d}")


def decision(promote: bool, met: Title | None) -> dict:
    champion = {"ref": str(met.ref), "manifest": met.manifest} if met else None
    return {"promote": promote, "why": "every criterion holds" if promote else "RQ2 AUC", "champion": champion}


@pytest.fixture
def record(tmp_path):
    return Champions(Lake(tmp_path), "simulated", "snert", "rolling")


def acts(record: Champions) -> list[tuple[str, Title]]:
    return [(a.action, a.subject) for a in record.acts()]


def test_a_challenger_takes_the_place_of_the_champion_that_it_met(record):
    _record(record, title(4), decision(True, None), "rule", "a")
    _record(record, title(5), decision(True, title(4)), "rule", "b")
    _record(record, title(6), decision(False, title(5)), "rule", "c")
    assert acts(record) == [("promote", title(4)), ("promote", title(5)), ("refuse", title(6))]


@pytest.mark.parametrize("met", [None, title(4)])
def test_a_champion_that_it_has_not_met_stays(record, met):
    """An older day weighed late, or a champion changed between decision and act."""
    record.promote(title(20), "ann", "by hand")
    _record(record, title(5), decision(True, met), "rule", "a")
    assert record.current() == title(20)
    assert record.acts()[-1].action == "refuse" and "2023-05-20" in record.acts()[-1].why


def test_the_champion_that_passes_again_is_not_called_refused(record):
    record.promote(title(5), "ann", "by hand")
    _record(record, title(5), decision(True, title(4)), "rule", "a")
    assert acts(record) == [("promote", title(5))]
