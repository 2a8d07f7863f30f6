"""The device that models run on: which one was asked for, which one it is, and whose turn it is to train on it.

Belongs here: resolving and describing the device, the slots of its cards. Does not belong here: using it (`ml.train`,
`ml.predict`).

A slot is a file with a kernel lock (`flock`): the lock is gone the moment its process is, however that ended.
"""

import ctypes
import fcntl
import multiprocessing
import os
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ml.errors import LakeError, UsageError

CHOICES = ("auto", "cpu", "cuda")
SLOTS, FOLDER = "NEWSREC_GPU_SLOTS", "NEWSREC_GPU_LOCKS"
_POLL_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1


class Device:
    """`auto` is CUDA where there is one, else the CPU. torch is imported on first use, not here."""

    def __init__(self, asked: str = "auto") -> None:
        if asked not in CHOICES:
            raise UsageError(f"unknown device {asked!r}: use {', '.join(CHOICES)}")
        self.asked = asked

    @cached_property
    def name(self) -> Literal["cpu", "cuda"]:
        """`cpu` or `cuda`. Raises UsageError when CUDA was asked for and there is none."""
        if self.asked == "cpu":
            return "cpu"
        import torch

        if torch.cuda.is_available():
            return "cuda"
        if self.asked == "cuda":
            raise UsageError("no CUDA device was found by torch: choose device cpu or auto")
        return "cpu"

    def describe(self) -> dict[str, Any]:
        """Facts for the record: torch version and threads; on CUDA also name, memory, capability and driver."""
        import torch

        facts: dict[str, Any] = {"device": self.name, "torch": torch.__version__, "threads": torch.get_num_threads()}
        if self.name == "cuda":
            card = torch.cuda.get_device_properties(torch.cuda.current_device())
            facts |= {
                "name": card.name,
                "memory_bytes": int(card.total_memory),
                "capability": f"{card.major}.{card.minor}",
                "cuda": torch.version.cuda,
                "driver": _driver(),
            }
        return facts

    @contextmanager
    def lease(self, lake: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[str]:
        """Hold one slot of a card for the block, and make that card the current one; gives the slot's name.

        `NEWSREC_GPU_SLOTS` slots a card, 1 by default. Cards belong to the machine, so their slots do (in
        `NEWSREC_GPU_LOCKS`, else a folder of this user's below the temporary one); where there is none, trainers of one
        lake share the slots of its CPU. Waits for a free slot, and says once for whom. A worker process that holds a
        slot dies with the process that started it.
        """
        cards = self._cards()
        per_card = slots_per_card()
        die_with_parent()
        with ExitStack() as stack:
            folder = _slot_folder(lake, self.name)
            number = stack.enter_context(_slot(folder, [f"{c}.{n}" for c in cards for n in range(per_card)], say))
            if self.name == "cuda":
                import torch

                stack.enter_context(torch.cuda.device(number // per_card))
            yield f"{cards[number // per_card]}.{number % per_card}"

    def _cards(self) -> list[str]:
        """Names of the cards that hold for every process of the machine; `cpu` where there is none."""
        if self.name == "cpu":
            return ["cpu"]
        import torch

        found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return [str(getattr(card, "uuid", f"card{i}")) for i, card in enumerate(found)]


def slots_per_card() -> int:
    """`NEWSREC_GPU_SLOTS`, 1 where it is not set. Raises UsageError for anything but a number from 1 on."""
    text = os.environ.get(SLOTS, "") or "1"
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{SLOTS}={text!r} is no number of slots: write 1 or more")
    return int(text)


def die_with_parent() -> bool:
    """From now on the kernel kills this process when the one that started it ends, so that a killed run leaves no
    trainer behind. Does nothing, and gives False, in a process that was started by hand: a shell may go."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return False
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")
    if not parent.is_alive():  # it ended before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)
    return True


@contextmanager
def _slot(folder: Path, names: Sequence[str], say: Callable[[str], None]) -> Iterator[int]:
    """Hold the lock of one of `names` in `folder`; gives its number."""
    told = False
    while True:
        for number, name in enumerate(names):
            handle = os.open(folder / f"{name}.slot", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                holder = _take(handle)
                if holder is None:
                    yield number
                    return
            finally:
                os.close(handle)
        if not told:
            say(f"all {len(names)} trainer slots are taken (process {holder}): waiting; {SLOTS} sets slots per card")
            told = True
        time.sleep(_POLL_SECONDS)


def _take(handle: int) -> str | None:
    """Lock the slot's file and write this process's number into it; None if that worked, else the holder's number."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(handle, 32, 0).decode(errors="replace").strip()
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return None


def _slot_folder(lake: Path, device: str) -> Path:
    """Where the slots' files lie. Raises LakeError for a shared place that somebody else has taken."""
    asked = os.environ.get(FOLDER)
    if asked or device == "cpu":
        folder = Path(asked) if asked else lake / ".locks" / "slots"
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    folder = Path(tempfile.gettempdir()) / f"newsrec-slots-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
        raise LakeError(f"{folder} is not a folder of this user: remove it, or set {FOLDER} to another folder")
    return folder


def _driver() -> str | None:
    """Version of the kernel driver of the first card; None where the management library gives none."""
    path = Path("/proc/driver/nvidia/version")
    if not path.is_file():
        return None
    words = path.read_text().splitlines()[0].split()
    return next((w for w in words if w[:1].isdigit() and "." in w), None)
