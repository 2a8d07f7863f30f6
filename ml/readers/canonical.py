"""Canonical tables from rows that a reader has brought into canonical columns.

Belongs here: rules, exact repetitions, order and types of `articles`, `clicks` and `impressions`. Does not belong
here: source columns.

Frames here have canonical column names, times as int64 ms, and `source`. Missing optional columns become null.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from ml import schema
from ml.readers.fit import misfits, polars_type
from ml.readers.rules import SOURCE, UNFIT, Judged, bad_ids, bad_time, counted, judge

_CLICK = (schema.CLICK_TIME, schema.USER_ID, schema.ARTICLE_ID)
_ROW = "__row"
_UNFIT_ROWS = ("out_of_range", pl.col(UNFIT).is_not_null())
_IMPRESSION = (schema.CLICK_TIME, schema.IMPRESSION_ID, schema.USER_ID)


@dataclass(frozen=True, slots=True)
class Canonical:
    """A table in order, as a frame; its quarantined rows; its figures (`DayTables.counts`)."""

    rows: pl.DataFrame
    held_back: pa.Table
    counts: dict[str, int]


def clicks(rows: pl.DataFrame, start_ms: int, end_ms: int) -> Canonical:
    """Clicks within [start, end), sorted by (time, user_id, article_id), one for each such triple.

    Of repetitions the row with an impression is kept, then the one with a read time, then the smallest values. A
    negative read time is unknown, and so is an infinite read time or depth: they become null and are counted.
    """
    rules = [_UNFIT_ROWS, *bad_ids(schema.USER_ID, schema.ARTICLE_ID), *bad_time(schema.CLICK_TIME, start_ms, end_ms)]
    judged = judge(complete(rows, schema.CLICKS), "clicks", rules)
    kept = judged.kept
    kept = kept.with_columns(pl.col(schema.READ_TIME, schema.SCROLL).fill_nan(None))
    infinite = pl.col(schema.READ_TIME, schema.SCROLL).is_infinite().fill_null(False)
    endless = int(kept.select(pl.sum_horizontal(infinite.sum())).item())
    kept = kept.with_columns(pl.when(~infinite).then(pl.col(schema.READ_TIME, schema.SCROLL)).name.keep())
    read_time = pl.col(schema.READ_TIME)
    negative = int(kept.select((read_time < 0).sum()).item())
    kept = kept.with_columns(pl.when(read_time >= 0).then(read_time).alias(schema.READ_TIME))
    order = [*_CLICK, schema.IMPRESSION_ID, schema.READ_TIME, schema.SCROLL, schema.SESSION_ID, *schema.CONTEXT]
    kept = _first_of_each(kept.sort(_CLICK, maintain_order=True), _CLICK, order)
    figures = counted(len(rows), len(kept), len(judged.held_back))
    return Canonical(kept, judged.held_back, figures | {"negative_read_time": negative, "infinite": endless})


def impressions(rows: pl.DataFrame, start_ms: int, end_ms: int) -> Canonical:
    """Impressions within [start, end), sorted by (time, impression_id, user_id), each id once.

    Id 0 is the published mark of beyond-accuracy requests and may repeat. An impression with a click on an article
    that it did not show is held back (its click stays a click); so are later impressions that reuse an id.
    """
    rules = [
        _UNFIT_ROWS,
        *bad_ids(schema.IMPRESSION_ID, schema.USER_ID),
        *bad_time(schema.CLICK_TIME, start_ms, end_ms),
        ("empty_inview", pl.col(schema.INVIEW).list.len().fill_null(0) == 0),
        ("null_id", pl.col(schema.INVIEW).list.contains(None)),
        ("negative_id", pl.col(schema.INVIEW).list.min() < 0),
        ("clicked_not_in_view", _unseen_clicks() > 0),
    ]
    judged = judge(complete(rows, schema.IMPRESSIONS), "impressions", rules)
    kept = _without_repetitions(judged.kept.sort(_IMPRESSION, maintain_order=True))
    reused = pl.col(schema.IMPRESSION_ID).is_first_distinct().not_() & (pl.col(schema.IMPRESSION_ID) != 0)
    single = judge(kept, "impressions", [("duplicate_impression_id", reused)])
    held_back = pa.concat_tables([judged.held_back, single.held_back])
    return Canonical(single.kept, held_back, counted(len(rows), len(single.kept), len(held_back)))


def _beside_an_equal(rows: pl.DataFrame, keys: Sequence[str]) -> np.ndarray:
    """Mask (bool [rows]) of the rows that agree in all `keys` with the one before or after, in sorted rows."""
    equal = rows.select(pl.all_horizontal([pl.col(k).eq_missing(pl.col(k).shift()) for k in keys])).to_series()
    with_before = equal.to_numpy().copy()
    with_before[:1] = False
    return with_before | np.append(with_before[1:], False)


def _first_of_each(rows: pl.DataFrame, keys: Sequence[str], order: Sequence[str]) -> pl.DataFrame:
    """Of rows sorted by `keys` the first by `order` (nulls last) for each key."""
    repeated = _beside_an_equal(rows, keys)
    if not repeated.any():
        return rows
    some = rows.with_row_index(_ROW).filter(repeated).sort(order, nulls_last=True, maintain_order=True)
    return _kept_of(rows, repeated, some.unique(keys, keep="first", maintain_order=True))


def _without_repetitions(rows: pl.DataFrame) -> pl.DataFrame:
    """Of impressions in order the first of those that agree in everything but their source."""
    repeated = _beside_an_equal(rows, _IMPRESSION)
    if not repeated.any():
        return rows
    some = rows.with_row_index(_ROW).filter(repeated)
    return _kept_of(rows, repeated, some.unique([c for c in rows.columns if c != SOURCE], keep="first"))


def _kept_of(rows: pl.DataFrame, repeated: np.ndarray, first: pl.DataFrame) -> pl.DataFrame:
    """`rows` without those `repeated`, but for the `first` ones, in order."""
    kept = ~repeated
    kept[first[_ROW].to_numpy()] = True
    return rows.filter(pl.Series(kept))


def _unseen_clicks() -> pl.Expr:
    """Number of an impression's clicked articles that were not in view."""
    return pl.col(schema.CLICKED).list.set_difference(pl.col(schema.INVIEW)).list.len()


def articles(listed: pl.DataFrame, seen: pl.DataFrame, end_ms: int) -> Canonical:
    """Articles of the day, sorted by (published, article_id): the `listed` ones published before `end_ms`, and those
    that only appeared (`first_seen`). Of rows with one id the one modified last is kept."""
    rules = [_UNFIT_ROWS, *bad_ids(schema.ARTICLE_ID), ("null_time", pl.col(schema.PUBLISHED).is_null())]
    rules.append(("outside_day", pl.col(schema.PUBLISHED) >= end_ms))
    judged = judge(complete(listed, schema.ARTICLES), "articles", rules)
    modified_last = [schema.ARTICLE_ID, schema.MODIFIED, schema.PUBLISHED]
    kept = judged.kept.sort(modified_last, descending=[False, True, False], nulls_last=True, maintain_order=True)
    kept = kept.unique(maintain_order=True, keep="first")
    single = judge(kept, "articles", [("duplicate_article_id", pl.col(schema.ARTICLE_ID).is_first_distinct().not_())])
    held_back = pa.concat_tables([judged.held_back, single.held_back])
    added = judge(complete(seen, schema.ARTICLES), "articles", [_UNFIT_ROWS])
    held_back = pa.concat_tables([held_back, added.held_back])
    final = pl.concat([single.kept, added.kept]).sort(schema.PUBLISHED, schema.ARTICLE_ID)
    figures = counted(len(listed) + len(seen), len(final), len(held_back))
    return Canonical(final, held_back, figures | {"first_seen": len(seen)})


def first_seen(clicked: pl.DataFrame, shown: pl.DataFrame | None = None) -> pl.DataFrame:
    """The first time each article appears, in a click or in view: article_id, published, published_is_first_seen."""
    parts = [clicked.select(schema.ARTICLE_ID, schema.CLICK_TIME)]
    if shown is not None and len(shown):
        inview = pl.col(schema.INVIEW).alias(schema.ARTICLE_ID)
        parts.append(shown.select(inview, schema.CLICK_TIME).explode(schema.ARTICLE_ID))
    first = pl.concat(parts).group_by(schema.ARTICLE_ID).agg(pl.col(schema.CLICK_TIME).min().alias(schema.PUBLISHED))
    return first.sort(schema.ARTICLE_ID).with_columns(pl.lit(True).alias("published_is_first_seen"))


def complete(rows: pl.DataFrame, target: pa.Schema) -> pl.DataFrame:
    """`rows` with all columns of `target` (null where missing) and `source`, in order, in Polars' types for them;
    times stay int64. `__unfit` names the values of a row that have no counterpart in these types (null: all have one);
    the tables hold such rows back as `out_of_range`."""
    types = {f.name: pl.Int64() if f.type == schema.TIME else polars_type(f.type) for f in target}
    types[SOURCE] = pl.String()
    columns = [(pl.col(name) if name in rows.columns else pl.lit(None)).alias(name) for name in types]
    wrong = [
        pl.when(is_wrong).then(pl.format("{}={}", pl.lit(name), pl.col(name).cast(pl.String, strict=False)))
        for name, is_wrong in misfits(rows, types).items()
    ]
    unfit = pl.concat_str(wrong, separator="; ", ignore_nulls=True) if wrong else pl.lit(None, dtype=pl.String)
    return rows.select(*columns, pl.when(unfit != "").then(unfit).alias(UNFIT)).cast(types, strict=False)


def empty(target: pa.Schema) -> pl.DataFrame:
    """No rows, in the columns of `complete`."""
    return complete(pl.DataFrame(schema=dict.fromkeys(target.names, pl.Null)), target)


def conform(rows: pl.DataFrame, target: pa.Schema) -> pa.Table:
    """The rows as an Arrow table of schema `target`."""
    return rows.select(target.names).to_arrow().cast(target)


def quarantined(tables: Sequence[Canonical | Judged]) -> pa.Table:
    """All held-back rows, in the order of the tables."""
    return pa.concat_tables([t.held_back for t in tables]).combine_chunks()
