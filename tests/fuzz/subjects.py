"""The readers that are fuzzed, one `Subject` each. A further reader: one more `Subject` in `SUBJECTS`.

Belongs here: a valid small source of each layout, and how many of its rows must be found again (`mind` and `own` have
modules of their own). Does not belong here: damage (`tables`, `lines`, `lies`, `files`), what a raw day must become
(`oracle`).
"""

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml import schema
from ml.datasets import DATASETS, Dataset
from ml.own_log import declared_dataset
from ml.readers import DayTables
from tests.fuzz import mind, oracle, own, remarks
from tests.fuzz.oracle import held_back_at_split, plain
from tests.fuzz.source import Lie, Lines, Source, went_in
from tests.fuzz.tables import TAG
from tests.ml import bundles

Rng = np.random.Generator
Days = dict[date, DayTables]


@dataclass(frozen=True, slots=True)
class Subject:
    """A reader under test.

    `reader` is the name of the reader, `dataset` finds the dataset of a root, which a log of its own declares itself
    (DataError where it cannot). `make` draws a valid small source. `losses` takes the source as it was meant to be
    written, the root on disk, the folder that the split wrote, and all days' tables, and says what is missing, too much
    or wrong: it counts the rows that went in without the reader. `separator` is that of the layout's text files.
    """

    reader: str
    dataset: Callable[[Path], Dataset]
    make: Callable[[Rng], Source]
    losses: Callable[[Source, Path, Path, Days], list[str]]
    separator: bytes = b","


# ---------------------------------------------------------------------------------------------------------- EB-NeRD

_SPLIT_DAYS = {"train": 17, "validation": 19, "test": 20}


def _minute(rng: Rng, day: int) -> str:
    start = datetime(2023, 5, day, 7, tzinfo=UTC) + timedelta(minutes=int(rng.integers(0, 2 * 1440)))
    return start.strftime("%Y-%m-%d %H:%M")


def ebnerd(rng: Rng) -> Source:
    """Some of the layouts of EB-NeRD: up to three splits, with or without histories, articles, an artifact."""
    splits = [s for s in _SPLIT_DAYS if rng.random() < 0.6] or ["train"]
    files: dict[str, Any] = {}
    number = 0
    for split in splits:
        rows = []
        for _ in range(int(rng.integers(1, 6))):
            number += 1
            shown = rng.choice(np.arange(100, 112), int(rng.integers(1, 6)), replace=False).tolist()
            clicked = [] if split == "test" else shown[: int(rng.integers(0, 3))]
            time = _minute(rng, _SPLIT_DAYS[split])
            fixed = 0 if split == "test" and rng.random() < 0.3 else number
            fixed = max(1, number - 1) if fixed and rng.random() < 0.05 else fixed
            waited = float(rng.choice([0.0, 2.5, 14.0, 59.0, 61.0, 40_000.0]))
            rows.append(bundles.impression(fixed, int(rng.integers(1, 5)), time, shown, clicked, read_time=waited))
        hidden = {"article_ids_clicked", "next_read_time", "next_scroll_percentage"} if split == "test" else set()
        columns = pa.schema([f for f in bundles.BEHAVIORS if f.name not in hidden])
        kept = [{k: v for k, v in row.items() if k not in hidden} for row in rows]
        files[f"{split}/behaviors.parquet"] = pa.Table.from_pylist(kept, columns)
        if rng.random() < 0.7:
            reads = [
                bundles.history(
                    u, *((_minute(rng, 15), int(rng.integers(100, 112))) for _ in range(rng.integers(0, 4)))
                )
                for u in range(1, 1 + int(rng.integers(1, 4)))
            ]
            files[f"{split}/history.parquet"] = pa.Table.from_pylist([dict(r) for r in reads], bundles.HISTORY)
    if rng.random() < 0.7:
        listed = [bundles.article(a, _minute(rng, 14)) for a in range(100, 100 + int(rng.integers(1, 12)))]
        table = pa.Table.from_pylist([dict(r) for r in listed], bundles.ARTICLES)
        files["articles.parquet"] = table.append_column(TAG, pa.array(range(len(table)), pa.int64()))
    if rng.random() < 0.2:
        vectors = pa.table({"article_id": [100, 101], "vector": [[1.0, 2.0], [3.0, 4.0]]})
        files["artifacts/document_vector.parquet"] = vectors
    return Source(files)


def _lengths(table: pa.Table, column: str) -> list[int]:
    """Items of each list; null lists have none."""
    return pc.fill_null(pc.list_value_length(table[column]), -1).to_pylist()


def _ebnerd_losses(source: Source, root: Path, out: Path, days: Days) -> list[str]:
    """The identity over the split, then over each day."""
    held_back = held_back_at_split(out)
    shown = sum(len(t) for t in went_in(source, root, "behaviors"))
    placed = sum(len(plain(out / str(d) / "behaviors.parquet", "impression_id")) for d in days)
    aside = sum(r["table"] == "impressions" for r in held_back)
    said = [] if shown == placed + aside else [f"behaviors: {shown} rows in, {placed} in days, {aside} held back"]
    said += _history_losses(source, root, out, days, held_back)
    said += _article_losses(source, root, out, days, held_back)
    known: set[int] = set()
    clock = DATASETS["ebnerd"].clock
    raw = {day: out / str(day) for day in days}
    again = oracle.reused([(raw[d], _ebnerd_shown(raw[d]), clock.start(d), clock.end(d)) for d in days])
    for day, tables in days.items():
        known |= set(tables.articles[schema.ARTICLE_ID].to_pylist())
        lists = [*tables.impressions[schema.INVIEW].to_pylist(), tables.clicks[schema.ARTICLE_ID].to_pylist()]
        if not {a for row in lists for a in row} <= known:
            said.append(f"{day}: an article is clicked or shown that no day's articles have")
        said += [f"{day}: {text}" for text in _ebnerd_day(raw[day], day, tables, again)]
    return said


def _history_losses(source: Source, root: Path, out: Path, days: Days, held_back: list[dict[str, Any]]) -> list[str]:
    lists = ("article_id_fixed", "impression_time_fixed", "read_time_fixed", "scroll_percentage_fixed")
    entries = rows = 0
    for table in went_in(source, root, "history"):
        rows += len(table)
        for lengths in zip(*(_lengths(table, c) for c in lists), strict=True):
            entries += max(lengths[0], 0) if len(set(lengths)) == 1 else 0
    whole = [r["content"] for r in held_back if r["table"] == "clicks" and lists[0] in r["content"]]
    flat = sum(r["table"] == "clicks" and lists[0] not in r["content"] for r in held_back)
    inside = 0
    for content in whole:
        cut = dict(re.findall(r"of (\d+) items of (\w+)", content.get("__cut") or ""))
        longer = {name: int(length) for length, name in cut.items()}
        lengths = {longer.get(c, -1 if content[c] is None else len(content[c])) for c in lists}
        inside += max(*lengths, 0) if len(lengths) == 1 else 0
    placed = sum(len(plain(out / str(d) / "history.parquet", "user_id")) for d in days)
    text = (
        f"history: {entries} clicks in {rows} rows, {placed} in days, {flat} and {len(whole)} rows ({inside}) held back"
    )
    return [] if entries == placed + flat + inside else [text]


def _article_losses(source: Source, root: Path, out: Path, days: Days, held_back: list[dict[str, Any]]) -> list[str]:
    rows: Counter[int] = Counter()
    for table in went_in(source, root, "articles"):
        if TAG not in table.column_names or not isinstance(source.bytes_changes.get("articles.parquet", Lie()), Lie):
            aside = sum(r["table"] == "articles" for r in held_back)
            placed = {id_ for d in days for id_ in _ids(out / str(d) / "articles.parquet")}
            return [] if len(table) <= aside + len(table) * bool(placed) else ["articles: rows are missing"]
        rows.update(table[TAG].to_pylist())
    aside = Counter(r["content"].get(TAG) for r in held_back if r["table"] == "articles")
    said = []
    days_of: dict[int, list[int]] = {}
    for day in days:
        for tag, count in Counter(r[TAG] for r in plain(out / str(day) / "articles.parquet", TAG)).items():
            days_of.setdefault(tag, []).append(count)
    for tag, count in rows.items():
        kept = count - aside[tag]
        if kept < 0 or (kept > 0 and set(days_of.get(tag, [])) != {kept}) or (kept == 0 and tag in days_of):
            said.append(f"articles: row {tag} in {count} times, {aside[tag]} held back, {days_of.get(tag)} in days")
    return said


def _ids(path: Path) -> list[int]:
    return [row["article_id"] for row in plain(path, "article_id")]


def _clicked_at(row: dict[str, Any]) -> int | None:
    """The click of an impression: `read_time` after it, a millisecond before the page it opens."""
    shown, seconds = row["impression_time"], row["read_time"]
    if shown is None or seconds is None or not 0 < seconds < float("inf"):
        return shown
    return max(shown, shown + round(min(seconds, 1e9) * 1000) - 1)


def _read(seconds: float | None, percent: float | None) -> tuple[float | None, float | None]:
    return oracle.within(seconds, 0, 86_400), oracle.within(percent, 0, 100)


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    """What an impression tells of its clicks, as `oracle.Click` takes it."""
    number = oracle.within(row["impression_id"], 1, 2**63 - 1)
    read = _read(row.get("next_read_time"), row.get("next_scroll_percentage"))
    return (number, *read, row["session_id"], row["device_type"], None, None, None, row["is_subscriber"])


def _repeated(time: int | None, user: int | None, article: int | None, clicks: list[oracle.Click]) -> int | None:
    """The time of the click that a history's row repeats, which is the nearest within 3 s; else its own."""
    if None in (time, user, article):
        return time
    same = [c.time for c in clicks if c.time is not None and (c.user, c.article) == (user, article)]
    near = [t for t in same if abs(t - time) <= 3_000]
    return min(near, key=lambda t: (abs(t - time), -t), default=time)  # type: ignore[operator]


def _comparable(cell: Any) -> Any:
    """A cell that equals itself, NaN too."""
    return "NaN" if cell != cell else cell


def _ebnerd_shown(raw: Path) -> list[tuple[Any, ...]]:
    """A raw day's impressions, as `oracle.impressions` takes them."""
    wanted = ("session_id", "device_type", "is_subscriber", "read_time", "next_read_time", "next_scroll_percentage")
    return [
        (r["impression_time"], r["impression_id"], r["user_id"], r["article_ids_inview"], r.get("article_ids_clicked"),
         oracle.are_codes(r["device_type"]), *(_comparable(r.get(c)) for c in wanted))
        for r in plain(raw / "behaviors.parquet")
    ]  # fmt: skip


def _ebnerd_day(raw: Path, day: date, tables: DayTables, again: set[tuple[Path, int]]) -> list[str]:
    """Differences between a day's tables and what its raw rows must become."""
    clock = DATASETS["ebnerd"].clock
    start, end = clock.start(day), clock.end(day)
    shown = plain(raw / "behaviors.parquet")
    impressions = [(*r[:5], r[5] and (raw, i) not in again, *r[6:]) for i, r in enumerate(_ebnerd_shown(raw))]
    silent = oracle.silent(impressions, start, end) | {i for folder, i in again if folder == raw}
    clicks = [
        oracle.Click(
            _clicked_at(r), r["user_id"], a, oracle.are_codes(r["device_type"]), _cells(r), r["source"],
        )
        for i, r in enumerate(shown) if i not in silent for a in r.get("article_ids_clicked") or []
    ]  # fmt: skip
    read = [
        oracle.Click(
            _repeated(r["time"], r["user_id"], r["article_id"], clicks), r["user_id"], r["article_id"],
            cells=(None, *_read(r["read_time"], r["scroll"]), *[None] * 6), file=r["source"], again=True,
        )
        for r in plain(raw / "history.parquet")
    ]  # fmt: skip
    clicks += read
    ids = Counter(tables.impressions[schema.IMPRESSION_ID].to_pylist())
    said = oracle.losses("clicks", tables, oracle.clicks(clicks, start, end), oracle.published_clicks(tables))
    said += oracle.losses("impressions", tables, oracle.impressions(impressions, start, end), ids)
    said += oracle.broken_promises(tables, start, end)
    counts = tables.counts["articles"]
    listed = plain(raw / "articles.parquet")
    bearing = [r for r in shown if r.get("article_ids_clicked")]
    history = plain(raw / "history.parquet")
    cells = {
        "next_read_time": remarks.outside(bearing, "next_read_time", 86_400),
        "next_scroll_percentage": remarks.outside(bearing, "next_scroll_percentage", 100),
        "read_time_fixed": remarks.outside(history, "read_time", 86_400),
        "scroll_percentage_fixed": remarks.outside(history, "scroll", 100),
        "read_time": remarks.outside(bearing, "read_time", float("inf"), below=True),
    }
    unsaid = [r.get("article_ids_clicked") is None and not r["source"].startswith("test/") for r in shown]
    sound = [oracle.impressions([row], start, end).published.total() for row in impressions]
    said += remarks.losses(
        tables,
        {
            **{f"value_out_of_range of {column}": count for column, count in cells.items()},
            "clicked_unknown": sum(u * s for u, s in zip(unsaid, sound, strict=True)),
            **remarks.of_articles(tables, listed, (raw / "unlisted.parquet").is_file()),
        },
    )
    columns = ("article_id", "published_time", "last_modified_time", "title", "subtitle", "body", "category",
               "category_str", "premium", "sentiment_score")  # fmt: skip
    repeated = len(listed) - len({repr([row[c] for c in columns]) for row in listed})
    aside = tables.quarantine["table"].to_pylist().count("articles")
    if counts["rows_in"] != len(listed) + counts["first_seen"]:
        said.append(
            f"articles: {counts['rows_in']} rows in, {len(listed)} listed and {counts['first_seen']} first seen"
        )
    if counts["duplicates"] > repeated or counts["rows_in"] != len(tables.articles) + aside + counts["duplicates"]:
        said.append(f"articles: {counts} with {repeated} repetitions")
    return said


# ------------------------------------------------------------------------------------------------------------ Globo


def globo(rng: Rng) -> Source:
    """Two or three hour files, perhaps packed, perhaps with metadata."""
    files: dict[str, Any] = {}
    packed = bool(rng.integers(2))
    for hour in range(int(rng.integers(1, 4))):
        lines = [bundles.GLOBO_COLUMNS]
        for session in range(int(rng.integers(0 if hour else 1, 4))):
            start = bundles.ms("2017-10-01 03:00") + int(rng.integers(0, 2 * 86_400_000))
            for click in range(int(rng.integers(1, 4))):
                article = int(rng.integers(50, 60))
                lines.append(f"{session},{start},{start},2,{article},{start + 30_000 * click},4,3,20,1,21,2")
        name = f"clicks/clicks_hour_{hour:03d}.csv{'.gz' if packed else ''}"
        files[name] = Lines([line.encode() for line in lines], packed)
    if rng.random() < 0.5:
        rows = [f"{a},{int(rng.integers(400))},1,0,100" for a in range(50, 50 + int(rng.integers(0, 8)))]
        head = "article_id,category_id,created_at_ts,publisher_id,words_count"
        files["articles_metadata.csv"] = Lines([line.encode() for line in (head, *rows)])
    return Source(files)


def text_rows(path: Path, separator: str = ",") -> list[dict[str, str] | None] | None:
    """The lines of a text file after its header as fields by name, without blank ones; None for a line that cannot be
    cut so. None for a file that cannot be decompressed."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error):
        return None
    if not data:
        return []
    lines = data.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    head = _cut(lines[0].decode("utf-8", "backslashreplace").encode(), separator) or []
    rows: list[dict[str, str] | None] = []
    for line in (line for line in lines[1:] if line.strip(b"\r")):
        fields = _cut(line, separator)
        fits = fields is not None and len(fields) == len(head) and len(line) <= 1 << 20
        rows.append(dict(zip(head, fields or [], strict=True)) if fits else None)
    return rows if b"\n" in data else []


def _cut(line: bytes, separator: str) -> list[str] | None:
    try:
        text = line.removesuffix(b"\r").decode()
        return (
            next(csv.reader([text], delimiter=separator, strict=True), [""]) if '"' in text else text.split(separator)
        )
    except (UnicodeDecodeError, csv.Error):
        return None


def _globo_losses(source: Source, root: Path, out: Path, days: Days) -> list[str]:
    held_back = held_back_at_split(out)
    lines = 0
    for path in (root / "clicks").iterdir():
        rows = text_rows(path)
        if rows is None:
            return [f"{path.name} cannot be decompressed and was read"]
        lines += len(rows)
    placed = sum(len(plain(out / str(d) / "clicks.parquet", "user_id")) for d in days)
    aside = sum(r["table"] == "clicks" for r in held_back)
    said = [] if lines == placed + aside else [f"clicks: {lines} lines in, {placed} in days, {aside} held back"]
    aside = sum(r["table"] == "articles" for r in held_back)
    said += _metadata_losses(root / "articles_metadata.csv", aside, out, days)
    clock = DATASETS["globo"].clock
    for day, tables in days.items():
        start, end = clock.start(day), clock.end(day)
        codes = ("click_deviceGroup", "click_os", "click_region", "click_referrer_type")
        rows = [
            oracle.Click(
                r["click_timestamp"], r["user_id"], r["click_article_id"], oracle.are_codes(*(r[c] for c in codes)),
                (None, None, None, r["session_id"], *(r[c] for c in codes), None),
            )
            for r in plain(out / str(day) / "clicks.parquet")
        ]  # fmt: skip
        expected = oracle.clicks(rows, start, end)
        found = oracle.losses("clicks", tables, expected, oracle.published_clicks(tables))
        found += oracle.broken_promises(tables, start, end)
        if {a for _, _, a in expected.published} != set(tables.articles[schema.ARTICLE_ID].to_pylist()):
            found.append("articles are not those that are clicked")
        said += [f"{day}: {text}" for text in found]
    return said


def _metadata_losses(path: Path, aside: int, out: Path, days: Days) -> list[str]:
    """Metadata lines are held back where they say nothing, or something else than an earlier line, or what they tell of
    is clicked by nobody; the others lie in the days on which their article is clicked."""
    if not path.is_file():
        return []
    known: dict[int, int] = {}
    others: set[tuple[int, int]] = set()
    wrong = 0
    for row in text_rows(path) or []:
        article, category = (oracle.whole(row.get(c)) if row else None for c in ("article_id", "category_id"))
        if article is None or category is None or not oracle.are_codes(category):
            wrong += 1
        elif known.setdefault(article, category) != category:
            others.add((article, category))
    clicked = {
        day: {r["click_article_id"] for r in plain(out / str(day) / "clicks.parquet", "click_article_id")}
        for day in days
    }
    never = len(known.keys() - set().union(*clicked.values()))
    expected = wrong + len(others) + never
    said = [] if aside == expected else [f"metadata: {expected} lines to be held back, {aside} are"]
    for day, ids in clicked.items():
        found = {r["article_id"]: r["category_id"] for r in plain(out / str(day) / "articles.parquet")}
        if found != {a: c for a, c in known.items() if a in ids}:
            said.append(f"{day}: other metadata than that of the clicked articles")
    return said


def _known(name: str) -> Callable[[Path], Dataset]:
    return lambda root: DATASETS[name]


SUBJECTS: dict[str, Subject] = {
    "ebnerd": Subject("ebnerd", _known("ebnerd"), ebnerd, _ebnerd_losses),
    "globo": Subject("globo", _known("globo"), globo, _globo_losses),
    "mind": Subject("mind", _known("mind"), mind.mind, mind.losses, b"\t"),
    "own": Subject("own", declared_dataset, own.own, own.losses),
}
