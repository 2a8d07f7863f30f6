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

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.exceptions import PolarsError

from ml import schema
from ml.datasets import Dataset
from ml.errors import DataError
from ml.readers import canonical
from ml.readers.base import DayTables, Progress, Reader
from ml.readers.breaches import Breach, csv_breaches
from ml.readers.files import frame, inside, unreadable
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

    expected = frozenset({"after_log_end", "outside_days"})

    def sources(self, root: Path) -> list[Path]:
        hours = sorted([*root.glob("clicks/clicks_hour_*.csv"), *root.glob("clicks/clicks_hour_*.csv.gz")])
        if not hours:
            raise DataError(f"{root} has no clicks/clicks_hour_*.csv or .csv.gz: point the data root at the Globo log")
        for hour in hours:
            if hour.suffix == ".gz" and hour.with_suffix("") in hours:
                raise DataError(f"{hour} lies beside its unpacked copy: remove one of them")
        metadata = root / _METADATA
        return [inside(root, p) for p in (*hours, *([metadata] if metadata.is_file() else []))]

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
        if not days:
            raise DataError(
                f"{root}: no click falls in {dataset.first_day}..{dataset.last_day}, the days of {dataset.name}: "
                "point the data root at this dataset's log"
            )
        if len(hours) < len(sources):
            _split_metadata(sources[-1], days, out)
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
        text = _csv(path, COLUMNS).with_columns(pl.lit(str(path.relative_to(root))).alias(SOURCE))
        parsed = judge(text, "clicks", [("unparsable", _unparsable(COLUMNS))])
        rows = parsed.kept.with_columns(pl.col(COLUMNS).cast(pl.Int64))
        rows = rows.with_columns(day_of(pl.col("click_timestamp"), dataset.clock).alias(_DAY))
        placed = judge(rows, "clicks", outside_days(_DAY, dataset))
        held_back.append(parsed.held_back)
        held_back.append(placed.held_back)
        spill.append(placed.kept, _DAY)
        started = placed.kept.select(day_of(pl.col("session_start").max(), dataset.clock)).item()
        last = max(filter(None, (last, started)), default=None)
        if progress is not None and (done % 24 == 0 or done == len(hours)):
            progress(f"split {done} of {len(hours)} hour files")
    return last


def _hold_back(folder: Path, held_back: Spill) -> None:
    """Moves a day after the log's end to quarantine."""
    file = folder / "clicks.parquet"
    held_back.append(quarantine(frame(file), "clicks", pl.lit("after_log_end")))
    file.unlink()
    folder.rmdir()


def _split_metadata(path: Path, days: Sequence[date], out: Path) -> None:
    """Writes the categories of each day's articles to `out/<day>/articles.parquet`."""
    text = _csv(path, _METADATA_COLUMNS)
    if len(text.filter(_unparsable(_METADATA_COLUMNS) | pl.any_horizontal(pl.all().is_null()))):
        raise DataError(f"{path}: article_id or category_id is no whole number: use the published file")
    known = text.cast(pl.Int64).unique(schema.ARTICLE_ID, keep="first", maintain_order=True)
    for day in days:
        clicked = frame(out / str(day) / "clicks.parquet", ["click_article_id"])
        ids = clicked.select(pl.col("click_article_id").unique().sort().alias(schema.ARTICLE_ID))
        rows = ids.join(known, on=schema.ARTICLE_ID, how="inner", maintain_order="left").to_arrow()
        pq.write_table(rows, out / str(day) / "articles.parquet", compression="zstd", compression_level=1)


def _unparsable(columns: Sequence[str]) -> pl.Expr:
    """Rows with a value that is no whole number (an empty value is none)."""
    numbers = [(pl.col(c), pl.col(c).cast(pl.Int64, strict=False)) for c in columns]
    return pl.any_horizontal([text.is_not_null() & number.is_null() for text, number in numbers])


def _csv(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """`columns` of a CSV file, plain or gzipped, as text."""
    try:
        rows = pl.read_csv(path, infer_schema=False)
    except (PolarsError, OSError) as error:
        raise unreadable(path, error) from error
    missing = [c for c in columns if c not in rows.columns]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)} (it has {', '.join(rows.columns)}): the published file starts "
            "with a line of column names"
        )
    return rows.select(columns)
