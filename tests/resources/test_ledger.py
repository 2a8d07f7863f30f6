"""The chain holds, and a break in it shows."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.errors import LakeError
from resources import ledger


def test_every_line_names_the_line_before(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    assert ledger.entries(path) == []
    heads = [ledger.append(path, {"n": n}) for n in range(3)]
    found = ledger.entries(path)
    assert [e.digest for e in found] == heads
    assert [e.prev for e in found] == [ledger.GENESIS, *heads[:-1]]
    assert [e.record for e in found] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert ledger.problems(path) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.data())
def test_no_byte_can_be_changed_unseen(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "ledger.jsonl"
    path.unlink(missing_ok=True)
    heads = [ledger.append(path, {"text": "some words", "n": n}) for n in range(3)]
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.sampled_from([1, 2, 4]))
    path.write_bytes(content)
    try:
        intact = ledger.problems(path) == [] and [e.digest for e in ledger.entries(path)] == heads
    except LakeError:
        intact = False
    assert not intact


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text("{}\n")
    with pytest.raises(LakeError, match=r"ledger\.jsonl"):
        ledger.entries(path)
