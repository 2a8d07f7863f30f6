"""One lake and its bucket: taking what other machines have published, giving what changes here.

Belongs here: the order in which things are taken and given, and going on after a kill. Does not belong here: requests
(`resources.bucket.store`), the form of heads (`resources.bucket.head`), repairs (`resources.bucket.care`).

All of it happens while the lake's only place for moving versions is held (`Lake.publishing`), so a note that is found
(`resources.bucket.memory`) was left by a killed process or a change that failed. What it uploaded in vain is removed;
what it had changed in the folder is given now, unless another machine has changed the unit meanwhile: then that one's
change counts, and the one made here is undone, to be made again on top of it.
"""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from ml.durable import replace_whole
from ml.errors import LakeError, UsageError
from resources.bucket import folder
from resources.bucket.address import HOME, NOTE, bucket_of
from resources.bucket.head import HEADS, OBJECTS, Entry, Head, belongs, contents, is_book, names, read_head, units
from resources.bucket.memory import Memory, Note
from resources.bucket.store import BucketError, Store
from resources.manifest import file_digest
from resources.staging import temporary_folder
from resources.version import digest_once

AT_ONCE = 8
"""Objects that are moved at the same time."""


def mirror_of(lake: Path) -> "Mirror | None":
    """The mirror of a lake that has a bucket, else None."""
    address = bucket_of(lake)
    return _mirror(lake, address) if address is not None else None


@cache
def _mirror(lake: Path, address: str) -> "Mirror":
    return Mirror(lake, Store(address))


class Mirror:
    """The lake at `root` and its bucket."""

    def __init__(self, root: Path, store: Store) -> None:
        self.root = root
        self.store = store
        self.memory = Memory(root)

    def catch_up(self) -> None:
        """Finish what was left, then take every unit that another machine has changed. Costs one request a thousand
        units where there is none. Raises BucketAway, BucketError, or UsageError for a bucket of another lake."""
        if not (self.root / NOTE).is_file():
            self._attach()
        for note in self.memory.notes():
            self._settle(note)
        there = {key[len(HEADS) : -len(".json")]: etag for key, etag in self.store.list(HEADS).items()}
        lost = [unit for unit in self.memory.units() if unit not in there]
        if lost:
            raise BucketError(
                f"{self.store.address} holds nothing of {lost[0]} any more, which was published there: restore the "
                f"bucket, or remove {self.root / HOME} and publish all into an empty one"
            )
        for unit, etag in sorted(there.items()):
            if self.memory.etag(unit) != etag:
                self.take(unit)

    @contextmanager
    def changing(self, unit: str, again: Iterable[str] = ()) -> Iterator[None]:
        """Around a change of a unit's folder: what differs afterwards is given to the bucket, and the files `again`
        are given in any case. Raises Overtaken where another machine was faster; the next `catch_up` then takes what it
        published."""
        note = self._begin(unit, names(self.root, unit))
        yield
        self._give(note, again)
        self.memory.done(note)

    def take(self, unit: str, missing: Callable[[str, Entry], bool] | None = None) -> Head:
        """Bring the unit's folder to what the bucket's head says: objects are checked against their sha256, whole
        versions come first, then ledger, then pointer; what the bucket has removed goes last. `missing` tells by path
        which files to fetch; default: those that differ here."""
        while True:
            head = self._head(unit)
            try:
                self._take(head, missing or self._differs(unit))
                return head
            except BucketError:
                if self._head(unit).etag == head.etag:
                    raise  # else another machine has put a new head meanwhile and removed objects of this one

    def fetch(self, entry: Entry, path: Path) -> None:
        """Copy an object to a file, flushed. Raises BucketError where its bytes are not those that were published."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.store.download(entry.key, path)
        if path.stat().st_size != entry.bytes or file_digest(path) != entry.sha256:
            raise BucketError(
                f"{self.store.address}/{entry.key}: its bytes differ from what was published: `newsrec lake sync "
                "--verify` on the machine that published it repairs the bucket"
            )
        with path.open("rb") as stream:
            os.fsync(stream.fileno())

    def _take(self, head: Head, missing: Callable[[str, Entry], bool]) -> None:
        place, gone = self.root / head.unit, self.memory.seen(head.unit).files.keys() - head.files.keys()
        wanted = {path: entry for path, entry in head.files.items() if missing(path, entry)}
        with temporary_folder(self.root / ".staging") as staged:
            _at_once(lambda item: self.fetch(item[1], staged / "fetched" / item[0]), wanted.items())
            folder.place(staged / "fetched", place, wanted, sealed=not is_book(head.unit))
            folder.drop(place, gone, head.files, staged)
        self.memory.see(head)

    def _differs(self, unit: str) -> Callable[[str, Entry], bool]:
        """Whether a file is not here as its entry says. Files of versions that were seen before are not read again."""
        known = {p: e.sha256 for p, e in self.memory.seen(unit).files.items() if "/" in p and not is_book(unit)}

        def differs(path: str, entry: Entry) -> bool:
            here = self.root / unit / path
            return not here.is_file() or (known.get(path) or digest_once(here)) != entry.sha256

        return differs

    def _head(self, unit: str) -> Head:
        """The head as the bucket has it; one without files where it has none."""
        found = self.store.get(Head(unit).key)
        return read_head(unit, *found) if found else Head(unit)

    def _begin(self, unit: str, before: Iterable[str] = ()) -> Note:
        note = Note(unit, secrets.token_hex(8), frozenset(before))
        self.memory.note(note)
        return note

    def _give(self, note: Note, again: Iterable[str] = ()) -> None:
        """Upload what the bucket lacks of the unit, then put its head. What was there before the change and is not any
        more is removed from the bucket; what was damaged or missing already stays there."""
        known, now = self.memory.seen(note.unit), contents(self.root, note.unit)
        gone = note.before - names(self.root, note.unit)
        kept = {
            path: entry
            for path, entry in known.files.items()
            if now.get(path, (entry.sha256, entry.bytes)) == (entry.sha256, entry.bytes)
            and path not in again
            and not any(belongs(path, name) for name in gone)
        }
        fresh = {p: Entry(f"{OBJECTS}{note.unit}/{note.token}/{p}", *now[p]) for p in now.keys() - kept.keys()}
        if not fresh and len(kept) == len(known.files):
            return
        _at_once(lambda item: self._upload(self.root / note.unit / item[0], item[1]), fresh.items())
        head = Head(note.unit, note.token, {**kept, **fresh})
        vain = known.keys - head.keys
        self.memory.note(replace(note, drop=frozenset(vain)))
        self.memory.see(replace(head, etag=self.store.put_whole(head.key, head.data(), known.etag)))
        self.store.delete(vain)

    def _upload(self, path: Path, entry: Entry) -> None:
        if not path.is_file() or file_digest(path) != entry.sha256:
            raise LakeError(f"{path} differs from its manifest and was not given to the bucket: make it anew")
        self.store.upload(path, entry.key)

    def _settle(self, note: Note) -> None:
        """Finish a change that did not come to its end."""
        there, mine = self._head(note.unit), f"{OBJECTS}{note.unit}/{note.token}/"
        self.store.abort_uploads(mine)
        self.store.delete({*note.drop, *self.store.list(mine)} - there.keys)
        if there.token == note.token:
            self.memory.see(there)
        elif there.etag == self.memory.etag(note.unit):
            again = self._begin(note.unit, note.before)
            self._give(again)
            self.memory.done(again)
        else:
            self._undo(note.unit)
        self.memory.done(note)

    def _undo(self, unit: str) -> None:
        """Take what another machine has put in the place of a change made here, which counts no more: lines and marks
        that the bucket does not have go; whole versions stay, for the publication that is made again."""
        head = self.take(unit)
        for name in names(self.root, unit) - head.files.keys():
            if (self.root / unit / name).is_file():
                (self.root / unit / name).unlink()

    def _attach(self) -> None:
        """Make lake and bucket one: an empty lake takes what the bucket holds, an empty bucket gets the lake."""
        self.store.require_fit()
        here = list(units(self.root))
        if here and self.store.list(HEADS):
            raise UsageError(
                f"{self.root} and {self.store.address} both hold a lake and were never one: start with an empty folder "
                "(NEWSREC_LAKE) or another prefix (NEWSREC_BUCKET)"
            )
        for unit in here:
            self._begin(unit)
        (self.root / HOME).mkdir(parents=True, exist_ok=True)
        replace_whole(self.root / NOTE, f"{self.store.address}\n".encode())


def _at_once(act: Callable[[tuple[str, Entry]], None], items: Iterable[tuple[str, Entry]]) -> None:
    """Act on all items, some at the same time; the first error is raised when those under way have ended."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(act, item) for item in items]:
            done.result()
