"""Which days a log covers, where nothing says so: a few clocks that are far off must not stretch it.

Belongs here: the rule, and holding back the days outside. Does not belong here: the days that a dataset names
(`ml.readers.rules.outside_days`).

The rule counts the rows of each day:

- The usual day is the smallest of the largest days that together have 90 % of the rows; the largest day of all, which
  may be a robot's, is left aside.
- The log ends with the day after the last one that has at least `SHARE` of a usual day's rows.
- Days beyond a silence of more than `SILENCE` days, before or after, are not the log's if they have less than `SHARE`
  of all rows together.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path

import polars as pl

from ml.errors import DataError
from ml.readers.account import Quarantine
from ml.readers.files import frame
from ml.readers.rules import quarantine

SHARE = 0.05
SILENCE = 30
_MOST = 0.9
_KNOWN, _ANY = 3, 2

BEFORE, AFTER = "before_log_start", "after_log_end"
"""Reasons of rows that lie outside the span."""


def span_of(rows: Mapping[int, int]) -> tuple[int, int]:
    """First and last day (numbers in any count of days) of a log with so many `rows` (at least 1) on each day."""
    enough, few = SHARE * usual_rows(rows), SHARE * sum(rows.values())
    days, before = sorted(rows), 0
    while len(days) != before:
        before = len(days)
        days = _without_remote(days, rows, few)
        last = max(d for d in days if rows[d] >= enough)
        days = [d for d in days if d <= last + 1]
    return days[0], days[-1]


def last_carrying(rows: Mapping[int, int]) -> int:
    """The last day that has at least `SHARE` of a usual day's rows."""
    enough = SHARE * usual_rows(rows)
    return max(day for day, count in rows.items() if count >= enough)


def longest_silence(days: Sequence[date]) -> tuple[date, date]:
    """The neighbours in `days` (sorted) that lie furthest apart."""
    return max(pairwise([days[0], *days]), key=lambda pair: pair[1] - pair[0])


def remote_days(rows: Mapping[int, int]) -> dict[int, int]:
    """Days at either end of a log, with few of its `rows`, more than twice as far from the rest as any two neighbours
    in it: a clock may be off there. With each, how many days without a row lie between. Nothing is known of a log
    with rows on fewer than three other days."""
    days, few = sorted(rows), max(1, SHARE * sum(rows.values()))
    steps = [after - before for before, after in pairwise(days)]
    found: dict[int, int] = {}
    for cut, step in enumerate(steps, start=1):
        for remote, rest in ((days[cut:], steps[: cut - 1]), (days[:cut], steps[cut:])):
            far = len(rest) >= _KNOWN - 1 and step > 2 * max(_ANY, *rest)
            if far and sum(rows[d] for d in remote) <= few:
                found |= {d: max(step - 1, found.get(d, 0)) for d in remote}
    return found


def usual_rows(rows: Mapping[int, int]) -> int:
    """Rows of a usual day."""
    sizes = sorted(rows.values(), reverse=True)
    sizes = sizes[1:] or sizes
    wanted, found = _MOST * sum(sizes), 0
    for size in sizes:
        found += size
        if found >= wanted:
            return size
    raise DataError("a log without rows has no usual day: give one with rows")


def _without_remote(days: Sequence[int], rows: Mapping[int, int], few: float) -> list[int]:
    """`days` without those at either end that lie beyond a silence and have, with all that was left out at that end
    before, fewer than `few` rows."""
    runs = [[days[0]]]
    for day, following in pairwise(days):
        if following - day - 1 > SILENCE:
            runs.append([])
        runs[-1].append(following)
    for end, outside in ((-1, [d for d in rows if d > days[-1]]), (0, [d for d in rows if d < days[0]])):
        left_out = sum(rows[d] for d in outside)
        while len(runs) > 1 and left_out + sum(rows[d] for d in runs[end]) < few:
            left_out += sum(rows[d] for d in runs.pop(end))
    return [day for run in runs for day in run]


def hold_back_outside(
    out: Path, rows: Mapping[date, int], tables: Mapping[str, str], held_back: Quarantine
) -> list[date]:
    """Moves the raw days outside the span to quarantine and returns the others, in order. `rows`: how many a day has;
    `tables`: canonical table by name of a day's file."""
    if not rows:
        return []
    first, last = span_of({day.toordinal(): count for day, count in rows.items()})
    days = sorted(rows)
    for day in days:
        if not first <= day.toordinal() <= last:
            hold_back_day(out / str(day), tables, BEFORE if day.toordinal() < first else AFTER, held_back)
    return [day for day in days if first <= day.toordinal() <= last]


def hold_back_day(folder: Path, tables: Mapping[str, str], reason: str, held_back: Quarantine) -> None:
    """Moves a raw day to quarantine."""
    for path in sorted(folder.iterdir()):
        held_back.withdraw(quarantine(frame(path), tables[path.name], pl.lit(reason)))
        path.unlink()
    folder.rmdir()
