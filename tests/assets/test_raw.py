"""`raw_parquet`: the metadata account for every row of the source, and name what was not read."""

import json
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest

from assets import raw
from assets.stage import Summary, Work
from ml.datasets import DATASETS
from ml.errors import LakeError
from ml.readers import globo
from ml.readers.rules import Judged, judge
from resources.bindings import RunSettings
from resources.source import DatasetSource
from tests.ml.bundles import globo_click, write_hour

GLOBO, START = DATASETS["globo"], "2017-10-01 03:00"
FIRST, SECOND = date(2017, 10, 1), date(2017, 10, 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rows = [globo_click(1, 1, START, 50, START), globo_click(2, 2, START, 50, "2017-10-02 04:00")]
    rows += [globo_click("x", 1, START, 50, START), globo_click(2, 3, "2017-10-02 04:00", 50, "2017-10-02 04:00")]
    write_hour(tmp_path / "log", 0, [*rows, globo_click(1, 1, START, 50, "2031-10-01 03:00")])
    (tmp_path / "log" / "articles_metadata.csv").write_text("article_id,category_id\n50,1\n50,1\n60,1\n")
    (tmp_path / "log" / "clicks" / "clickshour_001.csv").write_text("")
    (tmp_path / "log" / "readme.txt").write_text("")
    return tmp_path / "log"


def made(root: Path, day: date, told: list[str]) -> Summary:
    tools = SimpleNamespace(source=DatasetSource(root.parent / "lake", {"globo": root}))
    out = root.parent / str(day)
    out.mkdir()
    return raw.RAW.compute(Work(GLOBO, day, None, RunSettings(), {}, out, tools, told.append))  # type: ignore[arg-type]


def test_the_first_day_accounts_for_every_row_of_the_bundle(root: Path) -> None:
    found = made(root, FIRST, []).metadata
    assert found["account"] == {
        "bundle": {
            "clicks": {"rows_in": 5, "placed": 3, "quarantined": 2, "duplicates": 0},
            "articles": {"rows_in": 3, "placed": 1, "quarantined": 1, "duplicates": 1},
        }
    }
    for table in found["account"]["bundle"].values():
        assert table["rows_in"] == table["placed"] + table["quarantined"] + table["duplicates"]
    assert found["quarantine"] == {"unparsable": 1, "outside_days": 1, "never_shown": 1}
    assert found["quarantine_examples"]["unparsable"].startswith("clicks/clicks_hour_000.csv.gz:4: ")
    assert "account" not in made(root, SECOND, []).metadata


def test_examples_name_no_reader(root: Path) -> None:
    found = made(root, FIRST, []).metadata["quarantine_examples"]
    assert found["unparsable"].endswith(":4: (not shown: its cells cannot be told apart)")
    said = json.loads(found["outside_days"].split(": ", 1)[1])
    assert said["click_article_id"] == 50 and not {"user_id", "session_id"} & said.keys()


def test_what_was_not_read_is_named_and_told_where_it_is_almost_a_name_of_the_log(root: Path) -> None:
    told: list[str] = []
    found = made(root, SECOND, told).metadata
    assert [line.split(":")[0] for line in found["not_read"]] == ["clicks/clickshour_001.csv", "readme.txt"]
    (said,) = (t for t in told if "not read" in t)
    assert "is clicks/clicks_hour_001.csv meant?" in said


def test_a_day_of_a_cut_that_lost_rows_is_not_published(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(globo, "judge", lambda *a: Judged((judged := judge(*a)).kept, judged.held_back.slice(1)))
    with pytest.raises(LakeError, match=r"articles_metadata\.csv: 1 of 3 rows are not accounted for"):
        made(root, FIRST, [])
