"""The EB-NeRD bundle: `{train,validation,test}/{behaviors,history}.parquet`, optional `articles.parquet` and artifacts.

Belongs here: the files of this layout, and how a raw day becomes canonical tables. Does not belong here: the cut into
days (`ml.readers.ebnerd_days`), rules that hold for every layout (`ml.readers.canonical`).

Rules of this layout:

- Times have no zone and are UTC. Each clicked article of an impression is a click whose `next_read_time` and
  `next_scroll_percentage` are its read time and depth; each entry of a history is a click.
- An impression's time is when its list came into view. The reader clicks `read_time` seconds later, and a history
  tells when the clicked article was opened (docs/choices.md has the measurements). A click after the end of its
  impression's log day goes to quarantine as `outside_day`: dated within that day it would be known before it happened.
- A later split's history repeats an earlier split's behaviors: of two rows of one reader and article within
  `REPEATED_MS` the one with the impression is kept.
- `test` publishes no clicks; its beyond-accuracy rows have impression id 0. Both are valid.
- Clicks before an article's listed publication are kept, with a remark: its first appearance then stands in for
  publication.
"""

from collections.abc import Collection, Sequence
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from ml import schema
from ml.clock import DayClock
from ml.datasets import Dataset
from ml.errors import DataError
from ml.readers import canonical
from ml.readers.base import FROM_IMPRESSIONS, DayTables, Progress, Reader
from ml.readers.breaches import Breach, parquet_breaches, unreadable_file
from ml.readers.described import fates
from ml.readers.ebnerd_days import REMEDY, UNLISTED, columns_of, split_bundle, unlisted_on
from ml.readers.files import (
    files_below,
    frame,
    lies_at,
    ordinary_columns,
    parquet_schema,
    printable,
    read_to_end,
    regular,
)
from ml.readers.publication import early_appearances, unlisted_articles
from ml.readers.ranges import UNSET, unset_outside
from ml.readers.remarks import Remark, remarks_on, renamed
from ml.readers.reused import REUSED, mark_reused
from ml.readers.rules import SOURCE, milliseconds
from ml.readers.strays import ASIDE

SPLITS = ("train", "validation", "test")
ARTIFACTS = {
    "body": ("bert_base_multilingual_cased", "bert*embeddings", "xlm_roberta_base", "document_vector"),
    "image": ("image_embeddings",),
}
"""File names (without ending) of published vectors by family, the preferred one first."""
_LOGS = tuple(f"{split}/{name}.parquet" for split in SPLITS for name in ("behaviors", "history"))
REPEATED_MS = 3_000
"""A history's row this near to a click of behaviors is that click: both times are rounded to seconds."""
_IDS = pl.List(pl.Int64)
_CLICK_CELLS = ("read_time", "next_read_time", "next_scroll_percentage")
_FIRST_SEEN = "published_is_first_seen"
_REPEATED, _ROW = "__repeated", "__row"
_TEST = r"(^|/)test/behaviors\.parquet$"
_LONGEST = 1e9
"""Seconds: any longer time on a list leads out of every day just as well."""


class EbnerdReader(Reader):
    """Reads the EB-NeRD layout (also of simulated bundles)."""

    names = (*_LOGS, "articles.parquet")
    drop_folders = {"behaviors.parquet": "train", "history.parquet": "train"}  # noqa: RUF012
    derived_files = (UNLISTED,)
    expected = frozenset({("articles", "after_log_end"), ("clicks", "outside_day"), ("clicks", "duplicate_click")})

    def named(self, root: Path) -> list[Path]:
        found = [root / name for name in self.names if lies_at(root / name)]
        return found + _artifacts(root, [name for names in ARTIFACTS.values() for name in names])

    def require_events(self, root: Path, found: Sequence[Path]) -> None:
        if not any(_is_log(root, path) for path in found):
            raise DataError(
                f"{printable(root)} has none of {{train,validation,test}}/{{behaviors,history}}.parquet: "
                "point the data root at the folder that holds train/"
            )

    def split(
        self,
        root: Path,
        dataset: Dataset,
        out: Path,
        progress: Progress | None = None,
        besides: Collection[Path] = (),
    ) -> list[date]:
        days = split_bundle(self.sources(root, besides), root, dataset, out, progress)
        mark_reused(out, days, "behaviors.parquet", partial(_published, dataset.clock))
        return days

    def read_through(self, path: Path, zone: str) -> None:
        columns = columns_of(path)
        if columns:  # an artifact is read where it is needed
            more, _ = ordinary_columns(parquet_schema(path, columns, REMEDY), columns)
            read_to_end(path, [*columns, *more])

    def tables(self, raw_day: Path, dataset: Dataset, day: date) -> DayTables:
        start, end = dataset.clock.start(day), dataset.clock.end(day)
        behaviors, history = (_optional(raw_day / f"{name}.parquet") for name in ("behaviors", "history"))
        if behaviors is None and history is None:
            raise DataError(f"{raw_day} holds neither behaviors.parquet nor history.parquet: split the log again")
        reused = _reused(behaviors)
        impressions = canonical.impressions(_impressions_of(behaviors), start, end, reused, _cells_of(behaviors))
        if behaviors is not None:
            behaviors = behaviors.filter(~canonical.told_by_another(impressions, behaviors["impression_id"], reused))
        clicked, remarks = _clicked_of(behaviors)
        read, more = _read_in(history)
        remarks += more
        both = {False: clicked, True: _at_the_clicks_repeated(read, clicked)}
        marked = [rows.with_columns(pl.lit(again).alias(canonical.AGAIN)) for again, rows in both.items()]
        clicks = canonical.clicks(pl.concat(marked), start, end)
        seen = canonical.first_seen(clicks.rows, impressions.rows)
        listed = _optional(raw_day / "articles.parquet")
        known = _optional(raw_day / UNLISTED)
        only_seen = canonical.unlisted(seen, known, listed)
        articles = canonical.articles(articles_of(listed, seen, end), only_seen, end)
        if known is not None:
            remarks += unlisted_articles(only_seen, clicks, impressions)
        if listed is not None:
            remarks += early_appearances(listed, clicks, impressions, seen)
        return DayTables(
            articles=canonical.conform(articles.rows, schema.ARTICLES),
            clicks=canonical.conform(clicks.rows, schema.CLICKS),
            impressions=canonical.conform(impressions.rows, schema.IMPRESSIONS),
            quarantine=canonical.quarantined([articles, clicks, impressions]),
            remarks=canonical.remarked([articles, clicks, impressions], remarks),
            counts={
                "articles": articles.counts,
                "clicks": clicks.counts | {FROM_IMPRESSIONS: len(clicked)},
                "impressions": impressions.counts,
            },
            article_rows=fates(listed, articles.rows),
        )

    def derived(self, raw_day: Path, listed: np.ndarray | None) -> dict[str, pa.Table]:
        return {} if listed is None else {UNLISTED: unlisted_on(raw_day, listed)}

    def columns_wrong(self, root: Path, path: Path) -> list[Breach]:
        try:
            columns = columns_of(path)
        except DataError as error:
            return [unreadable_file(error, root, path)]
        return parquet_breaches(path, root, columns, {}, REMEDY)[0] if columns else []  # an artifact has none

    def artifact_vectors(self, root: Path) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for family, names in ARTIFACTS.items():
            paths = [p for name in names for p in _artifacts(root, [name]) if regular(root, p)]
            if paths:
                found[family] = paths[0]
        return found


def _is_log(root: Path, path: Path) -> bool:
    return path.relative_to(root).as_posix() in _LOGS


def _artifacts(root: Path, names: Sequence[str]) -> list[Path]:
    """Artifact files called by any of `names`, in order; what lies in the landing folder is not the bundle's."""
    return files_below(root, [f"{name}*.parquet" for name in names], besides=ASIDE)


def _optional(path: Path) -> pl.DataFrame | None:
    """The file as a frame, None where there is none."""
    return frame(path) if path.is_file() else None


def _clicked_of(behaviors: pl.DataFrame | None) -> tuple[pl.DataFrame, list[Remark]]:
    """The clicks of impressions in canonical columns, and remarks on cells that tell of them: a cell counts once, on
    however many clicks it bears."""
    if behaviors is None or "article_ids_clicked" not in behaviors.columns:
        return canonical.empty(schema.CLICKS), []
    clicked = behaviors.filter(pl.col("article_ids_clicked").list.len() > 0)
    rows = clicked.select(
        pl.col("user_id"),
        pl.col("article_ids_clicked").alias(schema.ARTICLE_ID),
        _click_time().alias(schema.CLICK_TIME),
        pl.col("session_id").alias(schema.SESSION_ID),
        pl.when(pl.col("impression_id") > 0).then("impression_id").alias(schema.IMPRESSION_ID),
        pl.col("next_read_time").alias(schema.READ_TIME),
        pl.col("next_scroll_percentage").alias(schema.SCROLL),
        pl.col("device_type").alias("device"),
        pl.col("is_subscriber").alias("subscriber"),
        pl.col(SOURCE),
    )
    rows, found = unset_outside(rows, "clicks")
    remarks = [renamed(r, f"next_{r.column}") for r in found]
    undated = clicked.filter(pl.col("read_time").is_not_null() & ~_knows_wait())
    undated = undated.with_columns(milliseconds("impression_time").alias(schema.CLICK_TIME))
    remarks += remarks_on(undated, "impressions", UNSET, "read_time")
    return canonical.complete(rows.explode(schema.ARTICLE_ID), schema.CLICKS), remarks


def _read_in(history: pl.DataFrame | None) -> tuple[pl.DataFrame, list[Remark]]:
    """The clicks of histories in canonical columns, and remarks on their cells."""
    if history is None:
        return canonical.empty(schema.CLICKS), []
    rows = history.with_columns(milliseconds("time").alias(schema.CLICK_TIME)).rename({"scroll": schema.SCROLL})
    rows, found = unset_outside(rows, "clicks")
    return canonical.complete(rows, schema.CLICKS), [renamed(r, f"{r.column}_fixed") for r in found]


def _click_time() -> pl.Expr:
    """When an impression's click happened (int64 ms): at its time + `read_time` less a millisecond, so that the click
    comes before the view of the page that it opens; at its time where `read_time` is unknown."""
    shown = milliseconds("impression_time")
    seconds = pl.col("read_time").cast(pl.Float64)
    waited = pl.when(_knows_wait()).then(seconds).otherwise(0.0).clip(0, _LONGEST)
    return pl.max_horizontal(shown, shown + (waited * 1000).round().cast(pl.Int64) - 1)


def _knows_wait() -> pl.Expr:
    """Whether an impression's `read_time` can be the time to its click."""
    return pl.col("read_time").is_finite() & (pl.col("read_time") >= 0)


def _at_the_clicks_repeated(read: pl.DataFrame, clicked: pl.DataFrame) -> pl.DataFrame:
    """Rows of histories, in order; those that repeat a click of behaviors with its time, so that they are exact
    repetitions."""
    keys = [schema.USER_ID, schema.ARTICLE_ID]
    known = clicked.drop_nulls([*keys, schema.CLICK_TIME]).select(
        *keys, schema.CLICK_TIME, pl.col(schema.CLICK_TIME).alias(_REPEATED)
    )
    if not len(known) or not len(read):
        return read
    dated = read.with_row_index(_ROW).drop_nulls([*keys, schema.CLICK_TIME]).sort(schema.CLICK_TIME)
    near = dated.join_asof(
        known.sort(schema.CLICK_TIME),
        on=schema.CLICK_TIME,
        by=keys,
        strategy="nearest",
        tolerance=REPEATED_MS,
        check_sortedness=False,
    )
    found = near.select(_ROW, _REPEATED).drop_nulls()
    with_times = read.with_row_index(_ROW).join(found, on=_ROW, how="left", maintain_order="left")
    time = pl.coalesce(_REPEATED, schema.CLICK_TIME).alias(schema.CLICK_TIME)
    return with_times.with_columns(time).select(read.columns)


def _impressions_of(behaviors: pl.DataFrame | None) -> pl.DataFrame:
    """All impressions of a raw day in canonical columns; `clicked` is empty in `test`, where nothing is published."""
    if behaviors is None:
        return canonical.empty(schema.IMPRESSIONS)
    clicked = pl.col("article_ids_clicked") if "article_ids_clicked" in behaviors.columns else pl.lit(None, dtype=_IDS)
    rows = behaviors.select(
        pl.col("impression_id"),
        pl.col("user_id"),
        milliseconds("impression_time").alias(schema.CLICK_TIME),
        pl.col("article_ids_inview").alias(schema.INVIEW),
        clicked.alias(schema.CLICKED),
        pl.col("session_id").alias(schema.SESSION_ID),
        pl.col("device_type").alias("device"),
        pl.col("is_subscriber").alias("subscriber"),
        pl.col(SOURCE),
    )
    if rows[schema.CLICKED].null_count():
        unpublished = pl.col(schema.CLICKED).is_null() & pl.col(SOURCE).cast(pl.String).str.contains(_TEST)
        nothing = pl.lit([], dtype=_IDS)
        rows = rows.with_columns(pl.when(unpublished).then(nothing).otherwise(schema.CLICKED).alias(schema.CLICKED))
    return canonical.complete(rows, schema.IMPRESSIONS)


def _cells_of(behaviors: pl.DataFrame | None) -> pl.DataFrame | None:
    """What rows of behaviors say of their clicks beside which articles they were."""
    return None if behaviors is None else behaviors.select([c for c in _CLICK_CELLS if c in behaviors.columns])


def _reused(behaviors: pl.DataFrame | None) -> pl.Series | None:
    """The mark of impressions whose id an earlier day has; None where no row of the day bears one."""
    return None if behaviors is None or REUSED not in behaviors.columns else behaviors[REUSED]


def _published(clock: DayClock, rows: pl.DataFrame, day: date) -> pl.Series:
    """The impression ids of raw rows that a day's table shows."""
    return canonical.impressions(_impressions_of(rows), clock.start(day), clock.end(day)).rows[schema.IMPRESSION_ID]


def articles_of(listed: pl.DataFrame | None, seen: pl.DataFrame, end_ms: int) -> pl.DataFrame:
    """The raw day's articles (columns of EB-NeRD) in canonical columns. For one that appears before its listed
    publication, or has none, the first appearance stands in."""
    if listed is None:
        return canonical.empty(schema.ARTICLES)
    first = seen.select(schema.ARTICLE_ID, pl.col(schema.PUBLISHED).alias("__seen"))
    rows = listed.with_columns(
        pl.col(schema.ARTICLE_ID).cast(pl.Int64), milliseconds("published_time").alias("__listed")
    ).join(first, on=schema.ARTICLE_ID, how="left", maintain_order="left")
    rows = rows.with_columns(
        pl.min_horizontal("__listed", "__seen").alias(schema.PUBLISHED),
        (pl.col("__seen") < pl.col("__listed")).fill_null(pl.col("__listed").is_null()).alias(_FIRST_SEEN),
        milliseconds("last_modified_time").alias(schema.MODIFIED),
        pl.col("category").alias("category_id"),
        pl.col("category_str").alias("category_name"),
    )
    codes = ["subcategory"] if rows.schema.get("subcategory", pl.String()) != pl.String() else []
    return canonical.complete(rows.drop("category", *codes).rename({"category_name": "category"}), schema.ARTICLES)
