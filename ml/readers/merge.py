"""A raw day put together from several deliveries: the bundle, drops, a correction.

Belongs here: the bytes of such a day, given which pieces make it. Does not belong here: which pieces those are
(`resources.days`) and the rules of a layout.

Event rows of all pieces follow each other in the order of the pieces. Of article rows with one id those of the last
delivery stand; the others go to quarantine as `superseded`, unless they are equal. What a piece holds back goes to
quarantine with its reason. So every row of every piece is in the merged day, in its quarantine, or an exact copy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.errors import DataError
from ml.readers.base import Reader
from ml.readers.files import as_frame, frame, parquet_batches
from ml.readers.rules import SOURCE, milliseconds, quarantine
from ml.readers.spill import Spill

ARTICLES = "articles.parquet"
QUARANTINE = "quarantine.parquet"
RAW_TABLES = {"behaviors": "impressions", "history": "clicks"}
"""Canonical table of raw files that are not named after theirs."""
_ROWS = 65_536
_PUBLISHED = "published_time"
"""Publication in the raw days of the readers that know of one."""
_REPEATED = pl.col(schema.ARTICLE_ID).is_duplicated()


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one delivery: those of the `files` (all, only events, only articles, or the quarantine) in a raw day's
    `folder`. With a `reason` they are held back. `names`: what the column `source` is to say, by what it says."""

    folder: Path
    delivery: str
    files: Literal["all", "events", "articles", "quarantine"]
    reason: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)

    def paths(self, derived: Sequence[str]) -> list[Path]:
        """The piece's files, by name, without those that a reader derives."""
        found = sorted(p for p in self.folder.glob("*.parquet") if p.name not in derived)
        wanted = {
            "all": lambda name: name != QUARANTINE,
            "events": lambda name: name not in (QUARANTINE, ARTICLES),
            "articles": lambda name: name == ARTICLES,
            "quarantine": lambda name: name == QUARANTINE,
        }[self.files]
        return [p for p in found if wanted(p.name)]

    def named(self, rows: pl.DataFrame) -> pl.DataFrame:
        """`rows` with the delivery's names in the column `source`, where there is one."""
        if SOURCE not in rows.columns:
            return rows
        source = pl.col(SOURCE).cast(pl.String)
        row = source.str.extract(r"(:[0-9]+)$").fill_null("")
        return rows.with_columns((source.str.replace(r":[0-9]+$", "").replace(dict(self.names)) + row).alias(SOURCE))


@dataclass(frozen=True, slots=True)
class Listing:
    """Article rows in a raw day's `folder`: all of them, or those published before `before` (ms)."""

    folder: Path
    before: int | None = None

    def ids(self) -> pl.Series:
        """Ids (int64, any order) of the articles."""
        path = self.folder / ARTICLES
        if self.before is None:
            return frame(path, [schema.ARTICLE_ID])[schema.ARTICLE_ID].cast(pl.Int64)
        if _PUBLISHED not in pq.read_schema(path).names:
            return pl.Series(schema.ARTICLE_ID, [], dtype=pl.Int64)
        rows = frame(path, [schema.ARTICLE_ID, _PUBLISHED])
        return rows.filter(milliseconds(_PUBLISHED) < self.before)[schema.ARTICLE_ID].cast(pl.Int64)


def merge_day(pieces: Sequence[Piece], reader: Reader, listed: np.ndarray | None, out: Path) -> None:
    """Writes the raw day that `pieces` make to the folder `out`: equal pieces give equal bytes.

    `listed`: ids (int64, any order) of all articles whose rows stand in raw days up to this one; None where there is no
    article file. Bounded memory, but for the day's articles. Raises DataError for damaged files and for a column whose
    types do not go together.
    """
    out.mkdir(parents=True, exist_ok=True)
    with Spill(out / QUARANTINE, schema.QUARANTINE) as held_back:
        for piece in pieces:
            for path in piece.paths(reader.derived_files):
                if piece.reason is not None or piece.files == "quarantine":
                    for rows in _batches(piece, path):
                        held_back.append(_held_back(rows, piece, path))
        _merge_articles([p for p in pieces if p.reason is None], out / ARTICLES, held_back)
    events: dict[str, list[tuple[Piece, Path]]] = {}
    for piece in pieces:
        if piece.reason is None and piece.files in ("all", "events"):
            for path in piece.paths(reader.derived_files):
                if path.name != ARTICLES:
                    events.setdefault(path.name, []).append((piece, path))
    for name, found in sorted(events.items()):
        with Spill(out / name, _common_schema([path for _, path in found])) as spill:
            for piece, path in found:
                for rows in _batches(piece, path):
                    spill.append(rows.to_arrow())
    for name, table in reader.derived(out, listed).items():
        pq.write_table(table, out / name, compression="zstd", compression_level=1)


def listed_articles(listings: Sequence[Listing]) -> np.ndarray | None:
    """Ids of the articles in `listings`, int64, sorted; None where none of their folders has an article file."""
    found = [listing for listing in listings if (listing.folder / ARTICLES).is_file()]
    if not found:
        return None
    return pl.concat([listing.ids() for listing in found]).drop_nulls().unique().sort().to_numpy()


def count_rows(folder: Path, derived: Sequence[str]) -> int:
    """Event rows of a raw day's folder."""
    return sum(pq.read_metadata(p).num_rows for p in Piece(folder, "", "events").paths(derived))


def _batches(piece: Piece, path: Path) -> Iterator[pl.DataFrame]:
    for batch in parquet_batches(path, _ROWS):
        yield piece.named(as_frame(batch))


def _held_back(rows: pl.DataFrame, piece: Piece, path: Path) -> pa.Table:
    if piece.files == "quarantine":
        return rows.to_arrow().cast(schema.QUARANTINE)
    if SOURCE not in rows.columns:
        rows = rows.with_columns(pl.lit(f"{piece.delivery}/{path.name}").alias(SOURCE))
    return quarantine(rows, RAW_TABLES.get(path.stem, path.stem), pl.lit(piece.reason))


def _merge_articles(pieces: Sequence[Piece], out: Path, held_back: Spill) -> None:
    """Writes the article rows of all deliveries; nothing where no piece has an article file."""
    found = [(p, p.folder / ARTICLES) for p in pieces if p.files in ("all", "articles")]
    found = [(piece, path) for piece, path in found if path.is_file()]
    if not found:
        return
    columns = _common_schema([path for _, path in found])
    deliveries = list(dict.fromkeys(piece.delivery for piece, _ in found))
    rows = pl.concat(
        [
            piece.named(frame(path)).with_columns(pl.lit(deliveries.index(piece.delivery)).alias("__delivery"))
            for piece, path in found
        ],
        how="diagonal_relaxed",
    )
    single, repeated = (rows.filter(m) for m in (~_REPEATED, _REPEATED))
    values = pl.struct(pl.exclude(SOURCE, "^__.*$")).struct.json_encode()
    last = pl.col("__delivery") == pl.col("__delivery").max().over(schema.ARTICLE_ID)
    repeated = repeated.with_columns(values.alias("__values"), last.alias("__last"))
    stands = repeated.filter("__last").unique([schema.ARTICLE_ID, "__values"], keep="first", maintain_order=True)
    earlier = repeated.filter(~pl.col("__last"))
    replaced = earlier.join(stands, on=[schema.ARTICLE_ID, "__values"], how="anti", maintain_order="left")
    if SOURCE not in replaced.columns:
        replaced = replaced.with_columns(pl.lit(ARTICLES).alias(SOURCE))
    held_back.append(quarantine(replaced, "articles", pl.lit("superseded")))
    kept = pl.concat([single, stands.select(single.columns)]).sort("__delivery", maintain_order=True)
    pq.write_table(
        pa.table([kept.to_arrow()[f.name].cast(f.type) for f in columns], schema=columns),
        out,
        compression="zstd",
        compression_level=1,
    )


def _common_schema(files: Sequence[Path]) -> pa.Schema:
    """All columns of `files`, each in the type that holds the values of all. Raises DataError where there is none."""
    columns = pa.schema([])
    for path in files:
        try:
            columns = pa.unify_schemas([columns, pq.read_schema(path).remove_metadata()], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                f"{path}: a column has another type than in what was delivered before ({error}): deliver it again "
                "with the types of the bundle"
            ) from error
    return columns
