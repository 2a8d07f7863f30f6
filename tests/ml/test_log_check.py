"""The check of logs: every breach with count, examples and remedy; errors apart from warnings."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ml.datasets import DATASETS, Dataset
from ml.errors import DataError
from ml.log_check import REMARKS, REMEDIES, LogReport, check_log, check_undeclared
from ml.own_log import declared_dataset
from ml.readers import reader
from ml.readers.canonical import COPIES
from tests.ml import bundles
from tests.ml.bundles import at, globo_click, write_hour
from tests.ml.test_readers_mind import small, write_mind
from tests.ml.test_readers_own_log import OSLO, UTC_TIMES, click, write_log


def kinds(report: LogReport, severity: str) -> dict[tuple[str, str], int]:
    return {(b.file, b.kind): b.count for b in report.breaches if b.severity == severity}


def files_of(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in root.rglob("*") if p.is_file()}


def test_a_clean_own_log(tmp_path: Path) -> None:
    root = write_log(tmp_path, clicks=[click(1, 10, "2023-05-01 08:00")] * 2)
    before = files_of(root)
    report = check_log(root, declared_dataset(root))
    assert report.clean and report.days == [date(2023, 5, 1)] and list(report.files) == ["clicks.parquet"]
    assert not report.stops and not report.left_out and not report.assumed and not report.not_read
    assert report.tables["clicks"]["rows_in"] == 2
    assert kinds(report, "warning") == {("clicks.parquet", "duplicate_clicks"): 1}
    assert [e["row"] for b in report.breaches for e in b.examples] == [2]
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
    assert not report.clean and report.stops and not report.tables
    assert report.left_out == ["articles.parquet", "clicks.parquet", "impressions.parquet"]
    types = {b.column: b.examples[0]["value"] for b in report.breaches if b.kind == "wrong_type"}
    assert types == {
        "user_id": "it has type string, it should be integer",
        "read_time": "it has type string, it should be number",
        "device": "it has type double, it should be integer",
        "title": "it has type int64, it should be string",
    }


def test_types_that_should_be_others_are_named_by_the_reader_too(tmp_path: Path) -> None:
    root = bundles.synthetic_bundle(tmp_path)
    path = root / "train" / "behaviors.parquet"
    table = pq.read_table(path)
    at_ = table.column_names.index("article_ids_inview")
    pq.write_table(table.set_column(at_, "article_ids_inview", table["impression_id"]), path)
    with pytest.raises(DataError, match="article_ids_inview has type int64, it should be list of integers"):
        reader("ebnerd").split(root, DATASETS["ebnerd"], tmp_path / "out")


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
    warned = {(b.file, b.kind, b.column): b for b in report.breaches if b.severity == "warning"}
    assert {key: b.count for key, b in warned.items()} == {
        ("clicks.parquet", "value_out_of_range", "read_time"): 1,
        ("clicks.parquet", "value_out_of_range", "scroll_percentage"): 1,
        ("impressions.parquet", "twice_in_view", "inview"): 1,
        ("", "day_without_rows", "time"): 1,
    }
    assert warned["clicks.parquet", "value_out_of_range", "read_time"].examples == [
        {
            "file": "clicks.parquet",
            "row": 11,
            "value": '{"article_id": 10, "time": "2023-05-03T09:00:00.000Z", "read_time": -1.0}',
        }
    ]
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
    assert {(b.file, b.column) for b in report.breaches if b.severity == "error"} == {
        ("train/behaviors.parquet", "session_id"),
        ("train/behaviors.parquet", "user_id"),
    }
    assert report.left_out == ["train/behaviors.parquet"] and report.stops
    assert report.tables["impressions"]["rows_in"] == 2, "those of validation are checked"


def test_globo(tmp_path: Path) -> None:
    start = "2017-10-01 03:00"
    rows = [globo_click(0, 11, start, 50, start), globo_click(0, 11, start, 50, "2017-10-05 03:00")]
    write_hour(tmp_path, 0, [*rows, globo_click("x", 11, start, 50, start)])
    report = check_log(tmp_path, DATASETS["globo"])
    assert kinds(report, "error") == {("clicks/clicks_hour_000.csv.gz", "unparsable"): 1}
    assert kinds(report, "warning") == {("clicks/clicks_hour_000.csv.gz", "after_log_end"): 1}
    write_hour(tmp_path, 1, [], header="user_id,session_id", packed=False)
    report = check_log(tmp_path, DATASETS["globo"])
    missing = [b for b in report.breaches if b.kind == "missing_column"]
    assert len(missing) == 10 and {b.file for b in missing} == {"clicks/clicks_hour_001.csv"}
    assert kinds(report, "error")[("clicks/clicks_hour_000.csv.gz", "unparsable")] == 1, "the other file's rows, too"


def test_mind(tmp_path: Path) -> None:
    report = check_log(small(tmp_path), DATASETS["mind"])
    assert report.clean and kinds(report, "warning") == {
        ("train/news.tsv", "never_shown"): 1,
        ("dev/news.tsv", "duplicate_articles"): 1,
        ("", "day_without_rows"): 4,
    }


def test_every_remark_has_a_remedy_a_file_and_an_example(tmp_path: Path) -> None:
    """An own log with one of each."""
    rows = [
        click(1, 10, "2023-05-01 08:00", impression_id=1, read_time=float("nan")),
        click(1, 10, "2023-05-01 08:00", impression_id=1),
        click(2, 10, "2023-05-01 08:01", impression_id=1),
        click(1, 99, "2023-05-01 08:02", impression_id=1),
        click(1, 11, "2023-05-01 08:03", impression_id=9),
    ]
    shown = {"impression_id": 1, "user_id": 1, "time": at("2023-05-01 08:00"), "inview": [10, 10, 11], "clicked": [10]}
    more = [shown | {"impression_id": 2, "clicked": []}, shown | {"impression_id": 3, "clicked": None}]
    listed = [{"article_id": 10, "published": at("2023-05-01 08:01")}, {"article_id": 11, "sentiment_score": 7.0}]
    root = write_log(tmp_path, clicks=rows, impressions=[shown, *more], articles=listed)
    report = check_log(root, declared_dataset(root))
    assert report.clean
    found = {(b.file, b.kind, b.column): (b.count, [e["row"] for e in b.examples]) for b in report.breaches}
    assert found == {
        ("articles.parquet", "value_out_of_range", "sentiment_score"): (1, [2]),
        ("clicks.parquet", "value_out_of_range", "read_time"): (1, [1]),
        ("clicks.parquet", "duplicate_clicks", ""): (1, [2]),
        ("clicks.parquet", "click_before_publication", "time"): (1, [1]),
        ("clicks.parquet", "impression_of_another_reader", "impression_id"): (1, [3]),
        ("clicks.parquet", "article_not_in_impression", "impression_id"): (1, [4]),
        ("clicks.parquet", "impression_missing", "impression_id"): (1, [5]),
        ("clicks.parquet", "unlisted_article", "article_id"): (1, [4]),
        ("impressions.parquet", "twice_in_view", "inview"): (3, [1, 2, 3]),
        ("impressions.parquet", "nothing_clicked", "clicked"): (1, [2]),
        ("impressions.parquet", "clicked_unknown", "clicked"): (1, [3]),
        ("impressions.parquet", "shown_before_publication", "inview"): (3, [1, 2, 3]),
    }
    assert {"duplicate_clicks" if r == COPIES else r for r in REMARKS} == {kind for _, kind, _ in found}
    assert all(b.severity == "warning" and b.remedy and b.examples[0]["value"] for b in report.breaches)


def test_advice_on_days_names_entries_only_where_there_are_such(tmp_path: Path) -> None:
    said = UTC_TIMES + "first_day = 2023-05-01\nlast_day = 2023-05-02\n"
    root = write_log(tmp_path / "own", said, clicks=[click(1, 10, f"202{i}-05-01 08:00") for i in (3, 4)])
    (breach,) = check_log(root, declared_dataset(root)).breaches
    assert (breach.kind, breach.examples[0]["row"]) == ("outside_days", 2)
    assert "2023-05-01 to 2023-05-02: name others in log.toml (first_day, last_day)" in breach.remedy
    start = "2017-10-01 03:00"
    write_hour(tmp_path / "globo", 0, [globo_click(0, 11, start, 50, t) for t in (start, "2018-10-05 03:00")])
    shown = [bundles.impression(i, 1, f"202{i}-05-18 08:00", [5], [5]) for i in (3, 4)]
    bundles.write_bundle(tmp_path / "ebnerd", {"train": shown}, {})
    write_mind(tmp_path / "mind", "", [f"{i}|U7|11/9/201{i} 9:00:00 AM||N5-1" for i in (8, 9)])
    for name in ("globo", "ebnerd", "mind"):
        (breach,) = check_log(tmp_path / name, DATASETS[name]).breaches
        log = DATASETS[name]
        assert breach.remedy == f"correct the clock; the log's days are {log.first_day} to {log.last_day}"


def errors(report: LogReport) -> set[tuple[str, str]]:
    return {(b.file, b.kind) for b in report.breaches if b.severity == "error"}


START = "2017-10-01 03:00"


def test_every_broken_file_is_named_and_the_rows_of_all_others_are_checked(tmp_path: Path) -> None:
    """Damage that only reading to the end shows, a file that is none, one without its columns, and bad rows."""
    for hour in range(6):
        rows = [globo_click(user, hour, START, 50, START) for user in range(300)]
        write_hour(tmp_path, hour, [*rows, globo_click(f"x{hour}", hour, START, 50, START)])
    for hour in (1, 3):
        path = tmp_path / f"clicks/clicks_hour_00{hour}.csv.gz"
        path.write_bytes(path.read_bytes()[:-30])
    (tmp_path / "clicks/clicks_hour_004.csv.gz").unlink()
    (tmp_path / "clicks/clicks_hour_004.csv.gz").symlink_to("/dev/zero")
    write_hour(tmp_path, 5, [], header="user,article")
    report = check_log(tmp_path, DATASETS["globo"])
    name = "clicks/clicks_hour_00{}.csv.gz".format
    assert errors(report) == {
        (name(0), "unparsable"), (name(2), "unparsable"), (name(1), "unreadable_file"), (name(3), "unreadable_file"),
        (name(4), "refused"), (name(5), "missing_column"),
    }  # fmt: skip
    assert report.left_out == [name(i) for i in (1, 3, 4, 5)] and report.stops
    assert list(report.files) == [name(0), name(2)]
    assert report.tables["clicks"] == {"rows_in": 602, "published": 300, "quarantined": 2, "duplicates": 300}
    assert [e["row"] for b in report.breaches if b.kind == "unparsable" for e in b.examples] == [302, 302]
    for remedy in (b.remedy for b in report.breaches if b.severity == "error"):
        assert remedy


def test_a_broken_table_hides_no_row_of_the_others(tmp_path: Path) -> None:
    rows = [click(1, 10, "2023-05-01 08:00"), click(-1, 10, "2023-05-01 08:00")]
    listed = [{"article_id": i, "title": f"Title {i}"} for i in range(2_000)]
    root = write_log(tmp_path, clicks=rows, articles=listed)
    path = root / "articles.parquet"
    data = bytearray(path.read_bytes())
    titles = pq.read_metadata(path).row_group(0).column(1).dictionary_page_offset
    data[titles : titles + 200] = bytes(200)
    path.write_bytes(bytes(data))
    wrong = {("articles.parquet", "unreadable_file"), ("clicks.parquet", "negative_id")}
    report = check_log(root, declared_without_articles(root))
    assert errors(report) == wrong
    with pytest.raises(DataError, match=r"articles\.parquet cannot be read") as refused:
        declared_dataset(root)
    assert errors(check_undeclared(root, refused.value)) == wrong, "and nothing twice"


def declared_without_articles(root: Path) -> Dataset:
    """What the log says of itself, without its articles, which the declaration looks into."""
    (root / "articles.parquet").rename(root / "aside")
    try:
        return declared_dataset(root)
    finally:
        (root / "aside").rename(root / "articles.parquet")


@pytest.mark.parametrize(
    "said",
    [
        "",
        'name = "My Paper"\ntimezone = "Oslo"\n',
        'name = "paper"\ntimezone = "UTC"\nfirst_day = 2023-05-01\nlast_day = 2023-04-01\n',
        "name = paper",
    ],
)
def test_a_log_that_says_nothing_usable_is_checked_all_the_same(tmp_path: Path, said: str) -> None:
    rows = [click(i, 10, "2023-05-01 08:00") for i in (1, -1)]
    root = write_log(tmp_path, said, clicks=rows, articles=[{"article_id": None}, {"article_id": 10}])
    with pytest.raises(DataError) as refused:
        declared_dataset(root)
    report = check_undeclared(root, refused.value)
    wrong = {("log.toml", "refused"), ("clicks.parquet", "negative_id"), ("articles.parquet", "null_id")}
    assert errors(report) == wrong | {("clicks.parquet", "time_without_zone")}
    assert report.stops and report.days == [date(2023, 5, 1)]
    assert any("UTC" in a for a in report.assumed) and any("2023-05-01 to 2023-05-01" in a for a in report.assumed)


def test_each_table_without_a_zone_is_named(tmp_path: Path) -> None:
    shown = {"impression_id": 1, "user_id": 1, "time": at("2023-05-01 08:00"), "inview": [1], "clicked": [2]}
    listed = {"article_id": 1, "published": at("2023-05-01 08:00"), "modified": at("2023-05-01 08:00")}
    root = write_log(tmp_path, OSLO, clicks=[click(1, 1, "2023-05-01 08:00")], impressions=[shown], articles=[listed])
    with pytest.raises(DataError) as refused:
        declared_dataset(root)
    report = check_undeclared(root, refused.value)
    found = {(b.file, b.column) for b in report.breaches if b.kind == "time_without_zone"}
    assert found == {
        ("clicks.parquet", "time"), ("impressions.parquet", "time"),
        ("articles.parquet", "published"), ("articles.parquet", "modified"),
    }  # fmt: skip
    assert ("impressions.parquet", "clicked_not_in_view") in errors(report)
    assert ("log.toml", "refused") not in errors(report), "that would be said twice"


def test_a_log_without_a_readable_click_is_refused_file_by_file(tmp_path: Path) -> None:
    root = write_log(tmp_path, clicks=[{"user_id": "u"}], impressions=[{"inview": "x"}])
    with pytest.raises(DataError) as refused:
        declared_dataset(root)
    report = check_undeclared(root, refused.value)
    assert {file for file, _ in errors(report)} == {"clicks.parquet", "impressions.parquet"}
    assert report.stops and not report.tables and report.left_out == ["clicks.parquet", "impressions.parquet"]


def test_rows_of_a_log_in_which_no_row_falls_are_named(tmp_path: Path) -> None:
    write_hour(tmp_path, 0, [globo_click(1, 11, "2016-10-01 03:00", 50, "2016-10-01 03:00")])
    report = check_log(tmp_path, DATASETS["globo"])
    assert errors(report) == {("", "refused")} and report.stops
    (warned,) = (b for b in report.breaches if b.severity == "warning")
    assert (warned.kind, warned.count, warned.examples[0]["row"]) == ("outside_days", 1, 2)


def test_strays_are_errors_where_rows_are_missing_and_else_named(tmp_path: Path) -> None:
    root = write_log(tmp_path, clicks=[click(1, 10, "2023-05-01 08:00")], impression=[{"user_id": 1}])
    (root / "readme.txt").write_text("hello")
    (root / "clicks_2022.parquet").write_bytes(b"")
    report = check_log(root, declared_dataset(root))
    assert errors(report) == {("impression.parquet", "misnamed")} and not report.stops
    assert kinds(report, "warning") == {("clicks_2022.parquet", "misnamed"): 1}
    assert report.not_read == ["readme.txt"]
    assert "impressions.parquet" in next(b.remedy for b in report.breaches if b.severity == "error")
    assert report.to_json()["not_read"] == ["readme.txt"]


def test_an_artifact_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    root = bundles.synthetic_bundle(tmp_path)
    (root / "artifacts").mkdir()
    (root / "artifacts" / "document_vector.parquet").write_bytes(b"PAR1 nothing")
    report = check_log(root, DATASETS["ebnerd"])
    assert errors(report) == {("artifacts/document_vector.parquet", "unreadable_file")} and report.days


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
