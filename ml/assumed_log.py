"""What an own log is taken for when it does not say usable things of itself, so that a check can go on to its rows.

Belongs here: filling the gaps of `log.toml` by what its tables suggest. Does not belong here: what a log declares,
which alone counts in a run (`ml.own_log`).
"""

from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ml.clock import DayClock
from ml.datasets import OWN, Dataset
from ml.errors import DataError
from ml.own_log import MOST_DAYS, LogFile, clicks_by_day, log_content
from ml.readers.files import printable
from ml.readers.span import SILENCE, span_of

_UNSAID: Mapping[str, Any] = {"name": "unnamed", "timezone": "UTC"}


def said_zone(root: Path) -> str:
    """The zone that `log.toml` names for times without one; empty where it names none that can be used."""
    return _usable(root).times_without_zone or ""


def assumed_dataset(root: Path, besides: Collection[Path]) -> tuple[Dataset, list[str]]:
    """The log at `root`, by its tables without the files `besides`, and what of that is assumed, in words. Raises
    DataError when no click has a time, or a file cannot be read."""
    said = _usable(root)
    clock, zone = DayClock(said.day_starts_utc, said.timezone), said.times_without_zone or "UTC"
    first, last = said.first_day, said.last_day
    assumed = [] if said.times_without_zone else ["times without a zone are UTC"]
    if first is None or last is None:
        found = _busiest(clicks_by_day(root, clock, zone, besides))
        if found is None:
            raise DataError(f"{printable(root)}: clicks has no row with a time: write one row a click")
        first, last = first or found[0], last or found[1]
        assumed.append(f"the log's days are {first} to {last}")
    dataset = Dataset(said.name, OWN, clock, first, last, False, False, False, declared=True, naive_zone=zone)
    return dataset, assumed


def _usable(root: Path) -> LogFile:
    """`log.toml` without the entries that cannot be used."""
    try:
        content = log_content(root)
    except DataError:
        content = {}
    while content:
        try:
            return LogFile.model_validate({**_UNSAID, **content})
        except ValidationError as error:
            wrong = {str(e["loc"][0]) for e in error.errors() if e["loc"]} or content.keys()
            content = {name: value for name, value in content.items() if name not in wrong}
    return LogFile.model_validate(_UNSAID)


def _busiest(rows: Mapping[date, int]) -> tuple[date, date] | None:
    """First and last day of the log by so many `rows` a day: of the parts between long silences the one with the most;
    None without rows."""
    parts: list[list[date]] = []
    for day in sorted(rows):
        if not parts or (day - parts[-1][-1]).days - 1 > SILENCE:
            parts.append([])
        parts[-1].append(day)
    if not parts:
        return None
    days = max(parts, key=lambda part: sum(rows[day] for day in part))
    first, last = span_of({day.toordinal(): rows[day] for day in days})
    return date.fromordinal(max(first, last - MOST_DAYS + 1)), date.fromordinal(last)
