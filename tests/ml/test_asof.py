"""The as-of door: what is known at t, against definitions by hand, and its leak tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml import schema
from ml.articles import ARTICLE_FEATURES, ArticleTable
from ml.asof import AsOf, AsOfPaths
from ml.clock import MS_PER_DAY, MS_PER_HOUR, MS_PER_MINUTE
from ml.datasets import dataset
from ml.errors import DataError, UsageError
from ml.log import Cases, Catalogue, Clicks, Impressions
from ml.popularity import Popularity
from tests.ml.leaks import poisoned
from tests.ml.worlds import START_MS, end_ms, no_impressions, sorted_clicks, tiny_world

LATE = START_MS + 2 * MS_PER_DAY + 12 * MS_PER_HOUR + 17 * MS_PER_MINUTE + 30_123


@pytest.fixture(scope="module")
def world() -> AsOf:
    return tiny_world()


def of_clicks(clicks: Clicks, n_articles: int = 5, published: np.ndarray | None = None) -> AsOf:
    published = np.zeros(n_articles, np.int64) if published is None else published
    catalogue = Catalogue(np.arange(n_articles), published, np.full(n_articles, -1, np.int32))
    articles = ArticleTable(
        catalogue.article_id, catalogue.category, np.zeros(n_articles, np.int8), np.zeros((n_articles, 11), np.float32)
    )
    popularity = Popularity.build(clicks.article, clicks.time, n_articles)
    return AsOf(dataset("simulated"), catalogue, clicks, no_impressions(), popularity, {}, articles)


def test_cases_are_the_clicks_strictly_before_and_the_running_session(world: AsOf) -> None:
    clicks = world.clicks
    rng = np.random.default_rng(0)
    row = rng.integers(0, len(clicks), 300)
    user = np.concatenate([clicks.user[row], [1, 1001, 10**9]])
    time = np.concatenate(
        [clicks.time[row] + rng.integers(-2, 3, 300) * rng.choice([1, 1000, MS_PER_HOUR], 300), [LATE] * 3]
    )
    cases = world.cases(user, time)
    given = rng.integers(-1, 4, len(user))
    cases_of_session = world.cases(user, time, session=given)
    for b in range(len(user)):
        known = np.flatnonzero((clicks.user == user[b]) & (clicks.time < time[b]))
        assert list(range(cases.first[b], cases.stop[b])) == known.tolist()
        for found, wanted in ((cases, None), (cases_of_session, given[b])):
            if wanted in (None, -1) and len(known) and time[b] - clicks.time[known[-1]] < 30 * MS_PER_MINUTE:
                wanted = clicks.session[known[-1]]
            start = cases.stop[b]
            while wanted not in (None, -1) and start > cases.first[b] and clicks.session[start - 1] == wanted:
                start -= 1
            assert found.session_start[b] == start
    assert np.all(cases.context == -1)
    assert (cases.stop > cases.session_start).any()
    assert ((cases.stop > cases.first) & (cases.stop == cases.session_start)).any()


def test_a_session_runs_for_less_than_thirty_minutes() -> None:
    asof = of_clicks(sorted_clicks(np.array([7, 7]), np.array([0, 1]), np.array([0, 1000])))
    times = np.array([1000, 1001, 1000 + 30 * MS_PER_MINUTE - 1, 1000 + 30 * MS_PER_MINUTE])
    cases = asof.cases(np.full(4, 7), times)
    assert (cases.stop - cases.first).tolist() == [1, 2, 2, 2]
    assert (cases.stop - cases.session_start).tolist() == [1, 2, 2, 0]


def test_cases_do_not_depend_on_their_batch(world: AsOf) -> None:
    row = np.random.default_rng(1).permutation(len(world.clicks))[:50]
    user, time = world.clicks.user[row], world.clicks.time[row]
    together = world.cases(user, time)
    for b in range(50):
        alone = world.cases(user[b : b + 1], time[b : b + 1])
        assert all(np.array_equal(getattr(alone, name), getattr(together, name)[b : b + 1]) for name in Cases.__slots__)


def test_no_cases_and_no_clicks() -> None:
    none = np.zeros(0, dtype=np.int64)
    asof = of_clicks(sorted_clicks(none, none, none))
    assert len(asof.cases(none, none)) == 0
    cases = asof.cases(np.array([3]), np.array([5]))
    assert (cases.first[0], cases.stop[0], cases.session_start[0]) == (0, 0, 0)
    assert asof.totals(np.array([5])).sum() == 0
    assert asof.truncated(0).recent_clicks(np.array([5]), 15)[1].tolist() == [0]


def test_available_and_age_count_from_the_start_of_the_minute() -> None:
    published = np.array([0, 59_999, 60_000, 200_000])
    asof = of_clicks(sorted_clicks(np.array([1]), np.array([0]), np.array([0])), 4, published)
    times = np.array([0, 59_999, 60_000, 119_999, 120_000, 10**9])
    assert asof.available(times).tolist() == [0, 0, 2, 2, 3, 4]
    ages = asof.age_minutes(np.array([150_000, 60_000]), np.array([[0, 1, 2, 3, -1]] * 2))
    np.testing.assert_allclose(ages, [[2, 60_001 / 60_000, 1, 0, 0], [1, 1 / 60_000, 0, 0, 0]], rtol=1e-6)
    assert ages.dtype == np.float32


def test_read_time_is_known_once_it_has_passed() -> None:
    clicks = sorted_clicks(
        np.array([1, 1]), np.array([0, 1]), np.array([1000, 5000]), read_time=np.array([2.5, np.nan])
    )
    asof = of_clicks(clicks)
    known = asof.read_time(np.array([0, 0, 0, 1]), np.array([1000, 3499, 3500, 10**9]))
    np.testing.assert_array_equal(known, np.array([np.nan, np.nan, 2.5, np.nan], dtype=np.float32))
    assert known.dtype == np.float32
    assert asof.read_time(np.array([[0], [1]]), np.array([3500])).shape == (2, 1)


def test_recent_clicks_are_those_of_completed_minutes(world: AsOf) -> None:
    times = np.array([LATE, LATE + 10**9, START_MS])
    for minutes in (1, 15, 1440):
        lo, hi = world.recent_clicks(times, minutes)
        for b, time in enumerate(times):
            begin = time // MS_PER_MINUTE * MS_PER_MINUTE
            inside = (world.clicks.time >= begin - minutes * MS_PER_MINUTE) & (world.clicks.time < begin)
            drawn = np.sort(world.time_sorted_articles[lo[b] : hi[b]])
            assert drawn.tolist() == np.sort(world.clicks.article[inside]).tolist()
    lo, hi = world.recent_clicks(times, 15)
    counts = world.counts(times, np.tile(np.arange(150, dtype=np.int32), (3, 1)))[:, :, 2]
    by_range = [np.bincount(world.time_sorted_articles[a:b], minlength=150) for a, b in zip(lo, hi, strict=True)]
    np.testing.assert_array_equal(counts, by_range)
    assert counts.sum() > 0


def test_impression_of_a_click(world: AsOf) -> None:
    rows = np.arange(len(world.clicks))
    found = world.impression_of(rows)
    assert np.all(found >= 0)
    assert np.array_equal(world.impressions.impression[found], world.clicks.impression)
    assert np.array_equal(world.impressions.user[found], world.clicks.user)
    for row in rows[::97]:
        span = slice(*world.impressions.offsets[found[row] : found[row] + 2])
        assert world.clicks.article[row] in world.impressions.article[span][world.impressions.clicked[span]]
    assert tiny_world(with_impressions=False).impression_of(rows[:3]).tolist() == [-1, -1, -1]


def test_an_impression_of_another_reader_is_not_the_clicks(world: AsOf) -> None:
    impression = world.clicks.impression.copy()
    impression[0], impression[1] = -1, 10**9
    other = int(np.flatnonzero(world.clicks.user != world.clicks.user[2])[0])
    impression[2] = world.clicks.impression[other]
    found = with_impression(world, impression).impression_of(np.arange(4))
    assert found[:3].tolist() == [-1, -1, -1]
    assert found[3] >= 0


def with_impression(world: AsOf, impression: np.ndarray) -> AsOf:
    clicks = replace(world.clicks, impression=impression)
    popularity = Popularity.build(clicks.article, clicks.time, len(world.catalogue))
    return AsOf(world.dataset, world.catalogue, clicks, world.impressions, popularity, {}, world.articles)


def test_content_of_an_absent_family(world: AsOf) -> None:
    assert world.families == ("body", "coclick")
    assert world.content("body").dim == 8
    absent = world.content("title")
    assert absent.vectors.shape == (0, 0)
    assert absent.index(np.array([LATE]), np.array([[0, 149]])).tolist() == [[-1, -1]]


def answers(asof: AsOf, time: int, n_articles: int, readers: np.ndarray) -> dict[str, np.ndarray]:
    """All that the door says at one time about the first `n_articles` articles and some readers."""
    times, rows = np.array([time]), np.arange(n_articles)[None]
    lo, hi = asof.recent_clicks(times, 60)
    cases = asof.cases(readers, np.full(len(readers), time))
    history = np.concatenate([np.arange(a, b) for a, b in zip(cases.first, cases.stop, strict=True)])
    said = {
        "available": asof.available(times),
        "age": asof.age_minutes(times, rows),
        "counts": asof.counts(times, rows),
        "catalogue": asof.catalogue_counts(time, n_articles),
        "totals": asof.totals(times),
        "pool": np.sort(asof.time_sorted_articles[lo[0] : hi[0]]),
        "length": cases.stop - cases.first,
        "running": cases.stop - cases.session_start,
        "read": asof.read_time(history, np.full(len(history), time)),
        **{name: getattr(asof.clicks, name)[history] for name in ("user", "article", "time", "session")},
        **{f"{f} vectors": asof.content(f).at(times, rows) for f in ("body", "coclick")},
    }
    pairs = asof.coclicks.window(
        np.array([time // MS_PER_MINUTE * MS_PER_MINUTE] * n_articles), rows[0].astype(np.int32), 240
    )
    said["co-clicks"] = asof.coclicks.catalogue_counts(*pairs, n_articles)
    return said


@pytest.mark.parametrize("time", [LATE, LATE // MS_PER_MINUTE * MS_PER_MINUTE, START_MS + 1, end_ms() + 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_events_from_t_on_change_nothing_at_t(world: AsOf, time: int, seed: int) -> None:
    n = int(world.available(np.array([time]))[0])
    readers = np.unique(world.clicks.user)[::3]
    honest = answers(world, time, n, readers)
    bad = poisoned(world, time, seed)
    for other in (bad, world.truncated(time), bad.truncated(time)):
        found = answers(other, time, n, readers)
        for name, expected in honest.items():
            np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_poison_is_poisonous(world: AsOf) -> None:
    """The leak tests can fail: a minute later, and through the paper's window, nearly everything differs."""
    n = int(world.available(np.array([LATE]))[0])
    readers = np.unique(world.clicks.user)
    bad = poisoned(world, LATE)
    times, rows = np.array([LATE]), np.arange(n)[None]
    assert not np.array_equal(bad.counts(times, rows, paper_window=True), world.counts(times, rows, paper_window=True))
    honest, found = (answers(asof, LATE + MS_PER_MINUTE, n, readers) for asof in (world, bad))
    unchanged = {name for name in honest if np.array_equal(honest[name], found[name], equal_nan=True)}
    assert unchanged == {"age"}
    fake = bad.clicks.time[np.isin(bad.clicks.user, world.clicks.user, invert=True)]
    assert fake.min() < LATE


def test_truncated_holds_nothing_later(world: AsOf) -> None:
    cut = world.truncated(LATE)
    assert cut.clicks.time.max() < LATE <= world.clicks.time.max()
    assert cut.impressions.time.max() < LATE
    assert cut.catalogue.published.max() < LATE
    assert cut.content("coclick").since.max() <= LATE
    assert len(cut.articles) == len(cut.catalogue) == cut.available(np.array([LATE + MS_PER_DAY]))[0]
    assert cut.impressions.offsets[-1] == len(cut.impressions.article) == len(cut.impressions.clicked)


def test_truncated_knows_no_click_that_came_after_the_time(world: AsOf) -> None:
    """Also of impressions that came into view before it."""
    shown = world.impressions
    i = int(np.flatnonzero(np.add.reduceat(shown.clicked, shown.offsets[:-1]))[0])
    inside = slice(shown.offsets[i], shown.offsets[i + 1])
    article = shown.article[inside][shown.clicked[inside]][0]
    of_it = (world.clicks.impression == shown.impression[i]) & (world.clicks.article == article)
    world.clicks.time[of_it] += 5000
    cut = world.truncated(int(shown.time[i]) + 1000)
    assert shown.clicked[inside].sum() - cut.impressions.clicked[inside].sum() == 1
    assert world.truncated(int(shown.time[i]) + 6000).impressions.clicked[inside].sum() == shown.clicked[inside].sum()


def test_a_click_on_an_article_published_later_survives_truncation() -> None:
    clicks = sorted_clicks(np.array([1, 1]), np.array([2, 0]), np.array([1000, 2000]))
    asof = of_clicks(clicks, 4, np.array([0, 5000, 5000, 9000]))
    cut = asof.truncated(3000)
    assert cut.clicks.article.tolist() == [2, 0]
    assert len(cut.catalogue) == 3


def test_parts_of_different_logs_are_refused(world: AsOf) -> None:
    parts = (world.dataset, world.catalogue, world.clicks, world.impressions)
    small = Popularity.build(np.array([0]), np.array([0]), 3)
    with pytest.raises(DataError, match="popularity_tensor holds 3 articles, the catalogue 150"):
        AsOf(*parts, small, {}, world.articles)
    popularity = Popularity.build(world.clicks.article, world.clicks.time, 150)
    body = world.content("body").before(LATE, 10)
    with pytest.raises(DataError, match=r"article_embeddings \(body\) holds 10"):
        AsOf(*parts, popularity, {"body": body}, world.articles)
    shuffled = world.clicks.take(np.arange(len(world.clicks))[::-1])
    with pytest.raises(DataError, match=r"not sorted by .* at row 1"):
        AsOf(world.dataset, world.catalogue, shuffled, world.impressions, popularity, {}, world.articles)


def test_open_reads_the_stages_files(world: AsOf, tmp_path: Path) -> None:
    paths = written(world, tmp_path)
    opened = AsOf.open(AsOfPaths.model_validate_json(paths.model_dump_json()))
    n = int(world.available(np.array([LATE]))[0])
    readers = np.unique(world.clicks.user)[::7]
    expected, found = answers(world, LATE, n, readers), answers(opened, LATE, n, readers)
    assert opened.families == ("body",)
    for name in set(expected) - {"coclick vectors"}:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    rows = np.arange(len(world.clicks))
    assert np.array_equal(opened.impression_of(rows), world.impression_of(rows))
    assert opened.clock is world.clock
    with pytest.raises(UsageError, match="unknown dataset"):
        AsOf.open(paths.model_copy(update={"dataset": "nonsense"}))


def written(world: AsOf, folder: Path) -> AsOfPaths:
    """The world as the files of the stages."""
    n, clicks, shown = len(world.catalogue), world.clicks, world.impressions
    features = {name: pa.nulls(n, ARTICLE_FEATURES.field(name).type) for name in ARTICLE_FEATURES.names}
    features |= {
        "article_id": pa.array(world.catalogue.article_id),
        "published": pa.array(world.catalogue.published).cast(schema.TIME),
        "category_id": pa.array(world.catalogue.category),
        "premium": pa.array(world.articles.premium),
    }
    pq.write_table(pa.table(features, schema=ARTICLE_FEATURES), folder / "features.parquet")
    interactions = {name: pa.nulls(len(clicks), pa.int32()) for name in schema.CONTEXT}
    interactions |= {
        "user_id": pa.array(clicks.user),
        "article_id": pa.array(world.catalogue.article_id[clicks.article]),
        "time": pa.array(clicks.time).cast(schema.TIME),
        "session_id": pa.array(clicks.session),
        "impression_id": pa.array(clicks.impression),
        "read_time": pa.array(clicks.read_time, mask=np.isnan(clicks.read_time)),
    }
    pq.write_table(pa.table(interactions, schema=schema.INTERACTIONS), folder / "interactions.parquet")
    Popularity.build(clicks.article, clicks.time, n).save(folder / "popularity.safetensors")
    body = world.content("body")
    owner = np.repeat(np.arange(n), np.diff(body.offsets))
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(body.vectors.ravel()), body.dim)
    since = pa.nulls(len(owner), schema.TIME)
    ids = pa.array(world.catalogue.article_id[owner])
    pq.write_table(pa.table({"article_id": ids, "since": since, "vector": vectors}), folder / "body.parquet")
    write_impressions(shown, world.catalogue, folder / "impressions.parquet")
    return AsOfPaths(
        dataset="simulated",
        features=folder / "features.parquet",
        interactions=folder / "interactions.parquet",
        popularity=folder / "popularity.safetensors",
        content={"body": [folder / "body.parquet"]},
        impressions=[folder / "impressions.parquet"],
    )


def write_impressions(shown: Impressions, catalogue: Catalogue, path: Path) -> None:
    ids = catalogue.article_id[shown.article]
    spans = [slice(a, b) for a, b in zip(shown.offsets[:-1], shown.offsets[1:], strict=True)]
    columns = {
        "impression_id": pa.array(shown.impression),
        "user_id": pa.array(shown.user),
        "time": pa.array(shown.time).cast(schema.TIME),
        "inview": pa.array([ids[s] for s in spans]),
        "clicked": pa.array([ids[s][shown.clicked[s]] for s in spans]),
        "session_id": pa.nulls(len(shown), pa.int64()),
        "subscriber": pa.nulls(len(shown), pa.bool_()),
        **{name: pa.nulls(len(shown), pa.int32()) for name in schema.CONTEXT},
        schema.SYNTHETIC: pa.nulls(len(shown), pa.string()),
    }
    pq.write_table(pa.table(columns).select(schema.IMPRESSIONS.names).cast(schema.IMPRESSIONS), path)
