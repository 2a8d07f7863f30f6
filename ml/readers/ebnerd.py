"""The EB-NeRD bundle: `{train,validation,test}/{behaviors,history}.parquet`, optional `articles.parquet` and artifacts.

Belongs here: this layout and its rules. Does not belong here: rules that hold for every layout (`ml.readers.rules`,
`ml.readers.canonical`).

Rules of this layout:

- Times have no zone and are UTC. Each clicked article of an impression is a click at the impression's time, whose
  `next_read_time` and `next_scroll_percentage` are its read time and depth; each entry of a history is a click.
- A later split's history repeats an earlier split's behaviors: of the two rows the one with the impression is kept.
- `test` publishes no clicks; its beyond-accuracy rows have impression id 0. Both are valid.
- An article lies in the day of its publication: in the first day with data when it is older, in the next day with data
  when its own has none. One that appears before its listed publication (or has none listed) is also in the days of
  those appearances, its first appearance there standing in for publication. One that no article file lists is in every
  day it appears in. Downstream keeps the earliest row. Clicks before publication are therefore kept.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.datasets import Dataset
from ml.errors import DataError
from ml.readers import canonical
from ml.readers.base import DayTables, Progress, Reader
from ml.readers.files import (
    Kind,
    as_frame,
    frame,
    inside,
    is_flag,
    is_integer,
    is_number,
    is_text,
    is_time,
    list_of,
    parquet_batches,
    parquet_schema,
)
from ml.readers.rules import SOURCE, Rule, bad_ids, day_of, judge, milliseconds, outside_days
from ml.readers.spill import DaySpill, Spill

SPLITS = ("train", "validation", "test")
ARTIFACTS = {
    "body": ("bert_base_multilingual_cased", "bert*embeddings", "xlm_roberta_base", "document_vector"),
    "image": ("image_embeddings",),
}
"""File names (without ending) of published vectors by family, the preferred one first."""

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
_REMEDY = "use the file of the published bundle, or write it with the published columns and types"
_DAY = "__day"
_PLACED = "__placed"


class EbnerdReader(Reader):
    """Reads the EB-NeRD layout (also of simulated bundles)."""

    def sources(self, root: Path) -> list[Path]:
        logs = [root / split / f"{name}.parquet" for split in SPLITS for name in ("behaviors", "history")]
        found = [p for p in logs if p.is_file()]
        if not found:
            raise DataError(
                f"{root} has none of {{train,validation,test}}/{{behaviors,history}}.parquet: "
                "point the data root at the folder that holds train/"
            )
        articles = root / "articles.parquet"
        found += [articles] if articles.is_file() else []
        names = [name for names in ARTIFACTS.values() for name in names]
        found += sorted({p for name in names for p in root.glob(f"**/{name}*.parquet") if p.is_file()})
        return [inside(root, p) for p in found]

    def split(self, root: Path, dataset: Dataset, out: Path, progress: Progress | None = None) -> list[date]:
        sources = self.sources(root)
        behaviors = [p for p in sources if p.name == "behaviors.parquet"]
        histories = [p for p in sources if p.name == "history.parquet"]
        articles = root / "articles.parquet" if root / "articles.parquet" in sources else None
        raw = _behaviors_schema(behaviors)
        for path in histories:
            parquet_schema(path, _HISTORY, _REMEDY)
        out.mkdir(parents=True, exist_ok=True)
        with Spill(out / "quarantine.parquet", schema.QUARANTINE) as held_back:
            with DaySpill(out, "behaviors", raw) as shown, DaySpill(out, "history", _HISTORY_ROWS) as read:
                _split_log(behaviors, root, dataset, shown, held_back, progress)
                _split_histories(histories, root, dataset, read, held_back, progress)
                days = sorted({*shown.days, *read.days})
            if not days:
                raise DataError(
                    f"{root}: no row falls in {dataset.first_day}..{dataset.last_day}, the days of {dataset.name}: "
                    "choose the dataset that this log belongs to"
                )
            if articles is not None:
                _split_articles(articles, root, dataset, days, out, held_back)
        return days

    def tables(self, raw_day: Path, dataset: Dataset, day: date) -> DayTables:
        start, end = dataset.clock.start(day), dataset.clock.end(day)
        behaviors, history = (_optional(raw_day / f"{name}.parquet") for name in ("behaviors", "history"))
        if behaviors is None and history is None:
            raise DataError(f"{raw_day} holds neither behaviors.parquet nor history.parquet: split the log again")
        clicks = canonical.clicks(_clicks_of(behaviors, history), start, end)
        impressions = canonical.impressions(_impressions_of(behaviors), start, end)
        seen = canonical.first_seen(clicks.rows, impressions.rows)
        listed = _optional(raw_day / "articles.parquet")
        known = _optional(raw_day / "unlisted.parquet")
        only_seen = seen if known is None else seen.join(known, on=schema.ARTICLE_ID, how="semi", maintain_order="left")
        articles = canonical.articles(_articles_of(listed, seen, end), only_seen, end)
        return DayTables(
            articles=canonical.conform(articles.rows, schema.ARTICLES),
            clicks=canonical.conform(clicks.rows, schema.CLICKS),
            impressions=canonical.conform(impressions.rows, schema.IMPRESSIONS),
            quarantine=canonical.quarantined([articles, clicks, impressions]),
            counts={"articles": articles.counts, "clicks": clicks.counts, "impressions": impressions.counts},
        )

    def artifact_vectors(self, root: Path) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for family, names in ARTIFACTS.items():
            paths = [p for name in names for p in sorted(root.glob(f"**/{name}*.parquet")) if p.is_file()]
            if paths:
                found[family] = inside(root, paths[0])
        return found


def _behaviors_schema(paths: Sequence[Path]) -> pa.Schema:
    """All columns of the behaviors files, and `source`. Raises DataError for missing columns and clashing types."""
    fields: list[pa.Schema] = [pa.schema([pa.field(SOURCE, pa.string())])]
    for path in paths:
        wanted = _SHOWN if path.parent.name == "test" else _SHOWN | _CLICKED
        found = parquet_schema(path, wanted, _REMEDY).remove_metadata()
        try:
            fields = [pa.unify_schemas([found, *fields], promote_options="permissive")]
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{path}: a column has another type than in the split before ({error}): {_REMEDY}"
            ) from error
    return fields[0]


def _split_log(
    paths: Sequence[Path], root: Path, dataset: Dataset, spill: DaySpill, held_back: Spill, progress: Progress | None
) -> None:
    """Streams behaviors into days."""
    for path, rows in _streamed(paths, root, 65_536, progress):
        rows = rows.with_columns(day_of(milliseconds("impression_time"), dataset.clock).alias(_DAY))
        placed = judge(rows, "impressions", outside_days(_DAY, dataset))
        held_back.append(placed.held_back)
        spill.append(placed.kept, _DAY)


def _split_histories(
    paths: Sequence[Path], root: Path, dataset: Dataset, spill: DaySpill, held_back: Spill, progress: Progress | None
) -> None:
    """Streams histories into days, one row a click."""
    lists = list(_HISTORY)[1:]
    uneven = pl.any_horizontal([pl.col(c).list.len() != pl.col(lists[0]).list.len() for c in lists[1:]])
    lost = pl.any_horizontal([pl.col(c).is_null() for c in lists]) & ~pl.all_horizontal(
        [pl.col(c).is_null() for c in lists]
    )
    for path, rows in _streamed(paths, root, 2_048, progress):
        judged = judge(rows.select(*_HISTORY, SOURCE), "clicks", [("history_lengths_differ", uneven | lost)])
        held_back.append(judged.held_back)
        flat = judged.kept.filter(pl.col(lists[0]).list.len() > 0).explode(lists)
        flat = flat.rename(dict(zip(lists, ("article_id", "time", "read_time", "scroll"), strict=True)))
        flat = flat.with_columns(day_of(milliseconds("time"), dataset.clock).alias(_DAY))
        placed = judge(flat, "clicks", outside_days(_DAY, dataset))
        held_back.append(placed.held_back)
        spill.append(placed.kept, _DAY)


def _streamed(
    paths: Sequence[Path], root: Path, rows: int, progress: Progress | None
) -> Iterator[tuple[Path, pl.DataFrame]]:
    """All rows of the files in order, in pieces, with `source`."""
    for path in paths:
        name = str(path.relative_to(root))
        if progress is not None:
            progress(f"split {name}: {pq.read_metadata(path).num_rows:,} rows")
        for piece in parquet_batches(path, rows):
            yield path, as_frame(piece).with_columns(pl.lit(name).alias(SOURCE))


def _split_articles(
    path: Path, root: Path, dataset: Dataset, days: Sequence[date], out: Path, held_back: Spill
) -> None:
    """Streams the article file into days, and writes per day which articles appear without being in the file."""
    parquet_schema(path, _ARTICLES, _REMEDY)
    known, spill_schema = _known_articles(path, dataset, days)
    places = [known.drop_nulls(_PLACED).select(schema.ARTICLE_ID, _PLACED)]
    for day in days:
        seen = _seen_on(out / str(day))
        unlisted = seen.join(known, on=schema.ARTICLE_ID, how="anti", maintain_order="left")
        pq.write_table(
            unlisted.to_arrow(), out / str(day) / "unlisted.parquet", compression="zstd", compression_level=1
        )
        early = known.filter(pl.col(_PLACED).is_null() | (pl.col(_PLACED) > day))
        early = early.join(seen, on=schema.ARTICLE_ID, how="semi", maintain_order="left")
        places.append(early.select(schema.ARTICLE_ID, pl.lit(day).alias(_PLACED)))
    placed = pl.concat(places)
    name = str(path.relative_to(root))
    unplaced: list[Rule] = [
        *bad_ids(schema.ARTICLE_ID)[:1],
        ("null_time", pl.col(_PLACED).is_null() & pl.col("published_time").is_null()),
        ("after_log_end", pl.col(_PLACED).is_null()),
    ]
    with DaySpill(out, "articles", spill_schema) as spill:
        for piece in parquet_batches(path, 4_096):
            rows = as_frame(piece).with_columns(pl.lit(name).alias(SOURCE), pl.col(schema.ARTICLE_ID).cast(pl.Int64))
            judged = judge(
                rows.join(placed, on=schema.ARTICLE_ID, how="left", maintain_order="left"), "articles", unplaced
            )
            held_back.append(judged.held_back)
            spill.append(judged.kept, _PLACED)


def _known_articles(path: Path, dataset: Dataset, days: Sequence[date]) -> tuple[pl.DataFrame, pa.Schema]:
    """One row an article of the file: its id and the day with data that it is placed in (null: after the last one, or
    without a time); and the schema of the days' article files."""
    columns = frame(path, [schema.ARTICLE_ID, "published_time"]).drop_nulls(schema.ARTICLE_ID)
    published = columns.select(
        pl.col(schema.ARTICLE_ID).cast(pl.Int64), day_of(milliseconds("published_time"), dataset.clock).alias(_PLACED)
    )
    earliest = published.group_by(schema.ARTICLE_ID).agg(pl.col(_PLACED).min()).sort(_PLACED, schema.ARTICLE_ID)
    with_data = pl.DataFrame({"__with_data": days}, schema={"__with_data": pl.Date}).set_sorted("__with_data")
    timed, untimed = earliest.drop_nulls(_PLACED), earliest.filter(pl.col(_PLACED).is_null())
    timed = timed.join_asof(with_data, left_on=_PLACED, right_on="__with_data", strategy="forward", coalesce=False)
    known = pl.concat([timed.select(schema.ARTICLE_ID, pl.col("__with_data").alias(_PLACED)), untimed])
    fields = pq.read_schema(path).remove_metadata()
    fields = fields.set(fields.get_field_index(schema.ARTICLE_ID), pa.field(schema.ARTICLE_ID, pa.int64()))
    return known.sort(schema.ARTICLE_ID), fields.append(pa.field(SOURCE, pa.string()))


def _seen_on(folder: Path) -> pl.DataFrame:
    """Ids of all articles that the rows of a raw day name, sorted."""
    parts = [pl.Series(schema.ARTICLE_ID, [], dtype=pl.Int64)]
    if (folder / "history.parquet").is_file():
        parts.append(frame(folder / "history.parquet", ["article_id"])["article_id"].unique())
    behaviors = _optional(folder / "behaviors.parquet")
    if behaviors is not None:
        lists = [c for c in ("article_ids_inview", "article_ids_clicked") if c in behaviors.columns]
        parts += [behaviors[c].explode().cast(pl.Int64).unique().alias(schema.ARTICLE_ID) for c in lists]
    return pl.concat(parts).drop_nulls().unique().sort().to_frame()


def _optional(path: Path) -> pl.DataFrame | None:
    """The file as a frame, None where there is none."""
    return frame(path) if path.is_file() else None


def _clicks_of(behaviors: pl.DataFrame | None, history: pl.DataFrame | None) -> pl.DataFrame:
    """All clicks of a raw day in canonical columns."""
    parts = [canonical.empty(schema.CLICKS)]
    if behaviors is not None and "article_ids_clicked" in behaviors.columns:
        clicked = behaviors.filter(pl.col("article_ids_clicked").list.len() > 0)
        impression = pl.col("impression_id").cast(pl.Int64)
        rows = clicked.select(
            pl.col("user_id"),
            pl.col("article_ids_clicked").alias(schema.ARTICLE_ID),
            milliseconds("impression_time").alias(schema.CLICK_TIME),
            pl.col("session_id").alias(schema.SESSION_ID),
            pl.when(impression > 0).then(impression).alias(schema.IMPRESSION_ID),
            pl.col("next_read_time").alias(schema.READ_TIME),
            pl.col("next_scroll_percentage").alias(schema.SCROLL),
            pl.col("device_type").alias("device"),
            pl.col("is_subscriber").alias("subscriber"),
            pl.col(SOURCE),
        ).explode(schema.ARTICLE_ID)
        parts.append(canonical.complete(rows, schema.CLICKS))
    if history is not None:
        rows = history.with_columns(milliseconds("time").alias(schema.CLICK_TIME)).rename({"scroll": schema.SCROLL})
        parts.append(canonical.complete(rows, schema.CLICKS))
    return pl.concat(parts)


def _impressions_of(behaviors: pl.DataFrame | None) -> pl.DataFrame:
    """All impressions of a raw day in canonical columns; `clicked` is empty where nothing is published."""
    if behaviors is None:
        return canonical.empty(schema.IMPRESSIONS)
    clicked = pl.col("article_ids_clicked") if "article_ids_clicked" in behaviors.columns else pl.lit(None)
    ids = pl.List(pl.Int64)
    rows = behaviors.select(
        pl.col("impression_id"),
        pl.col("user_id"),
        milliseconds("impression_time").alias(schema.CLICK_TIME),
        pl.col("article_ids_inview").alias(schema.INVIEW),
        clicked.cast(ids).fill_null(pl.lit([], dtype=ids)).alias(schema.CLICKED),
        pl.col("session_id").alias(schema.SESSION_ID),
        pl.col("device_type").alias("device"),
        pl.col("is_subscriber").alias("subscriber"),
        pl.col(SOURCE),
    )
    return canonical.complete(rows, schema.IMPRESSIONS)


def _articles_of(listed: pl.DataFrame | None, seen: pl.DataFrame, end_ms: int) -> pl.DataFrame:
    """The raw day's articles in canonical columns. One whose listed publication is not before the day's end is here
    because it appeared: its first appearance stands in."""
    if listed is None:
        return canonical.empty(schema.ARTICLES)
    first = seen.select(schema.ARTICLE_ID, pl.col(schema.PUBLISHED).alias("__seen"))
    rows = listed.with_columns(
        pl.col(schema.ARTICLE_ID).cast(pl.Int64), milliseconds("published_time").alias("__listed")
    )
    late = pl.col("__listed").is_null() | (pl.col("__listed") >= end_ms)
    rows = rows.join(first, on=schema.ARTICLE_ID, how="left", maintain_order="left").with_columns(
        pl.when(late).then(pl.col("__seen")).otherwise(pl.col("__listed")).alias(schema.PUBLISHED),
        late.alias("published_is_first_seen"),
        milliseconds("last_modified_time").alias(schema.MODIFIED),
        pl.col("category").alias("category_id"),
        pl.col("category_str").alias("category_name"),
    )
    rows = rows.drop("category").rename({"category_name": "category"})
    return canonical.complete(rows, schema.ARTICLES)
