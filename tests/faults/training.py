"""Trainings that are killed at random moments and run again, beside one that was left alone.

Belongs here: the kills and the comparison of bytes. Does not belong here: training states (`ml.resume`).
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.faults.process import Child, fork
from tests.faults.table import SAME_WEIGHTS, Table

SEED, THREADS = 3, 2


def killed_trainings(table: Table, folder: Path, trainings: int, kills: int, rng: np.random.Generator) -> None:
    """`trainings` trainings, each killed `kills` times and then left to end; states are stored every third step."""
    fault = "kill -9, training on the CPU with fixed threads"
    folder.mkdir()
    maker = fork(folder / "world.log", lambda _: _make_world(folder / "world"))
    if maker.wait() != 0:
        raise RuntimeError((folder / "world.log").read_text()[-2000:])
    started = time.monotonic()
    alone = _trainer(folder, "alone", SEED)
    alone.until_marked()
    begun = time.monotonic()
    if alone.wait() != 0:
        raise RuntimeError((folder / "alone.log").read_text()[-2000:])
    whole, starting = time.monotonic() - begun, begun - started
    expected = _files(folder / "alone")
    for training in range(trainings):
        name = f"killed-{training}"
        done = tries = 0
        while done < kills and tries < 4 * kills:
            child = _trainer(folder, name, SEED)
            tries += 1
            child.until_marked()
            time.sleep(float(rng.uniform(0, 1.2 * whole / kills)))
            child.kill()
            if child.wait() != -9:
                break
            done += 1
            table.kills["of trainings"] += 1
        last = _trainer(folder, name, SEED)
        code = last.wait()
        said = (folder / f"{name}.log").read_text()
        found = _files(folder / name)
        differ = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        breaches = [f"the last try ended with {code}: {said[-300:]}"] if code else []
        breaches += [f"{', '.join(differ)} differ from the undisturbed training"] if differ else []
        table.enter(fault, SAME_WEIGHTS, breaches)
        went_on = "went on from a stored state" if "went on from" in said else "was over, or began anew"
        table.notes[f"{fault}: the last try {went_on}"] += 1
    table.notes[f"{fault}: seconds undisturbed, rounded up"] = int(whole + starting) + 1


def _make_world(folder: Path) -> None:
    from tests.ml.interests import write_world

    write_world(folder)


def _trainer(folder: Path, name: str, seed: int) -> Child:
    def work(mark: Callable[[], None]) -> None:
        os.environ["OMP_NUM_THREADS"] = str(THREADS)
        import torch

        from ml.train import TrainSpec, train
        from tests.ml import interests

        torch.set_num_threads(THREADS)
        world = interests.written_world(folder / "world")
        spec = TrainSpec(
            asof=world.paths,
            sessions=world.sessions,
            sessions_digest=interests.DIGEST,
            recipe=interests.small_recipe(steps=120, eval_every=20, epochs=60),
            seed=seed,
            out=folder / name,
            device="cpu",
            train_end=interests.TRAIN_END,
            states=folder / f"{name}-states",
            states_key="fault suite",
            states_every=3,
        )
        mark()
        train(spec, progress=lambda line: print(line, flush=True))

    return fork(folder / f"{name}.log", work)


def _files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()} if folder.is_dir() else {}
