"""A SNeRT trained for a short while on a simulated log, for benchmarks that need vectors which mean something.

Belongs here: from the simulator to a checkpoint without a lake, and more vectors of the same kind. Does not belong
here: what is measured on them (one module a benchmark), training itself (`ml.train`).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml import schema
from ml.articles import build_article_features
from ml.asof import AsOf, AsOfPaths
from ml.clock import MS_PER_HOUR
from ml.content import SINCE, VECTOR
from ml.datasets import dataset
from ml.log import Catalogue, Clicks
from ml.models.snert import Snert
from ml.popularity import Popularity
from ml.readers import reader
from ml.recipes import SNERT_QUICK
from ml.sessions import build_interactions, session_ranges, write_sessions
from ml.simulator import simulate
from ml.train import TrainSpec, train

NEIGHBOURS = 10
_DIGEST = "0" * 64
_TEXT_DIM = 64


@dataclass(frozen=True, slots=True)
class Trained:
    """A model, the log that it was trained on, and the time (ms) up to which it saw it."""

    model: Snert
    asof: AsOf
    end_ms: int

    def vectors(self) -> np.ndarray:
        """Of all articles at the end, float32 [A, d]."""
        available = int(self.asof.available(np.array([self.end_ms]))[0])
        return self.model.article_vectors(self.asof, self.end_ms, np.arange(available))

    def queries(self) -> np.ndarray:
        """Of all readers at the end in random order, float32 [R, d]."""
        readers = np.random.default_rng(0).permutation(np.unique(self.asof.clicks.user))
        return self.model.user_vectors(self.asof, self.asof.cases(readers, np.full(len(readers), self.end_ms)))


def trained(folder: Path, size: str, steps: int, dim: int) -> Trained:
    """Simulate a log of a size of the simulator in `folder` and train `snert_quick` with `dim` dimensions on it for
    `steps` steps; what articles are about comes from words (TF-IDF, 64 singular vectors)."""
    simulate(folder / "log", size, seed=0)
    paths, end = _stages(folder)
    clicks = Clicks.load(paths.interactions, Catalogue.load(paths.features))
    split = end - 12 * MS_PER_HOUR
    spans = {"train": (int(clicks.time.min()), split), "validation": (split, end)}
    write_sessions(session_ranges(clicks.user, clicks.time, spans), folder / "sessions.parquet", _DIGEST)
    changes = {"dim": dim, "hidden": 2 * dim, "steps": steps, "eval_every": steps}
    spec = TrainSpec(
        asof=paths,
        sessions=folder / "sessions.parquet",
        sessions_digest=_DIGEST,
        recipe=SNERT_QUICK.model_copy(update=changes),
        seed=0,
        out=folder / "checkpoint",
        device="cpu",
        train_end=split,
    )
    train(spec)
    return Trained(Snert.load(spec.out), AsOf.open(paths), end)


def more(vectors: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """`n` unit vectors of the same distribution, float32 [n, d]: each lies between one of `vectors` and one of its ten
    nearest, at a random place (SMOTE; Chawla et al. 2002, Sec. 4.2)."""
    import faiss

    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    nearest = exact.search(vectors, NEIGHBOURS + 1)[1]
    rng = np.random.default_rng(seed)
    one = rng.integers(0, len(vectors), n)
    other = nearest[one, rng.integers(1, NEIGHBOURS + 1, n)]
    place = rng.random((n, 1), dtype=np.float32)
    between = vectors[one] + place * (vectors[other] - vectors[one])
    return between / np.linalg.norm(between, axis=1, keepdims=True)


def _stages(folder: Path) -> tuple[AsOfPaths, int]:
    """The files behind the as-of door for all days of the log, and the time at which these end."""
    known = dataset("simulated")
    layout = reader(known.reader)
    days = layout.split(folder / "log", known, folder / "raw")
    files: dict[str, list[Path]] = {"articles": [], "clicks": [], "impressions": []}
    for day in days:
        tables = layout.tables(folder / "raw" / str(day), known, day)
        for name, written in files.items():
            written.append(folder / f"{day}-{name}.parquet")
            pq.write_table(getattr(tables, name), written[-1])
    build_article_features(files["articles"], folder / "features.parquet")
    start, end = known.clock.start(days[0]), known.clock.end(days[-1])
    _write_interactions(files["clicks"], folder / "interactions.parquet", start, end)
    catalogue = Catalogue.load(folder / "features.parquet")
    clicks = Clicks.load(folder / "interactions.parquet", catalogue)
    Popularity.build(clicks.article, clicks.time, len(catalogue)).save(folder / "popularity.safetensors")
    _write_words(files["articles"], folder / "body.parquet")
    paths = AsOfPaths(
        dataset=known.name,
        features=folder / "features.parquet",
        interactions=folder / "interactions.parquet",
        popularity=folder / "popularity.safetensors",
        content={"body": [folder / "body.parquet"]},
        impressions=files["impressions"],
    )
    return paths, end


def _write_interactions(clicks: list[Path], out: Path, start: int, end: int) -> None:
    import duckdb

    with duckdb.connect() as con:
        build_interactions(con, clicks, out, start, end)


def _write_words(articles: list[Path], out: Path) -> None:
    """Body vectors of the articles from their words."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    table = pa.concat_tables([pq.read_table(path, columns=[schema.ARTICLE_ID, "body"]) for path in articles])
    ids, first = np.unique(table.column(schema.ARTICLE_ID).to_numpy(), return_index=True)
    texts = table.column("body").fill_null("").take(pa.array(first)).to_pylist()
    vectors = TruncatedSVD(_TEXT_DIM, random_state=0).fit_transform(TfidfVectorizer().fit_transform(texts))
    columns = {
        schema.ARTICLE_ID: pa.array(ids),
        SINCE: pa.nulls(len(ids), schema.TIME),
        VECTOR: pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float32).ravel()), _TEXT_DIM),
    }
    pq.write_table(pa.table(columns), out)
