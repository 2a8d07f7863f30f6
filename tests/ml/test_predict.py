"""Predictions: cases, protocols, exact lists, files, and that `recommend` gives what `predict` stored."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import predict as module
from ml.asof import AsOf
from ml.clock import MS_PER_HOUR, MS_PER_MINUTE, minute_of, minute_start
from ml.errors import DataError, UsageError
from ml.log import Cases, int_array
from ml.models import MODELS, Model
from ml.predict import MANY_CLICKS, PROTOCOLS, TOP, excluded_rows, predict, recommend, sample_minutes, targets_of
from ml.stored import InViewLists, TopLists
from tests.ml.worlds import START_MS, sorted_clicks, tiny_world

SPAN = (START_MS + 72 * MS_PER_HOUR, START_MS + 96 * MS_PER_HOUR)
BASELINES = [name for name, spec in MODELS.items() if not spec.trains]


@pytest.fixture(scope="module")
def asof() -> AsOf:
    return tiny_world(n_users=60)


def read_top(folder: Path) -> dict[tuple[int, str], tuple[list[int], list[float]]]:
    rows = pq.read_table(folder / "top.parquet").to_pylist()
    assert len({(r["case"], r["protocol"]) for r in rows}) == len(rows)
    return {(r["case"], r["protocol"]): (r["articles"], r["scores"]) for r in rows}


@pytest.mark.parametrize("name", BASELINES)
def test_lists_equal_a_brute_force_sort(name: str, asof: AsOf, tmp_path: Path) -> None:
    model = MODELS[name].load(None)
    predict(asof, model, SPAN, 60, tmp_path)
    cases, top = pq.read_table(tmp_path / "cases.parquet").to_pylist(), read_top(tmp_path)
    clicks, ids = asof.clicks, asof.catalogue.article_id
    assert len(cases) >= 60
    for row in cases:
        time = int(row["time"].timestamp() * 1000 + 0.5)
        mine = (clicks.user == row["user_id"]) & (clicks.time < time)
        read = ids[clicks.article[mine]]
        (here,) = np.flatnonzero((clicks.user == row["user_id"]) & (clicks.time == time))
        running = read[clicks.session[mine] == clicks.session[here]]
        forbidden = {"thesis": [], "unread": read, "in_session": running if len(read) >= MANY_CLICKS else read}
        target = row["article_id"]
        wanted = {"thesis": True, "unread": target not in read, "in_session": len(running) and target not in running}
        available = ids[asof.catalogue.published < minute_start(np.array(time))]
        case = asof.cases(np.array([row["user_id"]]), np.array([time]))
        scores = model.catalogue_scores(asof, time, case)[0]
        assert (row["history"], row["available"]) == (mine.sum(), len(available)) and target == ids[
            clicks.article[here]
        ]
        for protocol in PROTOCOLS:
            assert row[protocol] == bool(wanted[protocol]) == ((row["case"], protocol) in top)
            if row[protocol]:
                order = sorted(range(len(available)), key=lambda a: (-scores[a], -a))
                best = [a for a in order if ids[a] not in forbidden[protocol]][:TOP]
                assert top[row["case"], protocol] == (ids[best].tolist(), scores[best].tolist())


def test_all_cases_of_the_span_are_taken_without_a_budget(asof: AsOf, tmp_path: Path) -> None:
    facts = predict(asof, MODELS["popular_60"].load(None), SPAN, None, tmp_path)
    clicks = asof.clicks
    inside = (clicks.time >= SPAN[0]) & (clicks.time < SPAN[1])
    first = np.array([clicks.time[clicks.user == u].min() for u in clicks.user])
    table = pq.read_table(tmp_path / "cases.parquet")
    assert facts["n_cases"] == facts["n_cases_total"] == len(table) == np.sum(inside & (clicks.time > first))
    assert facts["n_clicks_total"] == inside.sum()
    assert facts == json.loads((tmp_path / "span.json").read_text())
    time = int_array(table, "time")
    assert np.all(np.diff(minute_of(time)) >= 0) and table.column("case").to_pylist() == list(range(len(table)))
    impressions = pq.read_table(tmp_path / "inview.parquet")
    clicked = np.add.reduceat(asof.impressions.clicked, asof.impressions.offsets[:-1]) > 0
    shown = (asof.impressions.time >= SPAN[0]) & (asof.impressions.time < SPAN[1]) & clicked
    assert impressions.column("impression_id").to_pylist() == asof.impressions.impression[shown].tolist()


def test_in_view_scores_are_those_of_the_time_of_the_impression(asof: AsOf, tmp_path: Path) -> None:
    model = MODELS["cooccurrence_popular"].load(None)
    predict(asof, model, SPAN, 40, tmp_path)
    rows = pq.read_table(tmp_path / "inview.parquet").to_pylist()
    where = {int(i): p for p, i in enumerate(asof.impressions.impression)}
    assert len(rows) > 20 and {len(r["articles"]) for r in rows} != {1}
    for row in rows:
        place = slice(*asof.impressions.offsets[where[row["impression_id"]] :][:2])
        shown = asof.impressions.article[place]
        time = int(row["time"].timestamp() * 1000 + 0.5)
        case = asof.cases(np.array([row["user_id"]]), np.array([time]))
        scores = model.catalogue_scores(asof, time, case)[0]
        assert row["articles"] == asof.catalogue.article_id[shown].tolist()
        assert row["clicked"] == asof.impressions.clicked[place].tolist() and any(row["clicked"])
        here = shown < len(scores)
        assert np.array_equal(np.array(row["scores"], np.float32)[here], scores[shown[here]])


def test_sampled_minutes_are_whole(asof: AsOf, tmp_path: Path) -> None:
    facts = predict(asof, MODELS["popular_15"].load(None), SPAN, 50, tmp_path, seed=4)
    everything = targets_of(asof, SPAN)
    minute = minute_of(everything.cases.time)
    chosen = np.isin(minute, facts["minutes"])
    assert facts["n_cases"] == chosen.sum() == len(pq.read_table(tmp_path / "cases.parquet")) >= 50
    stored = int_array(pq.read_table(tmp_path / "cases.parquet"), "time")
    assert np.array_equal(stored, everything.cases.time[chosen])
    shown = pq.read_table(tmp_path / "inview.parquet")
    assert set(minute_of(int_array(shown, "time"))) <= set(facts["minutes"])
    assert facts["n_impressions"] == len(shown) and facts["n_minutes_total"] == len(np.unique(minute))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 3))
def test_minutes_until_the_budget(minutes: list[int], budget: int, seed: int) -> None:
    times = np.array(minutes) * MS_PER_MINUTE
    drawn = sample_minutes(times, budget, seed)
    held = np.isin(minutes, drawn).sum()
    assert set(drawn) <= set(minutes) and held >= min(budget, len(minutes))
    sizes = [minutes.count(m) for m in drawn]
    assert held - max(sizes) < budget
    assert set(drawn) <= set(sample_minutes(times, budget + 5, seed))
    assert sample_minutes(times, None).tolist() == sorted(set(minutes))


def test_each_minute_is_as_likely_as_its_neighbour() -> None:
    times = np.repeat(np.arange(10), [1, 5, 1, 1, 1, 1, 1, 1, 1, 1]) * MS_PER_MINUTE
    first = [sample_minutes(times, 1, seed)[0] for seed in range(3000)]
    counts = np.bincount(first, minlength=10)
    assert np.sum((counts - 300) ** 2 / 300) < 27.9  # chi-square, 9 degrees of freedom, p = .001


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        sample_minutes(np.array([0]), 0)


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_recommend_gives_what_predict_stored(
    data: st.DataObject, asof: AsOf, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = data.draw(st.sampled_from(BASELINES))
    protocol = data.draw(st.sampled_from(["thesis", "unread"]))
    start = data.draw(st.integers(SPAN[0], SPAN[1] - MS_PER_HOUR))
    model, folder = MODELS[name].load(None), tmp_path_factory.mktemp("predictions")
    predict(asof, model, (start, start + MS_PER_HOUR), None, folder)
    top = read_top(folder)
    for row in pq.read_table(folder / "cases.parquet").to_pylist()[:5]:
        if row[protocol]:
            time = int(row["time"].timestamp() * 1000 + 0.5)
            found = recommend(asof, model, row["user_id"], time, TOP, exclude_read=protocol == "unread")
            assert [list(part) for part in zip(*found, strict=True)] == list(top[row["case"], protocol])


def test_chunks_change_nothing(asof: AsOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["cooccurrence_popular"].load(None)
    predict(asof, model, SPAN, 80, tmp_path / "whole")
    monkeypatch.setattr(module, "_CELLS", 1)
    monkeypatch.setattr(module, "_CANDIDATES", 7)
    predict(asof, model, SPAN, 80, tmp_path / "parts")
    assert read_top(tmp_path / "whole") == read_top(tmp_path / "parts")
    for name in ("cases.parquet", "inview.parquet"):
        assert pq.read_table(tmp_path / "whole" / name).equals(pq.read_table(tmp_path / "parts" / name))


def test_the_same_seed_gives_the_same_bytes(asof: AsOf, tmp_path: Path) -> None:
    for name in ("a", "b"):
        predict(asof, MODELS["random"].load(None), SPAN, 40, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_progress_counts_minutes(asof: AsOf, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    facts = predict(asof, MODELS["popular_15"].load(None), SPAN, 40, tmp_path, lambda *x: said.append(x))
    n = len(facts["minutes"])  # type: ignore[arg-type]
    assert said == [(i, n) for i in range(1, n + 1)]


def test_an_empty_span_gives_empty_files(asof: AsOf, tmp_path: Path) -> None:
    facts = predict(asof, MODELS["popular_15"].load(None), (SPAN[1], SPAN[1] + 1), 40, tmp_path)
    assert facts["n_cases"] == facts["n_impressions"] == 0
    assert [len(pq.read_table(tmp_path / f"{n}.parquet")) for n in ("cases", "top", "inview")] == [0, 0, 0]


def test_evaluation_reads_the_files(asof: AsOf, tmp_path: Path) -> None:
    predict(asof, MODELS["cooccurrence"].load(None), SPAN, 60, tmp_path)
    for protocol in PROTOCOLS:
        lists = TopLists.read(tmp_path, protocol)
        assert len(lists.reader) == pq.read_table(tmp_path / "cases.parquet").column(protocol).to_numpy().sum()
    assert len(InViewLists.read(tmp_path).keys["impression_id"]) == len(pq.read_table(tmp_path / "inview.parquet"))


def test_readers_of_many_clicks_may_be_shown_old_articles_again() -> None:
    n = MANY_CLICKS
    asof = tiny_world(n_users=5)
    start = SPAN[0] + np.arange(n + 1) * 1000
    few = sorted_clicks(np.full(n, 1), np.arange(n), start[:n], session=np.arange(n) // (n - 2))
    many = sorted_clicks(np.full(n + 1, 2), np.arange(n + 1), start, session=np.arange(n + 1) // (n - 2))
    clicks = sorted_clicks(
        *(np.concatenate([getattr(c, f) for c in (few, many)]) for f in ("user", "article", "time", "session"))
    )
    view = AsOf(asof.dataset, asof.catalogue, clicks, asof.impressions, asof._popularity, {}, asof.articles)
    cases = view.cases(np.array([1, 2]), np.array([start[n - 1], start[n]]), session=np.array([1, 1]))
    offsets, rows = excluded_rows(view, cases, "in_session")
    assert (cases.stop - cases.first).tolist() == [n - 1, n]
    assert rows[: offsets[1]].tolist() == list(range(n - 1)) and rows[offsets[1] :].tolist() == [n - 2, n - 1]
    with pytest.raises(UsageError, match="unknown protocol"):
        excluded_rows(view, cases, "in-session")


class Broken(Model):
    """Scores that are not finite, or of the wrong shape."""

    name = "broken"

    def __init__(self, value: float, width: int) -> None:
        self.value, self.width = value, width

    def catalogue_scores(self, asof: AsOf, time_ms: int, cases: Cases) -> np.ndarray:
        n = int(asof.available(np.array([time_ms]))[0]) + self.width
        return np.full((len(cases), n), self.value, np.float32)

    def candidate_scores(self, asof: AsOf, cases: Cases, offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.full(len(rows), self.value, np.float32)


@pytest.mark.parametrize(("value", "width"), [(np.nan, 0), (np.inf, 0), (0.0, 1)])
def test_scores_that_cannot_be_ranked_are_refused(value: float, width: int, asof: AsOf) -> None:
    with pytest.raises(DataError, match="model broken"):
        recommend(asof, Broken(value, width), 1000, SPAN[0], 5)


def test_an_article_that_the_catalogue_lacks_ranks_last(asof: AsOf) -> None:
    cases = asof.cases(np.array([1000]), np.array([SPAN[0]]))
    rows = np.array([3, -1, 4], dtype=np.int32)
    scores = module.score_candidates(asof, MODELS["popular_1440"].load(None), cases, np.array([0, 3]), rows)
    assert scores[1] == -np.inf and np.isfinite(scores[[0, 2]]).all()
    with pytest.raises(DataError, match="not finite"):
        module.score_candidates(asof, Broken(np.nan, 0), cases, np.array([0, 3]), rows)
