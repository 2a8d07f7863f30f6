"""MIND, the Microsoft News log: `{train,dev,test}/{behaviors,news}.tsv`, or the two files alone.

Belongs here: this layout and its rules. Does not belong here: rules that hold for every layout
(`ml.readers.canonical`).

Rules of this layout (Wu et al. 2020, MIND):

- Times have no zone and are kept as they stand, labelled UTC: hours, weekdays and day borders are those of the file.
- Each candidate labelled 1 is a click at the impression's time; an impression may have several. `test` has no labels.
- A history has no times. It is not used as clicks, since a time would have to be invented; its entries are counted
  (`untimed_history`), and the text stays in the raw day.
- No publication time: an article's first appearance, in view or clicked, stands in. Articles of `news.tsv` that never
  appear belong to no day (`never_shown`).
- Impression ids start anew in each folder: `ID_STEP` keeps them apart, and ids that reach it are held back.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.clock import DayClock
from ml.datasets import Dataset
from ml.errors import DataError
from ml.readers import canonical
from ml.readers.account import Quarantine
from ml.readers.base import FROM_IMPRESSIONS, DayTables, Progress, Reader
from ml.readers.cells import LIST_ITEMS
from ml.readers.codes import category_codes
from ml.readers.described import described
from ml.readers.files import frame, lies_at, printable, unreadable
from ml.readers.lines import numbered_lines
from ml.readers.placing import APPEARS, Appearances
from ml.readers.publication import unlisted_articles
from ml.readers.reused import REUSED, mark_reused
from ml.readers.rules import SOURCE, Rule, day_of, judge, milliseconds, outside_days
from ml.readers.span import hold_back_outside
from ml.readers.spill import DaySpill

FOLDERS = ("", "train", "dev", "test")
"""Where `behaviors.tsv` and `news.tsv` may lie below the root."""

ID_STEP = 1_000_000_000
"""Added to the impression ids of `dev`, twice to those of `test`."""

_LOG_FILE, _NEWS_FILE = "behaviors.tsv", "news.tsv"
_LOG = ("impression_id", "user_id", "time", "history", "impressions")
_NEWS = ("article_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
_TIME = "%m/%d/%Y %I:%M:%S %p"
_TEST = r"(^|/)test/behaviors\.tsv(:[0-9]+)?$"
_DAY = "__day"
_IDS = pa.list_(pa.int64())
_SHOWN = pa.schema(
    [
        ("impression_id", pa.int64()),
        ("user_id", pa.int64()),
        ("time", pa.timestamp("ms")),
        ("history", pa.string()),
        ("inview", _IDS),
        ("clicked", _IDS),
        (REUSED, pa.bool_()),
        (SOURCE, pa.string()),
    ]
)
_ARTICLES = pa.schema(
    [
        ("article_id", pa.int64()),
        *((name, pa.string()) for name in ("category", "subcategory", "title", "subtitle")),
        ("category_id", pa.int32()),
        (SOURCE, pa.string()),
    ]
)


class MindReader(Reader):
    """Reads the MIND layout."""

    names = tuple(f"{folder}/{name}".lstrip("/") for folder in FOLDERS for name in (_LOG_FILE, _NEWS_FILE))
    expected = frozenset({("articles", "never_shown")})

    def named(self, root: Path) -> list[Path]:
        logs = [p for p in (root / folder / _LOG_FILE for folder in FOLDERS) if lies_at(p)]
        return [*logs, *(p for p in (log.with_name(_NEWS_FILE) for log in logs) if lies_at(p))]

    def require_events(self, root: Path, found: Sequence[Path]) -> None:
        if all(path.name == _NEWS_FILE for path in found):
            raise DataError(
                f"{printable(root)} has neither behaviors.tsv nor {{train,dev,test}}/behaviors.tsv: point the data "
                "root at the folder that holds them"
            )

    def clashes(self, root: Path, found: Sequence[Path]) -> list[tuple[Path, str]]:
        logs = [p for p in found if p.name == _LOG_FILE]
        alone = len(logs) > 1 and logs[0].parent == root
        return [(logs[0], f"{logs[1].parent.name}/{_LOG_FILE}")] if alone else []

    def read_through(self, path: Path, zone: str) -> None:
        if path.name == _NEWS_FILE:
            _refuse_empty(path)
        for _ in numbered_lines(path):
            pass

    def split(
        self,
        root: Path,
        dataset: Dataset,
        out: Path,
        progress: Progress | None = None,
        besides: Collection[Path] = (),
    ) -> list[date]:
        sources = self.sources(root, besides)
        out.mkdir(parents=True, exist_ok=True)
        with Quarantine(out) as held_back:
            with DaySpill(out, "impressions", _SHOWN) as spill:
                seen = Appearances()
                for path in (p for p in sources if p.name == _LOG_FILE):
                    _tell(progress, path, root)
                    _split_log(path, root, dataset, spill, held_back, seen)
            days = hold_back_outside(out, spill.rows, {"impressions.parquet": "impressions"}, held_back)
            seen.keep(days)
            if not days:
                raise DataError(
                    f"{printable(root)}: no impression falls in {dataset.first_day}..{dataset.last_day}, the days of "
                    f"{dataset.name}{held_back.told()}: point the data root at this dataset's log"
                )
            mark_reused(out, days, "impressions.parquet", partial(_published, dataset.clock))
            _split_news([p for p in sources if p.name == _NEWS_FILE], root, out, held_back, seen)
        return days

    def tables(self, raw_day: Path, dataset: Dataset, day: date) -> DayTables:
        start, end = dataset.clock.start(day), dataset.clock.end(day)
        raw = frame(raw_day / "impressions.parquet").with_columns(milliseconds("time").alias(schema.CLICK_TIME))
        impressions = canonical.impressions(_impressions_of(raw), start, end, raw[REUSED])
        told = raw.filter(~canonical.told_by_another(impressions, raw[schema.IMPRESSION_ID], raw[REUSED]))
        clicked = told.filter(pl.col("clicked").list.len() > 0).with_columns(pl.col("clicked").alias(schema.ARTICLE_ID))
        clicks = canonical.clicks(clicked.explode(schema.ARTICLE_ID), start, end)
        seen = canonical.first_seen(clicks.rows, impressions.rows)
        news = raw_day / "articles.parquet"
        listed = frame(news) if news.is_file() else None
        known = described(listed, seen)
        only_seen = seen.clear() if listed is None else canonical.unlisted(seen, None, listed)
        articles = canonical.articles(seen.clear(), known.seen, end)
        untimed = int(raw.select(pl.col("history").str.count_matches(r"\S+").sum()).item())
        return DayTables(
            articles=canonical.conform(articles.rows, schema.ARTICLES),
            clicks=canonical.conform(clicks.rows, schema.CLICKS),
            impressions=canonical.conform(impressions.rows, schema.IMPRESSIONS),
            quarantine=canonical.quarantined([known.unused, articles, clicks, impressions]),
            counts={
                "articles": known.added_to(articles.counts),
                "clicks": clicks.counts | {"untimed_history": untimed, FROM_IMPRESSIONS: clicks.counts["rows_in"]},
                "impressions": impressions.counts,
            },
            remarks=canonical.remarked(
                [articles, clicks, impressions], unlisted_articles(only_seen, clicks, impressions)
            ),
            article_rows=known.rows,
        )


def _impressions_of(raw: pl.DataFrame) -> pl.DataFrame:
    """All impressions of a raw day (`time` in ms) in canonical columns; in `test` nothing is said of clicks."""
    unlabelled = pl.col("clicked").is_null() & pl.col(SOURCE).cast(pl.String).str.contains(_TEST)
    nothing = pl.lit([], dtype=pl.List(pl.Int64))
    shown = raw.with_columns(pl.when(unlabelled).then(nothing).otherwise("clicked").alias("clicked"))
    return canonical.complete(shown, schema.IMPRESSIONS)


def _published(clock: DayClock, rows: pl.DataFrame, day: date) -> pl.Series:
    """The impression ids of raw rows that a day's table shows."""
    timed = _impressions_of(rows.with_columns(milliseconds("time").alias(schema.CLICK_TIME)))
    return canonical.impressions(timed, clock.start(day), clock.end(day)).rows[schema.IMPRESSION_ID]


def _tell(progress: Progress | None, path: Path, root: Path) -> None:
    if progress is not None:
        progress(f"split {printable(path.relative_to(root))}: {path.stat().st_size / 1e6:,.0f} MB")


def _cells(path: Path, root: Path, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The file's rows as text in `columns`, with `source` (file and line) and `__problem` (null for a whole row)."""
    name = printable(path.relative_to(root))
    for piece in numbered_lines(path):
        cells = pl.col("text").str.split("\t")
        wrong = pl.when(cells.list.len() != len(columns)).then(pl.lit("wrong_number_of_cells"))
        yield piece.select(
            *(cells.list.get(i, null_on_oob=True).alias(c) for i, c in enumerate(columns)),
            pl.format("{}:{}", pl.lit(name), "number").alias(SOURCE),
            pl.coalesce("problem", wrong).alias("__problem"),
        )


_PROBLEMS: list[Rule] = [
    (name, pl.col("__problem") == name) for name in ("not_utf8", "line_too_long", "wrong_number_of_cells")
]


def _number(column: str, letter: str = "") -> pl.Expr:
    """Ids such as U13740 as whole numbers; null for anything else."""
    return pl.col(column).str.extract(rf"^{letter}([0-9]+)$", 1).cast(pl.Int64, strict=False)


def _split_log(
    path: Path, root: Path, dataset: Dataset, spill: DaySpill, held_back: Quarantine, seen: Appearances
) -> None:
    """Streams a behaviors file into days; `seen` gathers the articles of each."""
    alone = path.parent == root
    step = 0 if alone else ID_STEP * (FOLDERS.index(path.parent.name) - 1)
    number, most = _number("impression_id"), 2**63 - 1 if alone else ID_STEP - 1
    tokens = pl.col("impressions").str.strip_chars().str.split(" ")
    article = pl.element().str.extract(r"^N([0-9]+)(?:-[01])?$", 1).cast(pl.Int64, strict=False)
    labels = tokens.list.eval(pl.element().str.contains(r"-[01]$")).list.sum()
    chosen = pl.element().filter(pl.element().str.ends_with("-1")).str.extract(r"^N([0-9]+)", 1)
    nothing = pl.lit([], dtype=pl.List(pl.Int64))
    empty = pl.col("impressions").str.strip_chars() == ""
    account = held_back.account.of(printable(path.relative_to(root)), "impressions")
    for text in _cells(path, root, _LOG):
        account.rows_in += len(text)
        whole = judge(text, "impressions", _PROBLEMS)
        held_back.append(whole.held_back)
        parsed = whole.kept.with_columns(
            pl.when(number <= most).then(number + step).alias("__impression"),
            (number > most).alias("__large"),
            _number("user_id", "U").alias("__user"),
            pl.col("time").str.to_datetime(_TIME, strict=False, time_unit="ms").alias("__time"),
            pl.when(empty).then(nothing).otherwise(tokens.list.eval(article)).alias("__inview"),
            pl.when(labels > 0).then(tokens.list.eval(chosen.cast(pl.Int64, strict=False))).alias("__clicked"),
            labels.is_between(1, tokens.list.len() - 1).alias("__mixed"),
        ).with_columns(day_of(milliseconds("__time"), dataset.clock).alias(_DAY))
        inview = pl.col("__inview").list
        rules: list[Rule] = [
            ("id_too_large", pl.col("__large")),
            ("unparsable_id", pl.any_horizontal(pl.col("__impression", "__user").is_null())),
            ("unparsable_time", pl.col("__time").is_null()),
            ("unparsable_candidates", pl.col("__mixed") | (inview.drop_nulls().list.len() < inview.len())),
            ("oversized_list", inview.len() > LIST_ITEMS),
            *outside_days(_DAY, dataset),
        ]  # fmt: skip
        judged = judge(parsed, "impressions", rules)
        held_back.append(judged.held_back)
        rows = judged.kept.select(
            pl.col("__impression").alias("impression_id"),
            pl.col("__user").alias("user_id"),
            pl.col("__time").alias("time"),
            pl.col("history"),
            pl.col("__inview").alias("inview"),
            pl.col("__clicked").alias("clicked"),
            pl.col(SOURCE),
            pl.col(_DAY),
        )
        account.placed += len(rows)
        seen.note(rows, _DAY, ["inview"])
        spill.append(rows, _DAY)


def _split_news(paths: Sequence[Path], root: Path, out: Path, held_back: Quarantine, seen: Appearances) -> None:
    """Writes the news of each day's articles to `out/<day>/articles.parquet`, for each day where there is a news file;
    of rows with one id the first is kept."""
    days = seen.table(_DAY)
    for path in paths:
        _refuse_empty(path)
    known: dict[int, int] = {}
    with DaySpill(out, "articles", _ARTICLES) as spill:
        for path in paths:
            account = held_back.account.of(printable(path.relative_to(root)), "articles")
            for text in _cells(path, root, _NEWS):
                account.rows_in += len(text)
                parsed = text.with_columns(_number("article_id", "N").alias(APPEARS))
                rules = [*_PROBLEMS, ("unparsable_id", pl.col(APPEARS).is_null())]
                judged = judge(parsed, "articles", rules)
                held_back.append(judged.held_back)
                rows, repeated = _first_of_each(judged.kept, known, held_back)
                absent = rows.join(days, on=APPEARS, how="anti", maintain_order="left")
                account.duplicates += repeated
                account.placed += len(rows) - len(absent)
                held_back.append(judge(absent, "articles", [("never_shown", pl.lit(True))]).held_back)
                placed = rows.join(days, on=APPEARS, how="inner", maintain_order="left")
                spill.append(
                    placed.select(
                        pl.col(APPEARS).alias("article_id"),
                        *(_filled(c) for c in ("category", "subcategory", "title")),
                        _filled("abstract").alias("subtitle"),
                        category_codes(placed["category"]).alias("category_id"),
                        SOURCE,
                        _DAY,
                    ),
                    _DAY,
                )
    for day in days[_DAY].unique() if paths else ():
        if day not in spill.rows:
            pq.write_table(_ARTICLES.empty_table(), out / str(day) / "articles.parquet")


def _refuse_empty(path: Path) -> None:
    """Raises DataError for a file without a byte."""
    if not path.stat().st_size:
        raise unreadable(path, DataError("it is empty"))


def _filled(column: str) -> pl.Expr:
    """Text, null where it is blank."""
    return pl.when(pl.col(column).str.strip_chars() != "").then(pl.col(column)).alias(column)


def _first_of_each(rows: pl.DataFrame, known: dict[int, int], held_back: Quarantine) -> tuple[pl.DataFrame, int]:
    """The rows whose id was not `known` (id to hash of the row, updated). Other rows of an id are held back, unless
    they repeat it exactly; how many do."""
    content = rows.select(_NEWS).hash_rows(seed=0)
    verdict = []
    for article, row in zip(rows[APPEARS], content, strict=True):
        verdict.append("" if article not in known else "repeated" if known[article] == row else "differs")
        known.setdefault(article, row)
    marked = rows.with_columns(pl.Series("__verdict", verdict, dtype=pl.String))
    differing = [("duplicate_article_id", pl.col("__verdict") == "differs")]
    held_back.append(judge(marked, "articles", differing).held_back)
    return marked.filter(pl.col("__verdict") == "").drop("__verdict"), verdict.count("repeated")
