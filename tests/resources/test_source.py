"""Where the files are, what they are, and one split for all who ask."""

import multiprocessing
import os
import time
from datetime import date
from pathlib import Path

import pytest

from ml.datasets import Dataset, dataset
from ml.errors import DataError, LakeError
from resources import landing as landing_module
from resources import source as source_module
from resources import splits as module
from resources.manifest import file_digest
from resources.source import DatasetSource

GLOBO = dataset("globo")
HEADER = (
    "user_id,session_id,session_start,session_size,click_article_id,click_timestamp,click_environment,"
    "click_deviceGroup,click_os,click_country,click_region,click_referrer_type\n"
)
DAY_MS = 86_400_000
START = GLOBO.clock.start(date(2017, 10, 2))


def click(user: int, at: int) -> str:
    return f"{user},{user},{at},2,100,{at},4,1,17,1,21,2\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "globo" / "clicks"
    folder.mkdir(parents=True)
    (folder / "clicks_hour_000.csv").write_text(HEADER + click(1, START) + click(1, START + 1000))
    (folder / "clicks_hour_001.csv").write_text(HEADER + click(2, START + DAY_MS))
    (folder / "clicks_hour_002.csv").write_text(HEADER)
    return folder.parent


@pytest.fixture
def source(root: Path, tmp_path: Path) -> DatasetSource:
    return DatasetSource(tmp_path / "lake", {"globo": root})


def test_the_days_of_the_log(source: DatasetSource) -> None:
    split = source.split(GLOBO)
    assert source.days(GLOBO) == list(split) == [date(2017, 10, 2), date(2017, 10, 3)]
    assert all(list(folder.glob("*.parquet")) for folder in split.values())


def test_a_raw_day_names_its_sources(source: DatasetSource) -> None:
    day = source.raw_day(GLOBO, date(2017, 10, 3))
    assert [f.name for f in day.files] == ["clicks.parquet"]
    assert day.sources == source.fingerprint(GLOBO) and day.merged is None
    assert day.recipe == {"sources": source.fingerprint(GLOBO)}


def test_rows_of_no_day_lie_in_the_first(source: DatasetSource, root: Path) -> None:
    (root / "clicks" / "clicks_hour_002.csv").write_text(HEADER + click(3, START + 30 * DAY_MS))
    first, second = (source.raw_day(GLOBO, date(2017, 10, d)) for d in (2, 3))
    assert [f.name for f in first.files] == ["clicks.parquet", "quarantine.parquet"]
    assert [f.name for f in second.files] == ["clicks.parquet"]


def test_a_day_without_data_is_named_with_the_span(source: DatasetSource) -> None:
    with pytest.raises(DataError, match="no data on 2017-10-09; it covers 2017-10-02 to 2017-10-03"):
        source.raw_day(GLOBO, date(2017, 10, 9))


def test_the_fingerprint_is_the_bytes(source: DatasetSource, root: Path) -> None:
    found = source.fingerprint(GLOBO)
    expected = {f"clicks/clicks_hour_00{i}.csv": file_digest(root / f"clicks/clicks_hour_00{i}.csv") for i in range(3)}
    assert found == expected


def test_a_file_is_hashed_again_only_when_it_has_changed(
    source: DatasetSource, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(module, "file_digest", counted)
    first = source.fingerprint(GLOBO)
    assert len(hashed) == 3
    assert source.fingerprint(GLOBO) == first and len(hashed) == 3
    path = root / "clicks/clicks_hour_001.csv"
    path.write_text(path.read_text() + click(3, START))
    assert source.fingerprint(GLOBO) != first and hashed[3:] == ["clicks_hour_001.csv"]
    os.utime(path, ns=(1, 1))
    source.fingerprint(GLOBO)
    assert hashed[3:] == ["clicks_hour_001.csv"] * 2


def test_changed_files_are_split_again(source: DatasetSource, root: Path) -> None:
    before = source.split(GLOBO)
    assert source.split(GLOBO) == before
    (root / "clicks" / "clicks_hour_003.csv").write_text(HEADER + click(4, START + 2 * DAY_MS))
    assert source.split(GLOBO) != before
    assert source.days(GLOBO)[-1] == date(2017, 10, 4)


def test_moved_files_are_the_same_data(source: DatasetSource, root: Path, tmp_path: Path) -> None:
    before = source.split(GLOBO)
    moved = root.rename(tmp_path / "moved")
    assert DatasetSource(tmp_path / "lake", {"globo": moved}).split(GLOBO) == before


class SlowReader:
    """Counts its splits in a file."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def sources(self, root: Path) -> list[Path]:
        return sorted(root.rglob("*.csv"))

    def split(self, _root: Path, _dataset: Dataset, out: Path, _progress: object) -> None:
        with self.log.open("a") as stream:
            stream.write("split\n")
        time.sleep(0.1)
        (out / "2017-10-02").mkdir()


def test_four_processes_split_once(source: DatasetSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    for place in (module, source_module, landing_module):
        monkeypatch.setattr(place, "reader", lambda _: SlowReader(log))
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=source.split, args=(GLOBO,), daemon=True) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [w.exitcode for w in workers] == [0] * 4
    assert log.read_text() == "split\n"
    assert source.days(GLOBO) == [date(2017, 10, 2)]
    assert [p.name for p in (tmp_path / "lake" / ".staging").iterdir()] == ["sweep"]


def test_an_error_leaves_no_split(source: DatasetSource, root: Path, tmp_path: Path) -> None:
    path = root / "clicks" / "clicks_hour_001.csv"
    path.write_text("nothing,of,the,kind\n1,2,3,4\n")
    with pytest.raises(DataError, match=r"clicks_hour_001\.csv"):
        source.split(GLOBO)
    assert [p for p in (tmp_path / "lake" / ".split" / "globo").iterdir() if p.is_dir()] == []


def test_a_missing_root_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data-root"):
        DatasetSource(tmp_path, {"globo": tmp_path / "none"}).root(GLOBO)


def test_the_oracle_is_apart(source: DatasetSource, root: Path) -> None:
    assert source.oracle(GLOBO) is None and source.oracle_digest(GLOBO) is None
    before = source.fingerprint(GLOBO)
    (root / "oracle").mkdir()
    (root / "oracle" / "truth.json").write_text("{}")
    assert source.oracle(GLOBO) == root / "oracle"
    first = source.oracle_digest(GLOBO)
    (root / "oracle" / "truth.json").write_text("{ }")
    assert first is not None and source.oracle_digest(GLOBO) != first
    assert source.fingerprint(GLOBO) == before


def test_a_damaged_cache_is_named(source: DatasetSource, tmp_path: Path) -> None:
    source.fingerprint(GLOBO)
    path = tmp_path / "lake" / ".cache" / "fingerprints.json"
    path.write_text("{")
    with pytest.raises(LakeError, match=r"fingerprints\.json .* only a cache"):
        source.fingerprint(GLOBO)


def test_a_file_that_changes_while_it_is_read_leaves_no_split(
    source: DatasetSource, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sorted(root.glob("clicks/*.csv"))[0]
    true = module.reader(GLOBO.reader)

    class Changing:
        def split(self, *arguments: object) -> object:
            content = file.read_bytes()
            file.write_bytes(content.replace(b"1", b"2"))
            try:
                return true.split(*arguments)  # type: ignore[arg-type]
            finally:
                file.write_bytes(content)  # the same bytes as before are back when the split ends

    monkeypatch.setattr(module, "reader", lambda _: Changing())
    with pytest.raises(DataError, match="changed while it was read"):
        source.days(GLOBO)
    monkeypatch.setattr(module, "reader", lambda _: true)
    assert source.days(GLOBO)
