"""A bundle as a whole: written beside its place, then moved there; never half of one.

Belongs here: `simulate` and the rules of when a folder may be replaced. Does not belong here: the model
(`play`), the layout (`write`).
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from ml.errors import UsageError
from ml.simulator.config import VERSION, Size, size_named
from ml.simulator.play import Play
from ml.simulator.write import ORACLE_INVIEW, ClickStore, DayWriter, articles_table, write_latent, write_table

MARKER = "simulation.json"
HISTORY_DAYS = 21
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a bundle holds: all `clicks` of its log, the `impressions` of train and validation. `generated` is False
    when the bundle was already there."""

    size: str
    seed: int
    readers: int
    articles: int
    days: int
    clicks: int
    impressions: int
    generated: bool


def simulate(out: Path, size: str, seed: int, progress: Progress | None = None) -> Summary:
    """Writes the bundle of `size` ("tiny", "demo", "small", "large") and `seed` to the folder `out`.

    Equal size and seed give equal bytes; a bundle of theirs that is there already is left as it is, another bundle is
    replaced. `progress(done, total)` is called after each simulated day. Raises UsageError for an unknown size, a
    negative seed, or an `out` that holds anything but a bundle.
    """
    wanted = size_named(size)
    if seed < 0:
        raise UsageError(f"the seed must not be negative: {seed}")
    out = Path(out)
    marker = _marker(out)
    if marker is not None and _identity(marker) == (size, seed, VERSION) and _intact(out, marker):
        return Summary(**marker["summary"], generated=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        staged = Path(scratch) / "new"
        staged.mkdir()
        summary = _write(staged, wanted, seed, progress)
        if marker is not None:
            out.rename(Path(scratch) / "old")
        staged.rename(out)
    return summary


def _marker(out: Path) -> dict | None:
    """The marker of the bundle at `out`; None where nothing is. Raises UsageError where something else is."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise UsageError(f"{out} is a file: choose a folder for the bundle")
    found = sorted(str(p.relative_to(out)) for p in out.rglob("*") if not p.is_dir())
    if not found:
        return None
    if MARKER not in found:
        raise UsageError(f"{out} is not empty and holds no simulated bundle: choose another folder")
    try:
        marker = json.loads((out / MARKER).read_text(encoding="utf-8"))
        known = {MARKER, *marker["files"]}
        _identity(marker)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{out / MARKER} is no marker of a simulated bundle: choose another folder") from error
    foreign = [name for name in found if name not in known]
    if foreign:
        raise UsageError(f"{out} holds {foreign[0]}, which is no part of the simulated bundle: move it away")
    return marker


def _identity(marker: dict) -> tuple[str, int, int]:
    """What the bundle was made from."""
    return marker["size"], marker["seed"], marker["version"]


def _intact(out: Path, marker: dict) -> bool:
    """Whether all files of the bundle are there with the recorded length."""
    return all(
        (out / name).is_file() and (out / name).stat().st_size == entry["bytes"]
        for name, entry in marker["files"].items()
    )


def _write(folder: Path, size: Size, seed: int, progress: Progress | None) -> Summary:
    """Plays the log and writes it to the empty `folder`, the marker last."""
    play = Play(size, seed)
    store = ClickStore(play)
    clicks, impressions = 0, 0
    starts = {"train": size.history_days, "validation": size.history_days + size.train_days}
    ends = {"train": starts["validation"], "validation": size.days}
    (folder / "oracle").mkdir()
    with ExitStack() as files:
        oracle = files.enter_context(pq.ParquetWriter(folder / "oracle" / "inview.parquet", ORACLE_INVIEW))
        writers = {split: files.enter_context(DayWriter(folder / split, oracle, play)) for split in starts}
        for day in range(size.days):
            log = play.day(day)
            clicks += store.add(log)
            for split, writer in writers.items():
                if starts[split] <= day < ends[split]:
                    writer.write(log, impressions + 1)
                    impressions += len(log)
            if progress is not None:
                progress(day + 1, size.days)
    for split, start in starts.items():
        store.write_history(folder / split / "history.parquet", start - HISTORY_DAYS, start)
    write_table(articles_table(play.articles, store, seed), folder / "articles.parquet")
    write_latent(folder / "oracle", play.articles, play.readers, play.interests)
    summary = Summary(size.name, seed, size.readers, len(play.articles), size.days, clicks, impressions, True)
    _write_marker(folder, summary)
    return summary


def _write_marker(folder: Path, summary: Summary) -> None:
    """Records what the bundle is and the digests of its files."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.relative_to(folder).as_posix()] = {"sha256": digest, "bytes": path.stat().st_size}
    marker = {
        "size": summary.size,
        "seed": summary.seed,
        "version": VERSION,
        "summary": {name: value for name, value in asdict(summary).items() if name != "generated"},
        "files": files,
    }
    (folder / MARKER).write_text(json.dumps(marker, indent=1, sort_keys=True) + "\n", encoding="utf-8")
