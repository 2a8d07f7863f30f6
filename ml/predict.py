"""Predictions: what a model recommends, and how it scores what was in view, for the clicks of a test span.

Belongs here: test cases and their protocols, exclusions, top lists, scoring, and the files that hold them. Does not
belong here: the models (`ml.models`) and any judgement of the lists (`ml.evaluate`).

Protocols (a case can be eligible for several):
- `thesis`: every click with at least one earlier click of its reader; nothing is excluded.
- `unread`: the target is not among the reader's earlier clicks; these are excluded.
- `in_session`: the running session has a click and the target is not among them; the reader's earlier clicks are
  excluded, for readers with `MANY_CLICKS` or more only those of the running session.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numba as nb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.asof import AsOf
from ml.clock import minute_of
from ml.errors import DataError, UsageError
from ml.log import Cases
from ml.models.base import Model
from ml.stored import CASES, IN_VIEW, PROTOCOLS, TOP_LISTS
from ml.topk import Lists, rows_of, top_ks

TOP = 50
MANY_CLICKS = 50
UNKNOWN_SCORE = -np.inf
"""Score of an article in view that the catalogue lacks: it ranks last."""

_CELLS = 8_000_000
"""Scores held at once, 32 MB: bounds the memory of a chunk of cases."""

_CANDIDATES = 500_000
_ROW_GROUP = 20_000
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Targets:
    """Test cases in order of (minute, click row): `cases` with the history strictly before the click to be predicted,
    `target` int64 [B] the click rows, `eligible` bool [B, 3] by protocol."""

    cases: Cases
    target: np.ndarray
    eligible: np.ndarray

    def __len__(self) -> int:
        return len(self.target)

    def take(self, index: np.ndarray) -> "Targets":
        """The test cases at `index` (positions or boolean mask)."""
        return Targets(self.cases.take(index), self.target[index], self.eligible[index])


def targets_of(asof: AsOf, span: tuple[int, int]) -> Targets:
    """All clicks with start <= time < end (ms) whose reader has a click strictly before, with their eligibility."""
    clicks = asof.clicks
    target = np.flatnonzero((clicks.time >= span[0]) & (clicks.time < span[1]))
    target = target[np.argsort(minute_of(clicks.time[target]), kind="stable")]
    cases = asof.cases(clicks.user[target], clicks.time[target], session=clicks.session[target])
    known = cases.stop > cases.first
    cases, target = cases.take(known), target[known]
    article = clicks.article[target].astype(np.int64)
    history, session = (_contains(clicks.article, a, cases.stop, article) for a in (cases.first, cases.session_start))
    eligible = np.stack(
        [np.ones(len(target), dtype=bool), ~history, (cases.stop > cases.session_start) & ~session], axis=1
    )
    return Targets(cases, target, eligible)


def sample_minutes(times: np.ndarray, budget: int | None, seed: int = 0) -> np.ndarray:
    """Minutes (int64, ascending) drawn uniformly without replacement from those of `times` (ms, int64 [N]) until they
    hold at least `budget` of the times; all minutes for None. The same seed gives nested samples for growing budgets.

    >>> sample_minutes(np.array([0, 10, 60_000]), None).tolist()
    [0, 1]
    """
    if budget is not None and budget < 1:
        raise UsageError(f"the budget of test cases must be at least 1 or none, not {budget}")
    minutes, counts = np.unique(minute_of(times), return_counts=True)
    if budget is None:
        return minutes
    order = np.random.default_rng(seed).permutation(len(minutes))
    enough = int(np.searchsorted(np.cumsum(counts[order]), budget)) + 1
    return np.sort(minutes[order[:enough]])


def excluded_rows(asof: AsOf, cases: Cases, protocol: str) -> tuple[np.ndarray, np.ndarray]:
    """Articles that `protocol` excludes: offsets int64 [B + 1] and catalogue rows int32 [V] (repeats kept)."""
    if protocol == "thesis":
        first = cases.stop
    elif protocol == "unread":
        first = cases.first
    elif protocol == "in_session":
        first = np.where(cases.stop - cases.first >= MANY_CLICKS, cases.session_start, cases.first)
    else:
        raise UsageError(f"unknown protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    size = cases.stop - first
    offsets = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], size)
    return offsets, asof.clicks.article[np.repeat(first, size) + within]


def top_lists(asof: AsOf, model: Model, time_ms: int, cases: Cases, protocols: dict[str, int]) -> dict[str, Lists]:
    """For each protocol the best `k` available articles (`protocols[name]` = k) of every case, after its exclusions:
    catalogue rows int64 [B, k] and scores float32 [B, k], (-1, NaN) where fewer are left. Ties go to the newer row.

    All cases lie in the minute of `time_ms`. Raises DataError if the model gives scores that are not finite.
    """
    scores = model.catalogue_scores(asof, time_ms, cases)
    available = int(asof.available(np.array([time_ms]))[0])
    if scores.shape != (len(cases), available):
        raise DataError(f"model {model.name} scored {scores.shape} instead of {(len(cases), available)} articles")
    if not np.isfinite(rows_of(scores).sum()) and not np.isfinite(scores).all():  # a finite sum has finite terms
        raise DataError(f"model {model.name} gave scores that are not finite: train it again")
    lists = top_ks(scores, [(k, excluded_rows(asof, cases, name)) for name, k in protocols.items()])
    return dict(zip(protocols, lists, strict=True))


def recommend(
    asof: AsOf,
    model: Model,
    user: int,
    t: int,
    k: int = 20,
    exclude_read: bool = True,
    session: int | None = None,
) -> list[tuple[int, float]]:
    """The best `k` (article id, score) for reader `user` at `t` (ms), best first: what `predict` lists for a click at t
    of the session `session` under `unread` (or `thesis` without `exclude_read`). Without a session the last one runs on
    if its last click is less than 30 minutes ago."""
    protocol = "unread" if exclude_read else "thesis"
    running = None if session is None else np.array([session], dtype=np.int64)
    cases = asof.cases(np.array([user], dtype=np.int64), np.array([t], dtype=np.int64), running)
    rows, scores = top_lists(asof, model, t, cases, {protocol: k})[protocol]
    found = rows[0] >= 0
    ids = asof.catalogue.article_id[rows[0, found]]
    return [(int(a), float(s)) for a, s in zip(ids, scores[0, found], strict=True)]


def predict(
    asof: AsOf,
    model: Model,
    span: tuple[int, int],
    budget: int | None,
    out: Path,
    progress: Progress | None = None,
    seed: int = 0,
) -> dict[str, object]:
    """Writes `cases.parquet`, `top.parquet`, `inview.parquet` and `span.json` (returned) to the folder `out`.

    `span`: [start, end) of the test clicks in ms. `budget`: whole minutes are drawn until they hold that many cases;
    None takes all. In view: all impressions of these minutes that have a click; of the whole span where the budget
    holds every case.
    `progress(done, total)` is told after each minute.
    """
    everything = targets_of(asof, span)
    minutes = sample_minutes(everything.cases.time, budget, seed)
    chosen = everything.take(np.isin(minute_of(everything.cases.time), minutes))
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(_cases_table(asof, chosen), out / "cases.parquet")
    _write_top(asof, model, chosen, out / "top.parquet", progress)
    whole = len(chosen) == len(everything)
    impressions = _impressions(asof, span, None if whole else minutes)
    _write_in_view(asof, model, impressions, out / "inview.parquet")
    in_span = (asof.clicks.time >= span[0]) & (asof.clicks.time < span[1])
    last = int(chosen.cases.time[-1]) if len(chosen) else span[1] - 1
    facts: dict[str, object] = {
        "dataset": asof.dataset.name,
        "start_ms": span[0],
        "end_ms": span[1],
        "budget": budget,
        "seed": seed,
        "minutes": minutes.tolist(),
        "n_minutes_total": len(np.unique(minute_of(everything.cases.time))),
        "n_clicks_total": int(in_span.sum()),
        "n_cases": len(chosen),
        "n_cases_total": len(everything),
        "n_impressions": len(impressions),
        schema.SYNTHETIC: asof.impressions.synthetic,
        "catalogue_available": int(asof.available(np.array([last]))[0]),
    }
    (out / "span.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _chunks(time: np.ndarray, available: Callable[[np.ndarray], np.ndarray]) -> Iterator[tuple[int, int, bool]]:
    """Ranges [start, stop) of cases of one minute that fit into `_CELLS` scores, and whether the minute ends there."""
    bounds = np.append(np.flatnonzero(np.diff(minute_of(time), prepend=-1)), len(time))
    for first, stop in pairwise(bounds.tolist()):
        step = max(1, _CELLS // max(1, int(available(time[first : first + 1])[0])))
        for start in range(first, stop, step):
            yield start, min(start + step, stop), start + step >= stop


def _write_top(asof: AsOf, model: Model, chosen: Targets, path: Path, progress: Progress | None) -> None:
    total = len(np.unique(minute_of(chosen.cases.time)))
    done, pending = 0, TOP_LISTS.empty_table()
    with pq.ParquetWriter(path, TOP_LISTS) as writer:
        for start, stop, minute_done in _chunks(chosen.cases.time, asof.available):
            part = chosen.take(np.arange(start, stop))
            lists = top_lists(asof, model, int(part.cases.time[0]), part.cases, dict.fromkeys(PROTOCOLS, TOP))
            pending = pa.concat_tables([pending, _top_table(asof, lists, part, start)])
            if len(pending) >= _ROW_GROUP:
                writer.write_table(pending)
                pending = TOP_LISTS.empty_table()
            done += minute_done
            if progress is not None and minute_done:
                progress(done, total)
        writer.write_table(pending)


def _top_table(asof: AsOf, lists: dict[str, Lists], part: Targets, first_case: int) -> pa.Table:
    """Lists of the eligible cases, by protocol and case."""
    tables = []
    for p, protocol in enumerate(PROTOCOLS):
        keep = np.flatnonzero(part.eligible[:, p])
        rows, scores = (values[keep] for values in lists[protocol])
        found = rows >= 0
        offsets = np.concatenate([[0], np.cumsum(found.sum(axis=1))])
        columns = [
            pa.array(keep + first_case, pa.int64()),
            pa.array([protocol] * len(keep), pa.string()),
            _list_array(offsets, asof.catalogue.article_id[rows[found]]),
            _list_array(offsets, scores[found]),
        ]
        tables.append(pa.Table.from_arrays(columns, schema=TOP_LISTS))
    return pa.concat_tables(tables)


def _cases_table(asof: AsOf, chosen: Targets) -> pa.Table:
    cases = chosen.cases
    article = asof.clicks.article[chosen.target]
    columns = [
        pa.array(np.arange(len(chosen)), pa.int64()),
        pa.array(cases.user),
        pa.array(cases.time).cast(schema.TIME),
        pa.array(asof.catalogue.article_id[article]),
        pa.array((cases.stop - cases.first).astype(np.int32)),
        *(pa.array(chosen.eligible[:, p]) for p in range(len(PROTOCOLS))),
        pa.array(asof.available(cases.time).astype(np.int32)),
        pa.array(asof.age_minutes(cases.time, article[:, None])[:, 0].astype(np.float32)),
    ]
    return pa.Table.from_arrays(columns, schema=CASES)


def _impressions(asof: AsOf, span: tuple[int, int], minutes: np.ndarray | None) -> np.ndarray:
    """Indices of the impressions of the span (and of `minutes`) with at least one click, int64, in stored order."""
    shown = asof.impressions
    clicks = np.concatenate([[0], np.cumsum(shown.clicked)])
    keep = (shown.time >= span[0]) & (shown.time < span[1])
    keep &= clicks[shown.offsets[1:]] > clicks[shown.offsets[:-1]]
    if minutes is not None:
        keep &= np.isin(minute_of(shown.time), minutes)
    return np.flatnonzero(keep)


def _write_in_view(asof: AsOf, model: Model, index: np.ndarray, path: Path) -> None:
    shown = asof.impressions
    size = (shown.offsets[1:] - shown.offsets[:-1])[index]
    group = np.cumsum(size) // _CANDIDATES
    with pq.ParquetWriter(path, IN_VIEW) as writer:
        for g in np.unique(group):
            part = index[group == g]
            offsets = np.concatenate([[0], np.cumsum(size[group == g])]).astype(np.int64)
            inside = np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))
            where = np.repeat(shown.offsets[part], np.diff(offsets)) + inside
            rows = shown.article[where]
            cases = asof.cases(shown.user[part], shown.time[part], session=shown.session[part])
            ids = np.where(rows >= 0, asof.catalogue.article_id[rows], -1)
            columns = [
                pa.array(shown.impression[part]),
                pa.array(shown.user[part]),
                pa.array(shown.time[part]).cast(schema.TIME),
                _list_array(offsets, ids),
                _list_array(offsets, shown.clicked[where]),
                _list_array(offsets, score_candidates(asof, model, cases, offsets, rows)),
                pa.array([shown.synthetic or None] * len(part), pa.string()),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=IN_VIEW))


def score_candidates(asof: AsOf, model: Model, cases: Cases, offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The model's scores float32 [V] of candidates `rows[offsets[b]:offsets[b + 1]]` of case b; `UNKNOWN_SCORE` for
    rows of -1. Raises DataError if a score of a known article is not finite."""
    known = rows >= 0
    before = np.concatenate([[0], np.cumsum(known)])
    found = model.candidate_scores(asof, cases, before[offsets].astype(np.int64), rows[known])
    if not np.isfinite(found).all():
        raise DataError(f"model {model.name} gave scores that are not finite: train it again")
    scores = np.full(len(rows), UNKNOWN_SCORE, dtype=np.float32)
    scores[known] = found
    return scores


def _list_array(offsets: np.ndarray, values: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))


@nb.njit(cache=True)
def _contains(article: np.ndarray, first: np.ndarray, stop: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Whether `target[b]` is among `article[first[b]:stop[b]]`, bool [B]."""
    found = np.zeros(len(target), np.bool_)
    for b in range(len(target)):
        for i in range(first[b], stop[b]):
            if article[i] == target[b]:
                found[b] = True
                break
    return found
