"""The Globo.com click log: `clicks/clicks_hour_*.csv[.gz]` by session start, optional `articles_metadata.csv`.

Belongs here: this layout and its rules. Does not belong here: rules that hold for every layout (`ml.readers.rules`).

Rules of this layout (Moreira et al. 2018, doi 10.1145/3270323.3270328):

- The log ends with the last day on which sessions started in such numbers as on other days (`ml.readers.span`).
  Sessions run on, and about a thousand clocks lie days to weeks beyond: clicks on later days are held back as
  `after_log_end`, since those days are not in the log. Clicks long after their session's start are kept: their articles
  are as popular in the hour of the click as those of any click.
- An article's first click stands in for its publication (`published_is_first_seen`): the metadata's `created_at_ts`
  is no publication time. The metadata gives the category only.
- Codes of device, system, region and referrer are those of the file.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.datasets import Dataset
from ml.errors import DataError
from ml.readers import canonical, text
from ml.readers.account import Quarantine
from ml.readers.base import DayTables, Progress, Reader
from ml.readers.breaches import Breach, csv_breaches
from ml.readers.described import described
from ml.readers.files import frame, lies_at, printable
from ml.readers.ranges import RANGES
from ml.readers.rules import NUMBER, SOURCE, counted, day_of, judge, numbered, outside_days, quarantine
from ml.readers.span import AFTER, hold_back_day, last_carrying
from ml.readers.spill import DaySpill

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
_EPOCH = date(1970, 1, 1)


class GloboReader(Reader):
    """Reads the Globo.com layout."""

    names = ("clicks/clicks_hour_*.csv", "clicks/clicks_hour_*.csv.gz", _METADATA)
    drop_folders = {"clicks_hour_*": "clicks"}  # noqa: RUF012
    expected = frozenset({("clicks", "after_log_end"), ("clicks", "outside_days"), ("articles", "never_shown")})

    def named(self, root: Path) -> list[Path]:
        hours = sorted([*root.glob("clicks/clicks_hour_*.csv"), *root.glob("clicks/clicks_hour_*.csv.gz")])
        metadata = root / _METADATA
        return [*hours, *([metadata] if lies_at(metadata) else [])]

    def require_events(self, root: Path, found: Sequence[Path]) -> None:
        if all(path.name == _METADATA for path in found):
            raise DataError(
                f"{printable(root)} has no clicks/clicks_hour_*.csv or .csv.gz: point the data root at the Globo log"
            )

    def clashes(self, root: Path, found: Sequence[Path]) -> list[tuple[Path, str]]:
        packed = [p for p in found if p.suffix == ".gz" and p.with_suffix("") in found]
        return [(path, "its unpacked copy") for path in packed]

    def read_through(self, path: Path, zone: str) -> None:
        for _ in text.pieces(path, _columns(path)):
            pass

    def columns_wrong(self, root: Path, path: Path) -> list[Breach]:
        return csv_breaches(path, root, _columns(path), "the published file starts with a line of column names")

    def split(
        self,
        root: Path,
        dataset: Dataset,
        out: Path,
        progress: Progress | None = None,
        besides: Collection[Path] = (),
    ) -> list[date]:
        sources = self.sources(root, besides)
        hours = [p for p in sources if p.name != _METADATA]
        out.mkdir(parents=True, exist_ok=True)
        with Quarantine(out) as held_back:
            with DaySpill(out, "clicks", _RAW) as spill:
                started = _split_hours(hours, root, dataset, spill, held_back, progress)
                days = spill.days
            last = _EPOCH + timedelta(days=last_carrying(started)) if started else date.min
            for day in days[:]:
                if day > last:
                    hold_back_day(out / str(day), {"clicks.parquet": "clicks"}, AFTER, held_back)
                    days.remove(day)
            if days and len(hours) < len(sources):
                _split_metadata(sources[-1], root, days, out, held_back)
        if not days:
            raise DataError(
                f"{printable(root)}: no click falls in {dataset.first_day}..{dataset.last_day}, the days of "
                f"{dataset.name}{held_back.told()}: point the data root at this dataset's log"
            )
        return days

    def tables(self, raw_day: Path, dataset: Dataset, day: date) -> DayTables:
        raw = frame(raw_day / "clicks.parquet").rename(_RENAMED)
        clicks = canonical.clicks(raw, dataset.clock.start(day), dataset.clock.end(day))
        seen = canonical.first_seen(clicks.rows)
        metadata = raw_day / "articles.parquet"
        known = described(frame(metadata) if metadata.is_file() else None, seen)
        articles = canonical.articles(seen.clear(), known.seen, dataset.clock.end(day))
        return DayTables(
            articles=canonical.conform(articles.rows, schema.ARTICLES),
            clicks=canonical.conform(clicks.rows, schema.CLICKS),
            impressions=schema.IMPRESSIONS.empty_table(),
            remarks=canonical.remarked([articles, clicks]),
            quarantine=canonical.quarantined([known.unused, articles, clicks]),
            counts={
                "articles": known.added_to(articles.counts),
                "clicks": clicks.counts,
                "impressions": counted(0, 0, 0, 0),
            },
            article_rows=known.rows,
        )


def _columns(path: Path) -> Sequence[str]:
    """The columns that a file of the layout must have."""
    return _METADATA_COLUMNS if path.name == _METADATA else COLUMNS


def _split_hours(
    hours: Sequence[Path],
    root: Path,
    dataset: Dataset,
    spill: DaySpill,
    held_back: Quarantine,
    progress: Progress | None,
) -> Counter[int]:
    """Streams the hour files into days; how many clicks are of sessions that started on a day."""
    started: Counter[int] = Counter()
    for done, path in enumerate(hours, start=1):
        for rows in _numbers(path, root, COLUMNS, "clicks", held_back):
            dated = rows.with_columns(day_of(pl.col("click_timestamp"), dataset.clock).alias(_DAY))
            placed = judge(dated, "clicks", outside_days(_DAY, dataset))
            held_back.append(placed.held_back)
            held_back.account.of(_name(path, root), "clicks").placed += len(placed.kept)
            spill.append(placed.kept, _DAY)
            started.update(_session_days(placed.kept, dataset))
        if progress is not None and (done % 24 == 0 or done == len(hours)):
            progress(f"split {done} of {len(hours)} hour files")
    return started


def _session_days(rows: pl.DataFrame, dataset: Dataset) -> dict[int, int]:
    """Clicks by the day (since 1970) on which their session started, all days before the dataset's first as one. A
    start after its own click is a wrong clock."""
    begun = rows.filter(pl.col("session_start") <= pl.col("click_timestamp"))
    day = day_of(pl.col("session_start"), dataset.clock).cast(pl.Int64).clip((dataset.first_day - _EPOCH).days - 1)
    return {int(d): int(n) for d, n in begun.group_by(day.alias(_DAY)).len().iter_rows()}


def _name(path: Path, root: Path) -> str:
    return printable(path.relative_to(root))


def _numbers(
    path: Path, root: Path, columns: Sequence[str], table: str, held_back: Quarantine
) -> Iterator[pl.DataFrame]:
    """`columns` of a text file as int64, with `source` and the line's number; lines that cannot be cut and values that
    are no whole numbers go to quarantine."""
    source = pl.lit(_name(path, root)).alias(SOURCE)
    account = held_back.account.of(_name(path, root), table)
    for piece in text.pieces(path, columns):
        account.rows_in += len(piece.rows) + len(piece.bad)
        held_back.append(quarantine(piece.bad.with_columns(source).rename({"reason": "__why"}), table, pl.col("__why")))
        parsed = judge(piece.rows.with_columns(source), table, [("unparsable", _unparsable(columns))])
        held_back.append(parsed.held_back)
        yield parsed.kept.select(pl.col(columns).cast(pl.Int64), SOURCE, NUMBER)


def _split_metadata(path: Path, root: Path, days: Sequence[date], out: Path, held_back: Quarantine) -> None:
    """Writes the categories of each day's articles to `out/<day>/articles.parquet`. Of several categories of one
    article the first counts, the others go to quarantine, and so do articles that nobody clicks."""
    known = _known_articles(path, root, held_back)
    clicked: set[int] = set()
    for day in days:
        ids = frame(out / str(day) / "clicks.parquet", ["click_article_id"])["click_article_id"].unique()
        clicked.update(ids.drop_nulls().to_list())
        named = known.filter(pl.col(schema.ARTICLE_ID).is_in(ids.implode())).sort(schema.ARTICLE_ID)
        pq.write_table(named.to_arrow(), out / str(day) / "articles.parquet", compression="zstd", compression_level=1)
    appears = pl.col(schema.ARTICLE_ID).is_in(pl.Series(sorted(clicked), dtype=pl.Int64).implode())
    held_back.append(judge(known, "articles", [("never_shown", ~appears)]).held_back)
    held_back.account.of(_name(path, root), "articles").placed += known.filter(appears).height


def _known_articles(path: Path, root: Path, held_back: Quarantine) -> pl.DataFrame:
    """One row an article: `article_id`, `category_id`, and `source` with the line."""
    nothing = pl.DataFrame(schema={**dict.fromkeys(_METADATA_COLUMNS, pl.Int64), SOURCE: pl.String, NUMBER: pl.Int64})
    rows = pl.concat([nothing, *_numbers(path, root, _METADATA_COLUMNS, "articles", held_back)])
    article, category = (pl.col(c) for c in _METADATA_COLUMNS)
    rules = [
        ("null_id", pl.any_horizontal(article.is_null(), category.is_null())),
        ("out_of_range", category.cast(pl.Int32, strict=False).is_null()),
        ("code_out_of_range", category < RANGES["articles"]["category_id"].low),
    ]
    fits = judge(rows.with_columns(numbered()).drop(NUMBER), "articles", rules)
    held_back.append(fits.held_back)
    distinct = fits.kept.unique([*_METADATA_COLUMNS], keep="first", maintain_order=True)
    held_back.account.of(_name(path, root), "articles").duplicates += len(fits.kept) - len(distinct)
    single = judge(distinct, "articles", [("duplicate_article_id", ~article.is_first_distinct())])
    held_back.append(single.held_back)
    return single.kept


def _unparsable(columns: Sequence[str]) -> pl.Expr:
    """Rows with a value that is no whole number (an empty value is none)."""
    numbers = [(pl.col(c), pl.col(c).cast(pl.Int64, strict=False)) for c in columns]
    return pl.any_horizontal([text.is_not_null() & number.is_null() for text, number in numbers])
