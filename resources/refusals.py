"""Drops that were read to the end and refused: nobody need read the same files again to know it.

Belongs here: remembering why. Does not belong here: when a drop is refused (`resources.landing`).

A refusal holds for the files, the day and the source of what reads them: files delivered again, or read by another
version of the readers, are looked at anew. It can be forgotten at any time: remove the file.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ml.datasets import Dataset
from ml.durable import replace_whole
from ml.errors import DamagedLake
from ml.strangers import one_line, printable
from resources.code import source_digest
from resources.drops import Drop, files_digest
from resources.manifest import canonical, digest
from resources.untrusted import record_object

REMEDY = "remove it: refused drops are then read once more"
REASON_LETTERS = 1000


class Refusals:
    """The refused drops of a log of `dataset`, in the file `path`. Who changes them holds the landing's lock."""

    def __init__(self, path: Path, dataset: Dataset) -> None:
        self._path = path
        self._dataset = dataset

    def applied(self, drop: Drop) -> Drop:
        """The drop, refused where these files were refused before. Raises DamagedLake where the file is damaged."""
        why = self._read().get(self._key(drop))
        return drop if why is None else drop.refused(one_line(why, REASON_LETTERS))

    def remember(self, refused: Iterable[Drop], present: Iterable[Drop]) -> None:
        """Add `refused`, with why; drops that are no longer among those `present` are forgotten."""
        before = self._read()
        keys = {self._key(drop) for drop in present}
        known = {key: why for key, why in before.items() if key in keys}
        known |= {self._key(drop): drop.why for drop in refused}
        if known != before:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_whole(self._path, canonical(known))

    def _key(self, drop: Drop) -> str:
        days = [str(day) for day in (drop.day, self._dataset.first_day, self._dataset.last_day)]
        facts = self._dataset.facts if self._dataset.declared else {}
        return digest({"files": files_digest(drop.files), "days": days, "facts": facts, "code": _code()})

    def _read(self) -> dict[str, str]:
        if not self._path.exists():
            return {}
        found = record_object(self._path, REMEDY)
        if not all(isinstance(why, str) for why in found.values()):
            raise DamagedLake(f"{printable(self._path)} holds what is no reason: {REMEDY}")
        return found


@cache
def _code() -> str:
    return source_digest(["ml.readers", "resources.landing"])
