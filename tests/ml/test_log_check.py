"""The check of logs: every breach with count, examples and remedy; errors apart from warnings."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml.datasets import DATASETS, Dataset
from ml.errors import DataError
from ml.log_check import REMARKS, REMEDIES, LogReport, check_log, check_undeclared
from ml.own_log import declared_dataset
from ml.readers import reader
from ml.readers.canonical import COPIES
from ml.readers.ranges import UNSET
from tests.ml import bundles
from tests.ml.bundles import GLOBO_COLUMNS, at, globo_click, write_hour
from tests.ml.test_readers_mind import news, small, write_mind
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
        ("impressions.parquet", "clicked_without_a_row", "clicked"): 1,
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
    assert not plain["clean"] and plain["errors"][0]["count"] == 8 and len(plain["warnings"]) == 5
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


@pytest.mark.parametrize(
    ("header", "found"),
    [(GLOBO_COLUMNS.replace(",", ";"), "is user_id;session_id;"), ("a,b", "is a, b;"), ("", "is blank;")],
)
def test_a_header_that_names_no_column_is_one_finding(tmp_path: Path, header: str, found: str) -> None:
    write_hour(tmp_path, 0, [globo_click(0, 11, START, 50, START)])
    write_hour(tmp_path, 1, [globo_click(0, 11, START, 50, START)], header=header)
    (wrong,) = [b for b in check_log(tmp_path, DATASETS["globo"]).breaches if b.severity == "error"]
    assert (wrong.kind, wrong.file, wrong.count) == ("missing_header", "clicks/clicks_hour_001.csv.gz", 1)
    said = wrong.examples[0]["value"]
    assert said.startswith(f"its first line {found}") and "it should name user_id, session_id, " in said


def test_mind(tmp_path: Path) -> None:
    report = check_log(small(tmp_path), DATASETS["mind"])
    assert report.clean and kinds(report, "warning") == {
        ("train/news.tsv", "never_shown"): 1,
        ("dev/news.tsv", "duplicate_articles"): 1,
        ("train/behaviors.tsv", "unlisted_article"): 2,
        ("", "day_without_rows"): 4,
    }


def test_a_click_that_is_told_twice_and_differently_is_held_back(tmp_path: Path) -> None:
    """What a run drops beside quarantine says nothing that the published row does not say."""
    time = "2023-05-01 08:00"
    rows = [
        click(1, 10, time, session_id=1, device=2, read_time=5.0),  # published: the shortest known reading
        click(1, 10, time, session_id=1, device=2, read_time=5.0),
        click(1, 10, time),  # says nothing more
        click(1, 10, time, session_id=1, device=3, read_time=9.0),
        click(1, 10, time, subscriber=True),  # of which the published row says nothing
        click(1, 10, time, read_time=-1.0),  # unknown
    ]
    root = write_log(tmp_path, clicks=rows)
    report = check_log(root, declared_dataset(root))
    found = {b.kind: [e["row"] for e in b.examples] for b in report.breaches if b.kind.startswith("duplicate")}
    assert found["duplicate_clicks"] == [2, 3, 6] and sorted(found["duplicate_click"]) == [4, 5]
    assert report.tables["clicks"] == {"rows_in": 6, "published": 1, "quarantined": 2, "duplicates": 3}
    assert not report.clean


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
    more += [shown | {"impression_id": 4, "user_id": 5, "inview": [10, 11]}]
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
        ("impressions.parquet", "shown_before_publication", "inview"): (4, [1, 2, 3, 4]),
        ("impressions.parquet", "clicked_without_a_row", "clicked"): (1, [4]),
    }
    assert {"duplicate_clicks" if r == COPIES else r for r in REMARKS} == {kind for _, kind, _ in found}
    assert all(b.severity == "warning" and b.remedy and b.examples[0]["value"] for b in report.breaches)


def test_events_outside_the_log_are_errors_on_both_sides(tmp_path: Path) -> None:
    """Articles after the end are as published: a warning."""
    days = [
        *(f"2023-05-{d:02d} 08:00" for d in range(10, 16) for _ in range(30)),
        "2023-05-25 08:00",
        "2023-03-01 08:00",
    ]
    shown = [bundles.impression(i + 1, 1, t, [5], [5]) for i, t in enumerate(days)]
    articles = [bundles.article(9, "2023-06-10 08:00")]
    root = bundles.write_bundle(tmp_path, {"train": shown}, {}, articles)
    found = {(b.table, b.kind): b.severity for b in check_log(root, DATASETS["ebnerd"]).breaches}
    assert found[("impressions", "after_log_end")] == found[("impressions", "before_log_start")] == "error"
    assert found[("articles", "after_log_end")] == "warning"
    remedies = {b.table: b.remedy for b in check_log(root, DATASETS["ebnerd"]).breaches if b.kind == "after_log_end"}
    assert remedies["impressions"].startswith("correct the clock") and remedies["articles"].startswith("nothing to do")


@pytest.mark.parametrize(("offset", "days"), [(20, 11), (-9, 11)])
def test_a_row_far_from_all_others_of_a_small_log_is_named(tmp_path: Path, offset: int, days: int) -> None:
    first = datetime(2023, 5, 1, 8)
    rows = [click(u, 10, first + timedelta(days=d)) for d in range(10) for u in (1, 2, 3)]
    rows.append(click(9, 10, first + timedelta(days=9 + offset if offset > 0 else offset)))
    root = write_log(tmp_path, clicks=rows)
    report = check_log(root, declared_dataset(root))
    assert len(report.days) == days and report.clean
    (breach,) = (b for b in report.breaches if b.kind == "far_from_all_others")
    assert (breach.severity, breach.file, breach.count, breach.table) == ("warning", "clicks.parquet", 1, "clicks")
    assert breach.examples[0]["row"] == 31
    assert f"beyond {abs(offset) - 1} days without a row" in breach.examples[0]["value"]


def test_an_impression_id_on_two_days_is_held_back_once(tmp_path: Path) -> None:
    shown = {"impression_id": 1, "user_id": 1, "inview": [10, 11], "clicked": [10]}
    times = ("2023-05-01 08:00", "2023-05-02 08:00", "2023-05-02 08:00", "2023-05-03 09:00")
    impressions = [shown | {"time": at(t)} for t in times]
    impressions[0] |= {"inview": [11], "clicked": [10]}  # held back itself, so that its id is free
    root = write_log(tmp_path, clicks=[click(1, 10, t) for t in times], impressions=impressions)
    report = check_log(root, declared_dataset(root))
    assert report.tables["impressions"] == {"rows_in": 4, "published": 1, "quarantined": 2, "duplicates": 1}
    found = {b.kind: (b.file, b.count, [e["row"] for e in b.examples]) for b in report.breaches}
    assert found["duplicate_impression_id"] == ("impressions.parquet", 1, [4])
    assert found["clicked_not_in_view"] == ("impressions.parquet", 1, [1])
    assert not report.clean


def test_an_impression_id_on_two_days_of_published_layouts(tmp_path: Path) -> None:
    lines = ["7|U7|11/9/2019 9:00:00 AM||N5-1", "7|U8|11/10/2019 9:00:00 AM||N6-1 N5-0"]
    write_mind(tmp_path / "mind", "", lines)
    shown = [bundles.impression(7, u, f"2023-05-{18 + u} 08:00", [5, 5 + u], [5]) for u in (1, 2)]
    shown += [bundles.impression(0, u, f"2023-05-{18 + u} 09:00", [5], []) for u in (1, 2)]
    bundles.write_bundle(tmp_path / "ebnerd", {"train": shown}, {})
    for name, rows in (("mind", 2), ("ebnerd", 4)):
        report = check_log(tmp_path / name, DATASETS[name])
        figures = {"rows_in": rows, "published": rows - 1, "quarantined": 1, "duplicates": 0}
        assert report.tables["impressions"] == figures
        assert report.tables["clicks"]["published"] == 1  # nobody knows whose the second is
        (breach,) = (b for b in report.breaches if b.severity == "error")
        assert (breach.kind, breach.count) == ("duplicate_impression_id", 1)


def test_numbers_beyond_32_bits_are_shown_as_they_are(tmp_path: Path) -> None:
    rows = [click(1, 10, "2023-05-01 08:00", read_time=1e308), click(2, 10, "2023-05-01 08:00", read_time=float("inf"))]
    own = write_log(tmp_path / "own", clicks=rows)
    read = [bundles.history(2, ("2023-05-18 10:00", 6))]
    shown = [bundles.impression(1, 1, "2023-05-18 08:00", [5], [5])]
    root = bundles.write_bundle(tmp_path / "ebnerd", {"train": shown}, {"train": read})
    for name, column, value in (
        ("behaviors", "next_read_time", pa.array([1e308])),
        ("history", "read_time_fixed", pa.array([[1e308]])),
    ):
        path = root / "train" / f"{name}.parquet"
        table = pq.read_table(path)
        pq.write_table(table.set_column(table.column_names.index(column), column, value), path)
    (breach,) = check_log(own, declared_dataset(own)).breaches
    assert ["1e+308" in e["value"] for e in breach.examples] == [True, False]
    said = [b.examples[0]["value"] for b in check_log(root, DATASETS["ebnerd"]).breaches if b.kind == UNSET]
    assert len(said) == 2 and all("1e+308" in value for value in said)


def test_articles_of_mind_that_no_news_file_lists_and_lines_that_are_there_again(tmp_path: Path) -> None:
    log = ["1|U7|11/9/2019 9:00:00 AM||N5-1 N6-0", "2|U7|11/10/2019 9:00:00 AM||N6-1"]
    listed = [news(5), news(5), news(5, title="Another"), news(5)]
    write_mind(tmp_path, "", log, listed)
    report = check_log(tmp_path, DATASETS["mind"])
    assert report.tables["articles"]["rows_in"] == 4
    found = {b.kind: (b.file, b.count, b.severity) for b in report.breaches}
    assert found == {
        "duplicate_article_id": ("news.tsv", 1, "error"),
        "duplicate_articles": ("news.tsv", 2, "warning"),
        "unlisted_article": ("behaviors.tsv", 1, "warning"),
    }
    (unlisted,) = (b for b in report.breaches if b.kind == "unlisted_article")
    assert unlisted.examples[0]["row"] == 1


def test_metadata_lines_of_globo_that_are_there_again(tmp_path: Path) -> None:
    write_hour(tmp_path, 0, [globo_click(0, 11, START, 50, START)])
    lines = ["article_id,category_id,created_at_ts,publisher_id,words_count", *["50,7,1,0,9"] * 3, "50,8,1,0,9"]
    (tmp_path / "articles_metadata.csv").write_text("\n".join(lines) + "\n")
    report = check_log(tmp_path, DATASETS["globo"])
    rows = report.files["articles_metadata.csv"]
    assert (rows.rows_in, rows.placed, rows.quarantined, rows.duplicates) == (4, 1, 1, 2)
    found = {b.kind: (b.count, b.examples[0]["row"] if b.examples else None) for b in report.breaches}
    assert found == {"duplicate_article_id": (1, 5), "duplicate_articles": (2, None)}


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
        rows = [globo_click(user, hour, START, 50 + hour, START) for user in range(300)]
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
        (name(4), "refused"), (name(5), "missing_header"),
    }  # fmt: skip
    assert report.left_out == [name(i) for i in (1, 3, 4, 5)] and report.stops
    assert list(report.files) == [name(0), name(2)]
    assert report.tables["clicks"] == {"rows_in": 602, "published": 600, "quarantined": 2, "duplicates": 0}
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
