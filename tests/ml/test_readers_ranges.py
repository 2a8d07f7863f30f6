"""Ranges of canonical cells: the ends are kept, what lies outside is unset and counted, alike for every reader."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import schema
from ml.datasets import DATASETS
from ml.own_log import declared_dataset
from ml.readers import DayTables, reader
from ml.readers.ranges import RANGES, unset_outside
from ml.readers.remarks import EXAMPLES, Remark, added
from tests.ml import bundles
from tests.ml.bundles import article, history, impression, write_bundle
from tests.ml.test_readers_ebnerd import assert_conserved, told
from tests.ml.test_readers_own_log import UTC_TIMES, click, write_log

DAY = date(2023, 5, 18)
NAN, INF = float("nan"), float("inf")
BAD = {
    "read_time": [NAN, INF, -INF, 1e308, -1e308, -1.0, 86_401.0],
    "scroll_percentage": [NAN, INF, -3.0, 5000.0, 100.5],
    "sentiment_score": [NAN, INF, 7.0, -0.1, 1.5],
}
GOOD = {
    "read_time": [0.0, -0.0, 5e-324, 1.5, 86_400.0, None],
    "scroll_percentage": [0.0, 100.0, 55.5, None],
    "sentiment_score": [0.0, 1.0, 0.5, None],
}


def own(root: Path, column: str, values: list[Any]) -> tuple[str, Path, str, str]:
    """An own log with these values; the reader, the root, the file and the column that has them."""
    kinds = {column: pa.float64()}
    rows = [click(i, 100 + i, "2023-05-18 08:00") for i in range(len(values))]
    if column == "sentiment_score":
        listed = [{"article_id": 100 + i, column: v} for i, v in enumerate(values)]
        return "own", write_log(root, UTC_TIMES, kinds, clicks=rows, articles=listed), "articles.parquet", column
    rows = [row | {column: v} for row, v in zip(rows, values, strict=True)]
    return "own", write_log(root, UTC_TIMES, kinds, clicks=rows), "clicks.parquet", column


def ebnerd(root: Path, column: str, values: list[Any]) -> tuple[str, Path, str, str]:
    """The same of a bundle, in impressions."""
    rows = [impression(i + 1, i, "2023-05-18 08:00", [100 + i, 99], [100 + i]) for i in range(len(values))]
    listed = [article(100 + i, "2023-05-18 07:30") for i in range(len(values))]
    write_bundle(root, {"train": rows}, {}, listed)
    file = "articles.parquet" if column == "sentiment_score" else "train/behaviors.parquet"
    name = column if column == "sentiment_score" else f"next_{column}"
    table = pq.read_table(root / file)
    at_place = table.column_names.index(name)
    pq.write_table(table.set_column(at_place, name, pa.array(values, pa.float64())), root / file)
    return "ebnerd", root, file, name


def histories(root: Path, column: str, values: list[Any]) -> tuple[str, Path, str, str]:
    """The same of a bundle, in one history."""
    read = dict(history(1, *[("2023-05-18 08:00", 100 + i) for i in range(len(values))]))
    read[f"{column}_fixed"] = values
    return "ebnerd", write_bundle(root, {}, {"train": [read]}), "train/history.parquet", f"{column}_fixed"


def the_day(name: str, root: Path, out: Path) -> DayTables:
    known = DATASETS.get(name) or declared_dataset(root)
    days = reader(name).split(root, known, out)
    assert days == [DAY]
    tables = reader(name).tables(out / str(DAY), known, DAY)
    assert_conserved(tables)
    return tables


Layout = Callable[[Path, str, list[Any]], tuple[str, Path, str, str]]
CASES = [(layout, column) for layout in (own, ebnerd) for column in BAD]
CASES += [(histories, column) for column in ("read_time", "scroll_percentage")]


@pytest.mark.parametrize(("layout", "column"), CASES)
def test_cells_outside_their_range_are_unset_and_counted_exactly(tmp_path: Path, layout: Layout, column: str) -> None:
    values = [v for pair in zip(BAD[column], GOOD[column] * 2, strict=False) for v in pair] + GOOD[column]
    bad = len(BAD[column])
    name, root, file, source = layout(tmp_path / "in", column, values)
    tables = the_day(name, root, tmp_path / "out")
    table = "articles" if column == "sentiment_score" else "clicks"
    rows = getattr(tables, table)
    found = dict(zip(rows["article_id"].to_pylist(), rows[column].to_pylist(), strict=True))
    expected = [None if v in BAD[column] or v != v else v for v in values]
    assert [found[100 + i] for i in range(len(values))] == pytest.approx(expected)
    (remark,) = [r for r in tables.remarks if r.reason == "value_out_of_range"]
    assert (remark.table, remark.column, remark.file, remark.count) == (table, source, file, bad)
    assert len(remark.examples) == min(bad, EXAMPLES)
    place, said = remark.examples[0]
    assert place == (f"{file}:1" if name == "own" or table == "articles" else file)
    assert json.loads(said)["article_id"] in (100, [100]) and json.loads(said)[source] == "nan"


def test_an_impressions_cell_counts_once_however_many_clicks_it_bears(tmp_path: Path) -> None:
    rows = [impression(1, 1, "2023-05-18 08:00", [5, 6, 7], [5, 6], next_read_time=-5.0)]
    rows += [impression(2, 1, "2023-05-18 08:00", [5], [], next_read_time=-5.0)]  # bears none: nothing is unset
    tables = the_day("ebnerd", write_bundle(tmp_path / "in", {"train": rows}, {}), tmp_path / "out")
    assert tables.clicks["read_time"].to_pylist() == [None, None]
    assert told(tables) == {("clicks", "value_out_of_range", "next_read_time", "train/behaviors.parquet"): 1}


def test_an_impressions_wait_that_dates_no_click_is_counted(tmp_path: Path) -> None:
    waits = [NAN, INF, -3.0, None, 0.0, 14.0]
    rows = [impression(i + 1, i, "2023-05-18 08:00", [5], [5], read_time=w) for i, w in enumerate(waits)]
    rows += [impression(9, 1, "2023-05-18 08:00", [5], [], read_time=-3.0)]
    tables = the_day("ebnerd", write_bundle(tmp_path / "in", {"train": rows}, {}), tmp_path / "out")
    assert told(tables) == {("impressions", "value_out_of_range", "read_time", "train/behaviors.parquet"): 3}
    assert len(set(tables.clicks["time"].to_pylist())) == 2


def test_links_of_clicks_are_ids_of_impressions(tmp_path: Path) -> None:
    """0 and negative numbers name no impression."""
    rows = [click(1, i, "2023-05-18 08:00", impression_id=v) for i, v in enumerate([0, -1, -(2**63), None])]
    root = write_log(tmp_path / "in", types={"impression_id": pa.int64()}, clicks=rows)
    tables = the_day("own", root, tmp_path / "out")
    assert tables.clicks["impression_id"].null_count == 4
    assert told(tables) == {("clicks", "value_out_of_range", "impression_id", "clicks.parquet"): 3}


def test_negative_codes_hold_rows_back_in_every_layout(tmp_path: Path) -> None:
    """Of `globo` and `ebnerd`; those of an own log are held back when it is cut."""
    line = bundles.globo_click(1, 1, "2017-10-01 04:00", 50, "2017-10-01 05:00")
    bundles.write_hour(tmp_path / "globo", 0, [line, line.replace(",3,20,", ",-3,20,"), line.replace(",20,", ",-1,")])
    (tmp_path / "globo" / "articles_metadata.csv").write_text("article_id,category_id\n50,7\n51,-7\n")
    reader("globo").split(tmp_path / "globo", DATASETS["globo"], tmp_path / "g")
    tables = reader("globo").tables(tmp_path / "g" / "2017-10-01", DATASETS["globo"], date(2017, 10, 1))
    assert tables.quarantine["reason"].to_pylist() == ["code_out_of_range"] * 2 and len(tables.clicks) == 1
    assert pq.read_table(tmp_path / "g" / "quarantine.parquet")["reason"].to_pylist() == ["code_out_of_range"]

    rows = [impression(i, 1, "2023-05-18 08:00", [5, 6], [6], device_type=d) for i, d in ((1, 2), (2, -1))]
    listed = [article(5, "2023-05-18 07:30", category=-1), article(6, "2023-05-18 07:30")]
    root = write_bundle(tmp_path / "ebnerd", {"train": rows}, {}, listed)
    tables = the_day("ebnerd", root, tmp_path / "e")
    assert sorted(tables.quarantine["reason"].to_pylist()) == ["code_out_of_range"] * 2
    assert pq.read_table(tmp_path / "e" / "quarantine.parquet")["reason"].to_pylist() == ["code_out_of_range"]
    known = (tables.articles[c].to_pylist() for c in ("article_id", "published_is_first_seen"))
    assert dict(zip(*known, strict=True)) == {5: True, 6: False}


VALUES = st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.0, -0.0, 86_400.0, 100.0, 1.0, 100.00001, -1e-9]))


@given(st.lists(st.tuples(VALUES, VALUES), max_size=30))
@settings(max_examples=150, deadline=None)
def test_unsetting_agrees_with_the_table_of_ranges(rows: list[tuple[float | None, float | None]]) -> None:
    frame = pl.DataFrame(
        {
            "article_id": range(len(rows)),
            "time": [0] * len(rows),
            "read_time": pl.Series([r for r, _ in rows], dtype=pl.Float32),
            "scroll_percentage": pl.Series([s for _, s in rows], dtype=pl.Float32),
            "source": [f"clicks/{i % 2}.parquet:{i}" for i in range(len(rows))],
        },
        schema_overrides={"article_id": pl.Int64, "time": pl.Int64, "source": pl.String},
    )
    kept, remarks = unset_outside(frame, "clicks")
    for column in ("read_time", "scroll_percentage"):
        allowed = RANGES["clicks"][column]
        wrong = [v is not None and not allowed.low <= v <= allowed.high for v in frame[column].to_list()]
        assert kept[column].to_list() == [None if w else v for v, w in zip(frame[column].to_list(), wrong, strict=True)]
        for part in range(2):
            said = [r for r in remarks if r.column == column and r.file == f"clicks/{part}.parquet"]
            assert sum(r.count for r in said) == sum(wrong[part::2])
            assert [s for r in said for s, _ in r.examples] == [
                f"clicks/{part}.parquet:{i}" for i in range(part, len(rows), 2) if wrong[i]
            ][:EXAMPLES]


def test_the_documentation_has_the_table_of_ranges() -> None:
    text = (Path(__file__).parents[2] / "docs" / "hostile_input.md").read_text()
    outcome = {"row": "quarantine", "cell": "unknown, counted"}
    for table, columns in RANGES.items():
        for column, allowed in columns.items():
            high = {2**63 - 1: "2^63-1", 2**31 - 1: "2^31-1"}.get(allowed.high, f"{allowed.high:,}")
            cells = (f"`{table}`", f"`{column}`", f"{allowed.low} to {high}", allowed.unit, outcome[allowed.outside])
            assert f"| {' | '.join(cells)} |" in text, cells
    named = {schema.CLICKS: "clicks", schema.IMPRESSIONS: "impressions", schema.ARTICLES: "articles"}
    free = ("session_id", "subscriber", "synthetic_inview", "published_is_first_seen", "premium", "clicked")
    texts = ("title", "subtitle", "body", "category", "subcategory")
    for columns, name in named.items():
        for field in columns:
            known = field.name in RANGES[name] or field.type == schema.TIME or field.name in (*free, *texts)
            assert known, f"{name}.{field.name} has no range"


def test_articles_in_several_days_count_once() -> None:
    def remark(file: str, *ids: int) -> Remark:
        return Remark("articles", "unlisted_article", "article_id", file, len(ids), ((file, "{}"),), frozenset(ids))

    found = added([remark("b", 1, 2), remark("a", 2, 3), remark("b", 4), remark("a", 3)])
    assert [(r.file, r.count, r.ids) for r in found] == [("a", 2, {2, 3}), ("b", 2, {1, 4})]
    clicks = Remark("clicks", "exact_copy", "", "a", 2, (("a", "1"), ("a", "2")))
    (both,) = added([clicks, clicks])
    assert (both.count, both.examples) == (4, clicks.examples)
