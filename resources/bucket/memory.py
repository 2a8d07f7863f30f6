"""What a lake remembers of its bucket, below `.bucket/`: heads as they were last seen, and notes of changes under way.

Belongs here: these files. Does not belong here: what follows from them (`resources.bucket.mirror`).
"""

import re
from dataclasses import dataclass
from pathlib import Path

from ml.durable import replace_whole
from resources.bucket.address import HOME
from resources.bucket.head import OBJECTS, Head, is_unit, read_head
from resources.bucket.store import LARGEST_HEAD
from resources.manifest import canonical
from resources.untrusted import record_bytes, record_object, taking_apart

SEEN, OPEN = HOME / "heads", HOME / "open"
REMEDY = "remove it, then `newsrec lake sync --verify` says what the bucket lacks"
_TOKEN = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Note:
    """A change under way: what was in the unit `before` it, and the objects to `drop` once its head is there."""

    unit: str
    token: str
    before: frozenset[str] = frozenset()
    drop: frozenset[str] = frozenset()


class Memory:
    """The files of the lake at `root`. Whoever writes them holds the lake's only place for moving versions."""

    def __init__(self, root: Path) -> None:
        self._seen, self._open = root / SEEN, root / OPEN

    def units(self) -> list[str]:
        """All units whose head was seen, sorted."""
        return sorted(path.name[: -len(".json")].replace("~", "/") for path in self._seen.glob("*.json"))

    def seen(self, unit: str) -> Head:
        """The head as it was last seen; one without files where none was."""
        path = self._path(unit)
        if not path.is_file():
            return Head(unit)
        etag, _, data = record_bytes(path, REMEDY, LARGEST_HEAD).partition(b"\n")
        return read_head(unit, data, etag.decode())

    def etag(self, unit: str) -> str:
        """That of the head as it was last seen, "" where none was."""
        path = self._path(unit)
        if not path.is_file():
            return ""
        with path.open("rb") as stream:
            return stream.readline().decode().strip()

    def see(self, head: Head) -> None:
        """Remember a head that is in the bucket."""
        self._seen.mkdir(parents=True, exist_ok=True)
        replace_whole(self._path(head.unit), head.etag.encode() + b"\n" + head.data())

    def notes(self) -> list[Note]:
        """Changes that did not come to their end."""
        return [_note(path) for path in sorted(self._open.glob("*.json"))]

    def note(self, note: Note) -> None:
        """Remember a change before it begins, or what it is about to do."""
        self._open.mkdir(parents=True, exist_ok=True)
        said = {"unit": note.unit, "token": note.token, "before": sorted(note.before), "drop": sorted(note.drop)}
        replace_whole(self._open / f"{note.token}.json", canonical(said))

    def done(self, note: Note) -> None:
        """The change has come to its end."""
        (self._open / f"{note.token}.json").unlink()

    def _path(self, unit: str) -> Path:
        return self._seen / f"{unit.replace('/', '~')}.json"


def _note(path: Path) -> Note:
    """A note as it was written. Raises DamagedLake for one that names no unit, or objects that are not the unit's: what
    it names is removed."""
    said = record_object(path, REMEDY)
    with taking_apart(path, REMEDY):
        unit, token = str(said["unit"]), str(said["token"])
        note = Note(unit, token, frozenset(map(str, said["before"])), frozenset(map(str, said["drop"])))
        if not (is_unit(unit) and token == path.stem and _TOKEN.fullmatch(token)):
            raise ValueError("it names no unit of the lake")
        if not all(key.startswith(f"{OBJECTS}{unit}/") for key in note.drop):
            raise ValueError("it names objects of another unit")
    return note
