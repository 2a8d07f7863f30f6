"""The sparse popularity tensor against the dense definition (document 1, Eq. A.11 to A.13)."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from ml.benchmarks import popularity as benchmark
from ml.clock import MS_PER_MINUTE
from ml.errors import DataError, UsageError
from ml.popularity import WINDOWS, Popularity

BASE = 28_000_000
"""An arbitrary first minute."""


def dense(article: np.ndarray, minute: np.ndarray, n_articles: int, n_minutes: int) -> np.ndarray:
    """S^(w) = X W^(w) for every window, W[t', t] = 1 where 0 <= t - t' < w: int64 [A, T, 7]."""
    x = np.zeros((n_articles, n_minutes))
    np.add.at(x, (article, minute), 1)
    lag = np.arange(n_minutes)[None, :] - np.arange(n_minutes)[:, None]
    return np.stack([x @ ((lag >= 0) & (lag < w)).astype(float) for w in WINDOWS], axis=2).astype(np.int64)


def random_log(seed: int, n: int, n_articles: int, n_minutes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    article = (n_articles * rng.random(n) ** 3).astype(np.int32)
    return article, rng.integers(0, n_minutes, n)


def built(article: np.ndarray, minute: np.ndarray, n_articles: int) -> Popularity:
    within = np.arange(len(minute)) * 7919 % MS_PER_MINUTE
    return Popularity.build(article, (BASE + minute) * MS_PER_MINUTE + within, n_articles)


@pytest.mark.parametrize("n_clicks", [0, 1, 40, 3000])
def test_counts_totals_and_shares_equal_the_dense_tensor(n_clicks: int) -> None:
    n_articles, n_minutes = 30, 1700
    article, minute = random_log(n_clicks, n_clicks, n_articles, n_minutes)
    tensor = dense(article, minute, n_articles, n_minutes)
    ours = built(article, minute, n_articles)
    rng = np.random.default_rng(1)
    at = rng.integers(1, n_minutes, 400)
    rows = rng.integers(0, n_articles, (400, 5)).astype(np.int32)
    time = (BASE + at) * MS_PER_MINUTE + rng.integers(0, MS_PER_MINUTE, 400)
    column_sums = tensor.sum(axis=0)
    for paper_window, column in ((True, at), (False, at - 1)):
        expected = tensor[rows, column[:, None]]
        np.testing.assert_array_equal(ours.counts(time, rows, paper_window), expected)
        np.testing.assert_array_equal(ours.totals(time, paper_window), column_sums[column])
        share = expected / np.maximum(column_sums[column], 1)[:, None]
        np.testing.assert_array_equal(ours.shares(time, rows, paper_window), share.astype(np.float32))
        if n_clicks:
            assert expected.any()


@settings(max_examples=60, deadline=None)
@given(
    clicks=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300_000)), max_size=60),
    time=st.integers(-200_000, 1_000_000_000),
    paper_window=st.booleans(),
)
def test_counts_follow_the_definition_click_by_click(
    clicks: list[tuple[int, int]], time: int, paper_window: bool
) -> None:
    article, times = (np.array([c[i] for c in clicks], dtype=np.int64) for i in (0, 1))
    ours = Popularity.build(article, times, 4)
    m = time // MS_PER_MINUTE
    first = [m - w + 1 if paper_window else m - w for w in WINDOWS]
    last = m if paper_window else m - 1
    expected = [
        [sum(a == row and f <= t // MS_PER_MINUTE <= last for a, t in clicks) for f in first] for row in range(4)
    ]
    counted = ours.counts(np.array([time]), np.arange(4, dtype=np.int32)[None], paper_window)[0]
    assert counted.tolist() == expected
    assert ours.totals(np.array([time]), paper_window)[0].tolist() == np.sum(expected, axis=0).tolist()
    assert ours.catalogue_counts(time, 4, paper_window).tolist() == expected


@pytest.mark.parametrize("shape", [(1, 700), (700, 1), (7, 129), (3, 0), (0, 3)])
def test_rows_of_any_shape_are_counted(shape: tuple[int, int]) -> None:
    n_articles, n_minutes = 20, 2200
    article, minute = random_log(11, 4000, n_articles, n_minutes)
    minute = np.where(article % 3 == 0, minute % 50, minute)  # some lives are short and dense
    tensor = dense(article, minute, n_articles, n_minutes)
    rng = np.random.default_rng(2)
    at, rows = rng.integers(1, n_minutes, shape[0]), rng.integers(0, n_articles, shape)
    counted = built(article, minute, n_articles).counts((BASE + at) * MS_PER_MINUTE, rows)
    np.testing.assert_array_equal(counted, tensor[rows, at[:, None] - 1])


def test_a_click_counts_only_once_its_minute_is_over() -> None:
    click = BASE * MS_PER_MINUTE + 100
    ours = Popularity.build(np.array([0]), np.array([click]), 1)
    row = np.zeros((1, 1), dtype=np.int32)
    end = (BASE + 1) * MS_PER_MINUTE
    assert ours.counts(np.array([end - 1]), row).sum() == 0
    assert ours.counts(np.array([end - 1]), row, paper_window=True)[0, 0].tolist() == [1] * 7
    assert ours.counts(np.array([end]), row)[0, 0].tolist() == [1] * 7
    assert ours.counts(np.array([end + MS_PER_MINUTE]), row)[0, 0].tolist() == [0] + [1] * 6
    assert ours.counts(np.array([end + 1440 * MS_PER_MINUTE]), row).sum() == 0
    before = np.array([click - 10 * MS_PER_MINUTE])
    assert ours.counts(before, row, paper_window=True).sum() == ours.totals(before).sum() == 0


def test_unknown_articles_have_no_clicks() -> None:
    ours = Popularity.build(np.array([0, 1]), np.array([0, 1]), 2)
    counts = ours.counts(np.array([MS_PER_MINUTE]), np.array([[-1, 0, 1, 2, 99]]))
    assert counts[0, :, 0].tolist() == [0, 1, 1, 0, 0]


def test_catalogue_counts_are_the_counts_of_the_prefix() -> None:
    article, minute = random_log(5, 2000, 50, 3000)
    ours = built(article, minute, 50)
    time = (BASE + 2000) * MS_PER_MINUTE + 1
    rows = np.arange(20, dtype=np.int32)[None]
    np.testing.assert_array_equal(ours.catalogue_counts(time, 20), ours.counts(np.array([time]), rows)[0])
    assert ours.catalogue_counts(time, 0).shape == (0, 7)


def test_order_of_clicks_does_not_matter_and_bytes_are_the_same(tmp_path: Path) -> None:
    article, minute = random_log(7, 5000, 40, 900)
    order = np.random.default_rng(3).permutation(len(article))
    built(article, minute, 40).save(tmp_path / "a")
    Popularity.build(article[order], (BASE + minute[order]) * MS_PER_MINUTE, 40).save(tmp_path / "b")
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in "ab"}
    assert len(digests) == 1


def test_a_saved_tensor_answers_the_same(tmp_path: Path) -> None:
    article, minute = random_log(8, 1000, 40, 900)
    ours = built(article, minute, 40)
    ours.save(tmp_path / "p.safetensors")
    loaded = Popularity.load(tmp_path / "p.safetensors")
    assert loaded.base == ours.base
    assert loaded.n_articles == 40
    assert loaded.nbytes == ours.nbytes
    time = (BASE + np.arange(900)) * MS_PER_MINUTE
    rows = np.tile(np.arange(40, dtype=np.int32), (900, 1))
    np.testing.assert_array_equal(loaded.counts(time, rows), ours.counts(time, rows))
    np.testing.assert_array_equal(loaded.totals(time), ours.totals(time))


def test_threads_may_ask_at_once() -> None:
    article, minute = random_log(9, 4000, 60, 2000)
    ours = built(article, minute, 60)
    time = (BASE + np.arange(0, 2000, 4)) * MS_PER_MINUTE
    rows = np.tile(np.arange(60, dtype=np.int32), (len(time), 1))
    expected = ours.counts(time, rows)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ours.counts(time, rows), range(8)))
    assert all(np.array_equal(answer, expected) for answer in answers)


def changed(array: np.ndarray, where: tuple[int, ...] | int, value: int) -> np.ndarray:
    array = array.copy()
    array[where] = value
    return array


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("words", lambda a: changed(a, (0, 0), 9 << 32), "words are not ascending"),
        ("words", lambda a: changed(a, (0, 1), a[0, 1] ^ 1 << 62), "ranks do not count"),
        ("words", lambda a: changed(a, (1, 1), 0), "ranks do not count"),
        ("words", lambda a: changed(a, (-1, 0), 7), "ranks do not count"),
        ("words", lambda a: a[:, :1].copy(), r"words is I64 \[n?\d*, 1\].*expected is I64 \[n, 2\]"),
        ("words", lambda a: a[:, 0].copy(), r"words is I64 \[\d+\].*expected"),
        ("before", lambda a: a * 0, "before are not ascending"),
        ("before", lambda a: a + 1, "clicks and cells differ"),
        ("before", lambda a: a[:-1].copy(), "clicks and cells differ"),
        ("before", lambda a: a.astype(np.int64), "before is I64 .*expected is I32"),
        ("offsets", lambda a: a[:-1].copy(), "offsets do not span"),
        ("offsets", lambda a: a[[0, 2, 1, *range(3, len(a))]], "offsets are not ascending"),
        ("words", lambda a: changed(a, (-2, 0), a[-2, 0] | 1 << 62), "words lie beyond a century"),
        ("words", lambda a: changed(a, (0, 0), -1 << 32), "words begin below 0"),
        ("total_minutes", lambda a: a[:-1].copy(), "differ in length"),
        ("total_cumulative", lambda a: a[::-1].copy(), "total_cumulative are not ascending"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, damage, message: str) -> None:
    path = tmp_path / "p.safetensors"
    article, minute = random_log(10, 500, 5, 200)
    built(article, minute, 5).save(path)
    arrays = load_file(path)
    save_file({**arrays, name: damage(arrays[name])}, path)
    with pytest.raises(DataError, match=message):
        Popularity.load(path)


def test_files_that_are_no_tensor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent is missing: rebuild popularity_tensor"):
        Popularity.load(tmp_path / "absent")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DataError, match="text is cut or no safetensors file"):
        Popularity.load(tmp_path / "text")
    save_file({"x": np.zeros(3)}, tmp_path / "other")
    with pytest.raises(DataError, match="tensor base is missing"):
        Popularity.load(tmp_path / "other")


def test_a_file_of_the_former_layout_is_refused_with_the_remedy(tmp_path: Path) -> None:
    former = {
        "base": np.array([BASE]),
        "offsets": np.array([0, 2]),
        "minutes": np.int32([3, 9]),
        "cumulative": np.int32([1, 2]),
        "total_minutes": np.int32([3, 9]),
        "total_cumulative": np.array([1, 2]),
    }
    save_file(former, tmp_path / "p.safetensors")
    with pytest.raises(DataError, match=r"tensor before is missing, .*: rebuild popularity_tensor$") as error:
        Popularity.load(tmp_path / "p.safetensors")
    assert "\n" not in str(error.value)


def test_impossible_clicks_are_refused() -> None:
    with pytest.raises(DataError, match=r"outside 0\.\.2"):
        Popularity.build(np.array([0, 3]), np.array([0, 0]), 3)
    with pytest.raises(DataError, match=r"outside 0\.\.2"):
        Popularity.build(np.array([-1]), np.array([0]), 3)
    with pytest.raises(DataError, match="years apart"):
        Popularity.build(np.array([0, 0]), np.array([0, 10**14]), 1)


def test_the_benchmark_compares_equal_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (benchmark.Size(300, 3000, 20_000), benchmark.Size(50, 1600, 5_000))
    monkeypatch.setitem(benchmark.SIZES, "quick", sizes)
    found = benchmark.bench_popularity("quick")
    assert found["bench"] == "popularity"
    assert found["size"] == {"articles": 300, "minutes": 3000, "clicks": 20_000}
    assert [row["unit"] for row in found["results"]] == ["bytes", "s", *["ms"] * 4, *["rows/s"] * 2]
    assert found["results"][0]["reference"] == 300 * 3000 * 7 * 4
    assert [len(grown["sizes"]) for grown in found["growth"]] == [3, 3]
    monkeypatch.setattr(benchmark, "_band_products", lambda *_: [benchmark.sparse.csc_array((50, 1600))] * 7)
    with pytest.raises(RuntimeError, match="differs from the dense one"):
        benchmark.bench_popularity("quick")
    with pytest.raises(UsageError, match="unknown size 'vast'"):
        benchmark.bench_popularity("vast")
