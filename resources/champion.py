"""Who is champion: an append-only record in the lake of every promotion, refusal and rollback.

Belongs here: the record and what follows from it. Does not belong here: the rule (`ml.promotion`) and MLflow's aliases
(`resources.registry`).

One chained ledger a dataset, model and split: `<lake>/<dataset>/.champion/<model>.<split>.jsonl`. Every line says what
was done, by whom and why; who is champion follows from all lines, nothing is ever rewritten.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal, TypeVar, get_args

from ml.errors import DamagedLake, LakeError, UsageError
from ml.strangers import FORM, one_line
from resources import ledger
from resources.lake import Lake
from resources.lineage.archive import read_partition
from resources.manifest import DIGEST
from resources.ref import Ref, is_partition
from resources.version import Version, linked

FOLDER = ".champion"
Action = Literal["promote", "refuse", "rollback"]


@dataclass(frozen=True, slots=True)
class Title:
    """A checkpoint by its lake reference and manifest digest."""

    ref: Ref
    manifest: str

    @property
    def day(self) -> date:
        """Its as-of day."""
        return date.fromisoformat(self.ref.partition.split(".")[0])

    @classmethod
    def of(cls, version: Version) -> "Title":
        """Of a version."""
        return cls(version.ref, version.manifest_digest)


@dataclass(frozen=True, slots=True)
class Act:
    """One line of the record: `subject` is the checkpoint promoted or refused, or that came back with a rollback.
    `decision` is the manifest digest of the promotion asset behind it, "" for an act by hand."""

    at: str
    action: Action
    subject: Title
    who: str
    why: str
    decision: str

    def to_json(self) -> dict[str, str]:
        """Its fields, the subject as `ref` and `manifest`."""
        named = {n: str(getattr(self, n)) for n in ("at", "action", "who", "why", "decision")}
        return named | {"ref": str(self.subject.ref), "manifest": self.subject.manifest}


_Made = TypeVar("_Made", bound=Act | None)


class Champions:
    """The record of one model under one fitting split (`rolling`, `thesis`)."""

    def __init__(self, lake: Lake, dataset: str, model: str, split: str) -> None:
        self.lake, self.dataset, self.model, self.split = lake, dataset, model, split
        self.path = lake.root / dataset / FOLDER / f"{model}.{split}.jsonl"

    def acts(self) -> list[Act]:
        """All lines, oldest first. Raises LakeError where the chain is broken."""
        broken = ledger.problems(self.path)
        if broken:
            raise LakeError(f"{broken[0]}: restore the record from a backup")
        return [_act(e.record) for e in ledger.entries(self.path)]

    def current(self) -> Title | None:
        """The champion now, None before the first promotion."""
        return _last(self.acts())

    def incumbent(self, challenger: Title) -> Title | None:
        """Whom the challenger meets: the last champion that is not newer than it, before it became champion itself."""
        acts = self.acts()
        for number, act in enumerate(acts):
            if act.action == "promote" and (act.subject == challenger or act.subject.day > challenger.day):
                acts = acts[:number]
                break
        return _last(acts)

    def kept(self) -> list[Title]:
        """Checkpoints that must not be deleted: the champion and those that rollbacks would bring back."""
        return _reign(self.acts())

    def promote(self, subject: Title, who: str, why: str) -> Act:
        """Make `subject` champion by hand. Raises UsageError where it is already, or without a reason."""

        def make(acts: Sequence[Act]) -> Act:
            if _last(acts) == subject:
                raise UsageError(f"{subject.ref} is champion already (manifest {subject.manifest[:12]})")
            return self._new("promote", subject, who, why, "")

        return self._append(make)

    def settle(self, subject: Title, met: Title | None, promote: bool, who: str, why: str, decision: str) -> Act | None:
        """Act on `decision`, in which `subject` met the champion `met`: it takes the place of that one and of no other,
        or is refused with the reason. None where nothing is left to do: acted on before, or champion already."""

        def make(acts: Sequence[Act]) -> Act | None:
            present = _last(acts)
            if any(act.decision == decision for act in acts) or (promote and present == subject):
                return None
            if promote and present != met:
                said = f"overtaken: it has not met the present champion, {present and present.ref}"
                return self._new("refuse", subject, who, said, decision)
            return self._new("promote" if promote else "refuse", subject, who, why, decision)

        return self._append(make)

    def rollback(self, who: str, why: str) -> Act:
        """The champion before the present one comes back. Raises UsageError where there is none, or without a
        reason."""

        def make(acts: Sequence[Act]) -> Act:
            reign = _reign(acts)
            if len(reign) < 2:
                raise UsageError(f"{self.dataset}: no champion of {self.model} before the present one to go back to")
            return self._new("rollback", reign[-2], who, why, "")

        return self._append(make)

    def version(self, title: Title) -> Version:
        """The checkpoint's version in the lake, also where another is current. Raises LakeError where it is gone."""
        kept = read_partition(self.lake.root, title.ref).by_digest.get(title.manifest)
        if kept is None or kept.manifest is None or linked(kept.path, kept.manifest):
            raise LakeError(
                f"{title.ref}: the champion's version (manifest {title.manifest[:12]}) is not in the lake: "
                "`newsrec rollback`, or promote another"
            )
        return Version(title.ref, kept.path, kept.manifest, title.manifest, "", "")

    def _new(self, action: Action, subject: Title, who: str, why: str, decision: str) -> Act:
        if not why.strip():
            raise UsageError(f"{action} needs a reason: say --why")
        return Act(datetime.now(UTC).isoformat(timespec="milliseconds"), action, subject, who, why.strip(), decision)

    def _append(self, make: Callable[[Sequence[Act]], _Made]) -> _Made:
        """Append what `make` says of all lines so far; nobody else writes in between."""
        lock = self.lake.lock(Ref(self.dataset, "promotion", f"record.{self.split}", self.model))
        with self.lake.changing(f"{self.dataset}/{FOLDER}"), lock:
            act = make(self.acts())
            if act is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                ledger.append(self.path, act.to_json())
        return act


def all_kept(lake: Lake) -> list[Title]:
    """Checkpoints of the whole lake that some record's champion or a rollback of it names."""
    return [title for record in _records(lake) for title in record.kept()]


def decisions(lake: Lake) -> set[str]:
    """Manifest digests of the promotion assets of the whole lake that an act rests on."""
    return {act.decision for record in _records(lake) for act in record.acts() if act.decision}


def _records(lake: Lake) -> list[Champions]:
    paths = sorted(lake.root.glob(f"*/{FOLDER}/*.jsonl"))
    return [Champions(lake, p.parts[-3], *p.name.split(".")[:2]) for p in paths]


def _reign(acts: Sequence[Act]) -> list[Title]:
    """Champions in the order in which rollbacks would undo them; the last is champion now."""
    reign: list[Title] = []
    for act in acts:
        if act.action == "promote":
            reign.append(act.subject)
        elif act.action == "rollback" and reign:
            reign.pop()
    return reign


def _last(acts: Sequence[Act]) -> Title | None:
    reign = _reign(acts)
    return reign[-1] if reign else None


def _act(record: dict[str, Any]) -> Act:
    try:
        told = {n: str(record[n]) for n in ("at", "who", "why", "decision", "ref", "manifest")}
        subject = Title(Ref.parse(told.pop("ref")), told.pop("manifest"))
        known = record["action"] in get_args(Action) and is_partition(subject.ref.partition)
        if not known or not DIGEST.fullmatch(subject.manifest):
            raise ValueError("no action, day or digest")
        return Act(subject=subject, action=record["action"], **told)
    except (*FORM, UsageError) as error:
        said = one_line(json.dumps(record), 80)
        raise DamagedLake(
            f"the record of champions holds a line that says nothing: {said}: {ledger.RESTORE}"
        ) from error
