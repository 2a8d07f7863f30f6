"""Training states on disk: what a killed training goes on from.

Belongs here: writing a state all or nothing, keeping the last two, finding the newest that is whole and of the same
training. Does not belong here: what a state holds (`ml.train`) and where its folder lies (`assets.checkpoint`).

A state is two files: `STEP.safetensors`, then `STEP.json` with the sha256 of the tensors, what the training is
(`identity`), further facts, and the sha256 of all that. A state without its second file does not exist.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ml.durable import replace_whole
from ml.errors import DataError
from ml.strangers import FORM, one_line, read_bytes, read_object
from ml.tensors import layouts

KEPT = 2
_LARGEST_FACTS = 16 << 20
_LARGEST_STATE = 16 << 30


@dataclass(frozen=True, slots=True)
class State:
    """`tensors` by name, on the CPU; `facts` are JSON values, equal to those that were saved."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class States:
    """The states of one training in `folder`. `identity` says which training: another one's states are never used."""

    folder: Path
    identity: Mapping[str, Any]

    def save(self, state: State) -> None:
        """Write a state and remove all but the last two. A crash at any point leaves those before it whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()})
        facts = {
            "identity": dict(self.identity),
            "step": state.step,
            "sha256": hashlib.sha256(data).hexdigest(),
            "facts": state.facts,
        }
        name = f"{state.step:09d}"
        for step in self._steps():
            if step > name:  # of another training, or damaged: this one would have gone on from it
                (self.folder / f"{step}.json").unlink()
        replace_whole(self.folder / f"{name}.safetensors", data)
        replace_whole(self.folder / f"{name}.json", _encoded({**facts, "self": _digest(facts)}))
        for step in self._steps()[:-KEPT]:
            (self.folder / f"{step}.json").unlink()
        kept = set(self._steps())
        for path in self.folder.glob("*.safetensors"):
            if path.stem not in kept:
                path.unlink()

    def newest(self) -> tuple[State | None, list[str]]:
        """The newest whole state of this training, and one line for each newer one that cannot be used."""
        said: list[str] = []
        for step in reversed(self._steps()):
            try:
                return self._read(step), said
            except DataError as error:
                said.append(str(error))
        return None, said

    def _steps(self) -> list[str]:
        return sorted(p.stem for p in self.folder.glob("*.json") if p.stem.isdigit())

    def _read(self, step: str) -> State:
        path, tensors = self.folder / f"{step}.json", self.folder / f"{step}.safetensors"
        try:
            facts = read_object(path, "it is not used", _LARGEST_FACTS)
            own = facts.pop("self")
            if own != _digest(facts) or facts["step"] != int(step):
                raise ValueError("its bytes changed")
            layouts(tensors, "it is not used")
            data = read_bytes(tensors, "it is not used", _LARGEST_STATE)
            if hashlib.sha256(data).hexdigest() != facts["sha256"]:
                raise ValueError(f"the bytes of {tensors.name} changed")
            found = load(data)
            if not isinstance(facts["facts"], dict) or not isinstance(facts["identity"], dict):
                raise ValueError("its facts have another form")
        except (OSError, *FORM, SafetensorError, DataError) as error:
            why = one_line(error)
            raise DataError(f"{path}: training state is damaged ({why}): an earlier one is used, or none") from error
        moved = sorted(k for k, v in self.identity.items() if facts["identity"].get(k) != v)
        if moved:
            raise DataError(f"{path}: training state of another training ({', '.join(moved)} differ): not used")
        return State(facts["step"], found, facts["facts"])


def _encoded(value: Any) -> bytes:
    """JSON in the order of the mapping, which is part of what comes back."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _digest(value: Any) -> str:
    return hashlib.sha256(_encoded(value)).hexdigest()
