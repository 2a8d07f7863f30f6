"""Vectors with versions in time, against a search by hand."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import schema
from ml.clock import MS_PER_MINUTE
from ml.content import ALWAYS, Content
from ml.errors import DataError
from ml.log import Catalogue

CATALOGUE = Catalogue(np.array([30, 10, 20]), np.array([0, 1, 2]), np.array([-1, -1, -1], dtype=np.int32))


def write(path: Path, ids: list[int], since: list[int | None], vectors: np.ndarray) -> Path:
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel().astype(np.float32)), vectors.shape[1])
    times = pa.array(since, pa.int64()).cast(schema.TIME)
    pq.write_table(pa.table({"article_id": pa.array(ids, pa.int64()), "since": times, "vector": column}), path)
    return path


@settings(max_examples=100, deadline=None)
@given(
    versions=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(-99, 99)), max_size=25),
    time=st.integers(0, 6 * MS_PER_MINUTE),
)
def test_the_last_version_before_the_minute_holds(versions: list[tuple[int, int, int]], time: int) -> None:
    rows, minutes, values = (np.array([v[i] for v in versions], dtype=np.int64) for i in range(3))
    content = Content.versions(rows, minutes * MS_PER_MINUTE, values[:, None].astype(np.float32), 4)
    found = content.at(np.array([time]), np.array([[0, 1, 2, 3, -1]]))[0]
    for row in range(4):
        known = [(m, i) for i, (a, m, _) in enumerate(versions) if a == row and m <= time // MS_PER_MINUTE]
        expected = versions[max(known)[1]][2] if known else 0
        assert found[row].tolist() == [expected]
        assert (content.index(np.array([time]), np.array([[row]]))[0, 0] >= 0) == bool(known)
    assert not found[4].any()


def test_a_version_holds_from_the_first_minute_that_begins_after_it() -> None:
    content = Content.versions(np.array([0]), np.array([90_000]), np.ones((1, 2), np.float32), 1)
    times = np.array([90_000, 119_999, 120_000])
    assert content.index(times, np.zeros((3, 1), dtype=np.int32))[:, 0].tolist() == [-1, -1, 0]


def test_static_vectors_always_hold() -> None:
    content = Content.static(np.array([2, 0]), np.array([[1, 2], [3, 4]], np.float32), 3)
    assert content.dim == 2
    assert content.at(np.array([0]), np.array([[0, 1, 2]]))[0].tolist() == [[3, 4], [0, 0], [1, 2]]
    with pytest.raises(DataError, match="two vectors"):
        Content.static(np.array([1, 1]), np.zeros((2, 2), np.float32), 3)
    with pytest.raises(DataError, match="outside"):
        Content.static(np.array([3]), np.zeros((1, 2), np.float32), 3)


def test_files_of_several_days_give_versions_and_the_later_file_wins(tmp_path: Path) -> None:
    day = int(datetime(2023, 5, 18, tzinfo=UTC).timestamp()) * 1000
    first = write(tmp_path / "a.parquet", [10, 20, 77], [None, day, None], np.array([[1, 1], [2, 2], [9, 9]]))
    second = write(tmp_path / "b.parquet", [20, 10], [day, day + 60_000], np.array([[3, 3], [4, 4]]))
    content = Content.load([first, second], CATALOGUE)
    assert content.since.tolist() == [ALWAYS, day + 60_000, day]
    times = np.array([day - 1, day, day + 60_000])
    rows = np.tile(np.array([0, 1, 2], dtype=np.int32), (3, 1))
    assert content.at(times, rows)[:, :, 0].tolist() == [[0, 1, 0], [0, 1, 3], [0, 4, 3]]


def test_no_files_or_no_known_article_is_an_absent_family(tmp_path: Path) -> None:
    unknown = write(tmp_path / "a.parquet", [99], [None], np.ones((1, 4)))
    for content in (Content.load([], CATALOGUE), Content.load([unknown], CATALOGUE), Content.empty(3)):
        assert content.dim == 0
        assert content.index(np.array([0]), np.array([[0, 1, 2]])).tolist() == [[-1, -1, -1]]
        assert content.at(np.array([0]), np.array([[0, 1, 2]])).shape == (1, 3, 0)


def test_before_drops_later_versions_and_articles() -> None:
    since = np.array([ALWAYS, 60_000, 120_000])
    content = Content.versions(np.array([0, 0, 1]), since, np.array([[1], [2], [3]], np.float32), 3)
    kept = content.before(119_999, 2)
    assert len(kept.offsets) == 3
    assert kept.vectors[:, 0].tolist() == [1, 2]
    assert content.before(0, 3).vectors[:, 0].tolist() == [1]
    assert content.before(10**9, 1).vectors[:, 0].tolist() == [1, 2]


def test_wrong_files_are_named(tmp_path: Path) -> None:
    good = write(tmp_path / "good.parquet", [10], [None], np.ones((1, 4)))
    other = write(tmp_path / "other.parquet", [20], [None], np.ones((1, 3)))
    with pytest.raises(DataError, match=r"other\.parquet: vectors of length 3, in the files before it 4"):
        Content.load([good, other], CATALOGUE)
    infinite = write(tmp_path / "infinite.parquet", [20], [None], np.array([[1, np.inf]]))
    with pytest.raises(DataError, match=r"infinite\.parquet.*not finite"):
        Content.load([infinite], CATALOGUE)
    pq.write_table(pa.table({"article_id": [10], "since": [None]}), tmp_path / "short.parquet")
    with pytest.raises(DataError, match=r"short\.parquet: no column 'vector'"):
        Content.load([tmp_path / "short.parquet"], CATALOGUE)
    since = pa.array([None], pa.timestamp("ms", "UTC"))
    pq.write_table(pa.table({"article_id": [10], "since": since, "vector": [[1.0]]}), tmp_path / "list.parquet")
    with pytest.raises(DataError, match="not a list of float32 of fixed size"):
        Content.load([tmp_path / "list.parquet"], CATALOGUE)
