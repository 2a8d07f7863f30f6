"""Canonical tables from rows that a reader has brought into canonical columns.

Belongs here: rules, exact repetitions, order and types of `articles`, `clicks` and `impressions`. Does not belong
here: source columns.

Frames here have canonical column names, times as int64 ms, and `source`. Missing optional columns become null.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa

from ml import schema
from ml.readers.fit import misfits, polars_type
from ml.readers.ranges import bad_codes, unset_outside
from ml.readers.remarks import Remark, remarks_on
from ml.readers.rules import SOURCE, UNFIT, Judged, bad_ids, bad_time, counted, judge, quarantine

_CLICK = (schema.CLICK_TIME, schema.USER_ID, schema.ARTICLE_ID)
_CLICK_ORDER = [*_CLICK, schema.IMPRESSION_ID, schema.READ_TIME, schema.SCROLL, schema.SESSION_ID, *schema.CONTEXT]
_ROW = "__row"
COPIES = "exact_copy"
"""Reason of the remarks on rows that repeat another one."""

AGAIN = "__told_again"
"""Column of clicks that a layout tells once more beside another file's, as histories do."""

_OTHER_CLICK = "duplicate_click"
_MARKED, _REUSED_ID = "__reused", "duplicate_impression_id"
_UNFIT_ROWS = ("out_of_range", pl.col(UNFIT).is_not_null())
_SMALL = (pl.Int64, pl.Int32, pl.Float32, pl.Float64, pl.Boolean)
_WIDE = {schema.TIME: pl.Int64(), pa.float32(): pl.Float64()}
_IMPRESSION = (schema.CLICK_TIME, schema.IMPRESSION_ID, schema.USER_ID)
_ORIGIN = "__origin"
"""Column of impressions: the row's number among those given."""


@dataclass(frozen=True, slots=True)
class Canonical:
    """A table in order, as a frame; its quarantined rows; its figures (`DayTables.counts`); what is to be said of rows
    that were not held back."""

    rows: pl.DataFrame
    held_back: pa.Table
    counts: dict[str, int]
    remarks: list[Remark]


def clicks(rows: pl.DataFrame, start_ms: int, end_ms: int) -> Canonical:
    """Clicks within [start, end), sorted by (time, user_id, article_id), one for each such triple.

    Of several rows the one with an impression is kept, then the one with a read time, then the smallest values. Another
    one that tells nothing more is a copy; one with a cell that is known and different is held back as
    `duplicate_click`, unless the layout tells a click in two files and this is the second (`AGAIN`, bool, in `rows`).
    Cells outside their range are unset (`ml.readers.ranges`).
    """
    rules = [
        _UNFIT_ROWS,
        *bad_ids(schema.USER_ID, schema.ARTICLE_ID),
        *bad_codes("clicks"),
        *bad_time(schema.CLICK_TIME, start_ms, end_ms),
    ]
    again = rows[AGAIN] if AGAIN in rows.columns else pl.lit(False).alias(AGAIN)
    judged = judge(complete(rows, schema.CLICKS).with_columns(again), "clicks", rules)
    kept, remarks = unset_outside(judged.kept, "clicks")
    single = _one_of_each(kept.sort(_CLICK, maintain_order=True))
    remarks += remarks_on(single.repeated, "clicks", COPIES, "")
    held_back = pa.concat_tables([judged.held_back, single.held_back])
    figures = counted(len(rows), len(single.kept), len(held_back), len(single.repeated))
    return Canonical(single.kept.drop(AGAIN), held_back, figures, remarks)


def impressions(
    rows: pl.DataFrame,
    start_ms: int,
    end_ms: int,
    reused: pl.Series | None = None,
    cells: pl.DataFrame | None = None,
) -> Canonical:
    """Impressions within [start, end), sorted by (time, impression_id, user_id), each id once.

    Id 0 is the published mark of beyond-accuracy requests and may repeat. An impression with a click on an article
    that it did not show is held back (its click stays a click); so are later impressions that reuse an id, and those
    `reused` (bool [rows], null: no) marks for an id of an earlier day (`told_by_another` finds their clicks). A row is
    an exact copy if it agrees in the table's columns and in `cells`, what else the source says of it. Where nothing is
    said of clicks (null) none is taken for granted, with a remark.
    """
    rules = [
        _UNFIT_ROWS,
        *bad_ids(schema.IMPRESSION_ID, schema.USER_ID),
        *bad_codes("impressions"),
        *bad_time(schema.CLICK_TIME, start_ms, end_ms),
        ("empty_inview", pl.col(schema.INVIEW).list.len().fill_null(0) == 0),
        ("null_id", pl.col(schema.INVIEW).list.contains(None)),
        ("negative_id", pl.col(schema.INVIEW).list.min() < 0),
        ("clicked_not_in_view", _unseen_clicks() > 0),
        (_REUSED_ID, pl.col(_MARKED)),
    ]
    marked = pl.lit(None, dtype=pl.Boolean) if reused is None else reused
    complete_rows = complete(rows, schema.IMPRESSIONS).with_columns(
        marked.alias(_MARKED), pl.int_range(pl.len(), dtype=pl.Int64).alias(_ORIGIN)
    )
    if cells is not None:
        complete_rows = complete_rows.hstack(cells.rename(lambda name: f"__cell_{name}"))
    judged = judge(complete_rows, "impressions", rules)
    told = judged.kept.drop(_MARKED)
    unsaid = told.clear()
    if told[schema.CLICKED].null_count():
        unsaid = told.filter(pl.col(schema.CLICKED).is_null())
        told = told.with_columns(pl.col(schema.CLICKED).fill_null(pl.lit([], dtype=pl.List(pl.Int64))))
    distinct = _without_repetitions(told.sort(_IMPRESSION, maintain_order=True))
    again = pl.col(schema.IMPRESSION_ID).is_first_distinct().not_() & (pl.col(schema.IMPRESSION_ID) != 0)
    single = judge(distinct.kept, "impressions", [(_REUSED_ID, again)])
    twice = single.kept.select(pl.col(schema.INVIEW).list.n_unique() < pl.col(schema.INVIEW).list.len()).to_series()
    remarks = [
        *remarks_on(unsaid, "impressions", "clicked_unknown", schema.CLICKED),
        *remarks_on(_at(single.kept, twice), "impressions", "twice_in_view", schema.INVIEW),
        *remarks_on(distinct.repeated, "impressions", COPIES, ""),
    ]
    held_back = pa.concat_tables([judged.held_back, single.held_back])
    figures = counted(len(rows), len(single.kept), len(held_back), len(distinct.repeated))
    return Canonical(single.kept, held_back, figures, remarks)


def told_by_another(published: Canonical, ids: pl.Series, reused: pl.Series | None = None) -> pl.Series:
    """Which of the rows that `impressions` was given, with these `ids` and marks, bear the id of an impression that
    another row tells (bool [rows]): nobody can know which clicks such an id stands for, so only the published row's
    count. Id 0 names no impression."""
    told = published.rows.filter(pl.col(schema.IMPRESSION_ID) != 0).select(schema.IMPRESSION_ID, _ORIGIN)
    rows = pl.DataFrame({schema.IMPRESSION_ID: ids.cast(pl.Int64, strict=False)}).with_row_index(_ROW)
    found = rows.join(told, on=schema.IMPRESSION_ID, how="left", maintain_order="left")
    other = (found[_ORIGIN] != found[_ROW].cast(pl.Int64)).fill_null(False)
    return other if reused is None else other | reused.fill_null(False)


def _like_the_one_before(rows: pl.DataFrame, keys: Sequence[str]) -> np.ndarray:
    """Mask (bool [rows]) of the rows that agree in all `keys` with the one before."""
    equal = rows.select(pl.all_horizontal([pl.col(k).eq_missing(pl.col(k).shift()) for k in keys])).to_series()
    with_before = equal.to_numpy().copy()
    with_before[:1] = False
    return with_before


def _beside_an_equal(rows: pl.DataFrame, keys: Sequence[str]) -> np.ndarray:
    """Mask (bool [rows]) of the rows that agree in all `keys` with the one before or after, in sorted rows."""
    with_before = _like_the_one_before(rows, keys)
    return with_before | np.append(with_before[1:], False)


@dataclass(frozen=True, slots=True)
class _Distinct:
    """Rows without exact repetitions, and these, without lists and texts; rows that are held back."""

    kept: pl.DataFrame
    repeated: pl.DataFrame
    held_back: pa.Table = field(default_factory=schema.QUARANTINE.empty_table)


def _one_of_each(rows: pl.DataFrame) -> _Distinct:
    """Of clicks sorted by (time, user_id, article_id) the first by `_CLICK_ORDER` (nulls last) for each such triple."""
    beside = _beside_an_equal(rows, _CLICK)
    if not beside.any():
        return _Distinct(rows, rows.clear())
    some = rows.with_row_index(_ROW).filter(beside).sort(_CLICK_ORDER, nulls_last=True, maintain_order=True)
    is_first = ~_like_the_one_before(some, _CLICK)
    first = some[np.flatnonzero(is_first)[np.cumsum(is_first) - 1]]
    cells = [c for c in schema.CLICKS.names if c not in _CLICK]
    tells_more = pl.any_horizontal([some[c].is_not_null() & some[c].ne_missing(first[c]) for c in cells])
    twofold = (some[AGAIN] | first[AGAIN]) & (some[SOURCE] != first[SOURCE])
    differs = (some.select(tells_more).to_series() & ~twofold).to_numpy()
    fate, place = np.full(len(rows), "kept"), some[_ROW].to_numpy()
    fate[place[~is_first]] = "copy"
    fate[place[differs]] = "held"
    kept, copies, held = (rows.filter(pl.Series(fate == name)) for name in ("kept", "copy", "held"))
    return _Distinct(kept, copies, quarantine(held, "clicks", pl.lit(_OTHER_CLICK)))


def _without_repetitions(rows: pl.DataFrame) -> _Distinct:
    """Of impressions in order the first of those that agree in everything but their source."""
    repeated = _beside_an_equal(rows, _IMPRESSION)
    if not repeated.any():
        return _Distinct(rows, rows.clear())
    some = rows.with_row_index(_ROW).filter(repeated)
    told = [c for c in rows.columns if c not in (SOURCE, _ORIGIN)]
    return _kept_of(rows, repeated, some.unique(told, keep="first"))


def _kept_of(rows: pl.DataFrame, repeated: np.ndarray, first: pl.DataFrame) -> _Distinct:
    """`rows` without those `repeated`, but for the `first` ones, in order."""
    kept = ~repeated
    kept[first[_ROW].to_numpy()] = True
    return _Distinct(rows.filter(pl.Series(kept)), _at(rows, pl.Series(~kept)))


def _at(rows: pl.DataFrame, mask: pl.Series) -> pl.DataFrame:
    """The rows where `mask` holds, without their lists and texts."""
    return rows.select(SOURCE, cs.by_dtype(*_SMALL)).filter(mask)


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
    in_order = judged.kept.sort(modified_last, descending=[False, True, False], nulls_last=True, maintain_order=True)
    content = [c for c in in_order.columns if c != SOURCE]
    first = in_order.with_row_index(_ROW).unique(content, keep="first", maintain_order=True)
    distinct = _kept_of(in_order, np.ones(len(in_order), dtype=bool), first)
    reused = pl.col(schema.ARTICLE_ID).is_first_distinct().not_()
    single = judge(distinct.kept, "articles", [("duplicate_article_id", reused)])
    held_back = pa.concat_tables([judged.held_back, single.held_back])
    added = judge(complete(seen, schema.ARTICLES), "articles", [_UNFIT_ROWS])
    held_back = pa.concat_tables([held_back, added.held_back])
    known, remarks = unset_outside(single.kept, "articles")
    remarks += remarks_on(distinct.repeated, "articles", COPIES, "")
    final = pl.concat([known, added.kept]).sort(schema.PUBLISHED, schema.ARTICLE_ID)
    figures = counted(len(listed) + len(seen), len(final), len(held_back), len(distinct.repeated))
    return Canonical(final, held_back, figures | {"first_seen": len(seen)}, remarks)


def first_seen(clicked: pl.DataFrame, shown: pl.DataFrame | None = None) -> pl.DataFrame:
    """The first time each article appears, in a click or in view: article_id, published, published_is_first_seen."""
    parts = [clicked.select(schema.ARTICLE_ID, schema.CLICK_TIME)]
    if shown is not None and len(shown):
        inview = pl.col(schema.INVIEW).alias(schema.ARTICLE_ID)
        parts.append(shown.select(inview, schema.CLICK_TIME).explode(schema.ARTICLE_ID))
    first = pl.concat(parts).group_by(schema.ARTICLE_ID).agg(pl.col(schema.CLICK_TIME).min().alias(schema.PUBLISHED))
    return first.sort(schema.ARTICLE_ID).with_columns(pl.lit(True).alias("published_is_first_seen"))


def unlisted(seen: pl.DataFrame, missing: pl.DataFrame | None, listed: pl.DataFrame | None) -> pl.DataFrame:
    """Of the articles `seen` on a day those known by their appearance alone: `missing` from all article files up to the
    day (None: there are none), and not `listed` in the day's own, whose rows a later delivery may have brought."""
    for rows, how in ((missing, "semi"), (listed, "anti")):
        if rows is not None:
            ids = rows.select(pl.col(schema.ARTICLE_ID).cast(pl.Int64))
            seen = seen.join(ids, on=schema.ARTICLE_ID, how=how, maintain_order="left")  # type: ignore[arg-type]
    return seen


def complete(rows: pl.DataFrame, target: pa.Schema) -> pl.DataFrame:
    """`rows` with all columns of `target` (null where missing) and `source`, in order, in Polars' types for them;
    times stay int64, numbers have 64 bits, so that one too large for 32 can be told from an infinite one. `__unfit`
    names the values of a row that have no counterpart in these types (null: all have one); the tables hold such rows
    back as `out_of_range`."""
    types = {f.name: _WIDE.get(f.type) or polars_type(f.type) for f in target}
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


def remarked(tables: Sequence[Canonical], *more: Sequence[Remark]) -> tuple[Remark, ...]:
    """All remarks, in the order of the tables, and `more`."""
    return tuple(r for remarks in (*(t.remarks for t in tables), *more) for r in remarks)


def quarantined(tables: Sequence[Canonical | Judged]) -> pa.Table:
    """All held-back rows, in the order of the tables."""
    return pa.concat_tables([t.held_back for t in tables]).combine_chunks()
