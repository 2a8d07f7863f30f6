"""The Globo.com click log: `clicks/clicks_hour_*.csv[.gz]` by session start, optional `articles_metadata.csv`.

Belongs here: this layout and its rules. Does not belong here: rules that hold for every layout (`ml.readers.rules`).

Rules of this layout (Moreira et al. 2018, doi 10.1145/3270323.3270328):

- The log ends with the day on which its last session started. Sessions run on, and about a thousand clocks lie days to
  weeks beyond: clicks on later days are held back as `after_log_end`, since those days are not in the log. Clicks long
  after their session's start are kept: their articles are as popular in the hour of the click as those of any click.
- An article's first click stands in for its publication (`published_is_first_seen`): the metadata's `created_at_ts`
  is no publication time. The metadata gives the category only.
- Codes of device, system, region and referrer are those of the file.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.datasets import Dataset
from ml.errors import DataError
from ml.readers import canonical, text
from ml.readers.base import DayTables, Progress, Reader
from ml.readers.breaches import Breach, csv_breaches
from ml.readers.files import frame, printable, regular
from ml.readers.rules import SOURCE, counted, day_of, judge, outside_days, quarantine
from ml.readers.spill import DaySpill, Spill

COLUMNS = (
    "user_id",
    "session_id",
    "session_start",
    "session_size",
    "click_article_id",
    "click_timestamp",
    "click_environment",
    "click_deviceGroup",
    "click_os",
    "click_country",
    "click_region",
    "click_referrer_type",
)
_METADATA = "articles_metadata.csv"
_METADATA_COLUMNS = ("article_id", "category_id")
_RAW = pa.schema([*(pa.field(name, pa.int64()) for name in COLUMNS), pa.field(SOURCE, pa.string())])
_RENAMED = {
    "click_article_id": schema.ARTICLE_ID,
    "click_timestamp": schema.CLICK_TIME,
    "click_deviceGroup": "device",
    "click_os": "os",
    "click_region": "region",
    "click_referrer_type": "referrer",
}
_DAY = "__day"


class GloboReader(Reader):
    """Reads the Globo.com layout."""

    drop_folders = {"clicks_hour_*": "clicks"}  # noqa: RUF012
    expected = frozenset({"after_log_end", "outside_days"})

    def sources(self, root: Path) -> list[Path]:
        names = sorted([*root.glob("clicks/clicks_hour_*.csv"), *root.glob("clicks/clicks_hour_*.csv.gz")])
        hours = [p for p in names if regular(root, p)]
        if not hours:
            raise DataError(
                f"{printable(root)} has no clicks/clicks_hour_*.csv or .csv.gz: point the data root at the Globo log"
            )
        for hour in hours:
            if hour.suffix == ".gz" and hour.with_suffix("") in hours:
                raise DataError(f"{printable(hour)} lies beside its unpacked copy: remove one of them")
        metadata = root / _METADATA
        return [*hours, *([metadata] if regular(root, metadata) else [])]

    def split(self, root: Path, dataset: Dataset, out: Path, progress: Progress | None = None) -> list[date]:
        sources = self.sources(root)
        hours = [p for p in sources if p.name != _METADATA]
        out.mkdir(parents=True, exist_ok=True)
        with Spill(out / "quarantine.parquet", schema.QUARANTINE) as held_back:
            with DaySpill(out, "clicks", _RAW) as spill:
                last = _split_hours(hours, root, dataset, spill, held_back, progress)
                days = spill.days
            for day in days[:]:
                if last is None or day > last:
                    _hold_back(out / str(day), held_back)
                    days.remove(day)
            if days and len(hours) < len(sources):
                _split_metadata(sources[-1], root, days, out, held_back)
        if not days:
            raise DataError(
                f"{printable(root)}: no click falls in {dataset.first_day}..{dataset.last_day}, the days of "
                f"{dataset.name}: point the data root at this dataset's log"
            )
        return days

    def breaches(self, root: Path) -> list[Breach]:
        found = super().breaches(root)
        wanted = {_METADATA: _METADATA_COLUMNS}
        remedy = "the published file starts with a line of column names"
        files = [] if found else self.sources(root)
        return found + [b for p in files for b in csv_breaches(p, root, wanted.get(p.name, COLUMNS), remedy)]

    def tables(self, raw_day: Path, dataset: Dataset, day: date) -> DayTables:
        raw = frame(raw_day / "clicks.parquet").rename(_RENAMED)
        clicks = canonical.clicks(raw, dataset.clock.start(day), dataset.clock.end(day))
        seen = canonical.first_seen(clicks.rows)
        metadata = raw_day / "articles.parquet"
        if metadata.is_file():
            seen = seen.join(frame(metadata), on=schema.ARTICLE_ID, how="left", maintain_order="left")
        articles = canonical.articles(seen.clear(), seen, dataset.clock.end(day))
        return DayTables(
            articles=canonical.conform(articles.rows, schema.ARTICLES),
            clicks=canonical.conform(clicks.rows, schema.CLICKS),
            impressions=schema.IMPRESSIONS.empty_table(),
            quarantine=canonical.quarantined([articles, clicks]),
            counts={"articles": articles.counts, "clicks": clicks.counts, "impressions": counted(0, 0, 0)},
        )


def _split_hours(
    hours: Sequence[Path], root: Path, dataset: Dataset, spill: DaySpill, held_back: Spill, progress: Progress | None
) -> date | None:
    """Streams the hour files into days; the day on which the last session started (None without sessions)."""
    last: date | None = None
    for done, path in enumerate(hours, start=1):
        for rows in _numbers(path, root, COLUMNS, "clicks", held_back):
            dated = rows.with_columns(day_of(pl.col("click_timestamp"), dataset.clock).alias(_DAY))
            placed = judge(dated, "clicks", outside_days(_DAY, dataset))
            held_back.append(placed.held_back)
            spill.append(placed.kept, _DAY)
            last = max(filter(None, (last, _last_start(placed.kept, dataset))), default=None)
        if progress is not None and (done % 24 == 0 or done == len(hours)):
            progress(f"split {done} of {len(hours)} hour files")
    return last


def _last_start(rows: pl.DataFrame, dataset: Dataset) -> date | None:
    """The day on which the last session of these clicks started; a start after its own click is a wrong clock."""
    started = pl.col("session_start").filter(pl.col("session_start") <= pl.col("click_timestamp")).max()
    day = rows.select(day_of(started, dataset.clock)).item()
    assert day is None or isinstance(day, date)
    return day


def _numbers(path: Path, root: Path, columns: Sequence[str], table: str, held_back: Spill) -> Iterator[pl.DataFrame]:
    """`columns` of a text file as int64, with `source`; lines and values that are no whole numbers go to quarantine."""
    source = pl.lit(printable(path.relative_to(root))).alias(SOURCE)
    for piece in text.pieces(path, columns):
        held_back.append(quarantine(piece.bad.with_columns(source).rename({"reason": "__why"}), table, pl.col("__why")))
        parsed = judge(piece.rows.with_columns(source), table, [("unparsable", _unparsable(columns))])
        held_back.append(parsed.held_back)
        yield parsed.kept.with_columns(pl.col(columns).cast(pl.Int64))


def _hold_back(folder: Path, held_back: Spill) -> None:
    """Moves a day after the log's end to quarantine."""
    file = folder / "clicks.parquet"
    held_back.append(quarantine(frame(file), "clicks", pl.lit("after_log_end")))
    file.unlink()
    folder.rmdir()


def _split_metadata(path: Path, root: Path, days: Sequence[date], out: Path, held_back: Spill) -> None:
    """Writes the categories of each day's articles to `out/<day>/articles.parquet`. Of several categories of one
    article the first counts, the others go to quarantine; articles that nobody clicks are not carried."""
    nothing = pl.DataFrame(schema={**dict.fromkeys(_METADATA_COLUMNS, pl.Int64), SOURCE: pl.String})
    rows = pl.concat([nothing, *_numbers(path, root, _METADATA_COLUMNS, "articles", held_back)])
    article, category = (pl.col(c) for c in _METADATA_COLUMNS)
    rules = [
        ("null_id", pl.any_horizontal(article.is_null(), category.is_null())),
        ("out_of_range", category.cast(pl.Int32, strict=False).is_null()),
    ]
    fits = judge(rows, "articles", rules)
    held_back.append(fits.held_back)
    distinct = fits.kept.unique([*_METADATA_COLUMNS], keep="first", maintain_order=True)
    single = judge(distinct, "articles", [("duplicate_article_id", ~article.is_first_distinct())])
    held_back.append(single.held_back)
    known = single.kept.select(_METADATA_COLUMNS)
    for day in days:
        clicked = frame(out / str(day) / "clicks.parquet", ["click_article_id"])
        ids = clicked.select(pl.col("click_article_id").unique().sort().alias(schema.ARTICLE_ID))
        named = ids.join(known, on=schema.ARTICLE_ID, how="inner", maintain_order="left").to_arrow()
        pq.write_table(named, out / str(day) / "articles.parquet", compression="zstd", compression_level=1)


def _unparsable(columns: Sequence[str]) -> pl.Expr:
    """Rows with a value that is no whole number (an empty value is none)."""
    numbers = [(pl.col(c), pl.col(c).cast(pl.Int64, strict=False)) for c in columns]
    return pl.any_horizontal([text.is_not_null() & number.is_null() for text, number in numbers])
