"""The check of logs: every breach with count, examples and remedy; errors apart from warnings."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ml.datasets import DATASETS
from ml.log_check import REMEDIES, LogReport, check_log
from ml.own_log import declared_dataset
from tests.ml import bundles
from tests.ml.bundles import at, globo_click, write_hour
from tests.ml.test_readers_mind import small
from tests.ml.test_readers_own_log import UTC_TIMES, click, write_log


def kinds(report: LogReport, severity: str) -> dict[tuple[str, str], int]:
    return {(b.file, b.kind): b.count for b in report.breaches if b.severity == severity}


def files_of(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in root.rglob("*") if p.is_file()}


def test_a_clean_own_log(tmp_path: Path) -> None:
    root = write_log(tmp_path, clicks=[click(1, 10, "2023-05-01 08:00")] * 2)
    before = files_of(root)
    report = check_log(root, declared_dataset(root))
    assert report.clean and report.days == [date(2023, 5, 1)] and report.files == ["clicks.parquet", "log.toml"]
    assert report.tables["clicks"]["rows_in"] == 2
    assert kinds(report, "warning") == {("", "duplicate_clicks"): 1}
    assert files_of(root) == before


def test_every_breach_of_the_columns_is_named_at_once(tmp_path: Path) -> None:
    rows = [{"user_id": "u1", "time": at("2023-05-01 08:00"), "read_time": "long", "colour": 1, "device": 2.5}]
    articles = [{"id": 1, "title": 5}]
    said = UTC_TIMES + "first_day = 2023-05-01\nlast_day = 2023-05-02\n"
    root = write_log(tmp_path, said, clicks=rows, articles=articles)
    (root / "impressions.parquet").write_bytes(b"PAR1 nothing")
    # the facts of the dataset without the text of the articles, which cannot be read
    (root / "impressions.parquet").rename(root / "aside")
    known = declared_dataset(root)
    (root / "aside").rename(root / "impressions.parquet")
    report = check_log(root, known)
    found = {(b.file, b.column, b.kind) for b in report.breaches if b.severity == "error"}
    assert found == {
        ("clicks.parquet", "user_id", "wrong_type"),
        ("clicks.parquet", "article_id", "missing_column"),
        ("clicks.parquet", "read_time", "wrong_type"),
        ("clicks.parquet", "device", "wrong_type"),
        ("articles.parquet", "article_id", "missing_column"),
        ("articles.parquet", "title", "wrong_type"),
        ("impressions.parquet", "", "unreadable_file"),
    }
    warned = {(b.file, b.column) for b in report.breaches if b.severity == "warning"}
    assert warned == {("clicks.parquet", "colour"), ("articles.parquet", "id")}
    assert not report.clean and not report.tables


def test_rows_are_counted_with_examples_and_their_numbers(tmp_path: Path) -> None:
    rows = [click(1, 10, "2023-05-01 08:00"), *[click(-i, 10, "2023-05-01 08:00") for i in range(1, 9)]]
    rows += [
        click(2, 10, "2023-05-03 08:00", scroll_percentage=130.0),
        click(3, 10, "2023-05-03 09:00", read_time=-1.0),
    ]
    shown = {"impression_id": 1, "user_id": 1, "time": at("2023-05-01 08:00"), "inview": [1, 1, 2], "clicked": [1]}
    root = write_log(tmp_path, clicks=rows, impressions=[shown])
    report = check_log(root, declared_dataset(root))
    (error,) = (b for b in report.breaches if b.severity == "error")
    assert (error.kind, error.file, error.count, error.column) == ("negative_id", "clicks.parquet", 8, "ids")
    assert [e["row"] for e in error.examples] == [2, 3, 4, 5, 6]
    assert '"user_id": -1' in error.examples[0]["value"] and error.remedy == REMEDIES["negative_id"][1]
    assert kinds(report, "warning") == {
        ("", "scroll_out_of_range"): 1,
        ("", "unknown_read_time"): 1,
        ("", "twice_in_view"): 1,
        ("", "day_without_rows"): 1,
    }
    plain = report.to_json()
    assert not plain["clean"] and plain["errors"][0]["count"] == 8 and len(plain["warnings"]) == 4
    counts = plain["tables"]["clicks"]
    assert counts["rows_in"] == counts["published"] + counts["quarantined"] + counts["duplicates"] == len(rows)


def test_ebnerd(tmp_path: Path) -> None:
    root = bundles.synthetic_bundle(tmp_path)
    assert check_log(root, DATASETS["ebnerd"]).clean
    table = pq.read_table(root / "train" / "behaviors.parquet")
    pq.write_table(table.drop_columns(["session_id", "user_id"]), root / "train" / "behaviors.parquet")
    report = check_log(root, DATASETS["ebnerd"])
    assert {(b.file, b.column) for b in report.breaches} == {
        ("train/behaviors.parquet", "session_id"),
        ("train/behaviors.parquet", "user_id"),
    }


def test_globo(tmp_path: Path) -> None:
    start = "2017-10-01 03:00"
    rows = [globo_click(0, 11, start, 50, start), globo_click(0, 11, start, 50, "2017-10-05 03:00")]
    write_hour(tmp_path, 0, [*rows, globo_click("x", 11, start, 50, start)])
    report = check_log(tmp_path, DATASETS["globo"])
    assert kinds(report, "error") == {("clicks/clicks_hour_000.csv.gz", "unparsable"): 1}
    assert kinds(report, "warning") == {("clicks/clicks_hour_000.csv.gz", "after_log_end"): 1}
    write_hour(tmp_path, 1, [], header="user_id,session_id", packed=False)
    report = check_log(tmp_path, DATASETS["globo"])
    assert len(report.breaches) == 10 and {b.kind for b in report.breaches} == {"missing_column"}


def test_mind(tmp_path: Path) -> None:
    report = check_log(small(tmp_path), DATASETS["mind"])
    assert report.clean and kinds(report, "warning") == {
        ("train/news.tsv", "never_shown"): 1,
        ("", "day_without_rows"): 4,
    }


@pytest.mark.parametrize("name", ["ebnerd", "globo", "mind"])
def test_a_folder_without_a_log(tmp_path: Path, name: str) -> None:
    report = check_log(tmp_path, DATASETS[name])
    (breach,) = report.breaches
    assert breach.kind == "refused" and "data root" in breach.examples[0]["value"]


@pytest.mark.real
@pytest.mark.parametrize(("folder", "rows"), [("mind", 6_053), ("ebnerd_slice", 9_350)])
def test_real_logs_are_clean(real_data: Any, folder: str, rows: int) -> None:
    report = check_log(real_data(folder), DATASETS[folder.removesuffix("_slice")])
    assert report.clean and report.tables["clicks"]["rows_in"] == rows
