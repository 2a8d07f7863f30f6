"""The account of a log's rows: rows in = published + quarantined + exact copies, of every file and table."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml.datasets import DATASETS
from ml.log_check import REMEDIES, LogReport, check_log
from ml.own_log import declared_dataset
from ml.readers import ebnerd_days, globo, mind, own_log, rules
from tests.ml.bundles import article, at, globo_click, history, impression, write_bundle, write_hour
from tests.ml.test_readers_mind import news, write_mind
from tests.ml.test_readers_own_log import UTC_TIMES, click, write_log

Figures = dict[str, tuple[int, int, int, int]]


def ebnerd(root: Path) -> LogReport:
    """Articles that lie in several days, and in none; copies within and across days; histories held back whole."""
    rows = [
        impression(1, 1, "2023-05-18 08:00", [101, 102], [101]),
        impression(1, 1, "2023-05-18 08:00", [101, 102], [101]),  # exact copy: its click is told once
        impression(2, None, "2023-05-18 08:00", [101], [101]),  # no reader: held back, and so is its click
        impression(3, 1, "2023-05-19 08:00", [101, 104], [104]),
        impression(4, 1, "2031-01-01 08:00", [101], [101]),  # no day takes it: its click never comes to be
        impression(5, 1, "2023-05-20 08:00", [], []),
    ]
    uneven = {**history(2, ("2023-05-17 08:00", 101), ("2023-05-17 09:00", 102)), "read_time_fixed": [1.0]}
    reads = [history(1, ("2023-05-17 08:00", 101), ("2023-05-17 08:00", 101), ("1990-01-01 08:00", 102)), uneven]
    listed = [
        article(101, "2023-05-20 12:00"),  # in three days: of its appearances before, and of its publication
        article(101, "2023-05-20 12:00"),  # exact copy, in each of them
        article(101, "2023-05-20 12:00", title="Other"),  # held back in each of them
        article(102, "2023-05-01 12:00"),
        article(103, "2024-05-01 12:00"),  # after the log
        article(None, "2023-05-01 12:00"),
        article(105, "1066-05-01 12:00"),
    ]
    return check_log(write_bundle(root, {"train": rows}, {"train": reads}, listed), DATASETS["ebnerd"])


EBNERD: tuple[Figures, Figures] = (
    {
        "train/behaviors.parquet": (6, 5, 1, 0),
        "train/history.parquet": (4, 2, 2, 0),  # three clicks, and a history as one row
        "articles.parquet": (7, 4, 3, 0),
    },
    {"articles": (7, 2, 4, 1), "clicks": (3 + 4, 3, 3, 1), "impressions": (6, 2, 3, 1)},
)


def globo_log(root: Path) -> LogReport:
    start = "2017-10-01 03:00"
    rows = [globo_click(user, 1, start, 50, start) for user in range(40)]
    bad = [globo_click(user, 1, start, 50, start) for user in ("x", "")] + ["1,2", globo_click(1, 1, start, 50, 5)]
    late = globo_click(0, 1, start, 50, "2017-10-05 03:00")
    write_hour(root, 0, [*rows, *rows[:3], *bad, late])
    write_hour(root, 1, [])
    lines = ("article_id,category_id", "50,1", "50,1", "50,2", "60,3", "70,x", ",1")
    (root / "articles_metadata.csv").write_text("\n".join(lines) + "\n")
    return check_log(root, DATASETS["globo"])


GLOBO: tuple[Figures, Figures] = (
    {
        "clicks/clicks_hour_000.csv.gz": (48, 44, 4, 0),  # one of them is held back by its day
        "clicks/clicks_hour_001.csv.gz": (0, 0, 0, 0),
        "articles_metadata.csv": (6, 1, 4, 1),
    },
    {"articles": (6, 1, 4, 1), "clicks": (48, 40, 5, 3), "impressions": (0, 0, 0, 0)},
)


def mind_log(root: Path) -> LogReport:
    lines = [
        "1|U7|11/9/2019 12:00:00 PM||N1-0 N2-1 N3-1",
        "1|U7|11/9/2019 12:00:00 PM||N1-0 N2-1 N3-1",
        "1|U8|11/9/2019 12:00:00 PM||N1-0 N2-1",  # an id that is taken: its click counts no more than the line
        "2|U7|noon||N1-1 N2-0",
        "3|U7",
        "",  # no row
        "4|U7|11/10/2019 12:00:00 PM||N1-0 N5-1",
    ]
    listed = [news(1), news(1), news(1, "autos"), news(2), news(9), "N2|x"]
    return check_log(write_mind(root, "train", lines, listed), DATASETS["mind"])


MIND: tuple[Figures, Figures] = (
    {"train/behaviors.tsv": (6, 4, 2, 0), "train/news.tsv": (6, 2, 3, 1)},
    {"articles": (6, 2, 3, 1), "clicks": (3, 3, 0, 0), "impressions": (6, 2, 3, 1)},
)


def own(root: Path) -> LogReport:
    rows = [click(1, 10, "2023-05-01 08:00"), click(1, 10, "2023-05-01 08:00"), click(-1, 10, "2023-05-01 08:00")]
    rows += [click(1, 11, "2023-05-02 08:00"), click(1, 12, "2099-05-02 08:00"), click(None, 12, "2023-05-02 08:00")]
    shown = {"impression_id": 1, "user_id": 1, "time": at("2023-05-01 08:00"), "inview": [10, 11], "clicked": [10]}
    seen = [shown, shown, shown | {"user_id": 2}, shown | {"impression_id": 0}]
    seen.append(shown | {"impression_id": 2, "clicked": [9]})
    listed: list[dict[str, Any]] = [
        {"article_id": 10, "published": at("2023-05-02 06:00"), "title": "in two days"},
        {"article_id": 10, "published": at("2023-05-02 06:00"), "title": "in two days"},
        {"article_id": 10, "published": at("2023-05-02 06:00"), "title": "another"},
        {"article_id": 77, "published": None, "title": "never"},
        {"article_id": None, "published": None, "title": ""},
    ]
    said = UTC_TIMES + "first_day = 2023-05-01\nlast_day = 2023-05-02\n"
    return check_log(root, declared_dataset(write_log(root, said, clicks=rows, impressions=seen, articles=listed)))


OWN: tuple[Figures, Figures] = (
    {"clicks.parquet": (6, 5, 1, 0), "impressions.parquet": (5, 4, 1, 0), "articles.parquet": (5, 3, 2, 0)},
    {"articles": (5, 1, 3, 1), "clicks": (6, 2, 3, 1), "impressions": (5, 1, 3, 1)},
)

LOGS = {"ebnerd": (ebnerd, EBNERD), "globo": (globo_log, GLOBO), "mind": (mind_log, MIND), "own": (own, OWN)}
TABLE = ("rows_in", "published", "quarantined", "duplicates")


@pytest.mark.parametrize("name", sorted(LOGS))
def test_every_row_of_every_file_and_table_is_accounted_for(tmp_path: Path, name: str) -> None:
    """Figures counted by hand."""
    write, (files, tables) = LOGS[name]
    report = write(tmp_path)
    assert {f: (r.rows_in, r.placed, r.quarantined, r.duplicates) for f, r in report.files.items()} == files
    assert {t: tuple(counts[figure] for figure in TABLE) for t, counts in report.tables.items()} == tables
    for rows_in, *parts in (*files.values(), *tables.values()):
        assert rows_in == sum(parts), "the hand was wrong"
    assert "rows_unaccounted" not in {b.kind for b in report.breaches}


@pytest.mark.parametrize("name", sorted(LOGS))
def test_the_findings_add_up_to_the_account(tmp_path: Path, name: str) -> None:
    report = LOGS[name][0](tmp_path)
    found = [b for b in report.breaches if b.table]
    for table, counts in report.tables.items():
        copies = sum(b.count for b in found if b.kind == f"duplicate_{table}")
        assert copies == counts["duplicates"], table
        held_back = [b for b in found if b.table == table and b.kind in REMEDIES]
        assert sum(b.count for b in held_back) == counts["quarantined"], (table, held_back)


def test_articles_without_a_row_are_counted_apart(tmp_path: Path) -> None:
    assert ebnerd(tmp_path / "ebnerd").tables["articles"]["without_a_row"] == 1, "104"
    assert globo_log(tmp_path / "globo").tables["articles"]["without_a_row"] == 0
    assert mind_log(tmp_path / "mind").tables["articles"]["without_a_row"] == 2, "N3 and N5"
    assert own(tmp_path / "own").tables["articles"]["without_a_row"] == 1, "11"


def _losing(rows: pl.DataFrame, table: str, given: Any) -> rules.Judged:
    judged = rules.judge(rows, table, given)
    return rules.Judged(judged.kept.head(1), judged.held_back)


def _forgetful(rows: pl.DataFrame, table: str, given: Any) -> rules.Judged:
    judged = rules.judge(rows, table, given)
    return rules.Judged(judged.kept, judged.held_back.slice(1))


@pytest.mark.parametrize("broken", [_losing, _forgetful])
@pytest.mark.parametrize(
    ("name", "module"), [("ebnerd", ebnerd_days), ("globo", globo), ("mind", mind), ("own", own_log)]
)
def test_rows_that_a_reader_loses_on_the_way_to_days_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: Any, broken: Any
) -> None:
    monkeypatch.setattr(module, "judge", broken)
    report = LOGS[name][0](tmp_path)
    assert "rows_unaccounted" in {b.kind for b in report.breaches} and not report.clean
