"""A newspaper's own log: `clicks`, and optionally `articles` and `impressions`, by the contract.

Belongs here: reading tables that keep to `ml.readers.contract`, and their cut into days. Does not belong here: what the
log says of itself (`ml.own_log`), rules that hold for every layout (`ml.readers.canonical`).

Rules of this layout:

- Times without a zone are local times of the zone that the dataset names for them. A local time that the change to
  summer time skips, or that the change back makes twice, is held back: which moment it was cannot be known.
- `clicks` holds every click, those of impressions too; an impression's `clicked` adds none.
- An article lies in the day of its publication: in the first day with data when it is older, in the next one when its
  own has none. Without a publication time, or when it appears earlier, it lies in the days on which it appears.
- Articles of other centuries (1900 to 2099 are taken) are held back: their clock is wrong.
- The source of a row is its file and row number, from 1.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.clock import DayClock
from ml.datasets import Dataset
from ml.errors import DataError
from ml.readers import canonical, contract
from ml.readers.account import Quarantine, Rows
from ml.readers.base import DayTables, Progress, Reader
from ml.readers.breaches import MORE, NAIVE, Breach, parquet_breaches, relative, unknown_columns
from ml.readers.cells import LIST_ITEMS, PLAUSIBLE_MS
from ml.readers.codes import category_codes
from ml.readers.described import fates
from ml.readers.ebnerd import articles_of
from ml.readers.ebnerd_days import UNLISTED
from ml.readers.files import (
    as_frame,
    beside,
    frame,
    lies_at,
    parquet_pieces,
    parquet_schema,
    printable,
    read_to_end,
    regular,
    row_count,
)
from ml.readers.links import LINK, judge_links, settled
from ml.readers.placing import APPEARS, Appearances
from ml.readers.publication import early_appearances, unlisted_articles
from ml.readers.remarks import Remark, remarks_on
from ml.readers.reused import REUSED, mark_reused
from ml.readers.rules import SOURCE, Rule, day_of, judge, milliseconds, outside_days, quarantine
from ml.readers.spill import DaySpill
from ml.readers.strays import BESIDE_A_FILE
from ml.readers.unclicked import UNCLICKED, mark_unclicked, unclicked

LOG_FILE = "log.toml"
CONTRACT = "write the table by the contract of docs/own_log.md"
REMEDY = f"{CONTRACT}{MORE}"
TABLES = {t.name: t for t in contract.TABLES}

_ROWS = {"clicks": 65_536, "impressions": 16_384, "articles": 4_096}
_DAY, _PLACED, _MS, _LOCAL, _DAMAGE = "__day", "__placed", "__ms_", "__local_", "__damage"
_YEARS = (-62_135_596_800_000, 253_402_300_799_999)
"""Milliseconds of the years 1 to 9999, in which calendars reckon."""

_RAW: dict[str, pa.DataType] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "time": pa.timestamp("ms"),
    "flag": pa.bool_(),
    "text": pa.string(),
    "list of integers": pa.list_(pa.int64()),
}
_MARKS: dict[str, list[tuple[str, pa.DataType]]] = {
    "clicks": [(LINK, pa.string())],
    "impressions": [(REUSED, pa.bool_()), (UNCLICKED, pa.bool_())],
    "articles": [],
}
"""Columns of raw days that follow from the whole log."""
_CODES = (*schema.CONTEXT, "category_id")
_RENAMED = {
    "published": "published_time",
    "modified": "last_modified_time",
    "category": "category_str",
    "category_id": "category",
}
"""Raw articles bear the names of EB-NeRD's, so that one function makes both canonical."""


def table_files(root: Path, table: str, besides: Collection[Path] = ()) -> list[Path]:
    """The files of a table without `besides`: `<table>.parquet`, or all parquet files of the folder `<table>/`, by
    name. Raises DataError when both are there, and for what is no regular file within `root`."""
    found = [p for p in _named(root, table) if p not in besides and regular(root, p)]
    for path, other in _clashes(root, table, found):
        raise beside(path, other)
    return found


def _named(root: Path, table: str) -> list[Path]:
    """What lies at the places of a table."""
    single = root / f"{table}.parquet"
    parts = sorted(p for p in (root / table).glob("*.parquet") if not p.name.startswith(BESIDE_A_FILE))
    return [*([single] if lies_at(single) else []), *parts]


def _clashes(root: Path, table: str, found: Sequence[Path]) -> list[tuple[Path, str]]:
    single = root / f"{table}.parquet"
    return [(single, f"the folder {table}/")] if single in found and len(found) > 1 else []


def columns_of(path: Path, table: str, zone: str) -> list[contract.Column]:
    """The columns of the contract that a file has. Raises DataError for one that is missing, of another type, or a time
    without a zone where `zone` names none."""
    wanted = TABLES[table].columns
    names = parquet_schema(path, {}, REMEDY).names
    present = [c for c in wanted if c.required or c.name in names]
    found = parquet_schema(path, {c.name: c.fits for c in present}, REMEDY)
    for column in present:
        if not zone and needs_zone(found.field(column.name).type):
            raise DataError(
                f"{printable(path)}: column {column.name} has times without a zone: name theirs in {LOG_FILE}, for "
                'example times_without_zone = "UTC"'
            )
    return present


def needs_zone(kind: pa.DataType) -> bool:
    """Whether a type is a timestamp without a zone."""
    return pa.types.is_timestamp(kind) and kind.tz is None


def utc_milliseconds(times: pa.ChunkedArray, zone: str) -> pl.Series:
    """Timestamps as int64 ms since the epoch in UTC; those without a zone are local times of `zone`. Null for null, and
    for local times that do not exist or exist twice. Times outside the years 1 to 9999 keep their order only."""
    if pa.types.is_null(times.type):
        return pl.Series([None] * len(times), dtype=pl.Int64)
    ms = _as_milliseconds(times)
    if not needs_zone(times.type) or zone == "UTC":
        return ms
    known = ms.is_between(*_YEARS)
    local = ms.clip(*_YEARS).cast(pl.Datetime("ms")).dt
    utc = local.replace_time_zone(zone, ambiguous="null", non_existent="null").cast(pl.Int64)
    return pl.select(pl.when(known).then(utc).otherwise(ms)).to_series()


def _as_milliseconds(times: pa.ChunkedArray) -> pl.Series:
    """The numbers behind timestamps, in ms; seconds too large for that at their limit."""
    per_second = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[times.type.unit]
    numbers = pl.Series(np.asarray(times.cast(pa.int64()).fill_null(0)), dtype=pl.Int64)
    ms = numbers.clip(-(2**53), 2**53) * 1_000 if per_second == 1 else numbers // (per_second // 1_000)
    valid = pl.Series(np.asarray(times.is_valid()))
    return pl.select(pl.when(valid).then(ms)).to_series()


@dataclass(frozen=True, slots=True)
class _Split:
    """What the steps of one split share."""

    root: Path
    dataset: Dataset
    out: Path
    held_back: Quarantine
    progress: Progress | None
    files: Mapping[str, Sequence[Path]]
    seen: Appearances = field(default_factory=Appearances)

    def pieces(self, table: str) -> Iterator[tuple[Rows, pl.DataFrame]]:
        """All rows of a table as they are (times as text), with `source`; beside them, under names with "__", ids,
        codes and numbers in their raw types, times in ms UTC, and what is wrong with a local time. With them, the
        account of their file."""
        for path in self.files[table]:
            columns = columns_of(path, table, self.dataset.naive_zone)
            name = printable(path.relative_to(self.root))
            if self.progress is not None:
                self.progress(f"split {name}: {row_count(path):,} rows")
            row, account = 1, self.held_back.account.of(name, table)
            for batch, damage in parquet_pieces(path, _ROWS[table], [c.name for c in columns]):
                numbers = pl.int_range(row, row + len(batch), eager=True)
                rows = _converted(batch, columns, self.dataset.naive_zone)
                rows = rows.with_columns(pl.format("{}:{}", pl.lit(name), numbers).alias(SOURCE))
                row += len(batch)
                account.rows_in += len(batch)
                yield account, rows if damage is None else self._undamaged(rows, table, damage)

    def _undamaged(self, rows: pl.DataFrame, table: str, damage: pa.Array) -> pl.DataFrame:
        """The rows without a reason in `damage` (string [rows]); the others go to quarantine."""
        marked = rows.with_columns(pl.Series(_DAMAGE, damage.to_pylist(), dtype=pl.String))
        broken = marked.filter(pl.col(_DAMAGE).is_not_null())
        self.held_back.append(quarantine(broken, table, pl.col(_DAMAGE)))
        return marked.filter(pl.col(_DAMAGE).is_null()).drop(_DAMAGE)

    def keep(self, rows: pl.DataFrame, table: str, rules: Sequence[Rule]) -> pl.DataFrame:
        """The rows that break none of `rules`; the others go to quarantine."""
        judged = judge(rows, table, rules)
        self.held_back.append(judged.held_back)
        return judged.kept


def _converted(batch: pa.Table, columns: Sequence[contract.Column], zone: str) -> pl.DataFrame:
    """See `_Split.pieces`."""
    times = {c.name: utc_milliseconds(batch[c.name], zone) for c in columns if c.kind == "time"}
    plain = as_frame(batch.select([c.name for c in columns if c.kind != "time"]))
    shown = [_said(batch[name], ms).alias(name) for name, ms in times.items()]
    beside = [ms.alias(f"{_MS}{name}") for name, ms in times.items()]
    wrong = [
        pl.Series(f"{_LOCAL}{name}", np.asarray(batch[name].is_valid()), dtype=pl.Boolean) & ms.is_null()
        for name, ms in times.items()
    ]
    typed = [
        pl.col(c.name).cast(canonical.polars_type(_RAW[c.kind]), strict=False).alias(f"__{c.name}")
        for c in columns
        if c.kind in ("integer", "number", "list of integers")
    ]
    whole = plain.with_columns(*shown, *beside, *wrong).with_columns(typed)
    return whole.select(pl.col([c.name for c in columns]), pl.col("^__.*$"))


def _said(times: pa.ChunkedArray, ms: pl.Series) -> pl.Series:
    """Times as text; numbers where no calendar has them."""
    if pa.types.is_null(times.type):
        return pl.Series([None] * len(times), dtype=pl.String)
    raw = _as_milliseconds(times)
    zone = "+00:00" if times.type.tz is not None else ""
    text = raw.clip(*_YEARS).cast(pl.Datetime("ms")).dt.strftime(f"%Y-%m-%dT%H:%M:%S%.3f{zone}")
    number = pl.select(pl.format("{} ms", raw)).to_series()
    return pl.select(pl.when(raw.is_between(*_YEARS)).then(text).otherwise(number)).to_series()


def _value_rules(table: str, rows: pl.DataFrame) -> list[Rule]:
    """Rules on values that only this layout can break."""
    rules: list[Rule] = []
    for column in TABLES[table].columns:
        if column.kind != "integer" or column.name not in rows.columns:
            continue
        whole = pl.col(f"__{column.name}")
        rules.append(("id_too_large", pl.col(column.name).is_not_null() & whole.is_null()))
        if column.name in _CODES:
            rules.append(("code_out_of_range", ~whole.is_between(0, 2**31 - 1)))
    for column in TABLES[table].columns:
        if column.kind == "time" and column.name in rows.columns:
            rules.append(("unknowable_local_time", pl.col(f"{_LOCAL}{column.name}")))
            if table == "articles":
                plausible = pl.col(f"{_MS}{column.name}").is_between(*PLAUSIBLE_MS, closed="left")
                rules.append(("implausible_time", ~plausible))
        if column.kind == "list of integers":
            rules.append(("oversized_list", pl.col(f"__{column.name}").list.len() > LIST_ITEMS))
    return rules


class OwnLogReader(Reader):
    """Reads logs that keep to the contract."""

    names = (LOG_FILE, *(f"{table}.parquet" for table in TABLES), *(f"{table}/*.parquet" for table in TABLES))
    of_the_root = (LOG_FILE,)
    derived_files = (UNLISTED,)
    expected = frozenset({("articles", "never_shown"), ("articles", "after_log_end")})

    def named(self, root: Path) -> list[Path]:
        said = root / LOG_FILE
        return [*(p for table in TABLES for p in _named(root, table)), *([said] if lies_at(said) else [])]

    def require_events(self, root: Path, found: Sequence[Path]) -> None:
        if not any(_table_of(root, path) == "clicks" for path in found):
            raise DataError(f"{printable(root)} has no clicks.parquet: point the data root at the folder that holds it")

    def clashes(self, root: Path, found: Sequence[Path]) -> list[tuple[Path, str]]:
        by_table = {t: [p for p in found if _table_of(root, p) == t] for t in TABLES}
        return [clash for table, files in by_table.items() for clash in _clashes(root, table, files)]

    def split(
        self,
        root: Path,
        dataset: Dataset,
        out: Path,
        progress: Progress | None = None,
        besides: Collection[Path] = (),
    ) -> list[date]:
        sources = self.sources(root, besides)
        files = {table: [p for p in sources if _table_of(root, p) == table] for table in TABLES}
        out.mkdir(parents=True, exist_ok=True)
        with Quarantine(out) as held_back:
            step = _Split(root, dataset, out, held_back, progress, files)
            days = sorted({*_split_events(step, "clicks"), *_split_events(step, "impressions")})
            mark_reused(out, days, "impressions.parquet", partial(_published, dataset.clock))
            mark_unclicked(out, days)
            judge_links(out, days)
            if not days:
                raise DataError(
                    f"{printable(root)}: no click falls in {dataset.first_day}..{dataset.last_day}, the days of "
                    f"{dataset.name}{held_back.told()}: set first_day and last_day in {LOG_FILE}, or leave them out"
                )
            if files["articles"]:
                _split_articles(step, days)
        return days

    def read_through(self, path: Path, zone: str) -> None:
        if path.suffix == ".parquet":
            table = path.stem if path.stem in TABLES else path.parent.name
            read_to_end(path, [c.name for c in columns_of(path, table, zone)])

    def tables(self, raw_day: Path, dataset: Dataset, day: date) -> DayTables:
        start, end = dataset.clock.start(day), dataset.clock.end(day)
        shown = _events(raw_day, schema.IMPRESSIONS, "impressions")
        clicked, remarks = settled(_events(raw_day, schema.CLICKS, "clicks"), shown)
        clicks = canonical.clicks(clicked, start, end)
        impressions = canonical.impressions(shown, start, end, shown[REUSED])
        seen = canonical.first_seen(clicks.rows, impressions.rows)
        listed, known = (_optional(raw_day / name) for name in ("articles.parquet", UNLISTED))
        only_seen = canonical.unlisted(seen, known, listed)
        if known is not None:
            remarks += unlisted_articles(only_seen, clicks, impressions)
        if listed is not None:
            remarks += early_appearances(listed, clicks, impressions, seen)
        remarks += [*_nothing_clicked(shown, impressions), *unclicked(shown, clicks.rows, impressions)]
        articles = canonical.articles(articles_of(listed, seen, end), only_seen, end)
        return DayTables(
            articles=canonical.conform(articles.rows, schema.ARTICLES),
            clicks=canonical.conform(clicks.rows, schema.CLICKS),
            impressions=canonical.conform(impressions.rows, schema.IMPRESSIONS),
            quarantine=canonical.quarantined([articles, clicks, impressions]),
            counts={"articles": articles.counts, "clicks": clicks.counts, "impressions": impressions.counts},
            remarks=canonical.remarked([articles, clicks, impressions], remarks),
            article_rows=fates(listed, articles.rows),
        )

    def columns_wrong(self, root: Path, path: Path) -> list[Breach]:
        table = _table_of(root, path)
        return _file_breaches(path, root, table) if table else []

    def naive_times(self, root: Path, path: Path) -> list[Breach]:
        table = _table_of(root, path)
        if not table:
            return []
        found = parquet_schema(path, {}, REMEDY)
        times = [c.name for c in TABLES[table].columns if c.kind == "time" and c.name in found.names]
        naive = [name for name in times if needs_zone(found.field(name).type)]
        remedy = f'name their zone in {LOG_FILE}, for example times_without_zone = "UTC"'
        file = relative(path, root)
        return [
            Breach("error", NAIVE, file, name, 1, remedy, [{"value": "it has times without a zone"}]) for name in naive
        ]

    def derived(self, raw_day: Path, listed: np.ndarray | None) -> dict[str, pa.Table]:
        """The ids that the rows of a raw day name and that are not among `listed` (int64), as `UNLISTED`."""
        if listed is None:
            return {}
        seen = Appearances()
        for table, columns in (("clicks", ["article_id"]), ("impressions", ["inview", "clicked"])):
            path = raw_day / f"{table}.parquet"
            if path.is_file():
                seen.note(frame(path, columns).with_columns(pl.lit(date.min).alias(_DAY)), _DAY, columns)
        return {UNLISTED: _unlisted(seen.on(date.min), pl.Series(listed, dtype=pl.Int64))}


def _optional(path: Path) -> pl.DataFrame | None:
    """The file as a frame, None where there is none."""
    return frame(path) if path.is_file() else None


def _table_of(root: Path, path: Path) -> str:
    """The table that a file of the layout belongs to; empty for log.toml."""
    first = path.relative_to(root).parts[0].removesuffix(".parquet")
    return first if first in TABLES else ""


def _events(raw_day: Path, target: pa.Schema, table: str) -> pl.DataFrame:
    """The raw day's rows of a table, `time` in ms; none where it has no such file."""
    path = raw_day / f"{table}.parquet"
    if not path.is_file():
        marks = [pl.lit(None, dtype=canonical.polars_type(kind)).alias(n) for n, kind in _MARKS[table]]
        return canonical.empty(target).with_columns(marks)
    return frame(path).with_columns(milliseconds("time").alias(schema.CLICK_TIME))


def _published(clock: DayClock, rows: pl.DataFrame, day: date) -> pl.Series:
    """The impression ids of raw rows that a day's table shows."""
    timed = rows.with_columns(milliseconds("time").alias(schema.CLICK_TIME))
    return canonical.impressions(timed, clock.start(day), clock.end(day)).rows[schema.IMPRESSION_ID]


def _nothing_clicked(shown: pl.DataFrame, published: canonical.Canonical) -> list[Remark]:
    """Remarks on the published impressions of which the log says that nothing was clicked."""
    empty = shown.filter(pl.col(schema.CLICKED).list.len() == 0).select(SOURCE)
    rows = published.rows.join(empty, on=SOURCE, how="semi", maintain_order="left")
    return remarks_on(rows, "impressions", "nothing_clicked", schema.CLICKED)


def _file_breaches(path: Path, root: Path, table: str) -> list[Breach]:
    """What is wrong with a file's columns; whether its times need a zone is known once log.toml is read."""
    known = TABLES[table].columns
    required, optional = ({c.name: c.fits for c in known if c.required is flag} for flag in (True, False))
    breaches, found = parquet_breaches(path, root, required, optional, CONTRACT)
    return breaches if found is None else breaches + unknown_columns(path, root, found, TABLES[table].names)


def _raw_schema(table: str, renamed: Mapping[str, str]) -> pa.Schema:
    fields = [pa.field(renamed.get(c.name, c.name), _RAW[c.kind]) for c in TABLES[table].columns]
    return pa.schema([*fields, *_MARKS[table], pa.field(SOURCE, pa.string())])


def _raw(rows: pl.DataFrame, table: str) -> list[pl.Expr]:
    """The columns of the contract, converted."""
    present = [c for c in TABLES[table].columns if c.name in rows.columns]
    names = {c.name: f"{_MS}{c.name}" if c.kind == "time" else f"__{c.name}" for c in present}
    return [
        (pl.col(names[c.name]).cast(pl.Datetime("ms")) if c.kind == "time" else pl.col(names[c.name])).alias(c.name)
        if names[c.name] in rows.columns
        else pl.col(c.name)
        for c in present
    ]


def _split_events(step: _Split, table: str) -> list[date]:
    """Streams clicks or impressions into days, and returns these."""
    ids = ["article_id"] if table == "clicks" else ["inview", "clicked"]
    with DaySpill(step.out, table, _raw_schema(table, {})) as spill:
        for account, rows in step.pieces(table):
            dated = rows.with_columns(day_of(pl.col(f"{_MS}time"), step.dataset.clock).alias(_DAY))
            rules = [*_value_rules(table, rows), *outside_days(_DAY, step.dataset)]
            if table == "impressions":
                rules.append(("zero_impression_id", pl.col("__impression_id") == 0))
            kept = step.keep(dated, table, rules)
            final = kept.select(*_raw(kept, table), SOURCE, _DAY)
            account.placed += len(final)
            step.seen.note(final, _DAY, ids)
            spill.append(final, _DAY)
        return spill.days


def _split_articles(step: _Split, days: Sequence[date]) -> None:
    """Streams the articles into days, and writes which articles of a day are not among them."""
    appearing = step.seen.table(_DAY)
    with_data = pl.DataFrame({_PLACED: list(days)}, schema={_PLACED: pl.Date})
    known = [pl.Series(APPEARS, [], dtype=pl.Int64)]
    with DaySpill(step.out, "articles", _raw_schema("articles", _RENAMED)) as spill:
        for account, rows in step.pieces("articles"):
            rules = [*_value_rules("articles", rows), ("null_id", pl.col("article_id").is_null())]
            kept = step.keep(rows, "articles", rules).with_columns(pl.col("__article_id").alias(APPEARS))
            known.append(kept[APPEARS].unique())
            dated = _with_placed(kept, step.dataset, with_data)
            early = dated.join(appearing, on=APPEARS, how="inner", maintain_order="left")
            early = early.filter(pl.col(_PLACED).is_null() | (pl.col(_DAY) < pl.col(_PLACED)))
            nowhere = dated.filter(pl.col(_PLACED).is_null())
            nowhere = nowhere.join(early.select(APPEARS), on=APPEARS, how="anti", maintain_order="left")
            account.placed += len(kept) - len(nowhere)
            unknown = pl.col("__published").is_null()
            step.keep(nowhere, "articles", [("never_shown", unknown), ("after_log_end", ~unknown)])
            placed = dated.drop_nulls(_PLACED).with_columns(pl.col(_PLACED).alias(_DAY)).select(early.columns)
            both = pl.concat([placed, early])
            columns: list[pl.Expr | pl.Series] = [*_raw(both, "articles")]
            if "category" in both.columns and "category_id" not in both.columns:
                columns.append(category_codes(both["category"]).alias("category_id"))
            final = both.select(*columns, SOURCE, _DAY)
            spill.append(final.rename({k: v for k, v in _RENAMED.items() if k in final.columns}), _DAY)
    listed = pl.concat(known)
    for day in days:
        unlisted = _unlisted(step.seen.on(day), listed)
        pq.write_table(unlisted, step.out / str(day) / UNLISTED, compression="zstd", compression_level=1)


def _with_placed(rows: pl.DataFrame, dataset: Dataset, with_data: pl.DataFrame) -> pl.DataFrame:
    """Rows with the day of publication (`__published`) and the day with data that they are placed in by it."""
    time = pl.col(f"{_MS}published") if "published" in rows.columns else pl.lit(None, dtype=pl.Int64)
    dated = rows.with_columns(day_of(time, dataset.clock).alias("__published")).with_row_index("__order")
    dated = dated.sort("__published", nulls_last=True, maintain_order=True)
    placed = dated.join_asof(with_data, left_on="__published", right_on=_PLACED, strategy="forward", coalesce=False)
    return placed.sort("__order").drop("__order")


def _unlisted(seen: pl.Series, listed: pl.Series) -> pa.Table:
    """Ids (int64, sorted) that appear without being listed."""
    missing = seen.filter(~seen.is_in(listed.unique().implode()))
    return missing.rename(schema.ARTICLE_ID).to_frame().to_arrow()
