"""`log.toml`: what a newspaper's own log says of itself, and the dataset that follows from it.

Belongs here: the typed form of that file, and the facts that are found in the tables where it is silent. Does not
belong here: the tables' columns (`ml.readers.contract`) and reading them (`ml.readers.own_log`).
"""

import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl
import pyarrow.compute as pc
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ml.clock import DayClock
from ml.datasets import DATASETS, OWN, Dataset, SyntheticInView
from ml.errors import DataError
from ml.readers.contract import ARTICLES
from ml.readers.files import DAMAGE, one_line, parquet_pieces, parquet_schema, printable, regular
from ml.readers.own_log import LOG_FILE, REMEDY, columns_of, table_files, utc_milliseconds

MOST_DAYS = 1_000
_YEARS = (1900, 2099)
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
    `last_day`, without which the clicks say."""

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
        if self.first_day and self.last_day and not 0 <= (self.last_day - self.first_day).days < MOST_DAYS:
            raise ValueError(f"first_day to last_day must be 1 to {MOST_DAYS} days")
        return self


def read_log_file(root: Path) -> LogFile:
    """`log.toml` below `root`. Raises DataError naming the entry that is wrong, and what it should be."""
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
        return LogFile.model_validate(tomllib.loads(content.decode("utf-8")))
    except ValidationError as error:
        said = "; ".join(_said(e["loc"], e["msg"]) for e in error.errors())
        raise DataError(f"{printable(path)}: {said}; see docs/own_log.md") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{printable(path)} is no TOML file ({one_line(error)}): see docs/own_log.md") from error


def _said(where: tuple[int | str, ...], what: str) -> str:
    """One breach of the declaration: the entry and what it should be."""
    entry = one_line(".".join(str(part) for part in where)) or "the file"
    return f"{entry}: {one_line(what.removeprefix('Value error, '))}"


def declared_dataset(root: Path) -> Dataset:
    """The dataset that the log at `root` declares. Reads `log.toml`, the times of the clicks where it names no first or
    last day, and of the articles only whether they have text. Raises DataError."""
    said = read_log_file(root)
    clock = DayClock(said.day_starts_utc, said.timezone)
    first, last = said.first_day, said.last_day
    if first is None or last is None:
        found = _days(root, clock, said.times_without_zone or "")
        first, last = first or found[0], last or found[1]
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


def _days(root: Path, clock: DayClock, zone: str) -> tuple[date, date]:
    """Days of the first and last click."""
    low: list[int] = []
    high: list[int] = []
    for path in table_files(root, "clicks"):
        columns_of(path, "clicks", zone)
        for batch, _ in parquet_pieces(path, _ROWS, ["time"]):
            times = utc_milliseconds(batch["time"], zone).drop_nulls()
            if len(times):
                low.append(int(times.min()))  # type: ignore[arg-type]
                high.append(int(times.max()))  # type: ignore[arg-type]
    if not low:
        raise DataError(f"{printable(root)}: clicks has no row with a time: write one row a click, {REMEDY}")
    try:
        return clock.day_of(min(low)), clock.day_of(max(high))
    except OverflowError as error:
        raise DataError(
            f"{printable(root)}: clicks, column time: a time lies outside the years 1 to 9999: name first_day and "
            f"last_day in {LOG_FILE}; rows outside go to quarantine"
        ) from error


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
