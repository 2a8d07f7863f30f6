"""Metrics by segment: the same lists, cut by reader, circumstance, article and time.

Belongs here: which segment each test list belongs to, and means with intervals by segment. Does not belong here: the
metrics themselves (`ml.evaluate` writes one value a list) and tables (`ml.segment_tables`).

A dimension cuts the lists into segments; each list is in one of them. A dimension that the log does not record is
absent, with the reason under `left_out`. A segment that could hold lists but holds none says so and has no figures.
Intervals come from the same draws of readers as those of all lists (`ml.bootstrap`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ml import schema
from ml.beyond import categories_of
from ml.bootstrap import RESAMPLES, draws, percentiles, union_share
from ml.clock import MS_PER_MINUTE, DayClock, minute_start
from ml.errors import DataError
from ml.log import Catalogue, int_array
from ml.parquet import read_schema, read_table
from ml.stored import CASES, IN_VIEW, PROTOCOLS, TOP_LISTS, InViewLists, TopLists, read_columns, read_span

READERS, SUBSCRIBER, DEVICE, CATEGORY, AGE, HOUR, HISTORY = DIMENSIONS = (
    "readers", "subscriber", "device", "category", "article_age", "hour", "history",
)  # fmt: skip
TITLES = {
    READERS: "New and returning readers", SUBSCRIBER: "Subscribers", DEVICE: "Device", CATEGORY: "Category",
    AGE: "Age of the article", HOUR: "Hour of the day", HISTORY: "Earlier clicks of the reader",
}  # fmt: skip
AGES = {"under_1h": 60.0, "under_6h": 360.0, "under_24h": 1440.0, "older": np.inf}
"""Upper bounds (exclusive) of the age classes in minutes."""
HISTORIES = {"0": 1, "1": 2, "2_to_4": 5, "5_to_9": 10, "10_to_49": 50, "50_or_more": 2**62}
"""Upper bounds (exclusive) of the classes of earlier clicks."""
SEVERAL, UNKNOWN = "several", "unknown"
CASE = (schema.USER_ID, schema.CLICK_TIME, schema.ARTICLE_ID)
SHOWN = (schema.IMPRESSION_ID, schema.USER_ID, schema.CLICK_TIME)
"""Columns that tell a test case, and an impression, from the others."""
COVERAGE_RESAMPLES = 200
LIST_LENGTH = 20
ALL = "all"
CONVENTIONS = {
    READERS: "new: no known click before the test span; returning: at least one",
    SUBSCRIBER: "as the log marks the click or impression",
    DEVICE: "the log's own code",
    CATEGORY: "of the target (RQ2: of all clicked articles, else several); the 20 most clicked in the test span",
    AGE: "of the target (RQ2: of all clicked articles, else several) at the start of the list's minute",
    HOUR: "local time of the publisher",
    HISTORY: "known clicks of the reader strictly before the list",
    "intervals": f"as for all lists, by the same {RESAMPLES} draws of readers; of coverage: 1.96 standard deviations "
    f"of {COVERAGE_RESAMPLES} resamples",
}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Labels:
    """Segments of N lists: by dimension `codes` int64 [N] into `names`; `left_out` says why a dimension is absent."""

    codes: dict[str, np.ndarray]
    names: dict[str, list[str]]
    left_out: dict[str, str]


@dataclass(frozen=True, slots=True)
class Sources:
    """Files that say what lists are: interactions and article features as of the test span's end, and the canonical
    tables of its days."""

    interactions: Path
    features: Path
    clicks: Sequence[Path]
    impressions: Sequence[Path]


class Labeller:
    """Labels lists of one test span. Holds reader, time and article of the interactions, and the catalogue."""

    def __init__(self, sources: Sources, span: Mapping[str, Any], clock: DayClock) -> None:
        """`span` as in `ml.stored.read_span`."""
        self._sources, self._clock = sources, clock
        self._start = int(span["start_ms"])
        self._catalogue = Catalogue.load(sources.features)
        log = read_columns(sources.interactions, schema.some(schema.INTERACTIONS, *CASE))
        self._user, self._time = int_array(log, schema.USER_ID), int_array(log, schema.CLICK_TIME)
        inside = (self._time >= self._start) & (self._time < int(span["end_ms"]))
        rows = self._catalogue.rows(int_array(log, schema.ARTICLE_ID)[inside])
        clicked = np.bincount(rows[rows >= 0], minlength=len(self._catalogue))
        code, names = categories_of(self._catalogue.category, clicked, sources.features)
        self._category, self._categories = code, _apart([safe(name) for name in names])

    def of_cases(self, keys: Mapping[str, np.ndarray]) -> Labels:
        """Of test cases with `keys` `user_id`, `time`, `article_id` (the target) int64 [N]."""
        ones = np.arange(len(keys[schema.USER_ID]) + 1)
        return self._labels(keys, self._clicks, CASE, keys[schema.ARTICLE_ID], ones)

    def of_impressions(self, shown: InViewLists) -> Labels:
        """Of impressions: category and age are those of the clicked articles where all of them agree."""
        lengths = np.diff(np.concatenate([[0], np.cumsum(shown.clicked)])[shown.offsets])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        said = _said(self._sources.impressions, schema.IMPRESSIONS, SHOWN)
        return self._labels(shown.keys, said, SHOWN, shown.articles[shown.clicked], offsets)

    @cached_property
    def _clicks(self) -> pl.DataFrame | None:
        """What the clicks of the test days say, read once for all protocols."""
        return _said(self._sources.clicks, schema.CLICKS, CASE)

    def _labels(
        self,
        keys: Mapping[str, np.ndarray],
        said: pl.DataFrame | None,
        join: Sequence[str],
        articles: np.ndarray,
        offsets: np.ndarray,
    ) -> Labels:
        """`articles` int64 [V], ragged by `offsets`: what each list is about."""
        user, time = keys[schema.USER_ID], keys[schema.CLICK_TIME]
        before, returning = self._clicks_before(user, time), self._clicks_before(user, np.full(len(user), self._start))
        rows = self._catalogue.rows(articles)
        at = np.repeat(minute_start(time), np.diff(offsets))
        age = np.maximum(at - self._catalogue.published[np.maximum(rows, 0)], 0) / MS_PER_MINUTE
        age_class = np.where(rows >= 0, np.searchsorted(list(AGES.values()), age, side="right"), len(AGES) + 1)
        subscriber, device = _circumstances(keys, said, join)
        hours = self._clock.local_minutes(time) // 60 % 24
        codes, names, left_out = {}, {}, {}
        codes[READERS], names[READERS] = (returning > 0).astype(np.int64), ["new", "returning"]
        codes[HOUR], names[HOUR] = hours, [f"{h:02d}" for h in range(24)]
        codes[HISTORY] = np.searchsorted(list(HISTORIES.values()), before, side="right")
        names[HISTORY] = list(HISTORIES)
        codes[AGE] = _agreed(age_class, offsets, len(AGES))
        names[AGE] = [*AGES, SEVERAL, UNKNOWN]
        if self._categories:
            known = np.where(rows >= 0, self._category[np.maximum(rows, 0)], len(self._categories) - 1)
            known = np.where(known == len(self._categories) - 1, len(self._categories), known)
            codes[CATEGORY] = _agreed(known, offsets, len(self._categories) - 1)
            names[CATEGORY] = [*self._categories[:-1], SEVERAL, UNKNOWN]
        else:
            left_out[CATEGORY] = "the articles have no category"
        for name, found, words in ((SUBSCRIBER, subscriber, {0: "no", 1: "yes"}), (DEVICE, device, {})):
            if (found < 0).all():
                left_out[name] = f"the log does not say the {name}"
                continue
            values = sorted({*words} | set(found[found >= 0].tolist()))
            codes[name] = np.where(found >= 0, np.searchsorted(values, found), len(values))
            names[name] = [*(words.get(v, str(v)) for v in values), UNKNOWN]
        ordered = [d for d in DIMENSIONS if d in codes]
        return Labels({d: codes[d] for d in ordered}, {d: names[d] for d in ordered}, left_out)

    def _clicks_before(self, user: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Number of known clicks of each reader strictly before a time, int64 [N]."""
        if not (len(user) and len(self._user)):
            return np.zeros(len(user), dtype=np.int64)
        readers = np.unique(self._user)
        low = min(int(self._time.min()), int(time.min()))
        width = max(int(self._time.max()), int(time.max())) - low + 1
        place = np.minimum(np.searchsorted(readers, user), len(readers) - 1)
        log = np.searchsorted(readers, self._user) * width + (self._time - low)
        upto = np.searchsorted(log, place * width + (time - low))
        first = np.searchsorted(self._user, user)
        return np.where(readers[place] == user, upto - first, 0)


def _said(files: Sequence[Path], table: pa.Schema, join: Sequence[str]) -> pl.DataFrame | None:
    """The columns `join`, subscriber and device of the files, times in ms; None without files."""
    columns = schema.some(table, *join, SUBSCRIBER, DEVICE)
    as_ms = pl.col(schema.CLICK_TIME).dt.epoch("ms")
    read = [pl.from_arrow(read_table(f, columns)) for f in files]
    return pl.concat([t.with_columns(as_ms) for t in read]) if read else None  # type: ignore[union-attr]


def _circumstances(
    keys: Mapping[str, np.ndarray], said: pl.DataFrame | None, join: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Subscriber (0, 1) and device code of each list, int64 [N], -1 where the log does not say."""
    asked = pl.DataFrame({name: keys[name] for name in join})
    if said is None:
        return np.full(len(asked), -1), np.full(len(asked), -1)
    known = said.join(asked.unique(), on=list(join), how="semi").unique(list(join), keep="first", maintain_order=True)
    found = asked.join(known, on=list(join), how="left", maintain_order="left")
    codes = (found[name].cast(pl.Int64).fill_null(-1).to_numpy() for name in (SUBSCRIBER, DEVICE))
    return tuple(codes)  # type: ignore[return-value]


def safe(name: str) -> str:
    """A segment's name as it can stand in the address of a number: without `. / : #`."""
    return "".join("_" if c in "./:#" else c for c in name)


def _apart(names: list[str]) -> list[str]:
    """Names of categories with their number where one would stand for two segments."""
    taken = [SEVERAL, UNKNOWN, *names]
    return [f"{name}_{i}" if taken.count(name) > 1 else name for i, name in enumerate(names)]


def _agreed(values: np.ndarray, offsets: np.ndarray, several: int) -> np.ndarray:
    """The value of each ragged list where all of its values agree, `several` where not; `several` + 1 (unknown) for an
    empty list. int64 [N]."""
    lengths = np.diff(offsets)
    out = np.full(len(lengths), several + 1, dtype=np.int64)
    filled = np.flatnonzero(lengths)
    if len(filled):
        low, high = (f.reduceat(values, offsets[filled]) for f in (np.minimum, np.maximum))
        out[filled] = np.where(low == high, low, several)
    return out


def segment_means(
    values: Mapping[str, np.ndarray],
    labels: Labels,
    reader: np.ndarray,
    seed: int = 0,
    key: str = "value",
) -> Json:
    """Means of `values` (float64 [N] each, by metric) by dimension and segment: `{"lists", "readers", METRIC: {key,
    "low", "high", "n"}}`, `n` the lists that have a value. A metric that no list of a segment has is absent; an empty
    segment has `empty` and no metrics (`several` and `unknown` are then absent). `reader` int64 [N]."""
    if not labels.codes:
        return {}
    readers, owner = np.unique(reader, return_inverse=True)
    matrix = np.stack(list(values.values()), axis=1) if values else np.zeros((len(reader), 0))
    valid = ~np.isnan(matrix)
    columns = np.hstack([np.where(valid, matrix, 0.0), valid.astype(np.float64)])
    parts = {d: _pairs(codes, owner, columns, valid, len(readers)) for d, codes in labels.codes.items()}
    sizes = {d: len(labels.names[d]) for d in parts}
    drawn: dict[str, list[np.ndarray]] = {d: [] for d in parts}
    for weights in draws(len(readers), seed, RESAMPLES):
        by_reader = np.ascontiguousarray(weights.T)
        for d, part in parts.items():
            drawn[d].append(_weighted(by_reader, part.reader, part.segment, part.sums, sizes[d]))
    return {
        d: _entries(labels, d, part, np.concatenate(drawn[d], axis=2), list(values), key) for d, part in parts.items()
    }


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Sums over the lists of P pairs (reader, segment), in order of segment: `reader`, `segment` int64 [P]; `sums`
    float64 [P, 2 M], the values, then how many lists have one; `has` bool [P, M]; `lists` int64 [P]."""

    reader: np.ndarray
    segment: np.ndarray
    sums: np.ndarray
    has: np.ndarray
    lists: np.ndarray


def _pairs(codes: np.ndarray, owner: np.ndarray, columns: np.ndarray, valid: np.ndarray, readers: int) -> _Pairs:
    pair, inverse, lists = np.unique(codes * readers + owner, return_inverse=True, return_counts=True)
    sums = np.zeros((len(pair), columns.shape[1]))
    np.add.at(sums, inverse, columns)
    return _Pairs(pair % max(readers, 1), pair // max(readers, 1), sums, sums[:, valid.shape[1] :] > 0, lists)


def _entries(labels: Labels, d: str, part: _Pairs, drawn: np.ndarray, metrics: list[str], key: str) -> Json:
    """Figures of one dimension from its pairs and the drawn sums float64 [S, 2 M, resamples]."""
    m, out = len(metrics), {}
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = percentiles(np.moveaxis(drawn[:, :m] / drawn[:, m:], 2, 0))
    for s, name in enumerate(labels.names[d]):
        mine = part.segment == s
        entry: Json = {"lists": int(part.lists[mine].sum()), "readers": int(mine.sum())}
        total = part.sums[mine].sum(axis=0)
        clusters = part.has[mine].sum(axis=0)
        for j, metric in enumerate(metrics):
            if total[m + j] > 0:
                bounds = (low[s, j], high[s, j]) if clusters[j] > 1 else (np.nan, np.nan)
                entry[metric] = _figure(key, total[j] / total[m + j], *bounds) | {"n": int(total[m + j])}
        if entry["lists"]:
            out[name] = entry
        elif name not in (SEVERAL, UNKNOWN):
            out[name] = entry | {"empty": "no test list is in this segment"}
    return out


def _figure(key: str, value: float, low: float, high: float) -> Json:
    """An estimate with its interval, null where undefined, rounded as everywhere (`Interval.to_json`)."""
    numbers = {key: float(value), "low": float(low), "high": float(high)}
    return {name: round(x, 12) if np.isfinite(x) else None for name, x in numbers.items()}


@nb.njit(cache=True)
def _weighted(weights: np.ndarray, reader: np.ndarray, segment: np.ndarray, sums: np.ndarray, size: int) -> np.ndarray:
    """Sums by segment, each reader counted as often as it was drawn: float64 [size, C, b] from `weights` [R, b]."""
    out = np.zeros((size, sums.shape[1], weights.shape[1]))
    for p in range(len(reader)):
        drawn = weights[reader[p]]
        for c in range(sums.shape[1]):
            value, into = sums[p, c], out[segment[p], c]
            if value != 0:
                for b in range(len(drawn)):
                    into[b] += value * drawn[b]
    return out


def segment_coverage(lists: TopLists, labels: Labels, size: int, seed: int = 0) -> Json:
    """Coverage of the lists of each segment, by dimension and segment, as entries to put beside `segment_means`'."""
    per_list = np.diff(lists.offsets)
    out: Json = {}
    received, reader = lists.articles, lists.reader_of_articles()
    for d, codes in labels.codes.items():
        code, out[d] = np.repeat(codes, per_list), {}
        for s in np.unique(codes).tolist():
            mine = code == s
            found = union_share(received[mine], reader[mine], size, seed, COVERAGE_RESAMPLES)
            entry = _figure("value", found.value, found.low, found.high)
            out[d][labels.names[d][s]] = {"coverage": entry | {"n": int(np.sum(codes == s))}}
    return out


def evaluate_segments(
    predictions: Path, per_case: Mapping[str, Path], sources: Sources, clock: DayClock, out: Path, seed: int = 0
) -> Json:
    """Every metric of `per_case` (the evaluations' `per_case.parquet` by `rq1`, `rq2`, `rq3`) by segment.

    Writes `metrics.json` (returned) to `out`: under `protocols.all` the figures by question, (RQ1: protocol,)
    dimension, segment and metric; `synthetic_inview` as in `ml.evaluate.evaluate_rq2`. Raises DataError when a file or
    column is missing.
    """
    span = read_span(predictions)
    labeller = Labeller(sources, span, clock)
    figures: Json = {"rq1": {}, "rq2": {}, "rq3": {}}
    left_out: dict[str, dict[str, str]] = {}
    for protocol in PROTOCOLS:
        keys, values = per_case_of(per_case["rq1"], "rq1", protocol)
        if len(keys[schema.USER_ID]):
            labels = labeller.of_cases(keys)
            left_out["rq1"] = labels.left_out
            figures["rq1"][protocol] = segment_means(values, labels, keys[schema.USER_ID], seed)
    shown = InViewLists.read(predictions)
    if len(shown.keys[schema.USER_ID]):
        keys, values = per_case_of(per_case["rq2"], "rq2")
        labels = labeller.of_impressions(shown)
        left_out["rq2"] = labels.left_out
        figures["rq2"] = segment_means(values, labels, keys[schema.USER_ID], seed)
    keys, values = per_case_of(per_case["rq3"], "rq3")
    if len(keys[schema.USER_ID]):
        labels = labeller.of_cases(keys)
        left_out["rq3"] = labels.left_out
        lists = TopLists.read(predictions, "thesis", LIST_LENGTH)
        covered = segment_coverage(lists, labels, span["catalogue_available"], seed)
        means = segment_means(values, labels, keys[schema.USER_ID], seed)
        figures["rq3"] = {d: {s: e | covered[d].get(s, {}) for s, e in by.items()} for d, by in means.items()}
    found = {
        "rq": "segments",
        "dataset": span["dataset"],
        "seed": seed,
        "conventions": CONVENTIONS,
        "left_out": left_out,
        "protocols": {ALL: figures},
    }
    if span.get(schema.SYNTHETIC):
        found[schema.SYNTHETIC] = span[schema.SYNTHETIC]
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return found


_NO_METRIC = {"case", "protocol", "rank", schema.SYNTHETIC}


def per_case_of(path: Path, rq: str, protocol: str = "") -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Keys int64 [N] and metrics float64 [N] by name, of one question (and protocol), from a `per_case.parquet`."""
    kept = [schema.USER_ID, schema.CLICK_TIME, schema.IMPRESSION_ID if rq == "rq2" else schema.ARTICLE_ID]
    found = read_schema(path)
    names = [n for n in found.names if n not in (*kept, *_NO_METRIC)]
    metrics = schema.some(found, *names)
    if not all(pa.types.is_floating(f.type) or pa.types.is_boolean(f.type) for f in metrics):
        raise DataError(f"{path}: a metric is no number: evaluate anew")
    only = schema.some(TOP_LISTS, *(["protocol"] if protocol else []))
    wanted = pa.unify_schemas([schema.some(CASES if rq != "rq2" else IN_VIEW, *kept), metrics, only])
    table = read_columns(path, wanted, pc.field("protocol") == protocol if protocol else None)
    keys = {name: int_array(table, name) for name in kept}
    return keys, {name: table[name].to_numpy().astype(np.float64) for name in names}
