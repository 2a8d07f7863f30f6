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
- Impression ids start anew in each folder: `ID_STEP` keeps them apart.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa

from ml import schema
from ml.datasets import Dataset
from ml.errors import DataError
from ml.readers import canonical
from ml.readers.base import DayTables, Progress, Reader
from ml.readers.files import frame, inside
from ml.readers.lines import numbered_lines
from ml.readers.placing import APPEARS, Appearances
from ml.readers.rules import SOURCE, Rule, day_of, judge, milliseconds, outside_days
from ml.readers.spill import DaySpill, Spill

FOLDERS = ("", "train", "dev", "test")
"""Where `behaviors.tsv` and `news.tsv` may lie below the root."""

ID_STEP = 1_000_000_000
"""Added to the impression ids of `dev`, twice to those of `test`."""

_LOG = ("impression_id", "user_id", "time", "history", "impressions")
_NEWS = ("article_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
_TIME = "%m/%d/%Y %I:%M:%S %p"
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

    expected = frozenset({"never_shown"})

    def sources(self, root: Path) -> list[Path]:
        logs = [root / f / "behaviors.tsv" for f in FOLDERS if (root / f / "behaviors.tsv").is_file()]
        if not logs:
            raise DataError(
                f"{root} has neither behaviors.tsv nor {{train,dev,test}}/behaviors.tsv: point the data root at the "
                "folder that holds them"
            )
        if len(logs) > 1 and logs[0].parent == root:
            raise DataError(f"{logs[0]} lies beside {logs[1].parent.name}/behaviors.tsv: remove one of them")
        news = [p for p in (log.with_name("news.tsv") for log in logs) if p.is_file()]
        return [inside(root, p) for p in (*logs, *news)]

    def split(self, root: Path, dataset: Dataset, out: Path, progress: Progress | None = None) -> list[date]:
        sources = self.sources(root)
        out.mkdir(parents=True, exist_ok=True)
        with Spill(out / "quarantine.parquet", schema.QUARANTINE) as held_back:
            with DaySpill(out, "impressions", _SHOWN) as spill:
                seen = Appearances()
                for path in (p for p in sources if p.name == "behaviors.tsv"):
                    _tell(progress, path, root)
                    _split_log(path, root, dataset, spill, held_back, seen)
                days = spill.days
            if not days:
                raise DataError(
                    f"{root}: no impression falls in {dataset.first_day}..{dataset.last_day}, the days of "
                    f"{dataset.name}: point the data root at this dataset's log"
                )
            _split_news([p for p in sources if p.name == "news.tsv"], root, out, held_back, seen)
        return days

    def tables(self, raw_day: Path, dataset: Dataset, day: date) -> DayTables:
        start, end = dataset.clock.start(day), dataset.clock.end(day)
        raw = frame(raw_day / "impressions.parquet").with_columns(milliseconds("time").alias(schema.CLICK_TIME))
        clicked = raw.filter(pl.col("clicked").list.len() > 0).with_columns(pl.col("clicked").alias(schema.ARTICLE_ID))
        clicks = canonical.clicks(clicked.explode(schema.ARTICLE_ID), start, end)
        shown = raw.with_columns(pl.col("clicked").fill_null(pl.lit([], dtype=pl.List(pl.Int64))))
        impressions = canonical.impressions(canonical.complete(shown, schema.IMPRESSIONS), start, end)
        seen = canonical.first_seen(clicks.rows, impressions.rows)
        news = raw_day / "articles.parquet"
        if news.is_file():
            seen = seen.join(frame(news).drop(SOURCE), on=schema.ARTICLE_ID, how="left", maintain_order="left")
        articles = canonical.articles(seen.clear(), seen, end)
        untimed = int(raw.select(pl.col("history").str.count_matches(r"\S+").sum()).item())
        return DayTables(
            articles=canonical.conform(articles.rows, schema.ARTICLES),
            clicks=canonical.conform(clicks.rows, schema.CLICKS),
            impressions=canonical.conform(impressions.rows, schema.IMPRESSIONS),
            quarantine=canonical.quarantined([articles, clicks, impressions]),
            counts={
                "articles": articles.counts,
                "clicks": clicks.counts | {"untimed_history": untimed},
                "impressions": impressions.counts,
            },
        )


def _tell(progress: Progress | None, path: Path, root: Path) -> None:
    if progress is not None:
        progress(f"split {path.relative_to(root)}: {path.stat().st_size / 1e6:,.0f} MB")


def _cells(path: Path, root: Path, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The file's rows as text in `columns`, with `source` (file and line) and `__problem` (null for a whole row)."""
    name = path.relative_to(root).as_posix()
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


def _split_log(path: Path, root: Path, dataset: Dataset, spill: DaySpill, held_back: Spill, seen: Appearances) -> None:
    """Streams a behaviors file into days; `seen` gathers the articles of each."""
    step = 0 if path.parent == root else ID_STEP * (FOLDERS.index(path.parent.name) - 1)
    tokens = pl.col("impressions").str.strip_chars().str.split(" ")
    article = pl.element().str.extract(r"^N([0-9]+)(?:-[01])?$", 1).cast(pl.Int64, strict=False)
    labels = tokens.list.eval(pl.element().str.contains(r"-[01]$")).list.sum()
    chosen = pl.element().filter(pl.element().str.ends_with("-1")).str.extract(r"^N([0-9]+)", 1)
    nothing = pl.lit([], dtype=pl.List(pl.Int64))
    empty = pl.col("impressions").str.strip_chars() == ""
    for text in _cells(path, root, _LOG):
        whole = judge(text, "impressions", _PROBLEMS)
        held_back.append(whole.held_back)
        parsed = whole.kept.with_columns(
            (_number("impression_id") + step).alias("__impression"),
            _number("user_id", "U").alias("__user"),
            pl.col("time").str.to_datetime(_TIME, strict=False, time_unit="ms").alias("__time"),
            pl.when(empty).then(nothing).otherwise(tokens.list.eval(article)).alias("__inview"),
            pl.when(labels > 0).then(tokens.list.eval(chosen.cast(pl.Int64, strict=False))).alias("__clicked"),
            labels.is_between(1, tokens.list.len() - 1).alias("__mixed"),
        ).with_columns(day_of(milliseconds("__time"), dataset.clock).alias(_DAY))
        inview = pl.col("__inview").list
        rules: list[Rule] = [
            ("unparsable_id", pl.any_horizontal(pl.col("__impression", "__user").is_null())),
            ("unparsable_time", pl.col("__time").is_null()),
            ("unparsable_candidates", pl.col("__mixed") | (inview.drop_nulls().list.len() < inview.len())),
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
        seen.note(rows, _DAY, ["inview"])
        spill.append(rows, _DAY)


def _split_news(paths: Sequence[Path], root: Path, out: Path, held_back: Spill, seen: Appearances) -> None:
    """Writes the news of each day's articles to `out/<day>/articles.parquet`; of rows with one id the first is kept.
    Category codes are ranks of the category's name among those of all files."""
    names = {c for p in paths for piece in _cells(p, root, _NEWS) for c in piece["category"].drop_nulls().unique()}
    codes = pl.DataFrame({"category": sorted(names)}, schema={"category": pl.String}).with_row_index("category_id")
    days = seen.table(_DAY)
    known: dict[int, int] = {}
    with DaySpill(out, "articles", _ARTICLES) as spill:
        for path in paths:
            for text in _cells(path, root, _NEWS):
                parsed = text.with_columns(_number("article_id", "N").alias(APPEARS))
                rules = [*_PROBLEMS, ("unparsable_id", pl.col(APPEARS).is_null())]
                judged = judge(parsed, "articles", rules)
                held_back.append(judged.held_back)
                rows = _first_of_each(judged.kept, known, held_back)
                absent = rows.join(days, on=APPEARS, how="anti", maintain_order="left")
                held_back.append(judge(absent, "articles", [("never_shown", pl.lit(True))]).held_back)
                placed = rows.join(days, on=APPEARS, how="inner", maintain_order="left")
                placed = placed.join(codes, on="category", how="left", maintain_order="left")
                spill.append(
                    placed.select(
                        pl.col(APPEARS).alias("article_id"),
                        *(_filled(c) for c in ("category", "subcategory", "title")),
                        _filled("abstract").alias("subtitle"),
                        pl.col("category_id").cast(pl.Int32),
                        SOURCE,
                        _DAY,
                    ),
                    _DAY,
                )


def _filled(column: str) -> pl.Expr:
    """Text, null where it is blank."""
    return pl.when(pl.col(column).str.strip_chars() != "").then(pl.col(column)).alias(column)


def _first_of_each(rows: pl.DataFrame, known: dict[int, int], held_back: Spill) -> pl.DataFrame:
    """The rows whose id was not `known` (id to hash of the row, updated). Other rows of an id are held back, unless
    they repeat it exactly."""
    content = rows.select(_NEWS).hash_rows(seed=0)
    verdict = []
    for article, row in zip(rows[APPEARS], content, strict=True):
        verdict.append("" if article not in known else "repeated" if known[article] == row else "differs")
        known.setdefault(article, row)
    marked = rows.with_columns(pl.Series("__verdict", verdict, dtype=pl.String))
    differing = [("duplicate_article_id", pl.col("__verdict") == "differs")]
    held_back.append(judge(marked, "articles", differing).held_back)
    return marked.filter(pl.col("__verdict") == "").drop("__verdict")
