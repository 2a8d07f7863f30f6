"""A small log with deliveries, for tests of what arrives.

Belongs here: writing drops in EB-NeRD's layout and reading raw days back. Does not belong here: whole bundles
(`tests.ml.bundles`).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from ml.datasets import dataset
from resources.drops import LANDING, MARKER
from resources.manifest import file_digest
from resources.source import DatasetSource
from tests.ml.bundles import ARTICLES, BEHAVIORS, Row, impression, synthetic_bundle, write_rows

EBNERD = dataset("ebnerd")
LAST = date(2023, 5, 20)
"""The last day of the bundle of `log`; days begin at 07:00 UTC."""


def log(home: Path, watermark_hours: float | None = None) -> DatasetSource:
    """The source of `synthetic_bundle` (17 to 20 May 2023) in `home`, with a lake of its own."""
    if not (home / "log" / "train").exists():
        synthetic_bundle(home / "log")
    return DatasetSource(home / "lake", {"ebnerd": home / "log"}, watermark_hours)


def files(folder: Path, behaviors: Sequence[Row], articles: Sequence[Row] | None = None) -> Path:
    """A delivery's files."""
    write_rows(folder / "behaviors.parquet", behaviors, BEHAVIORS)
    if articles is not None:
        write_rows(folder / "articles.parquet", articles, ARTICLES)
    return folder


def drop(home: Path, day: str, behaviors: Sequence[Row], articles: Sequence[Row] | None = None) -> Path:
    """A drop without its marker."""
    return files(home / "log" / LANDING / day, behaviors, articles)


def mark(folder: Path, arrived: str = "", said: Mapping[str, Any] | None = None) -> None:
    """Writes the marker: what the files are, and when they arrived ("2023-05-22 09:00", UTC)."""
    found = {p.name: {"sha256": file_digest(p)} for p in sorted(folder.glob("*")) if p.name != MARKER}
    marker = {"files": found} | ({"arrived": f"{datetime.fromisoformat(arrived)}+00:00"} if arrived else {})
    (folder / MARKER).write_text(json.dumps(marker | dict(said or {})))


def rows(*numbers_and_times: tuple[int, str]) -> list[Row]:
    """An impression of articles 105 and 106 with a click on 106 each, by number and time."""
    return [impression(number, 1 + number % 3, time, [105, 106], [106]) for number, time in numbers_and_times]


def impressions(source: DatasetSource, day: str) -> list[int]:
    """Numbers of the impressions of a raw day."""
    (path,) = [f for f in source.raw_day(EBNERD, date.fromisoformat(day)).files if f.name == "behaviors.parquet"]
    return pl.read_parquet(path)["impression_id"].to_list()


def quarantine(source: DatasetSource, day: str) -> list[tuple[str, str, str, int | None]]:
    """What a raw day holds back: table, reason, source file, impression number."""
    found = [f for f in source.raw_day(EBNERD, date.fromisoformat(day)).files if f.name == "quarantine.parquet"]
    held = [row for f in found for row in pl.read_parquet(f).to_dicts()]
    return [(r["table"], r["reason"], r["source"], json.loads(r["row"]).get("impression_id")) for r in held]


def contents(source: DatasetSource) -> dict[str, dict[str, str]]:
    """sha256 of every file of every raw day."""
    days = source.days(EBNERD)
    return {str(d): {f.name: file_digest(f) for f in source.raw_day(EBNERD, d).files} for d in days}
