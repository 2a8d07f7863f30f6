"""Great Expectations suites: what must hold of a staged table before it is published.

Belongs here: the rules of the canonical tables, of `interactions` and of `session_splits`, and their evaluation.
Does not belong here: row-level rules, whose rows go to quarantine (`ml.readers.rules`), and what happens when a rule
fails (`assets.build`).

DuckDB counts the rows that break each rule; Great Expectations judges the counts, one expectation a rule. It has no
Polars source, and pandas over whole columns is two orders of magnitude slower. Its import takes seconds and is
therefore kept inside functions; `suite_names` needs none of it.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.datasets import Dataset
from ml.errors import DataError

if TYPE_CHECKING:
    import duckdb

    from resources.engine import Engine

EXAMPLES = 5
QUARANTINE_SHARE = 0.05
_SCHEMA = "columns and types as in ml.schema"
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: `bad` is the SQL that yields one text `example` for each row of `data` that breaks it, in which
    `$start` and `$end` are the day's bounds in ms. A failed `blocking` rule keeps the table from being published."""

    name: str
    description: str
    bad: str
    blocking: bool = True


@dataclass(frozen=True, slots=True)
class Suite:
    """The rules of one table: its file name, its schema, its rules."""

    file: str
    columns: pa.Schema
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of one rule: `count_bad` rows break it, `examples` are up to five of them."""

    name: str
    passed: bool
    blocking: bool
    count_bad: int
    examples: list[str]
    description: str


def _where(condition: str, *shown: str) -> str:
    """Rows where `condition` holds, shown by the columns `shown`; of readers only ids that are none, since examples
    stand in Dagster's event log, where an erasure does not reach."""
    cells = {c: f"coalesce(CAST({c} AS VARCHAR), 'null')" for c in shown}
    if schema.USER_ID in cells:
        cells[schema.USER_ID] = f"CASE WHEN {schema.USER_ID} >= 0 THEN '(not shown)' ELSE {cells[schema.USER_ID]} END"
    parts = " || ', ' || ".join(f"'{c} ' || {cell}" for c, cell in cells.items())
    return f"SELECT {parts} AS example FROM data WHERE {condition}"


def _ids(*columns: str) -> Rule:
    condition = " OR ".join(f"{c} IS NULL OR {c} < 0" for c in columns)
    return Rule("ids", f"{', '.join(columns)}: present, not negative", _where(condition, *columns))


def _order(name: str, description: str, comparison: str, *key: str) -> Rule:
    """Rows that, with `comparison`, break the order of `key` towards the row before."""
    this, before = (f"row({', '.join(prefix + c for c in key)})" for prefix in ("", "before_"))
    lags = ", ".join(f"lag({c}) OVER (ORDER BY file_row_number) AS before_{c}" for c in key)
    shown = _where(f"before_{key[0]} IS NOT NULL AND {this} {comparison} {before}", *key)
    return Rule(name, description, shown.replace("FROM data", f"FROM (SELECT *, {lags} FROM data)"))


def _unique(column: str, condition: str = "true") -> Rule:
    groups = f"(SELECT {column}, count(*) AS copies FROM data WHERE {condition} GROUP BY {column} HAVING copies > 1)"
    bad = _where("true", column, "copies").replace("FROM data", f"FROM {groups}")
    return Rule(f"unique_{column}", f"each {column} once", bad)


def _within_day(*shown: str) -> Rule:
    condition = "time IS NULL OR epoch_ms(time) < $start OR epoch_ms(time) >= $end"
    return Rule("time_within_day", "the time lies in the partition's day", _where(condition, *shown, "time"))


def _quarantine() -> Rule:
    held_back, published = "(SELECT count(*) FROM quarantine)", "(SELECT count(*) FROM data)"
    many = f"{held_back} > {QUARANTINE_SHARE} * ({held_back} + {published})"
    return Rule(
        "quarantine_share",
        f"at most {QUARANTINE_SHARE:.0%} of the rows are quarantined",
        f"SELECT reason || ': ' || source AS example FROM quarantine WHERE {many}",
        blocking=False,
    )


_CLICK = (schema.USER_ID, schema.ARTICLE_ID)
_INVIEW = (schema.IMPRESSION_ID, schema.INVIEW)

SUITES: Mapping[str, Suite] = {
    "articles": Suite(
        "articles.parquet",
        schema.ARTICLES,
        (
            _ids(schema.ARTICLE_ID),
            _unique(schema.ARTICLE_ID),
            _order("sorted", "sorted by (published, article_id)", "<", schema.PUBLISHED, schema.ARTICLE_ID),
            Rule(
                "published_before_day_end",
                "published before the end of the day",
                _where("published IS NULL OR epoch_ms(published) >= $end", schema.ARTICLE_ID, schema.PUBLISHED),
            ),
            Rule(
                "first_seen_within_day",
                "an article first seen was seen on the day",
                _where("published_is_first_seen AND epoch_ms(published) < $start", schema.ARTICLE_ID, schema.PUBLISHED),
            ),
            Rule(
                "category_known",
                "a listed article has a category",
                _where("NOT published_is_first_seen AND category_id IS NULL", schema.ARTICLE_ID),
                blocking=False,
            ),
            Rule(
                "title_present",
                "a listed article has a title",
                _where("NOT published_is_first_seen AND trim(coalesce(title, '')) = ''", schema.ARTICLE_ID),
                blocking=False,
            ),
            _quarantine(),
        ),
    ),
    "clicks": Suite(
        "clicks.parquet",
        schema.CLICKS,
        (
            _ids(*_CLICK),
            _within_day(*_CLICK),
            _order("sorted_unique", "sorted by (time, user, article), each once", "<=", schema.CLICK_TIME, *_CLICK),
            Rule(
                "impression_id",
                "an impression id is positive or unknown",
                _where("impression_id <= 0", *_CLICK, schema.IMPRESSION_ID),
            ),
            Rule(
                "read_time",
                "a read time is not negative, and a number",
                _where("read_time < 0 OR isnan(read_time)", *_CLICK, schema.READ_TIME),
            ),
            Rule(
                "scroll_percentage",
                "a scroll depth lies in 0..100",
                _where("scroll_percentage < 0 OR scroll_percentage > 100", *_CLICK, schema.SCROLL),
                blocking=False,
            ),
            _quarantine(),
        ),
    ),
    "impressions": Suite(
        "impressions.parquet",
        schema.IMPRESSIONS,
        (
            _ids(schema.IMPRESSION_ID, schema.USER_ID),
            _within_day(schema.IMPRESSION_ID),
            _unique(schema.IMPRESSION_ID, "impression_id <> 0"),
            _order("sorted", "sorted by (time, impression_id)", "<", schema.CLICK_TIME, schema.IMPRESSION_ID),
            Rule("inview", "something was in view", _where("coalesce(len(inview), 0) = 0", schema.IMPRESSION_ID)),
            Rule(
                "clicked_in_view",
                "what was clicked was in view",
                _where("clicked IS NULL OR NOT list_has_all(inview, clicked)", *_INVIEW, schema.CLICKED),
            ),
            Rule(
                "inview_distinct",
                "no article is twice in view",
                _where("len(list_distinct(inview)) < len(inview)", *_INVIEW),
                blocking=False,
            ),
            _quarantine(),
        ),
    ),
    "interactions": Suite(
        "interactions.parquet",
        schema.INTERACTIONS,
        (
            _ids(*_CLICK, schema.SESSION_ID),
            Rule(
                "time_before_as_of_day",
                "nothing from the as-of day's start on",
                _where("time IS NULL OR epoch_ms(time) >= $start", *_CLICK, schema.CLICK_TIME),
            ),
            _order(
                "sorted_unique",
                "sorted by (user, time, article), each once",
                "<=",
                schema.USER_ID,
                schema.CLICK_TIME,
                schema.ARTICLE_ID,
            ),
        ),
    ),
    "session_splits": Suite(
        "sessions.parquet",
        schema.SESSIONS,
        (
            Rule(
                "range",
                "the range is not empty and ends before its target's row",
                _where("first IS NULL OR target IS NULL OR first < 0 OR first >= target", "first", "target"),
            ),
            Rule("split", f"one of {', '.join(_SPLITS)}", _where(f"split NOT IN {_SPLITS}", "target", "split")),
            _unique("target"),
        ),
    ),
}
"""The suite of each table; the rule `schema` comes before those listed."""


def suite_names(table: str) -> list[str]:
    """Names of the checks of `table`, in the order of `validate`'s results; empty for a table without a suite."""
    return ["schema", *(r.name for r in SUITES[table].rules)] if table in SUITES else []


def suite_digest(table: str) -> str:
    """sha256 hex over the rules of `table`: part of the recipe key, so that a new rule is applied to what is there."""
    suite = SUITES[table]
    said = [suite.file, str(suite.columns), *(repr(rule) for rule in suite.rules)]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


def validate(table: str, path: Path, dataset: Dataset, day: date, engine: "Engine") -> list[CheckResult]:
    """The outcome of every rule of `table`'s suite on the staged file: in the folder `path`, or `path` itself. `engine`
    has a memory limit, and a folder to spill into; it is closed then.

    With a wrong schema the other rules cannot be counted: the result is then that failure alone. Raises DataError for
    a file that is missing or damaged.
    """
    suite = SUITES[table]
    file = path / suite.file if path.is_dir() else path
    wrong = _schema_differences(file, suite.columns)
    if wrong:
        failed = _judge(f"{table}.schema", {"schema": len(wrong)})
        return [CheckResult("schema", not failed, True, len(wrong), wrong[:EXAMPLES], _SCHEMA)]
    bounds = {"start": dataset.clock.start(day), "end": dataset.clock.end(day)}
    with engine:
        con = engine.connection
        _views(con, file)
        counts = {r.name: _scalar(con, f"SELECT count(*) FROM ({_bound(r, bounds)})") for r in suite.rules}
        failed = _judge(table, {"schema": 0, **counts})
        results = [CheckResult("schema", "schema" not in failed, True, 0, [], _SCHEMA)]
        for rule in suite.rules:
            bad = rule.name in failed
            examples = _examples(con, _bound(rule, bounds)) if bad else []
            results.append(
                CheckResult(rule.name, not bad, rule.blocking, counts[rule.name], examples, rule.description)
            )
    return results


def _bound(rule: Rule, bounds: Mapping[str, int]) -> str:
    """The rule's SQL with the day's bounds put in."""
    return rule.bad.replace("$start", str(bounds["start"])).replace("$end", str(bounds["end"]))


def _examples(con: "duckdb.DuckDBPyConnection", bad: str) -> list[str]:
    """The first few of the rows that break a rule, in an order that does not depend on threads."""
    return [
        str(row[0]) for row in con.execute(f"SELECT example FROM ({bad}) ORDER BY example LIMIT {EXAMPLES}").fetchall()
    ]


def _scalar(con: "duckdb.DuckDBPyConnection", query: str) -> int:
    """The one number that `query` yields."""
    row = con.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _views(con: "duckdb.DuckDBPyConnection", file: Path) -> None:
    """`data`: the staged rows with their number; `quarantine`: those held back, if there is such a file beside."""
    con.read_parquet(str(file), file_row_number=True).create_view("data")
    beside = file.with_name("quarantine.parquet")
    if beside.is_file():
        con.read_parquet(str(beside)).create_view("quarantine")
    else:
        con.from_arrow(schema.QUARANTINE.empty_table()).create_view("quarantine")


def _schema_differences(file: Path, columns: pa.Schema) -> list[str]:
    """What distinguishes the file's columns from `columns`, a line each."""
    try:
        found = pq.read_schema(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{file} cannot be checked ({error}): materialise the step again") from error
    wrong = [f"{n}: missing" for n in columns.names if n not in found.names]
    wrong += [f"{n}: unexpected" for n in found.names if n not in columns.names]
    both = [n for n in columns.names if n in found.names]
    types = [(n, found.field(n).type, columns.field(n).type) for n in both]
    return wrong + [f"{n}: {is_now}, expected {wanted}" for n, is_now, wanted in types if is_now != wanted]


def _judge(suite: str, counts: Mapping[str, int]) -> set[str]:
    """Names of the rules that fail, by Great Expectations: counts of bad rows must be 0."""
    import pandas as pd

    batch = _batch_definition().get_batch({"dataframe": pd.DataFrame({name: [n] for name, n in counts.items()})})
    result = batch.validate(_expectations(suite, tuple(counts)), result_format="BOOLEAN_ONLY")
    return {str(r.expectation_config.kwargs["column"]) for r in result.results if not r.success}


@cache
def _expectations(suite: str, names: tuple[str, ...]) -> Any:
    """The Great Expectations suite over one row of counts."""
    import great_expectations as gx
    from great_expectations.expectations import ExpectColumnValuesToBeBetween

    expectations = [ExpectColumnValuesToBeBetween(column=n, min_value=0, max_value=0) for n in names]
    return gx.ExpectationSuite(name=suite, expectations=expectations)


@cache
def _batch_definition() -> Any:
    """The source of in-memory frames in a context without files, made once a process. Nothing is sent anywhere."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("counts").add_dataframe_asset("counts")
    return asset.add_batch_definition_whole_dataframe("all")
