"""The append-only record of publications: one line each, every line naming the digest of the line before.

Belongs here: appending, reading and checking the chain. Does not belong here: what a record says
(`resources.record`) and what was published (`resources.manifest`).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.errors import DamagedLake
from ml.strangers import FORM, MIB, one_line, printable
from resources.manifest import DIGEST, canonical, digest
from resources.untrusted import record_bytes

LEDGER = "ledger.jsonl"
GENESIS = "0" * 64
LEDGER_BYTES = 32 * MIB
"""Largest ledger that is read: a publication takes some 5 kB, of a partition."""

RESTORE = "restore the ledger from a backup"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: the digest over (`prev`, `record`), the digest of the line before it, and the record."""

    digest: str
    prev: str
    record: dict[str, Any]


def append(path: Path, record: Mapping[str, Any]) -> str:
    """Append `record` to the chain and flush it to disk; returns the new head. The caller holds the partition's lock.

    A last line without its end (the process died while writing; nobody was told of it) is cut off first.
    """
    path.touch()
    complete = _complete(path)
    with path.open("r+b") as stream:
        size = sum(len(line) + 1 for line in complete)
        stream.truncate(size)
        stream.seek(size)
        prev = _parse(path, complete[-1]).digest if complete else GENESIS
        body = {"prev": prev, "record": dict(record)}
        head = digest(body)
        stream.write(canonical({"digest": head, **body}) + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    return head


def entries(path: Path) -> list[Entry]:
    """All complete lines, oldest first; [] where there is no ledger."""
    if not path.exists():
        return []
    return [_parse(path, line) for line in _complete(path)]


def problems(path: Path) -> list[str]:
    """What is wrong with the chain, one line each; [] when every line's bytes, digest and predecessor hold."""
    found, prev = [], GENESIS
    for number, line in enumerate(_complete(path) if path.exists() else [], start=1):
        entry = _parse(path, line)
        body = {"prev": entry.prev, "record": entry.record}
        if entry.prev != prev:
            found.append(f"{path}: line {number} does not follow line {number - 1}: a line was removed or changed")
        if entry.digest != digest(body) or line != canonical({"digest": entry.digest, **body}):
            found.append(f"{path}: line {number} was changed after it was written")
        prev = entry.digest
    return found


def _complete(path: Path) -> list[bytes]:
    """The complete lines, without their ends."""
    data = record_bytes(path, RESTORE, LEDGER_BYTES)
    return data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]


def _parse(path: Path, line: bytes) -> Entry:
    try:
        value = json.loads(line)
        entry = Entry(value["digest"], value["prev"], value["record"])
        if not (DIGEST.fullmatch(entry.digest) and DIGEST.fullmatch(entry.prev) and isinstance(entry.record, dict)):
            raise ValueError("digest, prev and record have another form")
        return entry
    except FORM as error:
        raise DamagedLake(f"{printable(path)}: a line is damaged ({one_line(error)}): {RESTORE}") from error
