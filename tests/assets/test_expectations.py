"""The suites: each rule passes good tables, and fails exactly on the rows that break it."""

import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.expectations import SUITES, CheckResult, suite_names, validate
from ml import schema
from ml.datasets import DATASETS
from ml.errors import DataError
from resources.engine import Engine
from tests.ml.bundles import ms

EBNERD = DATASETS["ebnerd"]
DAY = date(2023, 5, 18)
MORNING, NOON, EVENING = (ms(f"2023-05-18 {h}:00") for h in ("08", "12", "20"))
BEFORE, AFTER = ms("2023-05-18 06:59"), ms("2023-05-19 07:00")

Row = dict[str, Any]


def engine(home: Path, memory_limit: str = "200MB") -> Engine:
    return Engine(home / ".spill", memory_limit, threads=1)


def article(number: int | None, published: int, **other: Any) -> Row:
    named = {"article_id": number, "published": published, "published_is_first_seen": False}
    return named | {"title": "Title", "category_id": 1} | other


def click(user: int | None, number: int | None, time: int, **other: Any) -> Row:
    return {"user_id": user, "article_id": number, "time": time, "read_time": 3.0} | other


def impression(number: int | None, time: int, inview: list[int], clicked: list[int] | None, user: int = 1) -> Row:
    return {"impression_id": number, "user_id": user, "time": time, "inview": inview, "clicked": clicked}


def interaction(user: int, time: int, number: int, session: int | None = 0) -> Row:
    return {"user_id": user, "article_id": number, "time": time, "session_id": session}


def range_(first: int | None, target: int, split: str = "train") -> Row:
    return {"first": first, "target": target, "split": split}


GOOD: dict[str, list[Row]] = {
    "articles": [article(3, 5), article(1, MORNING), article(2, MORNING, published_is_first_seen=True)],
    "clicks": [click(1, 5, MORNING), click(2, 4, MORNING), click(2, 5, MORNING, impression_id=1), click(1, 5, NOON)],
    "impressions": [
        impression(0, MORNING, [1, 2], []),
        impression(0, MORNING, [1, 2], [], user=2),
        impression(7, NOON, [1, 2, 3], [3, 1]),
    ],
    "interactions": [interaction(1, 5, 9), interaction(1, BEFORE, 4), interaction(2, 5, 9, 3)],
    "session_splits": [range_(0, 1), range_(0, 2, "validation"), range_(3, 4, "test")],
}

BROKEN: list[tuple[str, str, list[Row], int, str]] = [
    ("articles", "ids", [article(-2, MORNING), article(None, MORNING)], 2, "article_id -2"),
    ("articles", "unique_article_id", [article(1, MORNING), article(1, NOON)], 1, "article_id 1, copies 2"),
    ("articles", "sorted", [article(2, MORNING), article(1, MORNING)], 1, "article_id 1"),
    ("articles", "published_before_day_end", [article(2, AFTER)], 1, "published 2023-05-19 07:00:00"),
    ("articles", "first_seen_within_day", [article(2, BEFORE, published_is_first_seen=True)], 1, "article_id 2"),
    ("articles", "category_known", [article(2, MORNING, category_id=None)], 1, "article_id 2"),
    ("articles", "title_present", [article(2, MORNING, title=" "), article(3, MORNING, title=None)], 2, "article_id 2"),
    ("clicks", "ids", [click(None, 1, MORNING), click(1, -1, NOON)], 2, "user_id (not shown), article_id -1"),
    ("clicks", "time_within_day", [click(1, 1, BEFORE), click(1, 1, AFTER)], 2, "time 2023-05-18 06:59:00"),
    ("clicks", "sorted_unique", [click(1, 1, NOON), click(1, 1, NOON), click(9, 9, MORNING)], 2, "article_id 1"),
    ("clicks", "impression_id", [click(1, 1, NOON, impression_id=0)], 1, "impression_id 0"),
    ("clicks", "read_time", [click(1, 1, NOON, read_time=-1.0), click(2, 1, NOON, read_time=float("nan"))], 2, "-1.0"),
    ("clicks", "scroll_percentage", [click(1, 1, NOON, scroll_percentage=101.0)], 1, "scroll_percentage 101.0"),
    ("impressions", "ids", [impression(-1, MORNING, [1], []), impression(None, NOON, [1], [])], 2, "impression_id -1"),
    ("impressions", "time_within_day", [impression(1, AFTER, [1], [])], 1, "time 2023-05-19 07:00:00"),
    ("impressions", "unique_impression_id", [impression(4, MORNING, [1], []), impression(4, NOON, [1], [])], 1, "4"),
    ("impressions", "sorted", [impression(4, MORNING, [1], []), impression(3, MORNING, [1], [])], 1, "impression_id 3"),
    ("impressions", "inview", [impression(4, MORNING, [], [])], 1, "impression_id 4"),
    ("impressions", "clicked_in_view", [impression(4, NOON, [1], [2]), impression(5, NOON, [1], None)], 2, "[2]"),
    ("impressions", "inview_distinct", [impression(4, NOON, [1, 1], [1])], 1, "inview [1, 1]"),
    ("interactions", "ids", [interaction(1, 5, 9, None), interaction(2, 5, 9, -1)], 2, "session_id -1"),
    ("interactions", "time_before_as_of_day", [interaction(1, ms("2023-05-18 07:00"), 9)], 1, "2023-05-18 07:00:00"),
    ("interactions", "sorted_unique", [interaction(1, 5, 9), interaction(1, 5, 9), interaction(1, 4, 9)], 2, "id 9"),
    ("session_splits", "range", [range_(1, 1), range_(None, 2), range_(-1, 3)], 3, "first 1, target 1"),
    ("session_splits", "split", [range_(1, 2, "tset")], 1, "split tset"),
    ("session_splits", "unique_target", [range_(1, 2), range_(0, 2)], 1, "target 2, copies 2"),
]  # fmt: skip


def stage(folder: Path, table: str, rows: list[Row], columns: pa.Schema | None = None) -> Path:
    """A staged output of these rows; nulls are written wherever the row has none, whatever the schema says."""
    suite = SUITES[table]
    columns = columns or pa.schema([f.with_nullable(True) for f in suite.columns])
    pq.write_table(
        pa.Table.from_pylist([{n: r.get(n) for n in columns.names} for r in rows], columns), folder / suite.file
    )
    return folder


def by_name(results: list[CheckResult]) -> dict[str, CheckResult]:
    return {r.name: r for r in results}


@pytest.mark.parametrize("table", list(SUITES))
@pytest.mark.parametrize("empty", [False, True])
def test_good_tables_pass(tmp_path: Path, table: str, empty: bool) -> None:
    results = validate(table, stage(tmp_path, table, [] if empty else GOOD[table]), EBNERD, DAY, engine(tmp_path))
    assert [r.name for r in results] == suite_names(table)
    assert [(r.name, r.examples) for r in results if not r.passed or r.count_bad] == []


@pytest.mark.parametrize(("table", "rule", "rows", "count", "example"), BROKEN, ids=[f"{t}.{r}" for t, r, *_ in BROKEN])
def test_each_rule_fails_alone(
    tmp_path: Path, table: str, rule: str, rows: list[Row], count: int, example: str
) -> None:
    results = by_name(validate(table, stage(tmp_path, table, rows), EBNERD, DAY, engine(tmp_path)))
    assert [name for name, r in results.items() if not r.passed] == [rule]
    assert results[rule].count_bad == count
    assert any(example in shown for shown in results[rule].examples)


def test_every_rule_has_a_failing_case() -> None:
    tried = {(table, rule) for table, rule, *_ in BROKEN}
    rules = {(table, rule.name) for table, suite in SUITES.items() for rule in suite.rules}
    assert rules - tried == {(t, "quarantine_share") for t in ("articles", "clicks", "impressions")}


@pytest.mark.parametrize(("held_back", "passed"), [(0, True), (1, True), (2, False)])
def test_quarantine_share(tmp_path: Path, held_back: int, passed: bool) -> None:
    """1 of 20 rows is 5 %, 2 of 21 are more."""
    stage(tmp_path, "clicks", [click(1, 1, MORNING + i) for i in range(19)])
    row = {"table": "clicks", "reason": "null_id", "source": "a.csv", "row": "{}"}
    pq.write_table(pa.Table.from_pylist([row] * held_back, schema.QUARANTINE), tmp_path / "quarantine.parquet")
    result = by_name(validate("clicks", tmp_path, EBNERD, DAY, engine(tmp_path)))["quarantine_share"]
    assert (result.passed, result.blocking) == (passed, False)
    assert result.examples == ([] if passed else ["null_id: a.csv"] * 2)


@pytest.mark.parametrize(("table", "rule", "rows"), [b[:3] for b in BROKEN if b[0] in ("clicks", "interactions")])
def test_examples_name_no_reader(tmp_path: Path, table: str, rule: str, rows: list[Row]) -> None:
    readers = {r: 7_000_000 + r for r in (1, 2, 9)}
    named = [row | {"user_id": readers.get(row["user_id"], row["user_id"])} for row in rows]
    result = by_name(validate(table, stage(tmp_path, table, named), EBNERD, DAY, engine(tmp_path)))[rule]
    assert result.examples and not any(str(r) in e for r in readers.values() for e in result.examples)


def test_at_most_five_examples(tmp_path: Path) -> None:
    rows = [click(1, 1, AFTER + i) for i in range(50)]
    results = validate("clicks", stage(tmp_path, "clicks", rows), EBNERD, DAY, engine(tmp_path))
    result = by_name(results)["time_within_day"]
    assert (result.count_bad, len(result.examples), result.blocking) == (50, 5, True)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda s: s.remove(0), "first: missing"),
        (lambda s: s.append(pa.field("extra", pa.int64())), "extra: unexpected"),
        (lambda s: s.set(0, pa.field("first", pa.int32())), "first: int32, expected int64"),
    ],
)
def test_wrong_schema(tmp_path: Path, change: Callable[[pa.Schema], pa.Schema], difference: str) -> None:
    stage(tmp_path, "session_splits", [], change(schema.SESSIONS))
    (result,) = validate("session_splits", tmp_path, EBNERD, DAY, engine(tmp_path))
    assert (result.name, result.passed, result.blocking, result.examples) == ("schema", False, True, [difference])


def test_a_missing_or_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"clicks\.parquet cannot be checked .*materialise the step again"):
        validate("clicks", tmp_path, EBNERD, DAY, engine(tmp_path))
    (tmp_path / "clicks.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"clicks\.parquet cannot be checked"):
        validate("clicks", tmp_path, EBNERD, DAY, engine(tmp_path))


def test_a_file_itself_may_be_named(tmp_path: Path) -> None:
    path = stage(tmp_path, "clicks", GOOD["clicks"]) / "clicks.parquet"
    assert all(r.passed for r in validate("clicks", path, EBNERD, DAY, engine(tmp_path)))


def test_names_without_a_suite() -> None:
    assert suite_names("predictions") == []


def test_declaring_checks_does_not_import_great_expectations() -> None:
    code = (
        "import sys, assets.expectations as e; e.suite_names('clicks'); sys.exit('great_expectations' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rules_are_counted_within_the_engines_memory(tmp_path: Path) -> None:
    """An order over a million rows spills: it takes more than the engine may hold."""
    n = 1_000_000
    times = pa.array(range(MORNING, MORNING + n)).cast(schema.TIME)
    columns = {name: pa.nulls(n, schema.CLICKS.field(name).type) for name in schema.CLICKS.names}
    columns |= {"user_id": pa.array(range(n)), "article_id": pa.array(range(n)), "time": times}
    pq.write_table(pa.table(columns, schema=schema.CLICKS), tmp_path / "clicks.parquet")
    used = engine(tmp_path, "64MB")
    assert all(r.passed for r in validate("clicks", tmp_path, EBNERD, DAY, used))
    with pytest.raises(Exception, match="closed"):
        used.connection.execute("SELECT 1")
