"""Training states: whole or not there."""

import json
import os
from pathlib import Path

import pytest
import torch

from ml.resume import State, States

ONE = {"key": "one"}


def state(step: int) -> State:
    tensors = {"w": torch.arange(6.0).view(2, 3) * step, "step": torch.tensor(float(step))}
    return State(step, tensors, {"curves": [{"loss": 0.1 + 0.2}], "score": None})


def test_the_newest_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    states = States(tmp_path / "new", ONE)
    assert states.newest() == (None, [])
    for step in (3, 6, 9, 12):
        states.save(state(step))
    found, said = states.newest()
    assert found is not None and said == []
    assert found.step == 12 and found.facts == state(12).facts
    assert torch.equal(found.tensors["w"], state(12).tensors["w"]) and found.tensors["step"].shape == ()
    names = ["000000009.json", "000000009.safetensors", "000000012.json", "000000012.safetensors"]
    assert sorted(p.name for p in states.folder.iterdir()) == names


def test_any_changed_byte_sends_it_back_to_the_one_before(tmp_path: Path) -> None:
    states = States(tmp_path, ONE)
    states.save(state(1))
    states.save(state(2))
    for path in (tmp_path / "000000002.json", tmp_path / "000000002.safetensors"):
        good = path.read_bytes()
        for place in range(0, len(good), 7):
            path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            found, said = states.newest()
            assert found is not None and found.step == 1 and len(said) == 1, (path.name, place)
        path.write_bytes(good[: len(good) // 2])
        assert states.newest()[1]
        path.write_bytes(good)
    (tmp_path / "000000002.safetensors").unlink()
    found, (line,) = states.newest()
    assert found is not None and found.step == 1 and "000000002.json: training state is damaged" in line


def test_another_identity_is_not_used(tmp_path: Path) -> None:
    States(tmp_path, ONE).save(state(1))
    found, (line,) = States(tmp_path, {"key": "two"}).newest()
    assert found is None and "(key differ)" in line


def test_states_that_cannot_be_used_do_not_push_out_new_ones(tmp_path: Path) -> None:
    for step in (500, 600):
        States(tmp_path, ONE).save(state(step))
    other = States(tmp_path, {"key": "two"})
    for step in (100, 200, 300):
        other.save(state(step))
        found, said = other.newest()
        assert found is not None and found.step == step and said == []


def test_a_crash_while_writing_leaves_the_states_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = States(tmp_path, ONE)
    for step in (1, 2):
        states.save(state(step))
    original, calls = os.fsync, 0
    for stop in range(1, 10):
        calls = 0

        def counted(handle: int, stop: int = stop) -> None:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise KeyboardInterrupt
            original(handle)

        monkeypatch.setattr(os, "fsync", counted)
        try:
            states.save(state(2 + stop))
        except KeyboardInterrupt:
            found, said = states.newest()
            assert found is not None and found.step in (2, 2 + stop - 1, 2 + stop) and said == []
            continue
        break
    assert stop == 5
    names = [p.name for p in tmp_path.iterdir()]
    assert len([n for n in names if n.endswith(".json")]) == 2 == len([n for n in names if n.endswith(".safetensors")])
    json.loads((tmp_path / "000000007.json").read_bytes())
