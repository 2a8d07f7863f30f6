"""Random: a score drawn from (seed, reader, article, minute), the floor that every metric is read against.

Belongs here: chance. Does not belong here: sampling of negatives (`ml.sampling`).
"""

import numba as nb
import numpy as np

from ml.asof import AsOf
from ml.clock import minute_of
from ml.hashing import mix
from ml.log import Cases
from ml.models.base import Model, case_of


class Random(Model):
    """Uniform scores in [0, 1) from a counter-based hash: no state, so batches and replays agree."""

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def catalogue_scores(self, asof: AsOf, time_ms: int, cases: Cases) -> np.ndarray:
        """An independent draw for every case and article."""
        n_rows = int(asof.available(np.array([time_ms]))[0])
        offsets = np.arange(len(cases) + 1, dtype=np.int64) * n_rows
        rows = np.tile(np.arange(n_rows, dtype=np.int32), len(cases))
        return self.candidate_scores(asof, cases, offsets, rows).reshape(len(cases), n_rows)

    def candidate_scores(self, asof: AsOf, cases: Cases, offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The same draw as in the catalogue."""
        owner = case_of(offsets)
        article = asof.catalogue.article_id[rows]
        return hash_uniform(self.seed, cases.user[owner], article, minute_of(cases.time)[owner])


@nb.njit(cache=True)
def hash_uniform(seed: int, user: np.ndarray, article: np.ndarray, minute: np.ndarray) -> np.ndarray:
    """float32 [V] in [0, 1), a function of its four arguments alone (int64 [V] each but the seed)."""
    out = np.empty(len(user), np.float32)
    for v in range(len(user)):
        x = mix(np.uint64(seed))
        x = mix(x ^ np.uint64(user[v]))
        x = mix(x ^ np.uint64(article[v]))
        x = mix(x ^ np.uint64(minute[v]))
        out[v] = np.float32(x >> np.uint64(40)) * np.float32(2.0**-24)
    return out
