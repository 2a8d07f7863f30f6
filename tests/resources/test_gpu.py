"""The device that was asked for, or a clear no; and never more trainers than slots."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from ml.errors import LakeError, UsageError
from resources import gpu
from resources.gpu import Device, die_with_parent, slots_per_card


def cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def test_auto_and_cpu() -> None:
    assert Device("cpu").name == "cpu"
    assert Device().name == ("cuda" if cuda() else "cpu")
    facts = Device("cpu").describe()
    assert facts["device"] == "cpu" and facts["threads"] >= 1 and facts["torch"]


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UsageError, match="auto, cpu, cuda"):
        Device("tpu")


def test_cuda_is_described_or_refused() -> None:
    if not cuda():
        with pytest.raises(UsageError, match="no CUDA device"):
            _ = Device("cuda").name
        return
    facts = Device("cuda").describe()
    assert facts["memory_bytes"] > 0 and facts["name"] and "." in facts["capability"]


def test_torch_is_not_imported_before_use() -> None:
    code = "import sys, resources.gpu as g; g.Device('cpu').name; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _count(lake: Path, seconds: float) -> None:
    """A trainer: enters itself among those that train, and notes how many there are."""
    with Device("cpu").lease(lake) as slot:
        mine = lake / f"{slot}.{os.getpid()}.training"
        mine.touch()
        time.sleep(seconds)
        with (lake / "seen").open("a") as seen:
            seen.write(f"{len(list(lake.glob('*.training')))} {slot}\n")
        mine.unlink()


@pytest.mark.parametrize("slots", [1, 2])
def test_never_more_trainers_than_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slots: int) -> None:
    monkeypatch.setenv("NEWSREC_GPU_SLOTS", str(slots))
    trainers = [multiprocessing.get_context("fork").Process(target=_count, args=(tmp_path, 0.1)) for _ in range(6)]
    for trainer in trainers:
        trainer.start()
    for trainer in trainers:
        trainer.join(30)
    assert [t.exitcode for t in trainers] == [0] * 6
    seen = [line.split() for line in (tmp_path / "seen").read_text().splitlines()]
    assert len(seen) == 6 and max(int(n) for n, _ in seen) <= slots
    assert {slot for _, slot in seen} <= {f"cpu.{n}" for n in range(slots)}


def _meet(lake: Path, barrier: Barrier) -> None:
    with Device("cpu").lease(lake):
        barrier.wait(30)


def test_as_many_trainers_as_slots_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWSREC_GPU_SLOTS", "2")
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(2)
    trainers = [fork.Process(target=_meet, args=(tmp_path, barrier)) for _ in range(2)]
    for trainer in trainers:
        trainer.start()
    for trainer in trainers:
        trainer.join(60)
    assert [t.exitcode for t in trainers] == [0, 0]


def _hold(lake: Path, pipe: int) -> None:
    with Device("cpu").lease(lake):
        os.write(pipe, b"in")
        time.sleep(60)


def test_a_killed_trainer_frees_its_slot_at_once(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    trainer = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path, writer))
    trainer.start()
    assert os.read(reader, 2) == b"in"
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        os.kill(trainer.pid or 0, signal.SIGKILL)

    with Device("cpu").lease(tmp_path, say) as slot:
        assert slot == "cpu.0"
    trainer.join(5)
    (line,) = said
    assert f"all 1 trainer slots are taken (process {trainer.pid})" in line
    assert trainer.exitcode == -signal.SIGKILL


def test_an_error_in_the_block_frees_the_slot_and_comes_through(tmp_path: Path) -> None:
    for error in (BlockingIOError, ZeroDivisionError):
        with pytest.raises(error), Device("cpu").lease(tmp_path):
            raise error
    with Device("cpu").lease(tmp_path):
        pass


def _trainer_of_a_run(lake: Path, pipe: int) -> None:
    with Device("cpu").lease(lake):
        os.write(pipe, f"{os.getpid():8d}".encode())
        time.sleep(60)


def _run(lake: Path, pipe: int) -> None:
    child = multiprocessing.get_context("fork").Process(target=_trainer_of_a_run, args=(lake, pipe))
    child.start()
    child.join()


def test_a_trainer_dies_with_the_run_that_started_it(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    run = multiprocessing.get_context("fork").Process(target=_run, args=(tmp_path, writer))
    run.start()
    trainer = int(os.read(reader, 8))
    os.kill(run.pid or 0, signal.SIGKILL)
    run.join(5)
    deadline = time.monotonic() + 10
    while _alive(trainer) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(trainer)
    with Device("cpu").lease(tmp_path):
        pass


def _alive(pid: int) -> bool:
    """Whether the process still runs; one that ended and was not yet waited for does not."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_process_started_by_hand_outlives_its_shell() -> None:
    assert multiprocessing.parent_process() is None
    assert die_with_parent() is False


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_number_of_slots_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("NEWSREC_GPU_SLOTS", text)
    with pytest.raises(UsageError, match="NEWSREC_GPU_SLOTS"):
        slots_per_card()


def test_slots_of_cards_are_the_machines_and_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = gpu._slot_folder(tmp_path / "lake", "cuda")
    assert folder.parent == tmp_path and folder.stat().st_mode & 0o077 == 0
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(LakeError, match="not a folder of this user"):
        gpu._slot_folder(tmp_path / "lake", "cuda")
    monkeypatch.setenv("NEWSREC_GPU_LOCKS", str(tmp_path / "asked"))
    assert gpu._slot_folder(tmp_path / "lake", "cuda") == tmp_path / "asked"
