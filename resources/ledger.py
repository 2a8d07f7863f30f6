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

from ml.errors import LakeError
from resources.manifest import canonical, digest

LEDGER = "ledger.jsonl"
GENESIS = "0" * 64


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
    with path.open("r+b") as stream:
        complete = _complete(stream.read())
        stream.truncate(len(complete))
        stream.seek(len(complete))
        prev = _parse(path, complete.splitlines()[-1]).digest if complete else GENESIS
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
    return [_parse(path, line) for line in _complete(path.read_bytes()).splitlines()]


def problems(path: Path) -> list[str]:
    """What is wrong with the chain, one line each; [] when every line's bytes, digest and predecessor hold."""
    found, prev = [], GENESIS
    lines = _complete(path.read_bytes()).splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        entry = _parse(path, line)
        body = {"prev": entry.prev, "record": entry.record}
        if entry.prev != prev:
            found.append(f"{path}: line {number} does not follow line {number - 1}: a line was removed or changed")
        if entry.digest != digest(body) or line != canonical({"digest": entry.digest, **body}):
            found.append(f"{path}: line {number} was changed after it was written")
        prev = entry.digest
    return found


def _complete(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def _parse(path: Path, line: bytes) -> Entry:
    try:
        value = json.loads(line)
        return Entry(value["digest"], value["prev"], value["record"])
    except (ValueError, KeyError, TypeError) as error:
        raise LakeError(f"{path}: a line is damaged ({error}); restore the ledger from a backup") from error
