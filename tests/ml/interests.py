"""A small log in which interests matter, on disk as the stages write it: for tests of features, SNeRT and training.

Readers like one of four topics; most of their clicks go to fresh articles of it, the rest to what is fresh at all.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.articles import ARTICLE_FEATURES, NUMERIC
from ml.asof import AsOf, AsOfPaths
from ml.clock import MS_PER_DAY, MS_PER_HOUR
from ml.datasets import dataset
from ml.log import Catalogue, Clicks
from ml.popularity import Popularity
from ml.recipes import SNERT_QUICK, Recipe
from ml.sessions import session_ranges, write_sessions

START = 1_684_393_200_000  # 2023-05-18 07:00 UTC
DAYS, TOPICS, DIM, DIGEST = 3, 4, 8, "0" * 64
TRAIN_END = START + 2 * MS_PER_DAY + 12 * MS_PER_HOUR


@dataclass(frozen=True)
class World:
    """The files of a log and what made it."""

    paths: AsOfPaths
    sessions: Path
    topic: np.ndarray

    def open(self) -> AsOf:
        """The as-of door over the files."""
        return AsOf.open(self.paths)


def small_recipe(**changes: object) -> Recipe:
    """A recipe that trains in seconds."""
    small = {"dim": 16, "hidden": 32, "feedforward": 32, "layers": 1, "negatives": 12, "batch": 64}
    small |= {"steps": 30, "eval_every": 15, "validation_cases": 200, "session_length": 8}
    return Recipe.model_validate(SNERT_QUICK.model_dump() | small | changes)


def write_world(folder: Path, readers: int = 150, articles: int = 240, name: str = "simulated", seed: int = 0) -> World:
    """Make the log in `folder`: `readers` readers of about 30 clicks each over three days."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    published = np.sort(START - MS_PER_DAY + rng.integers(0, (DAYS + 1) * MS_PER_DAY, articles))
    topic = rng.integers(0, TOPICS, articles)
    user, article, time = _clicks(rng, published, topic, readers)
    _write_features(folder / "features.parquet", published, topic, rng, name)
    centre = rng.normal(size=(TOPICS, DIM))
    vectors = (centre[topic] + 0.3 * rng.normal(size=(articles, DIM))).astype(np.float32)
    _write_vectors(folder / "body.parquet", vectors)
    _write_interactions(folder / "interactions.parquet", user, article, time, rng)
    catalogue = Catalogue.load(folder / "features.parquet")
    clicks = Clicks.load(folder / "interactions.parquet", catalogue)
    Popularity.build(clicks.article, clicks.time, articles).save(folder / "popularity.safetensors")
    spans = {"train": (START, TRAIN_END), "validation": (TRAIN_END, START + DAYS * MS_PER_DAY)}
    write_sessions(session_ranges(clicks.user, clicks.time, spans), folder / "sessions.parquet", DIGEST)
    return replace(written_world(folder, name), topic=topic)


def written_world(folder: Path, name: str = "simulated") -> World:
    """The log that `write_world` made in `folder`; its topics are not known any more."""
    paths = AsOfPaths(
        dataset=dataset(name).name,
        features=folder / "features.parquet",
        interactions=folder / "interactions.parquet",
        popularity=folder / "popularity.safetensors",
        content={"body": [folder / "body.parquet"]} if name != "globo" else {},
        impressions=[],
    )
    return World(paths, folder / "sessions.parquet", np.zeros(0, dtype=np.int64))


def _clicks(
    rng: np.random.Generator, published: np.ndarray, topic: np.ndarray, readers: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reader, catalogue row and time (ms) of the clicks, sorted by reader and time."""
    out = []
    for reader in range(readers):
        liked = rng.integers(0, TOPICS)
        for start in np.sort(START + rng.integers(0, DAYS * MS_PER_DAY, 8)):
            times = start + np.cumsum(rng.integers(5_000, 240_000, rng.integers(2, 7)))
            for now in times:
                available = int(np.searchsorted(published, now // 60_000 * 60_000))
                fresh = np.arange(max(0, available - 60), available)
                weight = np.exp((fresh - available) / 15) * np.where(topic[fresh] == liked, 8.0, 1.0)
                out.append((reader, rng.choice(fresh, p=weight / weight.sum()), now))
    rows = np.array(sorted(out, key=lambda c: (c[0], c[2], c[1])))
    return rows[:, 0], rows[:, 1], rows[:, 2]


def _write_features(path: Path, published: np.ndarray, topic: np.ndarray, rng: np.random.Generator, name: str) -> None:
    n = len(published)
    none = name == "globo"
    columns = {
        schema.ARTICLE_ID: np.arange(n) + 1000,
        schema.PUBLISHED: pa.array(published, pa.int64()).cast(schema.TIME),
        "category_id": pa.nulls(n, pa.int32()) if none else pa.array(topic + 10, pa.int32()),
        "category": pa.nulls(n, pa.string()),
        "premium": pa.array(np.full(n, -1) if none else rng.integers(-1, 2, n), pa.int8()),
    }
    for i, column in enumerate(NUMERIC):
        known = (rng.random(n) < 0.9) & (not none)
        columns[column] = pa.array(rng.gamma(2.0, 1 + i, n), pa.float32(), mask=~known)
    pq.write_table(pa.table(columns, schema=ARTICLE_FEATURES), path)


def _write_vectors(path: Path, vectors: np.ndarray) -> None:
    n, dim = vectors.shape
    columns = {
        schema.ARTICLE_ID: pa.array(np.arange(n) + 1000),
        "since": pa.nulls(n, schema.TIME),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim),
    }
    pq.write_table(pa.table(columns), path)


def _write_interactions(
    path: Path, user: np.ndarray, article: np.ndarray, time: np.ndarray, rng: np.random.Generator
) -> None:
    new = np.r_[True, (np.diff(user) != 0) | (np.diff(time) >= 30 * 60_000)]
    session = np.cumsum(new) - 1
    session -= session[np.searchsorted(user, user)]
    read = rng.gamma(2.0, 30.0, len(user))
    columns: dict[str, pa.Array] = {
        schema.USER_ID: pa.array(user),
        schema.ARTICLE_ID: pa.array(article + 1000),
        schema.CLICK_TIME: pa.array(time, pa.int64()).cast(schema.TIME),
        schema.SESSION_ID: pa.array(session),
        schema.IMPRESSION_ID: pa.nulls(len(user), pa.int64()),
        schema.READ_TIME: pa.array(read, pa.float32(), mask=rng.random(len(user)) < 0.3),
    }
    columns |= {name: pa.nulls(len(user), pa.int32()) for name in schema.CONTEXT}
    pq.write_table(pa.table(columns, schema=schema.INTERACTIONS), path)
