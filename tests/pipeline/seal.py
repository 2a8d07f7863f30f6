"""The seal around a simulated bundle's oracle, for tests: poison in its place, and who opens it.

Belongs here: poisoning, watching, and running what may not see the oracle. Does not belong here: what is expected
(`test_sealed_oracle`), the run itself (`sealed_run`).
"""

import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from assets.graph import STAGES
from assets.stage import Kept
from resources.lake import Lake, Ref
from tests.conftest import REPOSITORY

OPEN = 0x20
POISON = b"Sealed. No reader of any format gets further than this line.\n"
ASKS = "evaluation_rq2"
"""The one stage that may open the oracle."""


def before_the_oracle() -> list[str]:
    """Names of all stages that neither ask for the oracle nor need one that does."""
    asking = {ASKS}
    while True:
        more = {s.name for s in STAGES if any(n.stage in asking and not isinstance(n, Kept) for n in s.needs)} - asking
        if not more:
            return [s.name for s in STAGES if s.name not in asking]
        asking |= more


def versions(lake: Lake) -> dict[str, str]:
    """Manifest by partition of all that the lake holds of the simulated log."""
    refs = [
        Ref("simulated", stage, partition, model)
        for stage in lake.stages("simulated")
        for model in (None, *lake.models("simulated", stage))
        for partition in lake.partitions("simulated", stage, model)
    ]
    return {str(ref): lake.require(ref).manifest_digest for ref in refs}


@contextmanager
def opened(folder: Path) -> Iterator[list[str]]:
    """Collects, until the block ends, what any process opens of `folder`, by whatever library and under whatever path:
    names of its files, `.` for the folder itself. The kernel tells (inotify); tracing would need rights."""
    libc = ctypes.CDLL(None, use_errno=True)
    found: list[str] = []
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert watch >= 0
    names = {}
    for path in (folder, *sorted(p for p in folder.rglob("*") if p.is_file())):
        number = libc.inotify_add_watch(watch, os.fsencode(path), OPEN)
        assert number >= 0, os.strerror(ctypes.get_errno())
        names[number] = path.relative_to(folder).as_posix()
    try:
        yield found
        while data := _read(watch):
            while data:
                number, _, _, length = struct.unpack_from("iIII", data)
                inside = data[16 : 16 + length].rstrip(b"\0").decode()
                found.append(inside or names.get(number, "the kernel lost count"))
                data = data[16 + length :]
    finally:
        os.close(watch)


def _read(watch: int) -> bytes:
    try:
        return os.read(watch, 1 << 20)
    except BlockingIOError:
        return b""


@contextmanager
def poisoned(oracle: Path, aside: Path) -> Iterator[None]:
    """While the block lasts, the folder `oracle` holds files of its names that no reader can read; the truth lies in
    `aside`."""
    oracle.rename(aside)
    oracle.mkdir()
    for path in aside.iterdir():
        (oracle / path.name).write_bytes(POISON)
    try:
        yield
    finally:
        shutil.rmtree(oracle)
        aside.rename(oracle)


def environment(home: Path) -> dict[str, str]:
    """The environment of the command line for the log, lake and stores in `home`, with the recipe that trains in
    seconds."""
    return {
        **os.environ,
        "DAGSTER_HOME": str(home / "dagster"),
        "NEWSREC_LAKE": str(home / "lake"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        "NEWSREC_DATASET": "simulated",
        "NEWSREC_RECIPE": "snert_smoke",
        "NEWSREC_DATA_ROOT": str(home / "log"),
    }


def sealed_run(home: Path, stages: Sequence[str]) -> dict:
    """Makes `stages` of the log in `home` (`tests.pipeline.sealed_run`). What that prints, and `natively`, all that was
    opened of the oracle by whatever means, and `elsewhere`, of the train files beside it."""
    with opened(home / "log" / "oracle") as natively, opened(home / "log" / "train") as elsewhere:
        done = subprocess.run(
            [sys.executable, "-m", "tests.pipeline.sealed_run", *stages],
            env={**environment(home), "PYTHONPATH": str(REPOSITORY)},
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, f"opened of the oracle: {natively}\n{done.stdout[-1000:]}{done.stderr[-4000:]}"
    return {**json.loads(done.stdout.splitlines()[-1]), "natively": natively, "elsewhere": sorted(set(elsewhere))}
