"""A unit's folder, brought to a new state so that its readers see the old or the new version.

Belongs here: moving fetched files in and removed ones out. Does not belong here: which (`resources.bucket.mirror`).
"""

from collections.abc import Iterable
from pathlib import Path

from ml.durable import sync_folder
from resources.ledger import LEDGER
from resources.lineage.archive import POINTER


def place(fetched: Path, folder: Path, paths: Iterable[str], sealed: bool) -> None:
    """Move fetched files into a unit's folder: what is new there as a whole, the ledger late, the pointer last. Files
    of a version are `sealed`: nobody writes them again."""
    by_top: dict[str, list[str]] = {}
    for path in sorted(paths):
        by_top.setdefault(path.split("/")[0], []).append(path)
        if sealed and "/" in path:
            (fetched / path).chmod(0o444)
    folder.mkdir(parents=True, exist_ok=True)
    for top in sorted(by_top, key=lambda t: (t == POINTER, t == LEDGER, t)):
        if not (folder / top).exists():
            (fetched / top).rename(folder / top)
            continue
        for path in by_top[top]:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (fetched / path).replace(folder / path)
    sync_folder(folder)


def drop(folder: Path, paths: Iterable[str], staying: Iterable[str], trash: Path) -> None:
    """Remove files; folders of which nothing stays by one move."""
    tops = {path.split("/")[0] for path in staying}
    for number, path in enumerate(sorted(paths)):
        top = path.split("/")[0]
        if top in tops:
            (folder / path).unlink(missing_ok=True)
        elif (folder / top).exists():
            (folder / top).rename(trash / f"gone-{number}")
