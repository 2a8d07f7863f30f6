"""The simulator's sealed truth: the only door to a bundle's `oracle/` folder.

Belongs here: reading it, for evaluation ("share of the oracle's signal") and for checks of the simulator. Does
not belong here: anything that a feature, a sampler or a model might use.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml.errors import DataError

FOLDER = "oracle"


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets int64 [n + 1] and flat values of a list column."""
    lists = column.combine_chunks()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return np.concatenate([[0], np.cumsum(lengths)]), lists.flatten().to_numpy(zero_copy_only=False)


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of equally long lists as a matrix [n, K]."""
    offsets, values = _flat(column)
    return values.reshape(len(offsets) - 1, -1)


@dataclass(frozen=True, slots=True)
class Oracle:
    """True click probabilities of in-view lists, and what readers and articles are.

    `impression` int64 [I] sorted; the list of impression i is `article[offsets[i]:offsets[i + 1]]` (int64 article ids,
    in the order shown) with `probability` (float32, sums to 1) beside it. `user` int64 [N] sorted with `interests`
    float32 [N, K] as of the last day; `article_id` int64 [A] in order of publication with `topics` float32 [A, K].
    """

    impression: np.ndarray
    offsets: np.ndarray
    article: np.ndarray
    probability: np.ndarray
    user: np.ndarray
    interests: np.ndarray
    article_id: np.ndarray
    topics: np.ndarray

    @classmethod
    def open(cls, root: Path) -> "Oracle":
        """The oracle of the bundle at `root`. Raises DataError if the bundle has none."""
        folder = Path(root) / FOLDER
        if not folder.is_dir():
            raise DataError(f"{folder} is missing: only simulated bundles have an oracle")
        inview = pq.read_table(folder / "inview.parquet")
        readers = pq.read_table(folder / "readers.parquet")
        articles = pq.read_table(folder / "articles.parquet")
        offsets, article = _flat(inview.column("articles"))
        return cls(
            inview.column("impression_id").to_numpy(),
            offsets,
            article,
            _flat(inview.column("probability"))[1],
            readers.column("user_id").to_numpy(),
            _matrix(readers.column("interests_last_day")),
            articles.column("article_id").to_numpy(),
            _matrix(articles.column("topics")),
        )

    def inview(self, impressions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lists of `impressions` (int64 [B]): offsets int64 [B + 1] into flat article ids (int64) and true click
        probabilities (float32). Raises DataError naming an impression that the oracle does not know."""
        wanted = np.asarray(impressions, dtype=np.int64)
        at = np.searchsorted(self.impression, wanted).clip(max=max(len(self.impression) - 1, 0))
        unknown = wanted[self.impression[at] != wanted] if len(self.impression) else wanted
        if len(unknown):
            raise DataError(f"the oracle knows nothing of impression {unknown[0]}: is it of another bundle?")
        lengths = self.offsets[at + 1] - self.offsets[at]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        flat = np.repeat(self.offsets[at] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return offsets, self.article[flat], self.probability[flat]
