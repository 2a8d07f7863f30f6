"""The EB-NeRD bundle cut into days: one pass over its files.

Belongs here: the columns that the published files must have, and which day each of their rows belongs to. Does not
belong here: what the rows mean (`ml.readers.ebnerd`), and where the log ends (`ml.readers.span`).

An article lies in the day of its publication: in the first day with data when it is older, in the next day with data
when its own has none. One that appears before its listed publication (or has none listed) lies in the days of those
appearances too. `unlisted.parquet` names a day's articles that the article file does not have at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.datasets import Dataset
from ml.errors import DataError
from ml.readers.account import Quarantine, Rows
from ml.readers.base import Progress
from ml.readers.cells import LIST_ITEMS, PLAUSIBLE_MS
from ml.readers.files import (
    Kind,
    as_frame,
    carried_type,
    frame,
    is_flag,
    is_integer,
    is_number,
    is_text,
    is_time,
    list_of,
    listed,
    ordinary_columns,
    parquet_batches,
    parquet_pieces,
    parquet_schema,
    printable,
    row_count,
)
from ml.readers.fit import misfits, polars_types
from ml.readers.ranges import RANGES
from ml.readers.rules import NUMBER, SOURCE, Rule, day_of, judge, numbered, outside_days, quarantine
from ml.readers.span import hold_back_outside
from ml.readers.spill import DaySpill, Spill

UNLISTED = "unlisted.parquet"

_SHOWN: dict[str, Kind] = {
    "impression_id": is_integer,
    "user_id": is_integer,
    "impression_time": is_time,
    "read_time": is_number,
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
_TIME = pa.timestamp("ms")
_IDS = pa.large_list(pa.int64())
_RAW: dict[str, pa.DataType] = {
    "impression_id": pa.int64(),
    "user_id": pa.int64(),
    "impression_time": _TIME,
    "read_time": pa.float32(),
    "article_ids_inview": _IDS,
    "article_ids_clicked": _IDS,
    "device_type": pa.int32(),
    "is_subscriber": pa.bool_(),
    "session_id": pa.int64(),
    "next_read_time": pa.float32(),
    "next_scroll_percentage": pa.float32(),
    "article_id_fixed": _IDS,
    "impression_time_fixed": pa.large_list(_TIME),
    "read_time_fixed": pa.large_list(pa.float32()),
    "scroll_percentage_fixed": pa.large_list(pa.float32()),
    "article_id": pa.int64(),
    "published_time": _TIME,
    "last_modified_time": _TIME,
    "title": pa.large_string(),
    "subtitle": pa.large_string(),
    "body": pa.large_string(),
    "category": pa.int32(),
    "category_str": pa.large_string(),
    "premium": pa.bool_(),
    "sentiment_score": pa.float32(),
}
"""Types in which raw days carry the columns that this reader needs, whatever the width of the published ones. A value
that does not fit holds its row back."""
_HISTORY_ROWS = pa.schema(
    [
        ("user_id", pa.int64()),
        ("article_id", pa.int64()),
        ("time", _TIME),
        ("read_time", pa.float32()),
        ("scroll", pa.float32()),
        (SOURCE, pa.string()),
    ]
)
_NUMBERS = {"read_time": "read_time", "scroll": "scroll_percentage"}
_ID_LISTS = ("article_ids_inview", "article_ids_clicked")
REMEDY = "use the file of the published bundle, or write it with the published columns and types"
_TABLES = {"behaviors.parquet": "impressions", "history.parquet": "clicks"}
_DAY = "__day"
_PLACED = "__placed"
_DAMAGE = "__damage"
_SHOWN_ROWS, _HISTORY_READERS, _ARTICLE_ROWS = 65_536, 2_048, 4_096


@dataclass(frozen=True, slots=True)
class _Bundle:
    """What the steps of one split share."""

    root: Path
    dataset: Dataset
    out: Path
    held_back: Quarantine
    progress: Progress | None

    def say(self, path: Path, message: str) -> None:
        """Reports on a file."""
        if self.progress is not None:
            self.progress(f"split {printable(path.relative_to(self.root))}: {message}")

    def rows_of(self, path: Path, table: str) -> Rows:
        """What is known of a file's rows."""
        return self.held_back.account.of(printable(path.relative_to(self.root)), table)

    def pieces(self, path: Path, rows: int, columns: pa.Schema, table: str) -> Iterator[pl.DataFrame]:
        """All sound rows of a file in order, in the `columns` that it has, with `source` and their number, a bounded
        number at a time. Rows with a cell that fits no column go to quarantine."""
        name, account = printable(path.relative_to(self.root)), self.rows_of(path, table)
        wanted = pa.schema([f for f in columns if f.name in parquet_schema(path, {}, REMEDY).names])
        types, first = polars_types(wanted), 1
        for piece, damage in parquet_pieces(path, rows, wanted.names):
            number = pl.int_range(first, first + pl.len(), dtype=pl.Int64).alias(NUMBER)
            found = as_frame(piece).select(*wanted.names, pl.lit(name).alias(SOURCE), number)
            first += len(found)
            account.rows_in += len(found)
            if damage is not None:
                found = found.with_columns(pl.Series(_DAMAGE, damage.to_pylist(), dtype=pl.String))
                bad = found.filter(pl.col(_DAMAGE).is_not_null())
                self.held_back.append(quarantine(bad, table, pl.col(_DAMAGE)))
                found = found.filter(pl.col(_DAMAGE).is_null()).drop(_DAMAGE)
            unfit = misfits(found, types)
            kept = self.keep(found, table, [("out_of_range", pl.any_horizontal(unfit.values()))] if unfit else [])
            yield kept.cast(types, strict=False)

    def keep(self, rows: pl.DataFrame, table: str, rules: Sequence[Rule]) -> pl.DataFrame:
        """The rows that break none of `rules`; the others go to quarantine."""
        judged = judge(rows, table, rules)
        self.held_back.append(judged.held_back)
        return judged.kept

    def place(self, path: Path, rows: pl.DataFrame, table: str, time: str, spill: DaySpill) -> None:
        """Appends rows of a file to the days of their time (ms)."""
        dated = rows.with_columns(day_of(pl.col(time).cast(pl.Int64), self.dataset.clock).alias(_DAY))
        kept = self.keep(dated, table, outside_days(_DAY, self.dataset))
        self.rows_of(path, table).placed += len(kept)
        spill.append(kept, _DAY)


def split_bundle(
    sources: Sequence[Path], root: Path, dataset: Dataset, out: Path, progress: Progress | None
) -> list[date]:
    """Writes `out/<day>/{behaviors,history,articles,unlisted}.parquet` and returns the days: see `Reader.split`."""
    behaviors, histories, articles = (
        [p for p in sources if p.name == f"{name}.parquet"] for name in ("behaviors", "history", "articles")
    )
    for path in histories:
        parquet_schema(path, _HISTORY, REMEDY)
    out.mkdir(parents=True, exist_ok=True)
    with Quarantine(out) as held_back:
        bundle = _Bundle(root, dataset, out, held_back, progress)
        columns = _carried(behaviors, [columns_of(p) for p in behaviors], bundle)
        read_in = _history_columns(histories)
        told = _carried(articles, [_ARTICLES] * len(articles), bundle)
        with (
            DaySpill(out, "behaviors", _sourced(columns)) as shown,
            DaySpill(out, "history", _clicks_of(read_in)) as read,
        ):
            for path in behaviors:
                bundle.say(path, f"{row_count(path):,} rows")
                for rows in bundle.pieces(path, _SHOWN_ROWS, columns, "impressions"):
                    kept = bundle.keep(rows, "impressions", _too_long(rows))
                    bundle.place(path, kept, "impressions", "impression_time", shown)
            for path in histories:
                bundle.say(path, f"{row_count(path):,} readers")
                _split_history(path, bundle, read_in, read)
        days = hold_back_outside(out, shown.rows + read.rows, _TABLES, held_back)
        if not days:
            raise DataError(
                f"{printable(root)}: no row falls in {dataset.first_day}..{dataset.last_day}, the days of "
                f"{dataset.name}{held_back.told()}: choose the dataset that this log belongs to"
            )
        for path in articles:
            bundle.say(path, f"{row_count(path):,} rows")
            _split_articles(path, bundle, told, days)
    return days


def columns_of(path: Path) -> dict[str, Kind]:
    """The columns that a file of the bundle must have, by its name; none for artifacts. `test` may have those of
    clicks."""
    if path.stem == "behaviors" and path.parent.name == "test":
        names = parquet_schema(path, {}, REMEDY).names
        return _SHOWN | {c: kind for c, kind in _CLICKED.items() if c in names}
    return {"behaviors": _SHOWN | _CLICKED, "history": _HISTORY, "articles": _ARTICLES}.get(path.stem, {})


def _carried(paths: Sequence[Path], needed: Sequence[Mapping[str, Kind]], bundle: _Bundle) -> pa.Schema:
    """All columns that the days of these files carry: the needed ones, and others that fit and have one type in all.
    Says which do not fit. Raises DataError for missing columns and wrong types."""
    fields: dict[str, pa.DataType] = {}
    clashing: set[str] = set()
    for path, columns in zip(paths, needed, strict=True):
        found = parquet_schema(path, columns, REMEDY)
        fits, left = ordinary_columns(found, columns)
        clashing |= set(left)
        fields |= {name: _wide(_RAW[name], found.field(name).type, fields.get(name)) for name in columns}
        for name in fits:
            kind = carried_type(found.field(name).type)
            if fields.setdefault(name, kind) != kind:
                clashing.add(name)
        left += [n for n in fits if n in clashing]
        if left:
            bundle.say(path, f"columns that no table needs are left out: {listed(left)}")
    return pa.schema([(name, kind) for name, kind in fields.items() if name not in clashing])


def _wide(kind: pa.DataType, published: pa.DataType, before: pa.DataType | None) -> pa.DataType:
    """The raw type of a column, `kind`, but 64 bits for numbers that come so in this file or one before."""
    return pa.float64() if kind == pa.float32() and pa.float64() in (published, before) else kind


def _sourced(columns: pa.Schema) -> pa.Schema:
    return columns.append(pa.field(SOURCE, pa.string()))


def _too_long(rows: pl.DataFrame) -> list[Rule]:
    """Lists that no reader was ever shown or clicked through."""
    lists = [c for c, kind in rows.schema.items() if isinstance(kind, pl.List) and c in _RAW]
    return [("oversized_list", pl.any_horizontal([pl.col(c).list.len() > LIST_ITEMS for c in lists]))] if lists else []


def _history_columns(paths: Sequence[Path]) -> pa.Schema:
    """The raw columns of histories: 64 bits for numbers that come so in any file."""
    found = [parquet_schema(path, {}, REMEDY) for path in paths]
    wide = {name for f in found for name in _HISTORY if _has_64_bits(f.field(name).type)}
    lists = pa.large_list(pa.float64())
    return pa.schema([(n, lists if n in wide else _RAW[n]) for n in _HISTORY])


def _has_64_bits(kind: pa.DataType) -> bool:
    return hasattr(kind, "value_type") and bool(kind.value_type == pa.float64())


def _clicks_of(history: pa.Schema) -> pa.Schema:
    """The columns of a history's clicks in raw days."""
    number = {name: history.field(f"{column}_fixed").type.value_type for name, column in _NUMBERS.items()}
    return pa.schema([pa.field(f.name, number.get(f.name, f.type)) for f in _HISTORY_ROWS])


def _split_history(path: Path, bundle: _Bundle, columns: pa.Schema, spill: DaySpill) -> None:
    """Streams a history file into days, one row a click. Readers without clicks have null or empty lists."""
    lists = list(_HISTORY)[1:]
    lengths = [pl.col(c).list.len() for c in lists]
    uneven = pl.any_horizontal([n.ne_missing(lengths[0]) for n in lengths[1:]])
    for piece in bundle.pieces(path, _HISTORY_READERS, columns, "clicks"):
        kept = bundle.keep(piece, "clicks", [("history_lengths_differ", uneven), *_too_long(piece)])
        flat = kept.filter(lengths[0] > 0).explode(lists)
        bundle.rows_of(path, "clicks").rows_in += len(flat) - len(kept)
        rows = flat.select(
            pl.col("user_id"),
            pl.col("article_id_fixed").alias("article_id"),
            pl.col("impression_time_fixed").alias("time"),
            pl.col("read_time_fixed").alias("read_time"),
            pl.col("scroll_percentage_fixed").alias("scroll"),
            SOURCE,
            NUMBER,
        )
        bundle.place(path, rows, "clicks", "time", spill)


def _split_articles(path: Path, bundle: _Bundle, columns: pa.Schema, days: Sequence[date]) -> None:
    """Streams the article file into days, and writes which articles appear on a day without being in the file."""
    sound = bundle.out / "articles.parquet"
    known = _known_articles(_sound_articles(path, sound, bundle, columns), bundle.dataset, days)
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
    rules = [("null_time", nowhere & pl.col("published_time").is_null()), ("after_log_end", nowhere)]
    with DaySpill(bundle.out, "articles", _sourced(columns)) as spill:
        for piece in parquet_batches(sound, _ARTICLE_ROWS):
            rows = as_frame(piece).join(placed, on=schema.ARTICLE_ID, how="left", maintain_order="left")
            kept = bundle.keep(rows, "articles", rules)
            bundle.rows_of(path, "articles").placed += kept[SOURCE].n_unique()
            spill.append(kept, _PLACED)
    sound.unlink()


def _sound_articles(path: Path, sound: Path, bundle: _Bundle, columns: pa.Schema) -> pl.DataFrame:
    """Writes the rows that can be articles to the file `sound`, their number in `source`, and returns their
    `article_id` and `published_time`."""
    short = [pl.DataFrame(schema={schema.ARTICLE_ID: pl.Int64, "published_time": pl.Datetime("ms")})]
    times = [pl.col(c).cast(pl.Int64) for c in ("published_time", "last_modified_time")]
    implausible = pl.any_horizontal([~t.is_between(*PLAUSIBLE_MS, closed="left") for t in times])
    code = RANGES["articles"]["category_id"]
    rules = [
        ("null_id", pl.col(schema.ARTICLE_ID).is_null()),
        ("code_out_of_range", ~pl.col("category").is_between(code.low, code.high)),
        ("implausible_time", implausible),
    ]
    with Spill(sound, _sourced(columns)) as spill:
        for piece in bundle.pieces(path, _ARTICLE_ROWS, columns, "articles"):
            rows = bundle.keep(piece, "articles", rules).with_columns(numbered()).drop(NUMBER)
            short.append(rows.select(schema.ARTICLE_ID, "published_time"))
            spill.append(rows.to_arrow())
    if not sound.exists():
        pq.write_table(_sourced(columns).empty_table(), sound)
    return pl.concat(short)


def _known_articles(listed_rows: pl.DataFrame, dataset: Dataset, days: Sequence[date]) -> pl.DataFrame:
    """One row an article, sorted by id: `article_id`, and the day with data that it is placed in (null: published after
    the last one, or at no listed time)."""
    published = day_of(pl.col("published_time").cast(pl.Int64), dataset.clock).alias("__published")
    dated = listed_rows.select(schema.ARTICLE_ID, published)
    earliest = dated.group_by(schema.ARTICLE_ID).agg(pl.col("__published").min()).sort("__published")
    with_data = pl.DataFrame({_PLACED: days}, schema={_PLACED: pl.Date})
    placed = earliest.join_asof(with_data, left_on="__published", right_on=_PLACED, strategy="forward", coalesce=False)
    return placed.select(schema.ARTICLE_ID, _PLACED).sort(schema.ARTICLE_ID)


def _seen_on(folder: Path) -> pl.DataFrame:
    """Ids of all articles that the rows of a raw day name, sorted."""
    parts = [pl.Series(schema.ARTICLE_ID, [], dtype=pl.Int64)]
    if (folder / "history.parquet").is_file():
        parts.append(frame(folder / "history.parquet", ["article_id"])["article_id"].unique())
    if (folder / "behaviors.parquet").is_file():
        names = pq.read_schema(folder / "behaviors.parquet").names
        lists = frame(folder / "behaviors.parquet", [c for c in _ID_LISTS if c in names])
        parts += [lists[c].explode().unique().alias(schema.ARTICLE_ID) for c in lists.columns]
    return pl.concat(parts).drop_nulls().unique().sort().to_frame()


def unlisted_on(folder: Path, listed: np.ndarray) -> pa.Table:
    """Ids of the articles that the rows of a raw day name and that are not among `listed` (int64), sorted."""
    known = pl.DataFrame({schema.ARTICLE_ID: listed}, schema={schema.ARTICLE_ID: pl.Int64})
    return _seen_on(folder).join(known, on=schema.ARTICLE_ID, how="anti", maintain_order="left").to_arrow()
