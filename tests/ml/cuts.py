"""A whole bundle in the EB-NeRD layout cut into a shorter bundle and the deliveries of its last days, for tests.

Belongs here: the cut. Does not belong here: logs themselves (`bundles`, `ml.simulator`).
"""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl

from ml.datasets import Dataset


def cut(bundle: Path, root: Path, dataset: Dataset, days: Sequence[date], out: Path) -> dict[date, Path]:
    """Writes the bundle without `days` (its last ones) to `root`, and each of them to a folder below `out`: that day's
    behaviors, and the articles published on it. Returns these folders."""
    start = dataset.clock.start(days[0])
    for path in sorted(bundle.glob("*/behaviors.parquet")):
        _write(_between(pl.read_parquet(path), "impression_time", None, start), root / path.relative_to(bundle))
    for path in sorted(bundle.glob("*/history.parquet")):
        _write(pl.read_parquet(path), root / path.relative_to(bundle))
    articles = pl.read_parquet(bundle / "articles.parquet")
    _write(_between(articles, "published_time", None, start), root / "articles.parquet")
    shown = pl.concat([pl.read_parquet(p) for p in sorted(bundle.glob("*/behaviors.parquet"))])
    folders = {}
    for day in days:
        bounds = dataset.clock.start(day), dataset.clock.end(day)
        folders[day] = out / str(day)
        _write(_between(shown, "impression_time", *bounds), folders[day] / "behaviors.parquet")
        _write(_between(articles, "published_time", *bounds), folders[day] / "articles.parquet")
    return folders


def _between(rows: pl.DataFrame, column: str, start: int | None, end: int) -> pl.DataFrame:
    time = pl.col(column).cast(pl.Datetime("ms")).cast(pl.Int64)
    return rows.filter((time < end) & (pl.lit(True) if start is None else time >= start))


def _write(rows: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(path)
