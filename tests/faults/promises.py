"""What must hold after a fault, as lists of breaches in words.

Belongs here: looking at a home from outside, as a reader, an auditor and the tracking store see it. Does not belong
here: causing faults.
"""

import sqlite3
from collections.abc import Collection
from contextlib import closing

from ml.errors import LakeError
from resources import ledger
from resources.lake import Ref, Version
from resources.version import read_manifest, verify
from tests.faults.world import SALT, Home


def salt_of(version: Version | None) -> str:
    """The salt that a version was published with; empty where there is none."""
    path = version.path / SALT if version is not None else None
    return path.read_text() if path is not None and path.is_file() else ""


def mixed(home: Home, ref: Ref, allowed: Collection[str]) -> list[str]:
    """How what a reader finds is neither old nor new, or not whole."""
    try:
        current = home.lake.current(ref)
    except LakeError as error:
        return [f"{ref}: readers are refused: {error}"]
    if current is None:
        return [] if "" in allowed else [f"{ref}: nothing is current"]
    found = home.lake.verify(current)
    salt = salt_of(current)
    return found if salt in allowed else [*found, f"{ref}: readers see {salt!r}, neither old nor new"]


class Reader:
    """A reader that looks again and again while a writer works: each time it must find one version whole."""

    def __init__(self, home: Home, ref: Ref, allowed: Collection[str]) -> None:
        self.home, self.ref, self.allowed = home, ref, allowed
        self.looked = 0
        self.breaches: list[str] = []

    def look(self) -> None:
        """Read the current version, and every byte of it."""
        self.looked += 1
        if len(self.breaches) < 3:
            self.breaches += mixed(self.home, self.ref, self.allowed)


def published(home: Home, ref: Ref) -> list[ledger.Entry]:
    """What has been published so far."""
    return home.lake.history(ref)


def lost(home: Home, ref: Ref, before: list[ledger.Entry]) -> list[str]:
    """What of `before` is gone or changed: its ledger lines and its versions' bytes."""
    found = ledger.problems(home.lake.folder(ref) / ledger.LEDGER)
    now = home.lake.history(ref)
    if [e.digest for e in now[: len(before)]] != [e.digest for e in before]:
        found.append(f"{ref}: ledger lines were lost")
    for name in dict.fromkeys(e.record["publication"]["version"] for e in before):
        path = home.lake.folder(ref) / name
        try:
            manifest, digest = read_manifest(path)
            found += verify(Version(ref, path, manifest, digest, "", ""))
        except LakeError as error:
            found.append(f"{ref}: a published version is lost: {error}")
    return found


def not_repaired(home: Home, ref: Ref, salt: str, code: int) -> list[str]:
    """How the next run has not made everything good."""
    found = [] if code == 0 else [f"{ref}: the next run ended with {code}: {last_line(home)}"]
    found += mixed(home, ref, {salt})
    for folder in (".staging", ".tracking"):
        left = [p.name for p in (home.lake.root / folder).glob("*") if p.name != "sweep"]
        found += [f"{ref}: {folder} still holds {', '.join(left)}"] if left else []
    unfinished = home.lake.root / ".cache" / "unfinished"
    left = [p.name for p in unfinished.glob("*")] if unfinished.is_dir() else []
    return found + ([f"{ref}: {len(left)} unfinished computations are left"] if left else [])


def open_runs(home: Home, ref: Ref) -> list[str]:
    """MLflow runs that stay RUNNING, and a current version that no FINISHED run names."""
    with closing(sqlite3.connect(f"file:{home.path / 'mlflow.db'}?mode=ro", uri=True)) as store:
        running = store.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'").fetchone()[0]
        head = home.lake.require(ref).ledger_head
        told = store.execute(
            "SELECT count(*) FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid "
            "WHERE runs.status = 'FINISHED' AND tags.key = 'newsrec.ledger_head' AND tags.value = ?",
            (head,),
        ).fetchone()[0]
    found = [f"{running} MLflow runs stay RUNNING"] if running else []
    return found + ([] if told else [f"{ref}: no FINISHED MLflow run names the current publication"])


def last_line(home: Home) -> str:
    """The last line that a child wrote."""
    lines = home.log.read_text(errors="replace").strip().splitlines() if home.log.is_file() else []
    return lines[-1][:300] if lines else "nothing said"


def named(home: Home, code: int) -> list[str]:
    """How a run that could not work failed to say so in one line that is meant for a user."""
    text = home.log.read_text(errors="replace") if home.log.is_file() else ""
    if code == 0:
        return ["it claims to have worked"]
    line = last_line(home)
    remedies = ("run again", "the next run", "later run", "see to the disk", "run: newsrec", "anew", "remove")
    remedies += ("restore the ledger from a backup",)
    plain = line.startswith("newsrec: ") and line.isprintable() and any(r in line for r in remedies)
    return [] if plain else [f"not said in one line with a remedy: {text[-600:]}"]
