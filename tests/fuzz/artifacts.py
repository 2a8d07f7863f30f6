"""Fuzzing of artifacts: one hostile file in a good lake a case, the real loader, its outcome, and the ledger of all
cases.

    python -m tests.fuzz.artifacts --cases 4000 --seed 0

Belongs here: drawing a case from (seed, number), running it in a child whose memory is limited, judging. Does not
belong here: the good lake (`good_lake`), how artifacts are opened (`doors`), damage (`strange`, `agree`, `files`,
`tables`, `lies`)."""

import argparse
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ml.errors import NewsrecError
from tests.fuzz import files, good_lake, strange, tables
from tests.fuzz.agree import RECORDS, agree, replace, version_folder
from tests.fuzz.doors import DOORS, Door
from tests.fuzz.run import LIES, Ledger, Outcome
from tests.fuzz.source import parquet

Rng = np.random.Generator
MIB = 1 << 20
WITHIN = 1_500 * MIB
"""Address space beyond what the child has, in which every case must be dealt with."""

PATIENCE = 120
"""Seconds after which a case hangs."""

OUTCOMES = ("refused", "same", "another", "traceback", "crash", "over memory", "wrong answer")
FAILED = ("traceback", "crash", "over memory", "wrong answer")
OUT_OF_MEMORY = ("bad_alloc", "can't allocate memory", "malloc of size", "Unable to allocate")
CHANGED_BYTES = {**files.BYTES, "spliced": strange.spliced}
REFUSED = {
    *strange.PICKLES, *(files.PLACES.keys()), *RECORDS, *(strange.TENSORS.keys() - {"values shuffled"}), *strange.JSON,
    "another kind of index",
}  # fmt: skip
"""Damage that no door may let in, whatever the records say."""


def damage(path: Path, root: Path, rng: Rng) -> str | None:
    """Damage the file in one way; the kind, None where what was drawn does not apply."""
    drawn, data = rng.random(), path.read_bytes()
    if drawn < 0.15:
        kind = _key(files.PLACES, rng)
        files.PLACES[kind](root, path)
        return kind
    if drawn < 0.35:
        return _rewrite(path, data, _key(CHANGED_BYTES, rng), CHANGED_BYTES, rng)
    if drawn < 0.45:
        return _rewrite(path, data, _key(strange.PICKLES, rng), strange.PICKLES, rng)
    formats = {".safetensors": strange.TENSORS, ".faiss": strange.INDEXES, ".npy": strange.ARRAYS}
    kinds: dict[str, Callable[[bytes, Rng], bytes | None]] = formats.get(path.suffix, CHANGED_BYTES)
    if path.suffix == ".parquet":
        kinds = _of_tables(rng)
    elif path.suffix in (".json", ".jsonl"):
        kinds = strange.JSON if rng.random() < 0.4 else {k: _as_value(c, path) for k, c in strange.VALUES.items()}
    return _rewrite(path, data, _key(kinds, rng), kinds, rng)


def _of_tables(rng: Rng) -> dict[str, Any]:
    drawn = rng.random()
    if drawn < 0.3:
        return LIES
    if drawn < 0.5:
        return strange.TABLES
    return {kind: _as_table(change) for kind, change in tables.KINDS.items()}


def _as_table(change: Callable[[pa.Table, Rng], pa.Table | None]) -> Callable[[bytes, Rng], bytes | None]:
    def damage_table(data: bytes, rng: Rng) -> bytes | None:
        try:
            changed = change(pq.read_table(pa.BufferReader(data)), rng)
            return None if changed is None else parquet(changed, rng)
        except (pa.ArrowException, KeyError, TypeError, ValueError):
            return None

    return damage_table


def _as_value(change: Callable[[Any, Rng], Any], path: Path) -> Callable[[bytes, Rng], bytes | None]:
    """Damage to the value of a JSON file (of one line of several), written as its writer does."""

    def damage_value(data: bytes, rng: Rng) -> bytes | None:
        lines = data.splitlines() if path.suffix == ".jsonl" else [data]
        number = int(rng.integers(len(lines)))
        changed = change(json.loads(lines[number]), rng)
        if changed is None:
            return None
        compact = b"\n " not in data and b": " not in data[:200]
        separators = (",", ":") if compact else (", ", ": ")
        lines[number] = json.dumps(changed, sort_keys=compact, separators=separators, ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )
        return b"\n".join([*lines, b""]) if path.suffix == ".jsonl" else lines[0]

    return damage_value


def _rewrite(path: Path, data: bytes, kind: str, kinds: dict[str, Any], rng: Rng) -> str | None:
    try:
        changed = kinds[kind](data, rng)
    except (ValueError, IndexError, KeyError, TypeError, RecursionError):  # not of the format that the kind is for
        return None
    if changed is None or changed == data:
        return None
    replace(path, changed)
    return kind


def _key(kinds: Any, rng: Rng) -> str:
    names = sorted(kinds)
    return str(names[int(rng.integers(len(names)))])


def draw(number: int, seed: int, names: list[str], good: Path, home: Path) -> tuple[str, str, bool]:
    """Make the case's home: door, kind of damage, and whether the bytes differ from what the manifest says of them."""
    rng = np.random.default_rng([seed, number])
    name = names[number % len(names)]
    door = DOORS[name]
    while True:
        _link(good, home)
        pattern = door.files[int(rng.integers(len(door.files)))]
        found = sorted(p for p in home.glob(pattern) if p.is_file() and p.suffix != ".lock")
        path = found[int(rng.integers(len(found)))]
        inside = "lake" in path.parts and ".champion" not in path.parts
        if (
            inside
            and (door.manifest or name.startswith("manifests"))
            and rng.random() < (0.1 if door.manifest else 0.4)
        ):
            kind = _key(RECORDS, rng)
            beside = [p.parent for p in sorted(path.parent.glob("*/manifest.json"))]
            RECORDS[kind](beside[0] if beside else version_folder(path), home, rng)
            return name, kind, False
        root = home / "lake" if path.is_relative_to(home / "lake") else home
        kind_or_none = damage(path, root, rng)
        if kind_or_none is not None:
            break
        shutil.rmtree(home)
    if not door.manifest:
        return name, kind_or_none, False
    agreed = rng.random() < 0.75
    if agreed and (path.exists() or path.is_symlink()):
        agree(version_folder(path))
    return name, kind_or_none, not agreed


def _link(good: Path, home: Path) -> None:
    """The good home once more, its files linked."""
    for part in ("lake", "bundle", "states"):
        shutil.copytree(good / part, home / part, copy_function=os.link)
    for name in ("spec.json", "key", "key.pub"):
        os.link(good / name, home / name)
    (home / "good").write_text(str(good))


def case(number: int, seed: int, names: list[str], good: Path, home: Path, answers: dict[str, Any]) -> Outcome:
    """One case in the new folder `home`: the same number and seed give the same damage."""
    name, kind, differs = draw(number, seed, names, good, home)
    os.environ[strange.MARK] = str(home / "opened")
    what, said = _opened(DOORS[name], home, answers[name])
    if (home / "opened").exists():
        what, said = "wrong answer", "a pickle was opened"
    if what in ("same", "another") and (kind in REFUSED or differs):
        what, said = "wrong answer", f"taken in ({what}), {'its bytes differ from the manifest' if differs else kind}"
    return Outcome(number, name, kind, what, said)


def _opened(door: Door, home: Path, good: Any) -> tuple[str, str]:
    """What becomes of the hostile file within the limits of memory and time."""
    with _limits():
        try:
            answer = door.open(home)
        except NewsrecError as error:
            return _refusal(error)
        except AssertionError as error:
            return "wrong answer", str(error)
        except _Hang:
            return "crash", "it hangs"
        except BaseException as error:  # noqa: BLE001
            said = traceback.format_exc()
            return ("over memory" if _lacks_memory(error) else "traceback"), said
    return ("same" if answer == good else "another"), ""


def _refusal(error: NewsrecError) -> tuple[str, str]:
    """Whether a refusal is one line that names something and says what to do."""
    text = str(error)
    if _lacks_memory(error):
        return "over memory", text
    clear = text.isprintable() and len(text) < 1_500 and ": " in text
    return ("refused" if clear else "traceback"), text


def _lacks_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


class _Hang(BaseException):
    pass


class _limits:
    """Address space, and time as far as Python can stop it."""

    def __enter__(self) -> None:
        status = Path("/proc/self/status").read_text().splitlines()
        taken = int(next(line for line in status if line.startswith("VmSize")).split()[1]) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (taken + WITHIN, resource.RLIM_INFINITY))
        signal.signal(signal.SIGALRM, self._ring)
        signal.alarm(PATIENCE // 2)

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    @staticmethod
    def _ring(*_: object) -> None:
        raise _Hang


def work(good: Path, first: int, last: int, seed: int, names: list[str]) -> None:
    """The child: a line for each case before and after it."""
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the loaders print
    torch.set_num_threads(1)  # as the stored state of the training was made
    answers = _answers(good)
    for number in range(first, last):
        print(json.dumps({"begun": number}), file=told, flush=True)
        with tempfile.TemporaryDirectory(dir=good.parent) as folder:
            found = case(number, seed, names, good, Path(folder) / "home", answers)
        line = {
            "number": number,
            "reader": found.reader,
            "kind": found.kind,
            "what": found.what,
            "said": found.said[-3000:],
        }
        print(json.dumps(line), file=told, flush=True)


def _answers(good: Path) -> dict[str, Any]:
    """What every door says of the good lake; also what warms the child up."""
    home = good.parent / f"sound-{os.getpid()}"
    _link(good, home)
    answers = {name: door.open(home) for name, door in DOORS.items()}
    shutil.rmtree(home)
    return json.loads(json.dumps(answers))


def run(cases: int, seed: int, names: list[str] | None = None, first: int = 0, good: Path | None = None) -> Ledger:
    """Runs the cases numbered from `first` on, in children; a child that dies is a crash, and another goes on."""
    ledger = Ledger(outcomes=OUTCOMES, failures=FAILED, title="door")
    started, chosen = time.perf_counter(), names or sorted(DOORS)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "good"
        if good is None:
            good_lake.make(place)
        else:
            shutil.copytree(good, place)
        number = first
        while number < first + cases:
            for outcome in _batch(place, number, first + cases, seed, chosen):
                ledger.add(outcome)
                number = outcome.number + 1
    ledger.seconds = time.perf_counter() - started
    return ledger


def _batch(good: Path, first: int, last: int, seed: int, names: list[str]) -> Iterator[Outcome]:
    """Outcomes of one child, the last one a crash where it died."""
    command = [sys.executable, "-m", "tests.fuzz.artifacts", "--work", str(good), "--first", str(first)]
    command += [
        "--cases",
        str(last - first),
        "--seed",
        str(seed),
        *(word for name in names for word in ("--door", name)),
    ]
    settings = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    begun = -1
    with (good.parent / "child.log").open("w+") as log:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=os.environ | settings)
        for line in _lines(child):
            told = json.loads(line)
            begun = told.get("begun", -1)
            if "what" in told:
                yield Outcome(**told)
        child.kill()
        code = child.wait()
        log.seek(0)
        end = log.read()[-3_000:]
    if begun >= 0:
        name = names[begun % len(names)]
        yield Outcome(begun, name, "see the message", "crash", f"exit code {code}\n{end}")
    elif code:
        raise RuntimeError(f"the child ended with {code} between cases:\n{end}")


def _lines(child: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """What the child prints, until it ends, or says nothing for too long after its first line."""
    assert child.stdout is not None
    rest, patience = b"", None
    while select.select([child.stdout], [], [], patience)[0]:
        data = os.read(child.stdout.fileno(), 1 << 16)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        yield from whole
        patience = PATIENCE


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.artifacts", description=__doc__)
    parser.add_argument("--cases", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to run one again")
    parser.add_argument("--door", action="append", choices=sorted(DOORS), help="only these")
    parser.add_argument("--good", type=Path, help="a good lake that was made before")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.work:
        work(asked.work, asked.first, asked.first + asked.cases, asked.seed, asked.door)
        return 0
    ledger = run(asked.cases, asked.seed, asked.door, asked.first, asked.good)
    print(ledger.text())
    print(f"\n{asked.cases} cases, seed {asked.seed}, {ledger.seconds:.0f} s, {len(ledger.failed)} failed")
    for failed in ledger.failed[:40]:
        print(f"\ncase {failed.number}, {failed.reader}, {failed.kind}: {failed.what}\n{failed.said}", file=sys.stderr)
    return bool(ledger.failed)


if __name__ == "__main__":
    sys.exit(main())
