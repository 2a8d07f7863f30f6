"""Trainings that are killed at random moments and run again, beside one that was left alone; also
`python -m tests.faults.training [--device cuda] [--trainings 5] [--kills 5]`.

Belongs here: the kills and the comparison of bytes. Does not belong here: training states (`ml.resume`).
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.faults.process import Child, fork
from tests.faults.table import NEXT_RUN, SAME_BYTES, Table

SEED, THREADS, TOLERANCE = 3, 2, 0.01


def killed_trainings(
    table: Table, folder: Path, trainings: int, kills: int, rng: np.random.Generator, device: str = "cpu"
) -> None:
    """`trainings` trainings, each killed `kills` times and then left to end; states are stored every third step. On a
    CPU every file must be equal, on a GPU validation within `TOLERANCE`."""
    fault = f"kill -9, training on {'the CPU with fixed threads' if device == 'cpu' else device}"
    folder.mkdir()
    maker = fork(folder / "world.log", lambda _: _make_world(folder / "world"))
    if maker.wait() != 0:
        raise RuntimeError((folder / "world.log").read_text()[-2000:])
    alone = _trainer(folder, "alone", device)
    alone.until_marked()
    begun = time.monotonic()
    if alone.wait() != 0:
        raise RuntimeError((folder / "alone.log").read_text()[-2000:])
    whole = time.monotonic() - begun
    expected = _files(folder / "alone")
    for training in range(trainings):
        name = f"killed-{training}"
        done = tries = 0
        while done < kills and tries < 4 * kills:
            child = _trainer(folder, name, device)
            tries += 1
            child.until_marked()
            time.sleep(float(rng.uniform(0, 1.2 * whole / kills)))
            child.kill()
            if child.wait() != -9:
                break
            done += 1
            table.kills["of trainings"] += 1
        last = _trainer(folder, name, device)
        code = last.wait()
        said = (folder / f"{name}.log").read_text()
        breaches = [f"the last try ended with {code}: {said[-300:]}"] if code else []
        breaches += _differences(expected, _files(folder / name), device)
        table.enter(fault, SAME_BYTES if device == "cpu" else NEXT_RUN, breaches)
        went_on = "went on from a stored state" if "went on from" in said else "was over, or began anew"
        table.notes[f"{fault}: the last try {went_on}"] += 1


def _differences(expected: dict[str, bytes], found: dict[str, bytes], device: str) -> list[str]:
    if device == "cpu":
        names = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        return [f"{', '.join(names)} differ from the undisturbed training"] if names else []
    one, two = (json.loads(files["metrics.json"]) for files in (expected, found))
    far = {n: (one[n], two[n]) for n in ("recall@20", "ndcg@20") if abs(one[n] - two[n]) > TOLERANCE}
    return [f"validation differs by more than {TOLERANCE}: {far}"] if far else []


def _make_world(folder: Path) -> None:
    from tests.ml.interests import write_world

    write_world(folder)


def _trainer(folder: Path, name: str, device: str) -> Child:
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
            seed=SEED,
            out=folder / name,
            device=device,  # type: ignore[arg-type]
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


def main() -> int:
    """Runs trainings alone."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.training", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--trainings", type=int, default=5)
    parser.add_argument("--kills", type=int, default=5, help="of each training")
    asked, table = parser.parse_args(), Table()
    with tempfile.TemporaryDirectory() as folder:
        place, rng = Path(folder) / "training", np.random.default_rng(0)
        killed_trainings(table, place, asked.trainings, asked.kills, rng, asked.device)
    print(table.text())
    print(*table.broken, sep="\n", file=sys.stderr)
    return bool(table.broken)


if __name__ == "__main__":
    sys.exit(main())
