"""Vectors from co-clicks: against their formula, as of their time, in a basis that stays."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml import schema
from ml.clock import MS_PER_HOUR, MS_PER_MINUTE
from ml.coclick_vectors import DIM, HALF_LIFE_MS, STEP_MINUTES, article_codes, build_coclick_day
from ml.content import Content
from ml.log import Catalogue

START = 1_507_518_000_000
DAY = 24 * MS_PER_HOUR
STEP = STEP_MINUTES * MS_PER_MINUTE
Rows = list[tuple[int, int, int, int | None]]
"""(user, article, ms after START, session)."""


def write_clicks(path: Path, rows: Rows) -> Path:
    rows = sorted(rows, key=lambda r: (r[2], r[0], r[1]))
    columns = {name: [None] * len(rows) for name in schema.CLICKS.names}
    columns |= {
        schema.USER_ID: [r[0] for r in rows],
        schema.ARTICLE_ID: [r[1] for r in rows],
        schema.CLICK_TIME: [START + r[2] for r in rows],
        schema.SESSION_ID: [r[3] for r in rows],
    }
    pq.write_table(pa.table(columns, schema=schema.CLICKS), path)
    return path


def random_rows(seed: int, n: int = 600, articles: int = 30) -> Rows:
    """Two days of clicks, from a day before START."""
    rng = np.random.default_rng(seed)
    time = rng.integers(-DAY, DAY, n)
    user = rng.integers(0, 60, n)
    return [
        (int(u), 100 + int(a), int(t), None) for u, a, t in zip(user, rng.integers(0, articles, n), time, strict=True)
    ]


def build(folder: Path, rows: Rows, name: str = "out") -> pa.Table:
    earlier = write_clicks(folder / "earlier.parquet", [r for r in rows if r[2] < 0])
    today = write_clicks(folder / "today.parquet", [r for r in rows if 0 <= r[2] < DAY])
    out = folder / f"{name}.parquet"
    n = build_coclick_day([earlier], today, START, START + DAY, out)
    table = pq.read_table(out)
    assert len(table) == n
    return table


def vectors_of(table: pa.Table) -> dict[tuple[int, int], np.ndarray]:
    """By (article, ms after START of `since`)."""
    since = table.column("since").cast(pa.int64()).to_numpy() - START
    vectors = np.stack(table.column("vector").to_numpy(zero_copy_only=False))
    return dict(zip(zip(table.column("article_id").to_pylist(), since.tolist(), strict=True), vectors, strict=True))


def by_formula(rows: Rows, article: int, since: int) -> np.ndarray:
    """v = |w + r|, w = |Σ 2^(-(s - t)/half-life) r_b|, over pairs of clicks less than 30 minutes apart in a chain."""
    total = np.zeros(DIM)
    rows = sorted(rows, key=lambda r: (r[0], r[2], r[1]))
    for j, (user, b, time, _) in enumerate(rows):
        i = j - 1
        while i >= 0 and rows[i][0] == user and rows[i + 1][2] - rows[i][2] < 30 * MS_PER_MINUTE and time < since:
            other = rows[i][1]
            if other != b and article in (other, b):
                partner = b if article == other else other
                total += 2.0 ** (-(since - time) / HALF_LIFE_MS) * article_codes(np.array([partner]), DIM)[0]
            i -= 1
    vector = total / np.linalg.norm(total) + article_codes(np.array([article]), DIM)[0]
    return vector / np.linalg.norm(vector)


def test_vectors_follow_the_formula(tmp_path: Path) -> None:
    rows = random_rows(0)
    found = vectors_of(build(tmp_path, rows))
    assert len(found) > 50
    for article, since in list(found)[::7]:
        np.testing.assert_allclose(found[article, since], by_formula(rows, article, since), atol=2e-5)


def test_a_vector_is_written_when_and_only_when_pairs_are_new(tmp_path: Path) -> None:
    minute = MS_PER_MINUTE
    rows: Rows = [
        (1, 7, 5 * minute, 1),
        (1, 8, 6 * minute, 1),
        (2, 9, 6 * minute, 2),
        (3, 7, DAY - 2, 3),
        (3, 9, DAY - 1, 3),
    ]
    found = vectors_of(build(tmp_path, rows))
    assert sorted(found) == [(7, STEP), (7, DAY), (8, STEP), (9, DAY)]
    assert all(np.linalg.norm(v) == pytest.approx(1, abs=1e-5) for v in found.values())


def test_a_session_over_midnight_counts(tmp_path: Path) -> None:
    rows: Rows = [(1, 7, -1000, 5), (1, 8, 1000, 5)]
    assert sorted(vectors_of(build(tmp_path, rows))) == [(7, STEP), (8, STEP)]


def test_clicks_from_since_on_change_no_bit(tmp_path: Path) -> None:
    rows = random_rows(1)
    now = 12 * MS_PER_HOUR
    before = vectors_of(build(tmp_path, [r for r in rows if r[2] < now], "before"))
    everything = vectors_of(build(tmp_path, rows, "all"))
    known = {key: v for key, v in everything.items() if key[1] <= now}
    assert before.keys() == known.keys() and len(known) < len(everything)
    assert all(np.array_equal(before[key], v) for key, v in known.items())


def test_the_same_clicks_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(tmp_path, random_rows(2), name)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_codes_depend_on_the_id_alone_and_are_nearly_orthogonal() -> None:
    ids = np.arange(400)
    codes = article_codes(ids, DIM)
    assert np.array_equal(codes[[7, 3]], article_codes(np.array([7, 3]), DIM))
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, rtol=1e-6)
    products = (codes @ codes.T)[np.triu_indices(400, 1)]
    assert abs(products.mean()) < 0.002 and products.std() == pytest.approx(DIM**-0.5, rel=0.05)


def test_articles_clicked_together_are_near_each_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows: Rows = []
    for reader in range(400):
        block = 10 * (reader % 2)
        for article in rng.choice(10, 3, replace=False):
            rows.append((reader, block + int(article), int(rng.integers(0, STEP - MS_PER_MINUTE)), reader))
    found = vectors_of(build(tmp_path, rows))
    vectors = np.stack([found[a, STEP] for a in range(20)])
    cosine = vectors @ vectors.T
    same = np.equal.outer(np.arange(20) < 10, np.arange(20) < 10) & ~np.eye(20, dtype=bool)
    assert cosine[same].mean() > 0.5 > cosine[~same & ~np.eye(20, dtype=bool)].max()


def test_content_reads_them_as_of_a_time(tmp_path: Path) -> None:
    table = build(tmp_path, random_rows(4))
    found = vectors_of(table)
    article, since = next(iter(found))
    catalogue = Catalogue(np.arange(100, 130), np.full(30, START - DAY), np.full(30, -1, np.int32))
    content = Content.load([tmp_path / "out.parquet"], catalogue)
    row = np.array([[article - 100]])
    times = START + np.array([since - 1]), START + np.array([since])
    assert content.index(times[0], row)[0, 0] == -1
    assert np.array_equal(content.at(times[1], row)[0, 0], found[article, since])


def test_a_day_without_clicks_is_an_empty_file(tmp_path: Path) -> None:
    assert len(build(tmp_path, [])) == 0
