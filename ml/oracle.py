"""The simulator's sealed truth: the only door to a bundle's `oracle/` folder.

Belongs here: reading it, for evaluation ("share of the oracle's signal") and for checks of the simulator. Does
not belong here: anything that a feature, a sampler or a model might use.

The oracle tells of the bundle that it came with. Days that landed later, and lists that a correction changed, it does
not know: `holds` says which.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml.errors import DataError
from ml.parquet import check, read_table

FOLDER = "oracle"
_ANEW = "write the bundle anew with `newsrec simulate --replace`, or move oracle/ away to evaluate without it"


def folder_of(root: Path) -> Path | None:
    """The `oracle/` folder of the bundle at `root`, None where it has none. Nothing in it is opened."""
    folder = Path(root) / FOLDER
    return folder if folder.is_dir() else None


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

    `impression` int64 [I] sorted, all that the oracle knows; their lists stay in the file until they are asked for.
    `user` int64 [N] sorted with `interests` float32 [N, K] as of the last day; `article_id` int64 [A] in order of
    publication with `topics` float32 [A, K].
    """

    folder: Path
    impression: np.ndarray
    user: np.ndarray
    interests: np.ndarray
    article_id: np.ndarray
    topics: np.ndarray

    @classmethod
    def open(cls, root: Path) -> "Oracle":
        """The oracle of the bundle at `root`. Raises DataError if the bundle has none, or a damaged one."""
        folder = folder_of(root)
        if folder is None:
            raise DataError(f"{Path(root) / FOLDER} is missing: only simulated bundles have an oracle")
        inview = read_table(folder / "inview.parquet", ["impression_id"], _ANEW)
        readers = read_table(folder / "readers.parquet", ["user_id", "interests_last_day"], _ANEW)
        articles = read_table(folder / "articles.parquet", ["article_id", "topics"], _ANEW)
        return cls(
            folder,
            inview.column("impression_id").to_numpy(),
            readers.column("user_id").to_numpy(),
            _matrix(readers.column("interests_last_day")),
            articles.column("article_id").to_numpy(),
            _matrix(articles.column("topics")),
        )

    def inview(self, impressions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lists of `impressions` (int64 [B]), articles in the order shown: offsets int64 [B + 1] into flat article ids
        (int64) and true click probabilities (float32, a list's sum is 1). Reads one row group (a day) at a time. Raises
        DataError naming an impression that the oracle does not know."""
        wanted = np.asarray(impressions, dtype=np.int64)
        unknown = wanted[~self._knows(wanted)]
        if len(unknown):
            raise DataError(
                f"{self.folder / 'inview.parquet'} knows nothing of impression {unknown[0]}: ask only for lists of the "
                "simulated bundle that the oracle came with"
            )
        rows, asked = np.unique(np.searchsorted(self.impression, wanted), return_inverse=True)
        lengths, articles, probability = self._rows(rows)
        starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
        offsets = np.concatenate([[0], np.cumsum(lengths[asked])])
        flat = np.repeat(starts[asked] - offsets[:-1], lengths[asked]) + np.arange(offsets[-1])
        return offsets, articles[flat], probability[flat]

    def holds(self, impressions: np.ndarray, offsets: np.ndarray, articles: np.ndarray) -> np.ndarray:
        """Whether the oracle has each list as it was shown, bool [B]: its impression (`impressions` int64 [B]) with the
        same `articles` (int64, flat, cut by `offsets` int64 [B + 1]), in any order."""
        known, lengths = self._knows(impressions), np.diff(offsets)
        cuts, theirs, _ = self.inview(impressions[known])
        alike = lengths[known] == np.diff(cuts)
        ours = articles[np.repeat(known, lengths)][np.repeat(alike, lengths[known])]
        theirs = theirs[np.repeat(alike, np.diff(cuts))]
        owner = np.repeat(np.arange(alike.sum()), lengths[known][alike])
        same = ours[np.lexsort((ours, owner))] == theirs[np.lexsort((theirs, owner))]
        held = np.zeros(len(impressions), dtype=bool)
        held[np.flatnonzero(known)[alike]] = np.bincount(owner, ~same, minlength=int(alike.sum())) == 0
        return held

    def _knows(self, impressions: np.ndarray) -> np.ndarray:
        """Whether each of `impressions` is among the oracle's, bool [B]."""
        return np.isin(impressions, self.impression)

    def _rows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lengths, flat articles and probabilities of the sorted `rows` of the file."""
        lengths, articles, probability = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
        first, path = 0, self.folder / "inview.parquet"
        check(path, _ANEW)
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                end = first + file.metadata.row_group(group).num_rows
                inside = rows[np.searchsorted(rows, first) : np.searchsorted(rows, end)] - first
                if len(inside):
                    table = file.read_row_group(group, columns=["articles", "probability"]).take(pa.array(inside))
                    offsets, ids = _flat(table.column("articles"))
                    lengths.append(np.diff(offsets))
                    articles.append(ids)
                    probability.append(_flat(table.column("probability"))[1])
                first = end
        return np.concatenate(lengths), np.concatenate(articles), np.concatenate(probability)
