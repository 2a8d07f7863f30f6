"""MIND under test: a valid small log, and what its lines must become.

Belongs here: the layout's lines read a second time in plain Python. Does not belong here: damage (`lines`, `files`).
"""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ml import schema
from ml.datasets import DATASETS
from ml.readers import DayTables
from tests.fuzz import oracle, remarks
from tests.fuzz.oracle import held_back_at_split, plain
from tests.fuzz.source import Lines, Source

Rng = np.random.Generator
Days = dict[date, DayTables]

_FOLDERS = ("train", "dev", "test")
_LINE_BYTES, _ITEMS = 1 << 20, 100_000
_TIME = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d{1,2}):(\d{1,2}) ([AP])M", re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1)


def mind(rng: Rng) -> Source:
    """One folder alone or up to three splits, with or without news; `test` has no labels."""
    folders = [f for f in _FOLDERS if rng.random() < 0.6] if rng.random() < 0.8 else [""]
    files: dict[str, Any] = {}
    for folder in folders or ["train"]:
        place = f"{folder}/" if folder else ""
        rows = [_shown(rng, n, folder) for n in range(1, 1 + int(rng.integers(1, 7)))]
        if rng.random() < 0.1:
            rows.append(_shown(rng, 1, folder))  # perhaps on another day
        files[f"{place}behaviors.tsv"] = Lines([r.encode() for r in rows], header=False)
        if rng.random() < 0.8:
            listed = rng.choice(np.arange(50, 66), int(rng.integers(1, 10)), replace=False).tolist()
            news = [f"N{a}\tnews\tsub{a % 3}\tTitle {a}\tAbstract\thttps://x/{a}\t[]\t[]" for a in listed]
            files[f"{place}news.tsv"] = Lines([n.encode() for n in news], header=False)
    return Source(files)


def _shown(rng: Rng, number: int, folder: str) -> str:
    time = datetime(2019, 11, 9, tzinfo=UTC) + timedelta(seconds=int(rng.integers(0, 3 * 86_400)))
    read = " ".join(f"N{a}" for a in rng.integers(50, 66, int(rng.integers(0, 3))))
    shown = rng.choice(np.arange(50, 62), int(rng.integers(1, 6)), replace=False).tolist()
    marked = [f"N{a}" if folder == "test" else f"N{a}-{int(rng.random() < 0.4)}" for a in shown]
    text = f"{time.month}/{time.day}/{time.year} {time.strftime('%I:%M:%S %p').lstrip('0')}"
    return "\t".join([str(number), f"U{int(rng.integers(1, 5))}", text, read, " ".join(marked)])


def _lines(path: Path, root: Path) -> Iterator[tuple[str, list[str] | None]]:
    """All lines that are not empty: their source, and their cells (None where they are no text or too long)."""
    name = path.relative_to(root).as_posix()
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        bare = line.rstrip(b"\r\n")
        if not bare:
            continue
        try:
            yield f"{name}:{number}", bare.decode().split("\t") if len(bare) <= _LINE_BYTES else None
        except UnicodeDecodeError:
            yield f"{name}:{number}", None


def _number(text: str, letter: str = "") -> int | None:
    return oracle.whole(text[len(letter) :]) if re.fullmatch(rf"{letter}[0-9]+", text) else None


def _ms(text: str) -> int | None:
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    month, day, year, hour, minute, second = (int(n) for n in found.groups()[:6])
    try:
        assert 1 <= hour <= 12
        time = datetime(year, month, day, hour % 12 + 12 * (found[7].upper() == "P"), minute, second)
    except (AssertionError, ValueError):
        return None
    return (time - _EPOCH) // timedelta(milliseconds=1)


def _sound(cells: list[str] | None, step: int, most: int) -> tuple[Any, ...] | None:
    """What a line of behaviors says: (impression, user, ms, in view, clicked); None where some day cannot take it."""
    if cells is None or len(cells) != 5:
        return None
    number, user, time = _number(cells[0]), _number(cells[1], "U"), _ms(cells[2])
    tokens = cells[4].strip().split(" ") if cells[4].strip() else []
    found = [re.fullmatch(r"N([0-9]+)(-[01])?", t) for t in tokens]
    shown = [oracle.whole(f[1]) if f else None for f in found]
    labels = {bool(f and f[2]) for f in found}
    if None in (number, user, time) or None in shown or len(labels) > 1 or len(shown) > _ITEMS:
        return None
    assert number is not None and time is not None
    log = DATASETS["mind"]
    if number > most or not log.clock.start(log.first_day) <= time < log.clock.end(log.last_day):
        return None
    clicked = [a for a, t in zip(shown, tokens, strict=True) if t.endswith("-1")] if labels == {True} else None
    return number + step, user, time, shown, clicked


def losses(source: Source, root: Path, out: Path, days: Days) -> list[str]:
    """Every line is in one day, as it reads, or in quarantine; then the identity over each day."""
    held_back = held_back_at_split(out)
    placed: dict[str, tuple[Any, ...]] = {}
    twice = []
    for day in days:
        for r in plain(out / str(day) / "impressions.parquet"):
            twice += [r["source"]] if r["source"] in placed else []
            placed[r["source"]] = (*(r[c] for c in ("impression_id", "user_id", "time", "inview", "clicked")),)
    said = [f"{s} is there twice" for s in twice]
    aside = Counter(r["source"] for r in held_back if r["table"] == "impressions")
    for place, folder in enumerate(("", *_FOLDERS)):
        path = root / folder / "behaviors.tsv"
        for name, cells in _lines(path, root) if path.is_file() else ():
            expected = _sound(cells, 10**9 * max(0, place - 1), 10**9 - 1 if folder else 2**63 - 1)
            if placed.pop(name, None) != expected or aside.pop(name, 0) != (expected is None):
                said.append(f"{name}: expected {str(expected)[:200]}")
    said += [f"{name} is no line of the log" for name in (*placed, *aside)]
    said += _news_losses(root, out, days, [r for r in held_back if r["table"] == "articles"])
    folders = [root / folder for folder in ("", *_FOLDERS)]
    news = any((at / "news.tsv").is_file() and (at / "behaviors.tsv").is_file() for at in folders)
    clock = DATASETS["mind"].clock
    raw = [(out / str(d), _impressions(out / str(d)), clock.start(d), clock.end(d)) for d in days]
    again = oracle.reused(raw)
    for day, tables in days.items():
        said += [f"{day}: {text}" for text in _day_losses(out / str(day), day, tables, again, news)]
    return said


def _news_losses(root: Path, out: Path, days: Days, held_back: list[dict[str, Any]]) -> list[str]:
    """The first line of an article is in all days that show it; lines that differ from it, that no day needs or that
    say nothing are held back; lines that repeat it are not kept."""
    shown = {d: {a for r in plain(out / str(d) / "impressions.parquet", "inview") for a in r["inview"]} for d in days}
    first: dict[int, tuple[str, list[str]]] = {}
    aside: Counter[str] = Counter()
    for folder in ("", *_FOLDERS):
        path = root / folder / "news.tsv"
        for name, cells in _lines(path, root) if path.is_file() and (path.parent / "behaviors.tsv").is_file() else ():
            article = _number(cells[0], "N") if cells is not None and len(cells) == 8 else None
            if article is None or cells is None:
                aside[name] += 1
                continue
            known = first.setdefault(article, (name, cells))
            if known[0] != name:
                aside[name] += known[1] != cells
            elif not any(article in ids for ids in shown.values()):
                aside[name] += 1
    said = [] if +aside == Counter(r["source"] for r in held_back) else [f"news: expected in quarantine: {+aside}"]
    for day, tables in days.items():
        wanted = sorted(s for a, (s, _) in first.items() if a in shown[day])
        if sorted(r["source"] for r in plain(out / str(day) / "articles.parquet", "source")) != wanted:
            said.append(f"{day}: news: expected {wanted}")
        titles = {a: c[3] for a, (_, c) in first.items() if c[3].strip()}
        ids = tables.articles[schema.ARTICLE_ID].to_pylist()
        if tables.articles["title"].to_pylist() != [titles.get(a) for a in ids]:
            said.append(f"{day}: other titles than those of the news")
    return said


def _impressions(raw: Path) -> list[tuple[Any, ...]]:
    """A raw day's impressions, as `oracle.impressions` takes them."""
    rows = plain(raw / "impressions.parquet")
    return [(r["time"], r["impression_id"], r["user_id"], r["inview"], r["clicked"], True) for r in rows]


def _day_losses(raw: Path, day: date, tables: DayTables, again: set[tuple[Path, int]], news: bool) -> list[str]:
    """Differences between a day's tables and what its raw rows must become."""
    clock = DATASETS["mind"].clock
    start, end = clock.start(day), clock.end(day)
    rows = plain(raw / "impressions.parquet")
    shown = [(*r[:5], (raw, i) not in again) for i, r in enumerate(_impressions(raw))]
    silent = oracle.silent(shown, start, end) | {i for folder, i in again if folder == raw}
    clicks = [
        oracle.Click(r["time"], r["user_id"], a, cells=(oracle.within(r["impression_id"], 1, 2**63),))
        for i, r in enumerate(rows) if i not in silent for a in r["clicked"] or []
    ]  # fmt: skip
    ids = Counter(tables.impressions[schema.IMPRESSION_ID].to_pylist())
    said = oracle.losses("clicks", tables, oracle.clicks(clicks, start, end), oracle.published_clicks(tables))
    said += oracle.losses("impressions", tables, oracle.impressions(shown, start, end), ids)
    said += oracle.broken_promises(tables, start, end)
    unsaid = [r["clicked"] is None and not r["source"].startswith("test/") for r in rows]
    sound = [oracle.impressions([row], start, end).published.total() for row in shown]
    listed = {r["article_id"] for r in plain(raw / "articles.parquet", "article_id")}
    missing = set(tables.articles[schema.ARTICLE_ID].to_pylist()) - listed
    unknown = sum(u * s for u, s in zip(unsaid, sound, strict=True))
    said += remarks.losses(tables, {"clicked_unknown": unknown, "unlisted_article": len(missing) if news else 0})
    appear = {a for row in tables.impressions[schema.INVIEW].to_pylist() for a in row}
    if appear | {a for _, _, a in oracle.published_clicks(tables)} != set(tables.articles["article_id"].to_pylist()):
        said.append("articles are not those that appear")
    return said
