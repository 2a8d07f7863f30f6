"""A bundle as a whole: written beside its place, then moved there; never half of one.

Belongs here: `simulate` and the rules of when a folder may be replaced. Does not belong here: the model
(`play`), the layout (`write`).
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from ml.errors import DataError, UsageError
from ml.seeds import require_seed
from ml.simulator.config import VERSION, Behaviour, Size, preset_named, size_named
from ml.simulator.play import DayLog, Play
from ml.simulator.write import ORACLE_INVIEW, ClickStore, DayWriter, articles_table, write_latent, write_table

MARKER = "simulation.json"
FOLDER = "oracle"
"""The sealed truth's place in a bundle, as `ml.oracle` knows it."""
HISTORY_DAYS = 28
"""A split's histories reach back so many days."""
LAYOUT = (
    "articles.parquet",
    *(f"{split}/{table}.parquet" for split in ("train", "validation") for table in ("behaviors", "history")),
    *(f"{FOLDER}/{name}" for name in ("inview.parquet", "readers.parquet", "articles.parquet", "README.md")),
)
"""The files of a bundle, beside its marker."""
SOON_READ = 1 << 30
"""Bytes that are compared with their digests without a word."""
Progress = Callable[[int, int], None]
Identity = tuple[str, str, int, int]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a bundle holds: all `clicks` of its log, the `impressions` of train and validation. `generated` is False
    when the bundle was already there."""

    preset: str
    size: str
    seed: int
    readers: int
    articles: int
    days: int
    clicks: int
    impressions: int
    generated: bool


def simulate(
    out: Path,
    size: str,
    seed: int,
    progress: Progress | None = None,
    preset: str = "tabloid",
    workers: int | None = None,
    replace: bool = False,
) -> Summary:
    """Writes the bundle of `size` (a name in SIZES), `preset` (a name in PRESETS) and `seed` to the folder `out`.

    Equal size, preset and seed give equal bytes, with any number of `workers` (threads; all cores by default). A bundle
    of theirs that is there already is left as it is; another or a damaged one only gives way to `replace`.
    `progress(done, total)` is called after each simulated day. Raises UsageError for an unknown size or preset, what is
    no seed, no workers, an `out` that holds anything but a bundle, and a bundle in the way.
    """
    wanted, behaviour = size_named(size), preset_named(preset)
    require_seed(seed)
    if workers is not None and workers < 1:
        raise UsageError(f"the number of workers must be positive: {workers}")
    out = Path(out)
    there = _holds_bundle(out)
    if there:
        marker, wrong = _judged(out, (preset, size, seed, VERSION))
        if wrong is None:
            return Summary(**marker["summary"], generated=False)
        if replace or not marker:
            _refuse_foreign(out, marker)
        if not replace:
            raise UsageError(f"{out} {wrong}: choose another folder, or say --replace")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        staged = Path(scratch) / "new"
        staged.mkdir()
        summary = write_bundle(staged, wanted, seed, preset, behaviour, progress, workers)
        if there:
            out.rename(Path(scratch) / "old")
        staged.rename(out)
    return summary


def _holds_bundle(out: Path) -> bool:
    """Whether something that bears the marker of a bundle is at `out`; False where nothing is. Raises UsageError where
    something else is."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise UsageError(f"{out} is a file: choose a folder for the bundle")
    if not any(out.iterdir()):
        return False
    if not (out / MARKER).is_file():
        raise UsageError(f"{out} is not empty and holds no simulated bundle: choose another folder")
    return True


def _judged(out: Path, asked: Identity) -> tuple[dict, str | None]:
    """The marker of the bundle at `out` (empty where it cannot be read), and what it has that the one asked for has
    not, in words; None where it is the one asked for."""
    try:
        marker = read_marker(out)
    except DataError:
        return {}, f"holds a damaged bundle, whose {MARKER} is no marker of one"
    return marker, _differs(out, marker, asked)


def read_marker(root: Path) -> dict:
    """What the bundle at `root` says of itself: `preset`, `size`, `seed`, `version`, `summary` and `files`. Raises
    DataError where it says nothing of the kind."""
    path = root / MARKER
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
        marker.setdefault("preset", "tabloid")  # the first version had one
        _ = _identity(marker), [(e["bytes"], e["sha256"]) for e in marker["files"].values()], dict(marker["summary"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is no marker of a simulated bundle") from error
    return marker


def _identity(marker: dict) -> Identity:
    """What the bundle was made from: preset, size, seed, version of the model."""
    return marker["preset"], marker["size"], marker["seed"], marker["version"]


def _differs(out: Path, marker: dict, asked: Identity) -> str | None:
    """What the bundle at `out` has that the one asked for has not, in words; None where it is the one asked for."""
    if _identity(marker) != asked:
        there, wanted = (
            f"{p}, {size}, seed {seed}, model version {v}" for p, size, seed, v in (_identity(marker), asked)
        )
        return f"holds another bundle ({there}) than the one asked for ({wanted})"
    for name, entry in marker["files"].items():
        if not (out / name).is_file() or (out / name).stat().st_size != entry["bytes"]:
            return f"holds the bundle asked for, but its {name} is missing or has another length"
    total = sum(entry["bytes"] for entry in marker["files"].values())
    if total > SOON_READ:
        logger.info("%s is there: its %.1f GiB are compared with their digests", out, total / (1 << 30))
    for name, entry in marker["files"].items():
        if _sha256(out / name) != entry["sha256"]:
            return f"holds the bundle asked for, but its {name} has other bytes than {MARKER} says"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_foreign(out: Path, marker: dict) -> None:
    """Raises UsageError for a file that would be lost with the bundle. Without a marker, its files are those that every
    bundle has."""
    known = {MARKER, *(marker["files"] if marker else LAYOUT)}
    names = sorted(str(p.relative_to(out)) for p in out.rglob("*") if not p.is_dir())
    foreign = [name for name in names if name not in known]
    if foreign:
        raise UsageError(f"{out} holds {foreign[0]}, which is no part of the simulated bundle: move it away")


def write_bundle(
    folder: Path,
    size: Size,
    seed: int,
    preset: str,
    behaviour: Behaviour,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Summary:
    """Plays the log and writes it to the empty `folder`, the marker last. A day is written while the next is played."""
    play = Play(size, seed, behaviour, workers)
    with ExitStack() as files:
        days = _Days(folder, play, files)
        behind = files.enter_context(ThreadPoolExecutor(1))
        written = behind.submit(lambda: None)
        for day in range(size.days):
            log = play.day(day)
            written.result()
            written = behind.submit(days.write, day, log)
            if progress is not None:
                progress(day + 1, size.days)
        written.result()
    write_table(articles_table(play.articles, days.store, seed), folder / "articles.parquet")
    write_latent(folder / FOLDER, play.articles, play.readers, play.interests)
    counts = (size.readers, len(play.articles), size.days, days.clicks, days.impressions)
    summary = Summary(preset, size.name, seed, *counts, True)
    _write_marker(folder, summary)
    return summary


class _Days:
    """The files that grow day by day: behaviors and the oracle's probabilities, and histories once they are whole."""

    def __init__(self, folder: Path, play: Play, files: ExitStack) -> None:
        size = play.size
        self.store, self.clicks, self.impressions = ClickStore(play), 0, 0
        self._folder = folder
        train = size.history_days
        validation = train + size.train_days
        self._spans = {"train": (train, validation), "validation": (validation, size.days)}
        (folder / FOLDER).mkdir()
        oracle = files.enter_context(pq.ParquetWriter(folder / FOLDER / "inview.parquet", ORACLE_INVIEW))
        self._writers = {s: files.enter_context(DayWriter(folder / s, oracle, play)) for s in self._spans}

    def write(self, day: int, log: DayLog) -> None:
        """Adds a day; days come in order."""
        last = self._spans["validation"][0]
        for split, (first, end) in self._spans.items():
            if day == first:
                self.store.write_history(self._folder / split / "history.parquet", first - HISTORY_DAYS, first)
            if first <= day < end:
                self._writers[split].write(log, self.impressions + 1)
                self.impressions += len(log)
        self.clicks += self.store.count(log)
        if day < last:
            self.store.keep(day, log)
        if day >= self._spans["train"][0]:
            self.store.forget(last - HISTORY_DAYS if day < last else day)


def _write_marker(folder: Path, summary: Summary) -> None:
    """Records what the bundle is and the digests of its files."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        files[path.relative_to(folder).as_posix()] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
    marker = {
        "preset": summary.preset,
        "size": summary.size,
        "seed": summary.seed,
        "version": VERSION,
        "summary": {name: value for name, value in asdict(summary).items() if name != "generated"},
        "files": files,
    }
    (folder / MARKER).write_text(json.dumps(marker, indent=1, sort_keys=True) + "\n", encoding="utf-8")
