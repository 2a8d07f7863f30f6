"""What every reader offers, and the form in which it hands over one day.

Belongs here: the interface. Does not belong here: anything of a particular source layout.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from ml.datasets import Dataset
from ml.errors import DataError
from ml.readers.artifacts import vectors_of
from ml.readers.breaches import Breach, first_error, refusal
from ml.readers.described import ROWS
from ml.readers.files import beside, regular
from ml.readers.remarks import Remark
from ml.readers.strays import Stray, strays

Progress = Callable[[str], None]
Counts = dict[str, dict[str, int]]
FROM_IMPRESSIONS = "from_impressions"
"""Figure of a day's clicks: those of `rows_in` that its impressions tell of, and no row of their own."""


@dataclass(frozen=True, slots=True)
class DayTables:
    """Canonical tables of one day (`ml.schema`).

    `counts` has, for each of articles, clicks and impressions, `rows_in`, `published`, `quarantined`, `duplicates`,
    with rows_in = published + quarantined + duplicates, and further figures of the table. `remarks`: what is to be said
    of rows that were published, and of repetitions. `article_rows`: the fate of the day's article rows
    (`ml.readers.described.ROWS`), of which an article may have several, or none.
    """

    articles: pa.Table
    clicks: pa.Table
    impressions: pa.Table
    quarantine: pa.Table
    counts: Counts
    remarks: tuple[Remark, ...]
    article_rows: pa.Table = field(default_factory=ROWS.empty_table)


class Reader(ABC):
    """A source layout: which files it has, how they fall into days, how a raw day becomes canonical tables.

    `names`: paths of the layout below a root, "*" for anything within a part. `of_the_root`: those of them that a data
    root alone has, no drop. `drop_folders`: the layout's folder for
    files that lie flat in a drop, by pattern of their name. `derived_files`: files of a raw day that follow from its
    others. `expected`: tables and reasons for which published files of the layout are known to lose rows.
    """

    names: ClassVar[Sequence[str]] = ()
    of_the_root: ClassVar[Sequence[str]] = ()
    drop_folders: ClassVar[Mapping[str, str]] = {}
    derived_files: ClassVar[Sequence[str]] = ()
    expected: ClassVar[frozenset[tuple[str, str]]] = frozenset()

    @abstractmethod
    def named(self, root: Path) -> list[Path]:
        """What lies below `root` under the layout's names, whatever it is, in the order in which it is read."""

    @abstractmethod
    def require_events(self, root: Path, found: Sequence[Path]) -> None:
        """Raises DataError when none of the files `found` holds events."""

    def clashes(self, root: Path, found: Sequence[Path]) -> list[tuple[Path, str]]:
        """Of `found`, those beside which another one must not lie, and the other one's name."""
        return []

    def sources(self, root: Path, besides: Collection[Path] = ()) -> list[Path]:
        """The raw files below `root`, without `besides`, in a fixed order. Raises DataError when there are none, when
        two exclude each other, or when one of them is no regular file or lies, through a link, outside `root`."""
        found = [p for p in self.named(root) if p not in besides and regular(root, p)]
        for path, other in self.clashes(root, found):
            raise beside(path, other)
        self.require_events(root, found)
        return found

    @abstractmethod
    def split(
        self,
        root: Path,
        dataset: Dataset,
        out: Path,
        progress: Progress | None = None,
        besides: Collection[Path] = (),
    ) -> list[date]:
        """Writes each day's raw rows to `out/<YYYY-MM-DD>/*.parquet` and returns the days, in order.

        One pass over the sources with bounded memory; equal sources give equal bytes. Rows that no day can take go
        to `out/quarantine.parquet` (`schema.QUARANTINE`), and what became of the rows of every file to the account
        (`ml.readers.account`). `besides`: files to leave out; only a check of the others does. Raises DataError naming
        file, column and remedy.
        """

    @abstractmethod
    def read_through(self, path: Path, zone: str) -> None:
        """Reads a source file to its end, as `split` would; `zone` is that of times without one. Raises DataError when
        `split` would because of it."""

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

    def columns_wrong(self, root: Path, path: Path) -> list[Breach]:
        """What is wrong with the columns of a regular file of the layout, by its schema or first line."""
        return []

    def naive_times(self, root: Path, path: Path) -> list[Breach]:
        """The columns of a regular file whose times lack a zone that the layout does not give them."""
        return []

    def breaches(self, root: Path) -> list[Breach]:
        """All that is wrong with files, columns and types, where `sources` and `split` would stop at the first: first
        what is no file to be read, then its columns, file by file."""
        found: list[Breach] = []
        files = []
        try:
            named = self.named(root)
        except DataError as error:
            return [refusal(error, root)]
        for path in named:
            wrong = first_error(partial(regular, root, path), root, path)
            found += wrong
            files += [] if wrong else [path]
        for path, other in self.clashes(root, files):
            found.append(refusal(beside(path, other), root, path))
            files.remove(path)
        if not found:
            found += first_error(lambda: self.require_events(root, files), root)
        return found + [b for path in files for b in self.columns_wrong(root, path)]

    def strays(self, root: Path) -> list[Stray]:
        """Entries of `root` that are not read. Raises DataError for a folder that cannot be listed."""
        return strays(root, self.names, self.named(root))

    def artifact_vectors(self, root: Path) -> dict[str, Path]:
        """Published article vectors by family ("body", "image"); empty where the layout has none."""
        return {}

    def vectors_of(self, path: Path, article_ids: np.ndarray) -> pa.Table:
        """The vectors of `article_ids` (int64 [A]) in the artifact `path`: see `ml.readers.artifacts.vectors_of`."""
        return vectors_of(path, article_ids)
