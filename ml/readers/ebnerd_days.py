"""The EB-NeRD bundle cut into days: one pass over its files.

Belongs here: the columns that the published files must have, and which day each of their rows belongs to. Does not
belong here: what the rows mean (`ml.readers.ebnerd`).

An article lies in the day of its publication: in the first day with data when it is older, in the next day with data
when its own has none. One that appears before its listed publication (or has none listed) lies in the days of those
appearances too. `unlisted.parquet` names a day's articles that the article file does not have at all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.datasets import Dataset
from ml.errors import DataError
from ml.readers.base import Progress
from ml.readers.files import (
    Kind,
    as_frame,
    frame,
    is_flag,
    is_integer,
    is_number,
    is_text,
    is_time,
    list_of,
    parquet_batches,
    parquet_schema,
)
from ml.readers.rules import SOURCE, Rule, day_of, judge, milliseconds, outside_days
from ml.readers.spill import DaySpill, Spill

UNLISTED = "unlisted.parquet"

_SHOWN: dict[str, Kind] = {
    "impression_id": is_integer,
    "user_id": is_integer,
    "impression_time": is_time,
    "article_ids_inview": list_of(is_integer),
    "device_type": is_integer,
    "is_subscriber": is_flag,
    "session_id": is_integer,
}
_CLICKED: dict[str, Kind] = {
    "article_ids_clicked": list_of(is_integer),
    "next_read_time": is_number,
    "next_scroll_percentage": is_number,
}
_HISTORY: dict[str, Kind] = {
    "user_id": is_integer,
    "article_id_fixed": list_of(is_integer),
    "impression_time_fixed": list_of(is_time),
    "read_time_fixed": list_of(is_number),
    "scroll_percentage_fixed": list_of(is_number),
}
_ARTICLES: dict[str, Kind] = {
    "article_id": is_integer,
    "published_time": is_time,
    "last_modified_time": is_time,
    "title": is_text,
    "subtitle": is_text,
    "body": is_text,
    "category": is_integer,
    "category_str": is_text,
    "premium": is_flag,
    "sentiment_score": is_number,
}
_HISTORY_ROWS = pa.schema(
    [
        ("user_id", pa.int64()),
        ("article_id", pa.int64()),
        ("time", pa.timestamp("us")),
        ("read_time", pa.float32()),
        ("scroll", pa.float32()),
        (SOURCE, pa.string()),
    ]
)
REMEDY = "use the file of the published bundle, or write it with the published columns and types"
_DAY = "__day"
_PLACED = "__placed"
_ID_LISTS = ("article_ids_inview", "article_ids_clicked")


@dataclass(frozen=True, slots=True)
class _Bundle:
    """What the steps of one split share."""

    root: Path
    dataset: Dataset
    out: Path
    held_back: Spill
    progress: Progress | None

    def pieces(self, path: Path, rows: int) -> Iterator[pl.DataFrame]:
        """All rows of a file in order, with `source`, a bounded number at a time."""
        name = str(path.relative_to(self.root))
        if self.progress is not None:
            self.progress(f"split {name}: {pq.read_metadata(path).num_rows:,} rows")
        for piece in parquet_batches(path, rows):
            yield as_frame(piece).with_columns(pl.lit(name).alias(SOURCE))

    def keep(self, rows: pl.DataFrame, table: str, rules: Sequence[Rule]) -> pl.DataFrame:
        """The rows that break none of `rules`; the others go to quarantine."""
        judged = judge(rows, table, rules)
        self.held_back.append(judged.held_back)
        return judged.kept

    def place(self, rows: pl.DataFrame, table: str, time: str, spill: DaySpill) -> None:
        """Appends rows to the days of their time."""
        dated = rows.with_columns(day_of(milliseconds(time), self.dataset.clock).alias(_DAY))
        spill.append(self.keep(dated, table, outside_days(_DAY, self.dataset)), _DAY)


def split_bundle(
    sources: Sequence[Path], root: Path, dataset: Dataset, out: Path, progress: Progress | None
) -> list[date]:
    """Writes `out/<day>/{behaviors,history,articles,unlisted}.parquet` and returns the days: see `Reader.split`."""
    behaviors, histories, articles = (
        [p for p in sources if p.name == f"{name}.parquet"] for name in ("behaviors", "history", "articles")
    )
    columns = _behaviors_schema(behaviors)
    for path in histories:
        parquet_schema(path, _HISTORY, REMEDY)
    for path in articles:
        parquet_schema(path, _ARTICLES, REMEDY)
    out.mkdir(parents=True, exist_ok=True)
    with Spill(out / "quarantine.parquet", schema.QUARANTINE) as held_back:
        bundle = _Bundle(root, dataset, out, held_back, progress)
        with DaySpill(out, "behaviors", columns) as shown, DaySpill(out, "history", _HISTORY_ROWS) as read:
            for path in behaviors:
                for rows in bundle.pieces(path, 65_536):
                    bundle.place(rows, "impressions", "impression_time", shown)
            for path in histories:
                _split_history(path, bundle, read)
            days = sorted({*shown.days, *read.days})
        if not days:
            raise DataError(
                f"{root}: no row falls in {dataset.first_day}..{dataset.last_day}, the days of {dataset.name}: "
                "choose the dataset that this log belongs to"
            )
        for path in articles:
            _split_articles(path, bundle, days)
    return days


def columns_of(path: Path) -> dict[str, Kind]:
    """The columns that a file of the bundle must have, by its name; none for artifacts."""
    hidden = path.parent.name == "test"
    return {"behaviors": _SHOWN if hidden else _SHOWN | _CLICKED, "history": _HISTORY, "articles": _ARTICLES}.get(
        path.stem, {}
    )


def _behaviors_schema(paths: Sequence[Path]) -> pa.Schema:
    """All columns of the behaviors files, and `source`. Raises DataError for missing columns and clashing types."""
    columns = pa.schema([])
    for path in paths:
        found = parquet_schema(path, columns_of(path), REMEDY).remove_metadata()
        try:
            columns = pa.unify_schemas([columns, found], promote_options="permissive")
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{path}: a column has another type than in the split before ({error}): {REMEDY}"
            ) from error
    return columns.append(pa.field(SOURCE, pa.string()))


def _split_history(path: Path, bundle: _Bundle, spill: DaySpill) -> None:
    """Streams a history file into days, one row a click. Readers without clicks have null or empty lists."""
    lists = list(_HISTORY)[1:]
    lengths = [pl.col(c).list.len() for c in lists]
    uneven = pl.any_horizontal([n.ne_missing(lengths[0]) for n in lengths[1:]])
    whole = pl.Int64()
    for piece in bundle.pieces(path, 2_048):
        kept = bundle.keep(piece.select(*_HISTORY, SOURCE), "clicks", [("history_lengths_differ", uneven)])
        flat = kept.filter(lengths[0] > 0).explode(lists)
        rows = flat.select(
            pl.col("user_id").cast(whole, strict=False),
            pl.col("article_id_fixed").cast(whole, strict=False).alias("article_id"),
            pl.col("impression_time_fixed").alias("time"),
            pl.col("read_time_fixed").alias("read_time"),
            pl.col("scroll_percentage_fixed").alias("scroll"),
            SOURCE,
        )
        bundle.place(rows, "clicks", "time", spill)


def _split_articles(path: Path, bundle: _Bundle, days: Sequence[date]) -> None:
    """Streams the article file into days, and writes which articles appear on a day without being in the file."""
    known = _known_articles(path, bundle.dataset, days)
    places = [known.drop_nulls(_PLACED)]
    for day in days:
        folder = bundle.out / str(day)
        seen = _seen_on(folder)
        unlisted = seen.join(known, on=schema.ARTICLE_ID, how="anti", maintain_order="left")
        pq.write_table(unlisted.to_arrow(), folder / UNLISTED, compression="zstd", compression_level=1)
        later = known.filter(pl.col(_PLACED).is_null() | (pl.col(_PLACED) > day))
        early = later.join(seen, on=schema.ARTICLE_ID, how="semi", maintain_order="left")
        places.append(early.with_columns(pl.lit(day).alias(_PLACED)))
    placed = pl.concat(places)
    nowhere = pl.col(_PLACED).is_null()
    rules = [
        ("null_id", pl.col(schema.ARTICLE_ID).is_null()),
        ("null_time", nowhere & pl.col("published_time").is_null()),
        ("after_log_end", nowhere),
    ]
    with DaySpill(bundle.out, "articles", _articles_schema(path)) as spill:
        for piece in bundle.pieces(path, 4_096):
            rows = piece.with_columns(pl.col(schema.ARTICLE_ID).cast(pl.Int64, strict=False))
            rows = rows.join(placed, on=schema.ARTICLE_ID, how="left", maintain_order="left")
            spill.append(bundle.keep(rows, "articles", rules), _PLACED)


def _known_articles(path: Path, dataset: Dataset, days: Sequence[date]) -> pl.DataFrame:
    """One row an article of the file, sorted by id: `article_id`, and the day with data that it is placed in (null:
    published after the last one, or at no listed time)."""
    columns = frame(path, [schema.ARTICLE_ID, "published_time"])
    published = columns.select(
        pl.col(schema.ARTICLE_ID).cast(pl.Int64, strict=False),
        day_of(milliseconds("published_time"), dataset.clock).alias("__published"),
    ).drop_nulls(schema.ARTICLE_ID)
    earliest = published.group_by(schema.ARTICLE_ID).agg(pl.col("__published").min()).sort("__published")
    with_data = pl.DataFrame({_PLACED: days}, schema={_PLACED: pl.Date})
    placed = earliest.join_asof(with_data, left_on="__published", right_on=_PLACED, strategy="forward", coalesce=False)
    return placed.select(schema.ARTICLE_ID, _PLACED).sort(schema.ARTICLE_ID)


def _articles_schema(path: Path) -> pa.Schema:
    """The schema of the days' article files: the file's own, with 64-bit ids, and `source`."""
    fields = pq.read_schema(path).remove_metadata()
    fields = fields.set(fields.get_field_index(schema.ARTICLE_ID), pa.field(schema.ARTICLE_ID, pa.int64()))
    return fields.append(pa.field(SOURCE, pa.string()))


def _seen_on(folder: Path) -> pl.DataFrame:
    """Ids of all articles that the rows of a raw day name, sorted."""
    parts = [pl.Series(schema.ARTICLE_ID, [], dtype=pl.Int64)]
    if (folder / "history.parquet").is_file():
        parts.append(frame(folder / "history.parquet", ["article_id"])["article_id"].unique())
    if (folder / "behaviors.parquet").is_file():
        names = pq.read_schema(folder / "behaviors.parquet").names
        lists = frame(folder / "behaviors.parquet", [c for c in _ID_LISTS if c in names]).cast(pl.List(pl.Int64))
        parts += [lists[c].explode().unique().alias(schema.ARTICLE_ID) for c in lists.columns]
    return pl.concat(parts).drop_nulls().unique().sort().to_frame()
