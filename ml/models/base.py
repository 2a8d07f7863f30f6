"""What a model is: it scores the catalogue, or chosen candidates, for cases at a time.

Belongs here: the interface that every model follows and its line in the registry. Does not belong here: any model
(one file each) and top lists, exclusions and protocols (`ml.predict`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from ml.asof import AsOf
    from ml.log import Cases


class Model(ABC):
    """Scores articles; higher is better. Everything it knows about a case it asks of the as-of door."""

    name: str
    trains: bool = False
    embeds: bool = False

    @abstractmethod
    def catalogue_scores(self, asof: "AsOf", time_ms: int, cases: "Cases") -> np.ndarray:
        """float32 [B, available(time_ms)]: the score of every available article (catalogue row) for every case.

        All `cases` lie in the minute of `time_ms`. Scores are finite and depend on neither the batch nor its order.
        """

    @abstractmethod
    def candidate_scores(self, asof: "AsOf", cases: "Cases", offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """float32 [V]: scores of chosen articles; those of case b are catalogue rows `rows[offsets[b]:offsets[b + 1]]`
        (int32, all known). Cases may lie in different minutes, and articles may be newer than their case.

        Where an article is available the score ranks it as `catalogue_scores` does.
        """


@runtime_checkable
class Embeds(Protocol):
    """What a model with `embeds` has besides: its score is the inner product of two L2-normalised vectors."""

    def article_vectors(self, asof: "AsOf", time_ms: int, rows: np.ndarray) -> np.ndarray:
        """float32 [n, d]: vectors of the articles at catalogue `rows` (int [n], all >= 0) as of `time_ms`."""

    def user_vectors(self, asof: "AsOf", cases: "Cases") -> np.ndarray:
        """float32 [B, d]: vectors of the readers of `cases`, each as of its own time."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model's line in the registry.

    `train(spec, progress)` fits a model that trains to a `ml.train.TrainSpec` and writes its checkpoint to `spec.out`,
    with `curves.json` and `metrics.json`; `recipe` names its default recipe, `modules` are those whose source decides
    what comes out. `embeds`: it has the vectors of `Embeds`. `strict`: False for the paper's variant that looks at
    the current minute, the only kind that may fail the leak test. `load(checkpoint, device="cpu")` makes the model
    from its checkpoint folder (None for models that do not train) and imports what it needs only then.
    """

    name: str
    load: Callable[..., Model]
    train: Callable[..., object] | None = None
    recipe: str | None = None
    modules: tuple[str, ...] = ()
    embeds: bool = False
    strict: bool = True

    @property
    def trains(self) -> bool:
        """Whether it has a checkpoint."""
        return self.train is not None


def case_of(offsets: np.ndarray) -> np.ndarray:
    """The case b that each candidate belongs to, int64 [V], from offsets int64 [B + 1]."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
