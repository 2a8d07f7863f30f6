"""A newspaper's own log under test: valid small tables with a `log.toml`, and what their rows must become.

Belongs here: the contract's rows read a second time in plain Python. Does not belong here: damage (`tables`, `lies`).
"""

import tomllib
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from ml import schema
from ml.clock import DayClock
from ml.readers import DayTables
from tests.fuzz import oracle, remarks
from tests.fuzz.oracle import held_back_at_split, plain
from tests.fuzz.source import Lines, Source, went_in

Rng = np.random.Generator
Days = dict[date, DayTables]

_FIRST = datetime(2023, 3, 25, tzinfo=UTC)  # Oslo's clocks change on the 26th
_PER_MS = {"ms": 1, "us": 10**3, "ns": 10**6}
_CODES = ("device", "os", "region", "referrer", "category_id")
_ITEMS, _YEARS = 100_000, (1900, 2099)


def own(rng: Rng) -> Source:
    """One to three tables, clicks perhaps in several files; times of any unit, with a zone or without one."""
    zone = (None, "UTC", "Europe/Oslo")[int(rng.integers(3))]
    said = ['name = "paper"', 'timezone = "Europe/Oslo"', f"day_starts_utc = {int(rng.integers(0, 6))}"]
    said += [f'times_without_zone = "{zone}"'] if zone else []
    said += ["first_day = 2023-03-24", "last_day = 2023-03-28"] if rng.random() < 0.6 else []
    files: dict[str, Any] = {"log.toml": Lines([s.encode() for s in said], header=False, rows=False)}
    kind = pa.timestamp(str(rng.choice(["s", "ms", "us", "ns"])), None if zone else "UTC")
    parts = ["clicks.parquet"] if rng.random() < 0.7 else ["clicks/a.parquet", "clicks/b.parquet"]
    most = 8 if rng.random() < 0.8 else 250  # so many that a clock that is off is told from the log's end
    for part in parts:
        files[part] = _clicks(rng, kind, most)
    if rng.random() < 0.5:
        files["impressions.parquet"] = _impressions(rng, kind)
    if rng.random() < 0.7:
        files["articles.parquet"] = _articles(rng, kind)
    return Source(files)


def _times(rng: Rng, n: int, kind: pa.DataType) -> pa.Array:
    minutes = rng.integers(0, 3 * 1440, n)
    found = [_FIRST.replace(tzinfo=None) + timedelta(minutes=int(m)) for m in minutes]
    return pa.array(found, pa.timestamp(kind.unit)).cast(kind)


def _ids(rng: Rng, values: Any) -> pa.Array:
    return pa.array(values, [pa.int64(), pa.int32(), pa.uint32(), pa.uint64()][int(rng.integers(4))])


def _context(rng: Rng, n: int) -> dict[str, pa.Array]:
    """Optional columns of events, some of them."""
    made = {
        "session_id": _ids(rng, rng.integers(1, 9, n)),
        "device": pa.array(rng.integers(0, 4, n), pa.int8()),
        "region": pa.array(rng.integers(0, 99, n), pa.int64()),
        "subscriber": pa.array(rng.random(n) < 0.5),
    }
    return {name: column for name, column in made.items() if rng.random() < 0.5}


def _clicks(rng: Rng, kind: pa.DataType, most: int) -> pa.Table:
    n = int(rng.integers(1, most))
    columns = {
        "user_id": _ids(rng, rng.integers(1, 5, n)),
        "article_id": _ids(rng, rng.integers(100, 112, n)),
        "time": _times(rng, n, kind),
    }
    if rng.random() < 0.5:
        columns["read_time"] = pa.array(rng.exponential(30, n), pa.float64() if rng.integers(2) else pa.float32())
    if rng.random() < 0.3:
        columns["scroll_percentage"] = pa.array(100 * rng.random(n), pa.float32())
    if rng.random() < 0.3:
        columns["impression_id"] = _ids(rng, rng.integers(1, 9, n))
    return pa.table(columns | _context(rng, n))


def _impressions(rng: Rng, kind: pa.DataType) -> pa.Table:
    n = int(rng.integers(1, 6))
    shown = [rng.choice(np.arange(100, 112), int(rng.integers(1, 6)), replace=False).tolist() for _ in range(n)]
    lists = [pa.list_, pa.large_list][int(rng.integers(2))]([pa.int64(), pa.int32()][int(rng.integers(2))])
    columns = {
        "impression_id": _ids(rng, np.arange(1, n + 1) if rng.random() < 0.8 else rng.integers(1, n + 1, n)),
        "user_id": _ids(rng, rng.integers(1, 5, n)),
        "time": _times(rng, n, kind),
        "inview": pa.array(shown, lists),
        "clicked": pa.array([s[: int(rng.integers(0, 3))] for s in shown], lists),
    }
    return pa.table(columns | _context(rng, n))


def _articles(rng: Rng, kind: pa.DataType) -> pa.Table:
    n = int(rng.integers(1, 12))
    ids = np.arange(100, 100 + n)
    made: dict[str, pa.Array] = {
        "published": _times(rng, n, kind),
        "modified": _times(rng, n, kind),
        "title": pa.array([f"Title {i}" for i in ids], pa.large_string()),
        "body": pa.array([f"Body of {i}. Two sentences!" for i in ids]),
        "category": pa.array([("news", "sport", "krimi")[i % 3] for i in ids]),
        "category_id": pa.array(ids % 3, pa.int16()),
        "premium": pa.array(ids % 2 == 0),
        "sentiment_score": pa.array(ids / 200),
    }
    some = {name: column for name, column in made.items() if rng.random() < 0.7}
    return pa.table({"article_id": _ids(rng, ids), **some})


def _ms(value: int | None, kind: pa.DataType, zone: str) -> int | None:
    """A time's ms since the epoch; None where it cannot be known."""
    if value is None:
        return None
    ms = value * 1000 if kind.unit == "s" else value // _PER_MS[kind.unit]
    if kind.tz is not None or zone == "UTC" or not -62_135_596_800_000 <= ms <= 253_402_300_799_999:
        return ms
    local = datetime(1970, 1, 1) + timedelta(milliseconds=ms)
    try:
        moments = {local.replace(tzinfo=ZoneInfo(zone), fold=f).astimezone(UTC) for f in (0, 1)}
    except OverflowError:
        return ms
    if len(moments) > 1:
        return None
    return (moments.pop() - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _fits(row: dict[str, Any]) -> bool:
    """Whether all ids and codes of a row can be those of the contract."""
    ids = [v for k, v in row.items() if k.endswith("_id") and k != "category_id" and v is not None]
    codes = [row[c] for c in _CODES if row.get(c) is not None]
    lists = [row.get(c) or [] for c in ("inview", "clicked")]
    return (
        all(-(2**63) <= i < 2**63 for i in ids)
        and all(0 <= c < 2**31 for c in codes)
        and all(len(items) <= _ITEMS for items in lists)
        and ("inview" not in row or row["impression_id"] != 0)
    )


def losses(source: Source, root: Path, out: Path, days: Days) -> list[str]:
    """Every row is in one day, as it reads, or in quarantine (articles: in days or in quarantine); then the identity
    over each day."""
    log = tomllib.loads((root / "log.toml").read_text("utf-8-sig"))
    zone, clock = log.get("times_without_zone", ""), DayClock(log.get("day_starts_utc", 0), log["timezone"])
    clicks = _rows(source, root, "clicks", zone)
    times = [row["ms"] for _, row in clicks if row["ms"] is not None]
    first, last = _days(log, clock, times)
    start, end = clock.start(first), clock.end(last)
    held_back = held_back_at_split(out)
    aside = {
        name: Counter(r["source"] for r in held_back if r["table"] == name)
        for name in ("clicks", "impressions", "articles")
    }
    said = _event_losses("clicks", clicks, aside["clicks"], out, days, start, end)
    shown = _rows(source, root, "impressions", zone)
    said += _event_losses("impressions", shown, aside["impressions"], out, days, start, end)
    said += _article_losses(_rows(source, root, "articles", zone), aside["articles"], out, days)
    known: set[int] = set()
    for day, tables in days.items():
        known |= set(tables.articles[schema.ARTICLE_ID].to_pylist())
        appear = {a for items in tables.impressions[schema.INVIEW].to_pylist() for a in items}
        if not appear | {a for _, _, a in oracle.published_clicks(tables)} <= known:
            said.append(f"{day}: an article appears that no day's articles have")
    bounds = {out / str(day): (clock.start(day), clock.end(day)) for day in days}
    again = oracle.reused([(raw, _shown(raw), *bounds[raw]) for raw in bounds])
    for day, tables in days.items():
        raw = out / str(day)
        said += [f"{day}: {text}" for text in _day_losses(raw, *bounds[raw], tables, again)]
    links = _broken_links([(out / str(day), day) for day in days], again)
    for day, tables in days.items():
        expected = _remarks(out / str(day), clock, day, tables, again) | links[day]
        expected["clicked_without_a_row"] = _unclicked(out, day, clock, again)
        said += [f"{day}: {text}" for text in remarks.losses(tables, expected)]
    return said


def _days(log: dict[str, Any], clock: DayClock, times: list[int]) -> tuple[date, date]:
    """First and last day of a log: those that it names, else what docs/own_log.md says under "Days"."""
    low, high = log.get("first_day", date.min), log.get("last_day", date.max)
    if {"first_day", "last_day"} <= log.keys():
        return low, high
    ends = [clock.start(date(year, 1, 1)) for year in (_YEARS[0] - 1, _YEARS[1] + 2)]
    rows = Counter(d for t in times if low <= (d := clock.day_of(min(max(t, ends[0]), ends[1]))) <= high)
    sizes = sorted(rows.values())[:-1] or [*rows.values()]
    usual = max(s for s in sizes if sum(x for x in sizes if x >= s) >= 0.9 * sum(sizes))
    first, last, total = min(rows), max(rows), rows.total()
    for _ in rows:
        for day in sorted(rows):
            before, after = ([n for d, n in rows.items() if (d < day if early else d > day)] for early in (True, False))
            following = min((d for d in rows if d > day), default=day)
            if (following - day).days > 31 and sum(after) < 0.05 * total:
                last = min(last, day)
            if (following - day).days > 31 and first <= day and sum(before) + rows[day] < 0.05 * total:
                first = following
        whole = max(d for d in rows if d <= last and rows[d] >= 0.05 * usual)
        last = max(d for d in rows if d <= last and (d - whole).days <= 1)
    return log.get("first_day", first), log.get("last_day", last)


def _shown(raw: Path) -> list[tuple[Any, ...]]:
    """A raw day's impressions, as `oracle.impressions` takes them."""
    further = ("session_id", "device", "os", "region", "referrer", "subscriber")
    return [
        (r["time"], r["impression_id"], r["user_id"], r["inview"], r["clicked"], True, *(r[c] for c in further))
        for r in plain(raw / "impressions.parquet")
    ]


def _without(rows: list[tuple[Any, ...]], raw: Path, again: set[tuple[Path, int]]) -> list[tuple[Any, ...]]:
    """The same, with those that reuse an id as rows that no table can take."""
    return [(*r[:5], (raw, i) not in again, *r[6:]) for i, r in enumerate(rows)]


def _unclicked(out: Path, day: date, clock: DayClock, again: set[tuple[Path, int]]) -> int:
    """Published impressions with a click that has no row in `clicks` near their day. Of exact copies one counts."""
    around = [out / str(day + timedelta(days=n)) / "clicks.parquet" for n in (-1, 0, 1)]
    clicked = {(r["user_id"], r["article_id"]) for path in around for r in plain(path, "user_id", "article_id")}
    rows = _without(_shown(out / str(day)), out / str(day), again)
    told, numbers = set(), set()
    for row in sorted(rows, key=lambda r: (r[0], r[1] or 0, r[2] or 0)):
        if oracle.impressions([row], clock.start(day), clock.end(day)).published and row[1] not in numbers:
            numbers.add(row[1])
            if any((row[2], a) not in clicked for a in row[4] or []):
                told.add(row[1])
    return len(told)


def _broken_links(folders: list[tuple[Path, date]], again: set[tuple[Path, int]]) -> dict[date, dict[str, int]]:
    """By day, how many of its clicks name an impression that is missing, another reader's, or of other articles."""
    named: dict[int, list[tuple[int, list[int]]]] = {}
    for folder, _ in folders:
        first: dict[int, tuple[int, int, list[int]]] = {}
        rows = plain(folder / "impressions.parquet")
        for r in (r for i, r in enumerate(rows) if (folder, i) not in again):
            this = (r["time"], -1 if r["user_id"] is None else r["user_id"], r["inview"] or [])
            if r["impression_id"] is not None:
                first[r["impression_id"]] = min(this, first.get(r["impression_id"], this), key=lambda x: x[:2])
        for number, (_, user, inview) in first.items():
            named.setdefault(number, []).append((user, inview))
    broken: dict[date, dict[str, int]] = {}
    for folder, day in folders:
        found: Counter[str] = Counter()
        for r in plain(folder / "clicks.parquet"):
            if oracle.is_id(r["user_id"], r["article_id"]) and (r["impression_id"] or 0) > 0:
                lists = named.get(r["impression_id"], [])
                own = [inview for user, inview in lists if user == r["user_id"]]
                found["impression_missing"] += not lists
                found["impression_of_another_reader"] += bool(lists and not own)
                found["article_not_in_impression"] += bool(own) and all(r["article_id"] not in i for i in own)
        broken[day] = dict(found)
    return broken


def _remarks(raw: Path, clock: DayClock, day: date, tables: DayTables, again: set[tuple[Path, int]]) -> dict[str, int]:
    """What is to be said of a day's rows beside their links."""
    start, end = clock.start(day), clock.end(day)
    clicks = [
        r
        for r in plain(raw / "clicks.parquet")
        if oracle.is_id(r["user_id"], r["article_id"]) and start <= r["time"] < end
    ]
    unsaid = empty = 0
    for row in _without(_shown(raw), raw, again):
        if oracle.impressions([row], start, end).published:
            unsaid += row[4] is None
            empty += row[4] == []
    published = sum(not items for items in tables.impressions[schema.CLICKED].to_pylist())
    said = sum(r.count for r in tables.remarks if r.reason == "nothing_clicked")
    return {
        "value_out_of_range of impression_id": sum(
            r["impression_id"] is not None and r["impression_id"] <= 0 for r in clicks
        ),
        "value_out_of_range of read_time": remarks.outside(clicks, "read_time", 86_400),
        "value_out_of_range of scroll_percentage": remarks.outside(clicks, "scroll_percentage", 100),
        "clicked_unknown": unsaid,
        "nothing_clicked": min(said, empty) if unsaid else published,
        **remarks.of_articles(tables, plain(raw / "articles.parquet"), (raw / "unlisted.parquet").is_file()),
    }


def _rows(source: Source, root: Path, table: str, zone: str) -> list[tuple[str, dict[str, Any]]]:
    """The rows that went into a table as (source, row), in a row's `ms` its time. Columns of text are left out."""
    names = sorted(n for n in source.files if n == f"{table}.parquet" or n.startswith(f"{table}/"))
    wanted = ("user_id", "article_id", "time", "impression_id", "session_id", "inview", "clicked", "published", *_CODES)
    found = []
    for name in names:
        for whole in went_in(source, root, name.removesuffix(".parquet")):
            kinds = {f.name: f.type for f in whole.schema}
            for number, row in enumerate(oracle.rows_of(whole, *wanted), start=1):
                time = next((c for c in ("time", "published") if pa.types.is_timestamp(kinds.get(c, pa.null()))), None)
                row["ms"] = None if time is None else _ms(row[time], kinds[time], zone)
                found.append((f"{name}:{number}", row))
    return found


def _event_losses(
    table: str, rows: list[tuple[str, dict[str, Any]]], aside: Counter[str], out: Path, days: Days, start: int, end: int
) -> list[str]:
    columns = ("user_id", "article_id") if table == "clicks" else ("impression_id", "user_id", "inview", "clicked")
    placed: dict[str, tuple[Any, ...]] = {}
    said = []
    for day in days:
        for r in plain(out / str(day) / f"{table}.parquet"):
            said += [f"{r['source']} is there twice"] if r["source"] in placed else []
            placed[r["source"]] = (r["time"], *(r[c] for c in columns))
    for name, row in rows:
        sound = _fits(row) and row["ms"] is not None and start <= row["ms"] < end
        expected = (row["ms"], *(_cut(row[c]) for c in columns)) if sound else None
        if placed.pop(name, None) != expected or aside.pop(name, 0) != (expected is None):
            said.append(f"{table}: {name}: expected {str(expected)[:200]}")
    return said + [f"{table}: {name} is no row of the log" for name in (*placed, *aside)]


def _cut(value: Any) -> Any:
    """A value as a raw day can say it: an id in a list that 64 bits cannot hold is null."""
    return [v if v is None or v < 2**63 else None for v in value] if isinstance(value, list) else value


def _article_losses(rows: list[tuple[str, dict[str, Any]]], aside: Counter[str], out: Path, days: Days) -> list[str]:
    found: dict[str, set[int]] = {}
    said = []
    for day in days:
        listed = plain(out / str(day) / "articles.parquet", "source", "article_id")
        if len({r["source"] for r in listed}) < len(listed):
            said.append(f"{day}: an article row is there twice")
        for r in listed:
            found.setdefault(r["source"], set()).add(r["article_id"])
    for name, row in rows:
        placed = found.pop(name, None)
        if aside.pop(name, 0) != (placed is None) or placed not in (None, {row["article_id"]}):
            said.append(f"articles: {name}: in days as {placed}")
        if placed is not None and not _fits(row):
            said.append(f"articles: {name} should have been held back")
    return said + [f"articles: {name} is no row of the log" for name in (*found, *aside)]


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a raw click tells, as `oracle.Click` takes it; a link that does not hold is unknown."""
    number = oracle.within(row["impression_id"], 1, 2**63) if row["link"] is None else None
    read = oracle.within(row["read_time"], 0, 86_400), oracle.within(row["scroll_percentage"], 0, 100)
    return (number, *read, *(row[c] for c in (schema.SESSION_ID, *schema.CONTEXT, "subscriber")))


def _day_losses(raw: Path, start: int, end: int, tables: DayTables, again: set[tuple[Path, int]]) -> list[str]:
    """Differences between a day's tables and what its raw rows must become."""
    clicks = [
        oracle.Click(r["time"], r["user_id"], r["article_id"], cells=_cells(r)) for r in plain(raw / "clicks.parquet")
    ]
    shown = _without(_shown(raw), raw, again)
    ids = Counter(tables.impressions[schema.IMPRESSION_ID].to_pylist())
    said = oracle.losses("clicks", tables, oracle.clicks(clicks, start, end), oracle.published_clicks(tables))
    said += oracle.losses("impressions", tables, oracle.impressions(shown, start, end), ids)
    said += oracle.broken_promises(tables, start, end)
    listed = plain(raw / "articles.parquet")
    counts = tables.counts["articles"]
    repeated = len(listed) - len({repr({k: v for k, v in r.items() if k != "source"}) for r in listed})
    aside = tables.quarantine["table"].to_pylist().count("articles")
    if counts["rows_in"] != len(listed) + counts["first_seen"]:
        said.append(f"articles: {counts}, {len(listed)} listed")
    if counts["duplicates"] > repeated or counts["rows_in"] != len(tables.articles) + aside + counts["duplicates"]:
        said.append(f"articles: {counts} with {repeated} repetitions")
    return said
