"""What every reader offers, and the form in which it hands over one day.

Belongs here: the interface. Does not belong here: anything of a particular source layout.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from ml.datasets import Dataset
from ml.readers.artifacts import vectors_of
from ml.readers.breaches import Breach, first_error

Progress = Callable[[str], None]
Counts = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class DayTables:
    """Canonical tables of one day (`ml.schema`).

    `counts` has, for each of articles, clicks and impressions, `rows_in`, `published`, `quarantined`, `duplicates`,
    with rows_in = published + quarantined + duplicates, and further figures of the table.
    """

    articles: pa.Table
    clicks: pa.Table
    impressions: pa.Table
    quarantine: pa.Table
    counts: Counts


class Reader(ABC):
    """A source layout: which files it has, how they fall into days, how a raw day becomes canonical tables.

    `drop_folders`: the layout's folder for files that lie flat in a drop, by pattern of their name. `derived_files`:
    files of a raw day that follow from its others. `expected`: reasons for which published files of the layout are
    known to lose rows.
    """

    drop_folders: ClassVar[Mapping[str, str]] = {}
    derived_files: ClassVar[Sequence[str]] = ()
    expected: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def sources(self, root: Path) -> list[Path]:
        """The raw files below `root`, in a fixed order. Raises DataError when there are none, or when one of them
        lies, through a link, outside `root`."""

    @abstractmethod
    def split(self, root: Path, dataset: Dataset, out: Path, progress: Progress | None = None) -> list[date]:
        """Writes each day's raw rows to `out/<YYYY-MM-DD>/*.parquet` and returns the days, in order.

        One pass over the sources with bounded memory; equal sources give equal bytes. Rows that no day can take go
        to `out/quarantine.parquet` (`schema.QUARANTINE`). Raises DataError naming file, column and remedy.
        """

    @abstractmethod
    def tables(self, raw_day: Path, dataset: Dataset, day: date) -> DayTables:
        """Canonical tables of `day` from its raw folder. Raises DataError when a file is missing or damaged."""

    def place(self, name: str) -> str:
        """Where the file `name` of a drop lies in this layout."""
        folders = [folder for pattern, folder in self.drop_folders.items() if fnmatchcase(name, pattern)]
        return f"{folders[0]}/{name}" if folders else name

    def derived(self, raw_day: Path, listed: np.ndarray | None) -> dict[str, pa.Table]:
        """The `derived_files` of a raw day that was put together from several deliveries; `listed` (int64) are the ids
        of all articles that some article file up to that day has, None without such files."""
        return {}

    def breaches(self, root: Path) -> list[Breach]:
        """All that is wrong with files, columns and types, where `sources` and `split` would stop at the first."""
        return first_error(lambda: self.sources(root), root)

    def artifact_vectors(self, root: Path) -> dict[str, Path]:
        """Published article vectors by family ("body", "image"); empty where the layout has none."""
        return {}

    def vectors_of(self, path: Path, article_ids: np.ndarray) -> pa.Table:
        """The vectors of `article_ids` (int64 [A]) in the artifact `path`: see `ml.readers.artifacts.vectors_of`."""
        return vectors_of(path, article_ids)
