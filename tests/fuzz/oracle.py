"""What a raw day must become, reckoned a second time in plain Python.

Belongs here: the rules of canonical clicks and impressions over rows, independent of the readers' code. Does not belong
here: how a layout's rows become these (`subjects`).
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.readers import DayTables

INT32 = 2**31


@dataclass(slots=True)
class Expected:
    """What of the rows of one table is published (as comparable tuples), held back, and an exact repetition."""

    rows_in: int = 0
    published: Counter[Any] = field(default_factory=Counter)
    held_back: int = 0
    repeated: int = 0


def plain(path: Path, *columns: str) -> list[dict[str, Any]]:
    """Rows of a parquet file, times as integers; none where there is no file."""
    return rows_of(pq.read_table(path), *columns) if path.is_file() else []


def rows_of(table: pa.Table, *columns: str) -> list[dict[str, Any]]:
    """The same of a table: those of `columns` that it has, all where none is named."""
    table = table.select([c for c in columns if c in table.column_names]) if columns else table
    for name in table.column_names:
        if pa.types.is_timestamp(table.schema.field(name).type):
            table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.int64()))
    return table.to_pylist()


def held_back_at_split(out: Path) -> list[dict[str, Any]]:
    """Rows of the split's quarantine, with the row itself parsed as `content`."""
    rows = plain(out / "quarantine.parquet")
    return [row | {"content": json.loads(row["row"])} for row in rows]


def whole(text: str | None) -> int | None:
    """A whole number of 64 bits as text files write it, None for anything else."""
    if text is None or re.fullmatch(r"[+-]?[0-9]{1,4000}", text) is None:
        return None
    return int(text) if -(2**63) <= int(text) < 2**63 else None


def are_codes(*codes: int | None) -> bool:
    """Whether all codes are unknown or can be such."""
    return all(c is None or 0 <= c < INT32 for c in codes)


def is_id(*ids: int | None) -> bool:
    """Whether all ids are known and not negative."""
    return all(i is not None and i >= 0 for i in ids)


@dataclass(frozen=True, slots=True)
class Click:
    """A row that tells of a click. `fits`: whether its cells can be represented; `cells`: impression, read time,
    scroll, session, device, os, region, referrer, subscriber, None where unknown or out of range; `again`: one that a
    layout tells once more beside another file's."""

    time: Any
    user: Any
    article: Any
    fits: bool = True
    cells: tuple[Any, ...] = ()
    file: str = ""
    again: bool = False

    @property
    def order(self) -> list[tuple[bool, Any]]:
        """The least of several rows is published."""
        return [(cell is None, 0 if cell is None else cell) for cell in self.cells[:8]]

    def adds_to(self, other: "Click") -> bool:
        """Whether this row says anything that `other` does not."""
        if (self.again or other.again) and self.file != other.file:
            return False
        return any(mine is not None and mine != its for mine, its in zip(self.cells, other.cells, strict=True))


def within(value: Any, low: float, high: float) -> Any:
    """A number, None outside its range."""
    return value if value is not None and low <= value <= high else None


def clicks(rows: list[Click], start: int, end: int) -> Expected:
    """What becomes of a day's rows."""
    result = Expected(len(rows))
    groups: dict[tuple[Any, ...], list[Click]] = {}
    for row in rows:
        if row.fits and is_id(row.user, row.article) and row.time is not None and start <= row.time < end:
            groups.setdefault((row.time, row.user, row.article), []).append(row)
        else:
            result.held_back += 1
    for group in groups.values():
        first = min(range(len(group)), key=lambda i: group[i].order)
        others = [row for i, row in enumerate(group) if i != first]
        adding = sum(row.adds_to(group[first]) for row in others)
        result.held_back += adding
        result.repeated += len(others) - adding
    result.published = Counter(groups.keys())
    return result


def impressions(rows: list[tuple[Any, ...]], start: int, end: int) -> Expected:
    """Of rows (time ms, id, user, inview, clicked, representable, further ...)."""
    result = Expected(len(rows))
    distinct: Counter[Any] = Counter()
    for row in rows:
        if is_sound(row, start, end):
            time, number, user, inview, clicked, _, *more = row
            distinct[(time, number, user, tuple(inview), tuple(clicked or []), *more)] += 1
        else:
            result.held_back += 1
    result.repeated = distinct.total() - len(distinct)
    by_id = Counter(row[1] for row in distinct)
    result.held_back += sum(n - 1 for number, n in by_id.items() if number != 0)
    result.published = Counter({number: (n if number == 0 else 1) for number, n in by_id.items()})
    return result


def is_sound(row: tuple[Any, ...], start: int, end: int) -> bool:
    """Whether an impression can be published, but for its id."""
    time, number, user, inview, clicked, fits, *_ = row
    inside = fits and is_id(number, user) and time is not None and start <= time < end
    return bool(inside and inview and is_id(*inview) and set(clicked or []) <= set(inview))


def silent(rows: Sequence[tuple[Any, ...]], start: int, end: int) -> set[int]:
    """Rows of a day (from 0, as for `impressions`) whose clicks do not count, for their id is that of an impression
    that another row tells."""
    stands: dict[int, int] = {}
    for i in sorted((i for i, r in enumerate(rows) if is_sound(r, start, end)), key=lambda i: (rows[i][0], rows[i][2])):
        stands.setdefault(rows[i][1], i)
    return {i for i, row in enumerate(rows) if row[1] and stands.get(row[1], i) != i}


def reused(days: Sequence[tuple[Path, Sequence[tuple[Any, ...]], int, int]]) -> set[tuple[Path, int]]:
    """Which impressions bear an id that an earlier day's table shows, as (raw day, row from 0). `days`, in order: raw
    day, rows as for `impressions`, start and end."""
    taken: set[int] = set()
    found = set()
    for raw, rows, start, end in days:
        numbers = [row[1] for row in rows]
        found |= {(raw, i) for i, number in enumerate(numbers) if number in taken}
        others = [row for row in rows if row[1] not in taken]
        taken |= {number for number in impressions(others, start, end).published if number != 0}
    return found


def losses(name: str, tables: DayTables, expected: Expected, found: Counter[Any]) -> list[str]:
    """How a day's table differs from what was expected of it."""
    counts = tables.counts[name]
    held_back = tables.quarantine["table"].to_pylist().count(name)
    pairs = {
        "rows in": (counts["rows_in"], expected.rows_in),
        "quarantined": (counts["quarantined"], expected.held_back),
        "quarantine table": (held_back, expected.held_back),
        "duplicates": (counts["duplicates"], expected.repeated),
        "published": (counts["published"], expected.published.total()),
        "table": (len(getattr(tables, name)), expected.published.total()),
    }
    said = [f"{name}: {what} {ours}, expected {wanted}" for what, (ours, wanted) in pairs.items() if ours != wanted]
    return said if found == expected.published else [*said, f"{name}: other rows than expected"]


def published_clicks(tables: DayTables) -> Counter[Any]:
    """Clicks of a day as (time, user, article)."""
    columns = (tables.clicks[c] for c in (schema.CLICK_TIME, schema.USER_ID, schema.ARTICLE_ID))
    return Counter(zip(*(c.cast(pa.int64()).to_pylist() for c in columns), strict=True))


def broken_promises(tables: DayTables, start: int, end: int) -> list[str]:
    """What of the contract of canonical tables does not hold: schemas, order, uniqueness, ranges."""
    said = []
    for name, wanted in (
        ("articles", schema.ARTICLES), ("clicks", schema.CLICKS), ("impressions", schema.IMPRESSIONS),
        ("quarantine", schema.QUARANTINE),
    ):  # fmt: skip
        if not getattr(tables, name).schema.equals(wanted):
            said.append(f"{name}: another schema")
        getattr(tables, name).validate(full=True)
    order = list(published_clicks(tables))
    if order != sorted(order) or len(order) != len(tables.clicks):
        said.append("clicks: not sorted and unique")
    times = [tables.impressions[schema.CLICK_TIME].cast(pa.int64()).to_pylist(), [t for t, _, _ in order]]
    if any(not start <= t < end for column in times for t in column):
        said.append("a time outside the day")
    for table, columns in (
        ("clicks", {"read_time": 86_400, "scroll_percentage": 100}),
        ("articles", {"sentiment_score": 1}),
    ):
        for column, most in columns.items():
            cells = [c for c in getattr(tables, table)[column].to_pylist() if c is not None]
            if any(not 0 <= c <= most for c in cells):
                said.append(f"{table}: {column} outside its range")
    ids = tables.articles[schema.ARTICLE_ID].to_pylist()
    published = tables.articles[schema.PUBLISHED].cast(pa.int64()).to_pylist()
    if len(set(ids)) < len(ids) or list(zip(published, ids, strict=True)) != sorted(zip(published, ids, strict=True)):
        said.append("articles: not sorted and unique")
    if any(p >= end for p in published):
        said.append("articles: published after the day")
    if any(len(row) > 300_000 for row in tables.quarantine["row"].to_pylist()):
        said.append("quarantine: a row that carries a large cell whole")
    return said
