"""The interchange types between stages: catalogue, clicks, impressions and cases as arrays.

Belongs here: the in-memory form of the canonical tables and their loading from parquet. Does not belong
here: anything that answers "what was known at t" (`ml.asof`).

Articles are *rows* ι(a) of the catalogue, which is sorted by (publication, id): what is available at a time
is a prefix, and a later catalogue of the same log only appends rows.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ml import schema
from ml.clock import minute_start
from ml.errors import DataError
from ml.parquet import read_table

_FEATURES = "rebuild article_features"


def int_array(table: pa.Table, column: str, dtype: type = np.int64) -> np.ndarray:
    """Column as an integer array; null becomes -1, timestamps become ms."""
    values = table.column(column)
    if pa.types.is_timestamp(values.type):
        values = values.cast(schema.TIME).cast(pa.int64())
    if values.null_count:
        values = values.fill_null(-1)
    return values.to_numpy().astype(dtype, copy=False)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Articles in order of publication. `article_id`, `published` (ms) int64 [A]; `category` int32 [A], -1 unknown."""

    article_id: np.ndarray
    published: np.ndarray
    category: np.ndarray

    def __post_init__(self) -> None:
        if np.any(np.diff(self.published) < 0):
            raise DataError("the catalogue is not sorted by publication time: rebuild article_features")

    def __len__(self) -> int:
        return len(self.article_id)

    def rows(self, article_ids: np.ndarray) -> np.ndarray:
        """Catalogue rows (int32, same shape) of article ids; -1 for unknown ids."""
        ids = np.asarray(article_ids, dtype=np.int64)
        if len(self) == 0:
            return np.full(ids.shape, -1, dtype=np.int32)
        order = np.argsort(self.article_id, kind="stable")
        where = np.minimum(np.searchsorted(self.article_id, ids, sorter=order), len(self) - 1)
        found = order[where]
        return np.where(self.article_id[found] == ids, found, -1).astype(np.int32)

    def available(self, time_ms: np.ndarray) -> np.ndarray:
        """Number of articles published before the minute of each time began (the prefix 𝒜_t), int64."""
        return np.searchsorted(self.published, minute_start(time_ms), side="left").astype(np.int64)

    @classmethod
    def load(cls, path: Path) -> "Catalogue":
        """From `article_features` parquet (already in catalogue order). Raises DataError where it is damaged, out of
        order, or names an article twice."""
        names = (schema.ARTICLE_ID, schema.PUBLISHED, "category_id")
        table = read_table(path, schema.some(schema.ARTICLES, *names), _FEATURES)
        article_id = int_array(table, schema.ARTICLE_ID)
        if len(np.unique(article_id)) != len(article_id):
            raise DataError(f"{path}: an article stands there twice: {_FEATURES}")
        return cls(article_id, int_array(table, schema.PUBLISHED), int_array(table, "category_id", np.int32))


@dataclass(frozen=True, slots=True)
class Clicks:
    """Clicks sorted by (reader, time): `user`, `time` (ms), `session`, `impression` int64 [N]; `article` int32 [N]
    catalogue rows; `read_time` float32 [N] seconds, NaN unknown; `context` int32 [N, 4] codes, -1 unknown."""

    user: np.ndarray
    article: np.ndarray
    time: np.ndarray
    read_time: np.ndarray
    session: np.ndarray
    impression: np.ndarray
    context: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    def user_range(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and one-past-last row of each reader (equal when unknown), int64."""
        return np.searchsorted(self.user, users, side="left"), np.searchsorted(self.user, users, side="right")

    def take(self, keep: np.ndarray) -> "Clicks":
        """The clicks where the boolean mask `keep` [N] holds (order kept)."""
        return Clicks(*(getattr(self, name)[keep] for name in Clicks.__slots__))

    @classmethod
    def load(cls, path: Path, catalogue: Catalogue) -> "Clicks":
        """From `interactions` parquet, a column at a time: beside the arrays, memory holds one column. Raises DataError
        where it is damaged or an article is not in the catalogue."""

        def column(name: str) -> pa.Table:
            return read_table(path, schema.some(schema.INTERACTIONS, name), "rebuild interactions")

        def integers(name: str, dtype: type = np.int64) -> np.ndarray:
            return int_array(column(name), name, dtype)

        article = catalogue.rows(integers(schema.ARTICLE_ID))
        if np.any(article < 0):
            raise DataError(f"{path}: {int(np.sum(article < 0))} clicks on articles that article_features lacks")
        read_time = column(schema.READ_TIME).column(0).to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        context = np.empty((len(article), len(schema.CONTEXT)), dtype=np.int32)
        for place, name in enumerate(schema.CONTEXT):
            context[:, place] = integers(name, np.int32)
        columns = (schema.USER_ID, schema.CLICK_TIME, schema.SESSION_ID, schema.IMPRESSION_ID)
        user, time, session, impression = (integers(c) for c in columns)
        return cls(user, article, time, read_time, session, impression, context)


@dataclass(frozen=True, slots=True)
class Impressions:
    """Impressions sorted by (time, id): `impression`, `user`, `time` (ms), `session` (-1 unknown) int64 [I]; `context`
    int32 [I, 4]; the articles shown in impression i are `article[offsets[i]:offsets[i + 1]]` (int32 catalogue rows, -1
    unknown), `clicked` (bool) beside them. `synthetic` says how lists that nobody was shown were made, empty without
    such."""

    impression: np.ndarray
    user: np.ndarray
    time: np.ndarray
    session: np.ndarray
    context: np.ndarray
    offsets: np.ndarray
    article: np.ndarray
    clicked: np.ndarray
    synthetic: str = ""

    def __len__(self) -> int:
        return len(self.impression)

    @classmethod
    def load(cls, paths: list[Path], catalogue: Catalogue) -> "Impressions":
        """From the `impressions` parquet files of consecutive days. A clicked article that was not in view is ignored
        here (the reader's quarantine reports it)."""
        from ml.metrics import labels_from_lists

        names = [schema.IMPRESSION_ID, schema.USER_ID, schema.CLICK_TIME, schema.SESSION_ID]
        lists = (schema.INVIEW, schema.CLICKED)
        wanted = schema.some(schema.IMPRESSIONS, *names, *lists, *schema.CONTEXT, schema.SYNTHETIC)
        parts = [read_table(p, wanted, "rebuild impressions") for p in paths]
        table = pa.concat_tables(parts).combine_chunks() if parts else wanted.empty_table()
        inview, clicked = (_flat_list(table, c) for c in lists)
        article = catalogue.rows(inview[1])
        label = labels_from_lists(inview[1], inview[0], clicked[1], clicked[0])
        context = np.stack([int_array(table, name, np.int32) for name in schema.CONTEXT], axis=1)
        impression, user, time, session = (int_array(table, c) for c in names)
        if np.any(np.diff(time) < 0):
            raise DataError(f"{paths[0].parent}: impressions are not sorted by time: rebuild impressions")
        said = sorted(filter(None, table[schema.SYNTHETIC].unique().to_pylist()))
        return cls(impression, user, time, session, context, inview[0], article, label, "; ".join(said))


def _flat_list(table: pa.Table, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Offsets [I + 1] and values of a list column, starting at 0."""
    chunks = table.column(column).combine_chunks()
    if chunks.flatten().null_count:
        raise DataError(f"impressions hold a null in a list of {column}: rebuild impressions")
    values = chunks.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = np.diff(chunks.offsets.to_numpy()).astype(np.int64) if len(chunks) else np.zeros(0, dtype=np.int64)
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), values


@dataclass(frozen=True, slots=True)
class Cases:
    """Requests for a prediction: reader `user` at `time` (ms) with the history rows [`first`, `stop`) of one `Clicks`
    (all strictly before `time`), of which [`session_start`, `stop`) belong to the running session.

    int64 [B] each; `context` int32 [B, 4].
    """

    user: np.ndarray
    time: np.ndarray
    first: np.ndarray
    stop: np.ndarray
    session_start: np.ndarray
    context: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: np.ndarray) -> "Cases":
        """The cases at `index` (positions or boolean mask)."""
        return Cases(*(getattr(self, name)[index] for name in Cases.__slots__))
