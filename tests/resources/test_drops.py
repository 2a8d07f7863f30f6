"""Writing a drop, and counting its rows."""

import gzip
import json
from datetime import date
from pathlib import Path

import pytest

from ml.errors import DataError, UsageError
from resources.drops import LANDING, MARKER, copy_file, land, rows_of
from resources.manifest import file_digest

DAY = date(2023, 5, 21)


@pytest.fixture
def delivery(tmp_path: Path) -> Path:
    folder = tmp_path / "delivery"
    (folder / "clicks").mkdir(parents=True)
    (folder / "clicks" / "hour.csv").write_text("a,b\n1,2\n3,4\n")
    return folder


def test_a_landed_drop_is_the_files_with_their_marker(delivery, tmp_path):
    target = land(delivery, tmp_path / "log", DAY, 1_700_000_000_000)
    assert target == tmp_path / "log" / LANDING / "2023-05-21"
    said = json.loads((target / MARKER).read_text())
    file = target / "clicks" / "hour.csv"
    entry = {"bytes": file.stat().st_size, "rows": 2, "sha256": file_digest(file)}
    assert said == {
        "arrived": "2023-11-14T22:13:20.000+00:00",
        "day": "2023-05-21",
        "files": {"clicks/hour.csv": entry},
    }


def test_landing_again_changes_nothing_and_other_files_are_refused(delivery, tmp_path):
    target = land(delivery, tmp_path / "log", DAY, 1)
    marker = (target / MARKER).read_bytes()
    assert land(delivery, tmp_path / "log", DAY, 2) == target and (target / MARKER).read_bytes() == marker
    (delivery / "clicks" / "hour.csv").write_text("a,b\n")
    with pytest.raises(UsageError, match="newsrec correct"):
        land(delivery, tmp_path / "log", DAY, 3)
    assert (target / MARKER).read_bytes() == marker


def test_a_folder_that_lies_there_already_gets_its_marker(delivery, tmp_path):
    target = tmp_path / "log" / LANDING / "2023-05-21"
    target.parent.mkdir(parents=True)
    delivery.rename(target)
    land(target, tmp_path / "log", DAY, 1)
    assert sorted(p.name for p in target.iterdir()) == [MARKER, "clicks"]


def test_files_without_marker_are_not_written_over(delivery, tmp_path):
    (tmp_path / "log" / LANDING / "2023-05-21").mkdir(parents=True)
    (tmp_path / "log" / LANDING / "2023-05-21" / "half.csv").touch()
    with pytest.raises(UsageError, match="complete it with `newsrec land"):
        land(delivery, tmp_path / "log", DAY, 1)


def test_links_and_empty_folders_are_refused(delivery, tmp_path):
    (delivery / "l").symlink_to(delivery / "clicks" / "hour.csv")
    with pytest.raises(DataError, match="is a link"):
        land(delivery, tmp_path / "log", DAY, 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file"):
        land(tmp_path / "empty", tmp_path / "log", DAY, 1)
    (tmp_path / "log" / LANDING).mkdir(parents=True)
    (tmp_path / "log" / LANDING / "2023-05-21").symlink_to(tmp_path / "empty")
    (delivery / "l").unlink()
    with pytest.raises(DataError, match="is a link"):
        land(delivery, tmp_path / "log", DAY, 1)


def test_a_link_is_not_copied(delivery, tmp_path):
    (tmp_path / "l").symlink_to(delivery / "clicks" / "hour.csv")
    with pytest.raises(DataError, match="cannot be read"):
        copy_file(tmp_path / "l", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("name", "data", "rows"),
    [
        ("a.csv", b"x\n1\n2\n", 2),
        ("a.csv", b"x\n1\n2", 2),
        ("a.csv", b"", 0),
        ("a.csv.gz", gzip.compress(b"x\n1\n", mtime=0), 1),
        ("a.tsv", b"1\n2\n", 2),
        ("a.tsv", b"\n1\n \r\n\r\n\n2", 3),
        ("a.tsv", b"1" * (3 << 20) + b"\n" + b"\r" * (2 << 20) + b"2\n" + b"\r" * (2 << 20), 2),
    ],
)
def test_rows_of_text(tmp_path, name, data, rows):
    (tmp_path / name).write_bytes(data)
    assert rows_of(tmp_path / name) == rows


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.parquet", b"PAR1"),
        ("a.csv.gz", b"no gzip"),
        ("a.csv.gz", gzip.compress(b"x\n1\n" * 999, mtime=0)[:14] + b"\xff" * 30),
        ("a.csv.gz", gzip.compress(b"1" * (512 << 20), 9, mtime=0)),
    ],
    ids=["no parquet", "no gzip", "broken within", "expands"],
)
def test_a_damaged_file_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=name):
        rows_of(tmp_path / name)
