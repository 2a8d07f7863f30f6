"""Names of things in the lake: dataset, stage, model and partition, and the folder that they stand for.

Belongs here: the name and its validation. Does not belong here: what lies under it (`resources.lake`).
"""

import re
from dataclasses import dataclass
from datetime import date, timedelta

from ml.errors import UsageError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_PARTITION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}(\.[A-Za-z0-9_-]{1,63}){0,3}")

_SHORT = re.compile(r"[0-9a-f]{12}")

_BY_COMMAND = {"promotion": "challenge", "decay": "decay", "drift": "drift"}
"""Stages that a command of their own materialises."""


@dataclass(frozen=True, slots=True)
class Ref:
    """One partition of one stage's output. Raises UsageError for a name that could leave its folder.

    >>> str(Ref("simulated", "checkpoint", "2023-05-18.rolling", "snert"))
    'simulated/checkpoint/snert/2023-05-18.rolling'
    >>> Ref.parse("simulated/clicks/2023-05-18").model is None
    True
    """

    dataset: str
    stage: str
    partition: str
    model: str | None = None

    def __post_init__(self) -> None:
        for field, value in (("dataset", self.dataset), ("stage", self.stage), ("model", self.model)):
            if value is not None and not _NAME.fullmatch(value):
                raise UsageError(f"{field} name {value!r}: use lower-case letters, digits and _, a letter first")
        if not _PARTITION.fullmatch(self.partition):
            raise UsageError(f"partition name {self.partition!r}: use a day such as 2023-05-18 or 2023-05-18.rolling")

    def __str__(self) -> str:
        return "/".join(part for part in (self.dataset, self.stage, self.model, self.partition) if part is not None)

    @classmethod
    def parse(cls, text: str) -> "Ref":
        """The reverse of `str(ref)`. Raises UsageError for anything else."""
        parts = text.split("/")
        if len(parts) not in (3, 4):
            raise UsageError(f"{text[:200]!r} names nothing in the lake: write dataset/stage/[model/]partition")
        return cls(parts[0], parts[1], parts[-1], parts[2] if len(parts) == 4 else None)

    @classmethod
    def of_input(cls, name: str) -> "Ref":
        """The partition that a manifest's input names: `str(ref)`, or `str(ref)@digest` for a second version of it."""
        text, mark, short = name.partition("@")
        if mark and not _SHORT.fullmatch(short):
            raise UsageError(f"{name!r} names no input: write dataset/stage/[model/]partition")
        return cls.parse(text)

    @property
    def command(self) -> str:
        """The command that materialises this partition, with what it needs."""
        if self.stage == "dataset_analysis":
            return _analysis_command(self.dataset, self.partition)
        if self.stage in _BY_COMMAND:
            model = f" --model {self.model}" if self.model else ""
            as_of, _, split = self.partition.partition(".")
            named = f" --split {split}" if split else ""
            return f"newsrec {_BY_COMMAND[self.stage]} --dataset {self.dataset} --as-of {as_of}{named}{model}"
        if self.model is None and "." not in self.partition:
            return f"newsrec run --dataset {self.dataset}"
        day, _, split = self.partition.partition(".")
        models = f" --models {self.model}" if self.model else ""
        return f"newsrec run --dataset {self.dataset} --as-of {day}{f' --split {split}' if split else ''}{models}"


def is_partition(name: str) -> bool:
    """Whether a partition is called so: by a day, and what it was split or spanned by."""
    try:
        date.fromisoformat(name.split(".")[0])
    except ValueError:
        return False
    return bool(_PARTITION.fullmatch(name))


def _analysis_command(dataset: str, partition: str) -> str:
    """The partition `D.7d` covers the seven days before D, `D.all` all of them."""
    day, _, span = partition.partition(".")
    try:
        last = date.fromisoformat(day) - timedelta(days=1)
        first = last - timedelta(days=int(span[:-1]) - 1) if span != "all" else None
    except (ValueError, OverflowError):
        return f"newsrec analyse --dataset {dataset}"
    return f"newsrec analyse --dataset {dataset}{f' --from {first}' if first else ''} --to {last}"
