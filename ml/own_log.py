"""`log.toml`: what a newspaper's own log says of itself, and the dataset that follows from it.

Belongs here: the typed form of that file, and the facts that are found in the tables where it is silent. Does not
belong here: the tables' columns (`ml.readers.contract`) and reading them (`ml.readers.own_log`).
"""

import re
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl
import pyarrow.compute as pc
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ml.clock import MS_PER_DAY, DayClock
from ml.datasets import DATASETS, OWN, Dataset, SyntheticInView
from ml.errors import DataError
from ml.readers import reader
from ml.readers.contract import ARTICLES
from ml.readers.files import DAMAGE, one_line, parquet_pieces, parquet_schema, printable, regular
from ml.readers.own_log import LOG_FILE, REMEDY, columns_of, table_files, utc_milliseconds
from ml.readers.span import SILENCE, longest_silence, span_of

MOST_DAYS = 1_000
_YEARS = (1900, 2099)
_EPOCH = date(1970, 1, 1)
_ROWS = 262_144
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_BYTES = 1 << 20


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("use up to 40 lower-case letters, digits and _, a letter first")
    if text in DATASETS or text == OWN:
        raise ValueError(f"{text!r} has a meaning here: choose another name")
    return text


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
        pl.Series([0]).cast(pl.Datetime("ms")).dt.replace_time_zone(text)
    except (ZoneInfoNotFoundError, *DAMAGE) as error:
        raise ValueError(f"{text!r} is no time zone: write it as Europe/Oslo or UTC") from error
    return text


Zone = Annotated[str, AfterValidator(_zone)]


class LogFile(BaseModel):
    """The content of `log.toml`. `timezone`: the publisher's, for hours and weekdays; `times_without_zone`: the zone of
    times that have none; days of partitions start at `day_starts_utc` o'clock UTC and run from `first_day` to
    `last_day`; without these entries the clicks say."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(_name)]
    timezone: Zone
    times_without_zone: Zone | None = None
    day_starts_utc: int = Field(default=0, ge=0, le=23)
    first_day: date | None = None
    last_day: date | None = None
    note: str = ""
    inview: SyntheticInView | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "LogFile":
        if self.first_day and self.last_day:
            days = (self.last_day - self.first_day).days + 1
            if days < 1:
                raise ValueError(f"last_day {self.last_day} is before first_day {self.first_day}: correct one of them")
            if days > MOST_DAYS:
                raise ValueError(
                    f"first_day {self.first_day} to last_day {self.last_day} are {days:,} days of at most "
                    f"{MOST_DAYS:,}: name fewer, clicks of other days go to quarantine"
                )
        return self


def read_log_file(root: Path) -> LogFile:
    """`log.toml` below `root`. Raises DataError naming the entry that is wrong, and what it should be."""
    try:
        return LogFile.model_validate(log_content(root))
    except ValidationError as error:
        said = "; ".join(_said(e["loc"], e["msg"]) for e in error.errors())
        raise DataError(f"{printable(root / LOG_FILE)}: {said}; see docs/own_log.md") from error


def log_content(root: Path) -> dict[str, Any]:
    """What `log.toml` below `root` holds, whatever it is. Raises DataError for what cannot be read as TOML."""
    path = root / LOG_FILE
    regular(root, path)
    try:
        with path.open("rb") as stream:
            content = stream.read(_BYTES + 1)
    except OSError as error:
        raise DataError(
            f'{printable(path)} cannot be read ({one_line(error.strerror)}): write it with at least name = "..." and '
            'timezone = "..."'
        ) from error
    if len(content) > _BYTES:
        raise DataError(f"{printable(path)} is larger than {_BYTES >> 20} MiB: it holds a few lines of text")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path)} is not UTF-8 text: save it as UTF-8") from error
    if "\0" in text:
        raise DataError(f"{printable(path)} holds zero bytes, as UTF-16 does: save it as UTF-8")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise DataError(
            f"{printable(path)} is nested too deeply: it holds a few entries, see docs/own_log.md"
        ) from error
    except ValueError as error:
        raise DataError(f"{printable(path)} is no TOML file ({one_line(error)}): see docs/own_log.md") from error


def _said(where: tuple[int | str, ...], what: str) -> str:
    """One breach of the declaration: the entry and what it should be."""
    said = one_line(what.removeprefix("Value error, "))
    return f"{one_line('.'.join(map(str, where)))}: {said}" if where else said


def declared_dataset(root: Path) -> Dataset:
    """The dataset that the log at `root` declares. Reads `log.toml`, the times of the clicks where it names no first or
    last day, and of the articles only whether they have text. Raises DataError."""
    said = read_log_file(root)
    clock = DayClock(said.day_starts_utc, said.timezone)
    first, last = said.first_day, said.last_day
    if first is None or last is None:
        first, last = _days(root, clock, said)
    if not all(_YEARS[0] <= day.year <= _YEARS[1] for day in (first, last)):
        raise DataError(
            f"{printable(root)}: clicks, column time: days from {first} to {last}, not all in the years {_YEARS[0]} to "
            f"{_YEARS[1]}: is a clock off? Name first_day and last_day in {LOG_FILE}; rows outside go to quarantine"
        )
    if not 0 <= (last - first).days < MOST_DAYS:
        raise DataError(
            f"{printable(root)}: clicks, column time: days from {first} to {last}, {(last - first).days + 1:,} days "
            f"of at most {MOST_DAYS:,}: is a clock off? Name first_day and last_day in {LOG_FILE}; rows outside go to "
            "quarantine"
        )
    if said.inview is not None and table_files(root, "impressions"):
        raise DataError(
            f"{printable(root / LOG_FILE)}: inview asks for synthetic lists, but the log has impressions: remove one"
        )
    text = _text(root)
    return Dataset(
        name=said.name,
        reader=OWN,
        clock=clock,
        first_day=first,
        last_day=last,
        has_impressions=bool(table_files(root, "impressions")),
        has_text=bool(text),
        synthetic=False,
        note=said.note,
        text=text,
        declared=True,
        naive_zone=said.times_without_zone or "",
        inview=said.inview,
    )


def require_declared(found: Dataset) -> None:
    """Raises ValueError for a dataset that no `log.toml` can have declared."""
    _name(found.name)
    for zone in filter(None, (found.clock.timezone, found.naive_zone)):
        _zone(zone)
    if not (found.declared and found.reader == OWN and 0 <= (found.last_day - found.first_day).days < MOST_DAYS):
        raise ValueError("it is no log that declares itself")
    if not 0 <= found.clock.offset_hours <= 23 or not set(found.text) <= {"body", "title"}:
        raise ValueError("its day or its texts are none that a log can declare")


def _days(root: Path, clock: DayClock, said: LogFile) -> tuple[date, date]:
    """First and last day of the log: those that `log.toml` names, else what the clicks' times say (`ml.readers.span`).
    Raises DataError where these leave open whether a clock is off."""
    rows = clicks_by_day(root, clock, said.times_without_zone or "")
    if not rows:
        reader(OWN).require_events(root, table_files(root, "clicks"))
        raise DataError(f"{printable(root)}: clicks has no row with a time: write one row a click, {REMEDY}")
    low, high = said.first_day or date.min, said.last_day or date.max
    rows = {day: n for day, n in rows.items() if low <= day <= high}
    if not rows:
        raise DataError(
            f"{printable(root)}: clicks, column time: no click falls in {said.first_day or ''}..{said.last_day or ''}, "
            f"the days of {said.name}: correct first_day or last_day in {LOG_FILE}, or leave them out"
        )
    first, last = span_of({day.toordinal(): n for day, n in rows.items()})
    _refuse_silence(root, {day: n for day, n in rows.items() if first <= day.toordinal() <= last})
    return said.first_day or date.fromordinal(first), said.last_day or date.fromordinal(last)


def _refuse_silence(root: Path, rows: Mapping[date, int]) -> None:
    """Raises DataError for a silence in the middle of many rows: which side of it is the log, only the log can say."""
    before, after = longest_silence(sorted(rows))
    if (after - before).days - 1 > SILENCE:
        sides = [sum(n for day, n in rows.items() if (day <= before) is early) for early in (True, False)]
        raise DataError(
            f"{printable(root)}: clicks, column time: no row for {(after - before).days - 1:,} days between {before} "
            f"({sides[0]:,} rows up to then) and {after} ({sides[1]:,} rows from then on): is a clock off? Name "
            f"first_day and last_day in {LOG_FILE}; rows outside go to quarantine"
        )


def clicks_by_day(root: Path, clock: DayClock, zone: str, besides: Collection[Path] = ()) -> dict[date, int]:
    """How many clicks each day has, without those of the files `besides`. Times of other centuries count for the days
    that border on the years 1900 to 2099. Raises DataError for a file that cannot be read."""
    rows: Counter[int] = Counter()
    start = clock.start(_EPOCH)
    low, high = ((date(year, 1, 1) - _EPOCH).days for year in (_YEARS[0], _YEARS[1] + 1))
    for path in table_files(root, "clicks", besides):
        columns_of(path, "clicks", zone)
        for batch, _ in parquet_pieces(path, _ROWS, ["time"]):
            times = utc_milliseconds(batch["time"], zone).drop_nulls()
            days, counts = ((times - start) // MS_PER_DAY).clip(low - 1, high).value_counts().get_columns()
            rows.update(dict(zip(days.to_list(), counts.to_list(), strict=True)))
    return {_EPOCH + timedelta(days=day): n for day, n in rows.items()}


def _text(root: Path) -> tuple[str, ...]:
    """The text family that the articles can give: body where there is one, else title, else none."""
    for family in ("body", "title"):
        for path in table_files(root, "articles"):
            found = parquet_schema(path, {}, REMEDY)
            if found.names.count(family) != 1 or not ARTICLES.column(family).fits(found.field(family).type):
                continue  # the reader refuses such a column by name
            if any(pc.any(pc.is_valid(b[family])).as_py() for b, _ in parquet_pieces(path, _ROWS, [family])):
                return (family,)
    return ()
