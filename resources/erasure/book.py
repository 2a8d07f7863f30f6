"""The list of erased readers of a dataset: an append-only ledger of keyed digests, without any id.

Belongs here: requests, the key, and recognising a reader's id by them. Does not belong here: files (`resources.erasure.
rows`).

`<lake>/.erasures/<dataset>.jsonl` is a chain of lines: *asked* (request, digest of the reader, when, who, why) and
*done*. A reader's digest is HMAC-SHA256 over dataset and id under the key in `<lake>/.erasures/key`, which only its
owner may read. Ids are small numbers: who has list and key can try them all; who has the list alone cannot. The list
must recognise a reader who comes back from the data root, so it cannot do with less. Without the key the list is worth
nothing to anybody, and erased readers would come back. A lake's bucket gets the list, never the key.
"""

import hashlib
import hmac
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from filelock import FileLock

from ml.durable import sync_folder
from ml.errors import LakeError, UsageError
from resources import ledger
from resources.lake import Lake
from resources.manifest import digest
from resources.untrusted import record_bytes, taking_apart

HOME = ".erasures"
KEY = "key"
_KEY_BYTES = 4096
_ID = re.compile(r"\s*\"?U?0*([0-9]+)\"?\s*")
_REQUEST = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its name, the reader's keyed digest, when (ISO), and whether it was carried out."""

    name: str
    reader: str
    at: str
    done: bool


@dataclass(frozen=True, slots=True)
class Readers:
    """Readers by keyed digest, each with the request that erased them. Falsy when there is none."""

    dataset: str
    key: bytes = field(repr=False)
    requests: Mapping[str, str]

    def __bool__(self) -> bool:
        return bool(self.requests)

    @property
    def digest(self) -> str:
        """What changes when a reader is added."""
        return digest(sorted(self.requests))

    def among(self, ids: Iterable[object]) -> dict[object, str]:
        """Which of the ids (numbers, or text as in sources: 17, "17", U17) are these readers': id to request."""
        found = {}
        for given in ids:
            whole = _ID.fullmatch(str(given))
            request = self.requests.get(reader_digest(self.key, self.dataset, int(whole[1]))) if whole else None
            if request is not None:
                found[given] = request
        return found


def reader_digest(key: bytes, dataset: str, user: int) -> str:
    """HMAC-SHA256 hex of a reader's id."""
    return hmac.new(key, f"{dataset}/{user}".encode(), hashlib.sha256).hexdigest()


class Book:
    """The list of one dataset in the lake at `root`."""

    def __init__(self, root: Path, dataset: str) -> None:
        self._lake = Lake(root)
        self._home = self._lake.root / HOME
        self._dataset = dataset
        self.path = self._home / f"{dataset}.jsonl"

    def requests(self) -> list[Request]:
        """All requests, oldest first. Raises LakeError when the list was changed."""
        wrong = ledger.problems(self.path)
        if wrong:
            raise LakeError(f"{wrong[0]}: restore it from a backup; without it erased readers come back")
        lines = [entry.record for entry in ledger.entries(self.path)]
        with taking_apart(self.path, ledger.RESTORE):
            done = {line["request"] for line in lines if line["kind"] == "done"}
            asked = [line for line in lines if line["kind"] == "asked"]
            return [Request(r["request"], str(r["reader"]), str(r["at"]), r["request"] in done) for r in asked]

    def readers(self, only: str = "") -> Readers:
        """All erased readers, or the one of request `only`. Raises LakeError where there are some but no key."""
        chosen = {r.reader: r.name for r in self.requests() if only in ("", r.name)}
        return Readers(self._dataset, self._key(make=False) if chosen else b"", chosen)

    def unrecorded(self, user: int) -> Readers:
        """One reader, without a line in the list: for a look that changes nothing."""
        key = self._key(make=False) if (self._home / KEY).is_file() else secrets.token_bytes(32)
        return Readers(self._dataset, key, {reader_digest(key, self._dataset, user): "dry run"})

    def ask(self, user: int, why: str, who: str, now: datetime, name: str = "") -> Request:
        """Record a request, before anything is changed; the one that is there already for the same reader. Raises
        UsageError for a reason or a name that holds the reader's id."""
        if re.search(rf"(?<![0-9])0*{user}(?![0-9])", f"{why} {name}"):
            raise UsageError("the reason or the request's name holds the reader's id, which must not be kept: rephrase")
        if name and not _REQUEST.fullmatch(name):
            raise UsageError(f"request {name!r}: use up to 64 letters, digits and _.-")
        self._home.mkdir(parents=True, exist_ok=True)
        with self._changing():
            reader = reader_digest(self._key(make=True), self._dataset, user)
            known = self.requests()
            for request in known:
                if request.reader == reader:
                    return request
            name = name or f"{now.date()}-{secrets.token_hex(3)}"
            if any(request.name == name for request in known):
                raise UsageError(f"request {name!r} is that of another reader: choose another name")
            at = now.isoformat(timespec="seconds")
            line = {"kind": "asked", "request": name, "reader": reader, "at": at, "who": who, "why": why}
            ledger.append(self.path, line)
            sync_folder(self._home)
            return Request(name, reader, at, False)

    def done(self, request: Request, now: datetime) -> None:
        """Record that a request was carried out; once."""
        with self._changing():
            if not any(r.name == request.name and r.done for r in self.requests()):
                at = now.isoformat(timespec="seconds")
                ledger.append(self.path, {"kind": "done", "request": request.name, "at": at})

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lake.changing(HOME), FileLock(self._home / "lock"):
            yield

    def _key(self, make: bool) -> bytes:
        path = self._home / KEY
        if not path.is_file():
            if not make or any(self._home.glob("*.jsonl")):
                raise LakeError(f"{path} is missing: restore it from a backup; without it erased readers come back")
            fresh = path.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
                stream.write(secrets.token_hex(32))
                stream.flush()
                os.fsync(stream.fileno())
            fresh.replace(path)
            sync_folder(self._home)
        remedy = "restore it from a backup; without it erased readers come back"
        text = record_bytes(path, remedy, _KEY_BYTES)
        with taking_apart(path, remedy):
            return bytes.fromhex(text.decode())


def carry_list(lake: Path, scratch: Path) -> None:
    """Make a scratch lake leave out whom `lake` leaves out."""
    if (lake / HOME).is_dir():
        shutil.copytree(lake / HOME, scratch / HOME, dirs_exist_ok=True)
