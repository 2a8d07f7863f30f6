"""Effects that others published, shown on a simulated newspaper of four days.

Belongs here: properties of section 4 of the metric cases that need a trained model, at the published direction and
rough size. Does not belong here: the properties that hold of every model (`test_models`, `test_predict`), published
figures themselves (`ml.published`).
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ml import schema
from ml.articles import build_article_features
from ml.asof import AsOf, AsOfPaths
from ml.log import Catalogue, Clicks
from ml.metrics import RankedLists, auc
from ml.models.snert import Snert
from ml.popularity import Popularity
from ml.recipes import Family
from ml.sessions import build_interactions, read_sessions, session_ranges, write_sessions
from ml.simulator.config import Size
from ml.simulator.play import DayLog, Play
from ml.simulator.world import Articles
from ml.train import TrainSpec, train
from ml.validation import Validation
from tests.ml.interests import DIGEST, small_recipe

SIZE = Size("effects", 2_000, 6_000, 165, 535, 2, 1, 1, 30)
"""2,000 readers with some 5,000 clicks a day; 165 new articles a day beside 535 older ones: 1,000 to rank and more."""
SEED = 0
DRAWS = 30
"""Vectors of later articles are as they were first drawn: their AUC is averaged over so many draws."""
TRAIN_END, END = (1000 * SIZE.day_start(day) for day in (3, 4))
Newspaper = tuple[Articles, list[DayLog]]


@pytest.fixture(scope="module")
def newspaper() -> Newspaper:
    """Its articles, and what readers saw and clicked day by day."""
    play = Play(SIZE, SEED)
    return play.articles, [play.day(day) for day in range(SIZE.days)]


# --- ids alone memorise (document 5: AUC .9737 in training, .5101 in validation)


class IdsAlone(torch.nn.Module):
    """Document 5's matrix factorisation: a vector for every reader and every article, and nothing else."""

    def __init__(self, readers: int, articles: int, dim: int = 50) -> None:
        super().__init__()
        self.reader, self.article = torch.nn.Embedding(readers, dim), torch.nn.Embedding(articles, dim)
        for table in (self.reader, self.article):
            torch.nn.init.normal_(table.weight, std=0.1)

    def forward(self, reader: torch.Tensor, article: torch.Tensor) -> torch.Tensor:
        """Logits of a click [N]."""
        return (self.reader(reader) * self.article(article)).sum(dim=-1)

    def fit(self, shown: "Shown", epochs: int) -> None:
        """Binary cross-entropy on what was in view, clicked or not."""
        columns = [torch.from_numpy(c) for c in (shown.reader, shown.article, shown.clicked.astype(np.float32))]
        optimiser = torch.optim.Adam(self.parameters(), lr=0.01)
        for _ in range(epochs):
            for batch in torch.randperm(len(shown.reader)).split(4096):
                reader, article, clicked = (column[batch] for column in columns)
                loss = torch.nn.functional.binary_cross_entropy_with_logits(self(reader, article), clicked)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    def scores(self, shown: "Shown") -> np.ndarray:
        """Logits of everything in view, float32 [V]."""
        with torch.no_grad():
            return self(torch.from_numpy(shown.reader), torch.from_numpy(shown.article)).numpy()


@dataclass(frozen=True)
class Shown:
    """Reader, article (int64) and click of everything in view; impression i is `offsets[i]:offsets[i + 1]`."""

    reader: np.ndarray
    article: np.ndarray
    clicked: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, log: DayLog, keep: np.ndarray) -> "Shown":
        """The impressions `keep` (int64) of `log`."""
        rows, inside = log.rows[keep], log.rows[keep] >= 0
        clicked = (rows[:, :, None] == log.clicked[keep][:, None, :]).any(axis=2)
        reader = np.repeat(log.event["user"][keep].astype(np.int64), inside.sum(axis=1))
        return cls(reader, rows[inside].astype(np.int64), clicked[inside], np.r_[0, np.cumsum(inside.sum(axis=1))])

    def auc(self, scores: np.ndarray) -> float:
        """Mean AUC over impressions."""
        return float(auc(RankedLists.rank(self.clicked, scores, self.offsets)).mean())


def test_ids_alone_memorise_and_know_nothing_of_later_articles(newspaper: Newspaper) -> None:
    articles, days = newspaper
    before, later = DayLog.joined(days[:2]), days[3]
    unseen = np.flatnonzero(~np.isin(later.rows, before.rows[before.rows >= 0]).any(axis=1))
    assert len(unseen) > 1_000
    training, new = Shown.of(before, np.arange(len(before))), Shown.of(later, unseen)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = IdsAlone(SIZE.readers, len(articles))
        drawn = model.article.weight.detach()[new.article].clone()
        model.fit(training, epochs=30)
        trained = training.auc(model.scores(training))
        assert torch.equal(model.article.weight.detach()[new.article], drawn), "a later article was trained on"
        later_auc = []
        for _ in range(DRAWS):  # one draw is one ranking, much the same for all readers
            later_auc.append(new.auc(model.scores(new)))
            torch.nn.init.normal_(model.article.weight, std=0.1)
    assert trained > 0.92
    assert np.mean(later_auc) == pytest.approx(0.5, abs=0.03)
    assert new.auc(articles.quality[new.article]) > 0.65, "there was something to know of the later articles"


# --- without popularity, retrieval collapses (document 1, Table 5.5: Recall@20 .770 with it, .294 without)


@pytest.fixture(scope="module")
def paths(newspaper: Newspaper, tmp_path_factory: pytest.TempPathFactory) -> AsOfPaths:
    """The newspaper as the stages write it; what an article is about (its true topics) stands in for its body."""
    folder = tmp_path_factory.mktemp("newspaper")
    articles, log = newspaper[0], DayLog.joined(newspaper[1])
    _write(
        folder / "articles.parquet",
        schema.ARTICLES,
        {
            schema.ARTICLE_ID: articles.article_id,
            schema.PUBLISHED: 1000 * articles.published,
            "published_is_first_seen": np.zeros(len(articles), dtype=bool),
            "category_id": articles.category,
            "premium": articles.premium,
        },
    )
    build_article_features([folder / "articles.parquet"], folder / "features.parquet")
    _write(
        folder / "clicks.parquet",
        schema.INTERACTIONS,
        {
            schema.USER_ID: log.event["user"],
            schema.ARTICLE_ID: articles.article_id[log.clicked[:, 0]],
            schema.CLICK_TIME: 1000 * log.event["time"],
            schema.SESSION_ID: log.event["session"],
            schema.READ_TIME: log.read,
        },
    )
    with duckdb.connect() as con:
        build_interactions(con, [folder / "clicks.parquet"], folder / "interactions.parquet", 0, END)
    about = pa.FixedSizeListArray.from_arrays(articles.topics.ravel(), articles.topics.shape[1])
    columns = {schema.ARTICLE_ID: articles.article_id, "since": pa.nulls(len(articles), schema.TIME), "vector": about}
    pq.write_table(pa.table(columns), folder / "body.parquet")
    clicks = Clicks.load(folder / "interactions.parquet", Catalogue.load(folder / "features.parquet"))
    Popularity.build(clicks.article, clicks.time, len(articles)).save(folder / "popularity.safetensors")
    spans = {"train": (1000 * SIZE.day_start(1), TRAIN_END), "validation": (TRAIN_END, END)}
    write_sessions(session_ranges(clicks.user, clicks.time, spans), folder / "sessions.parquet", DIGEST)
    return AsOfPaths(
        dataset="simulated",
        features=folder / "features.parquet",
        interactions=folder / "interactions.parquet",
        popularity=folder / "popularity.safetensors",
        content={"body": [folder / "body.parquet"]},
        impressions=[],
    )


def _write(path: Path, columns: pa.Schema, known: dict[str, np.ndarray]) -> None:
    """A table of `columns`, null where not `known`; times are int64 ms."""
    rows = len(known[schema.ARTICLE_ID])
    arrays = [pa.array(known[f.name]).cast(f.type) if f.name in known else pa.nulls(rows, f.type) for f in columns]
    pq.write_table(pa.table(arrays, schema=columns), path)


def test_without_popularity_retrieval_collapses(paths: AsOfPaths, tmp_path: Path) -> None:
    asof, ranges = AsOf.open(paths), paths.features.with_name("sessions.parquet")
    sessions = read_sessions(ranges, DIGEST)
    chosen = Validation.choose(asof, sessions.target[sessions.split == "validation"], 1_500, SEED)
    assert len(chosen.cases) >= 1_500 and asof.available(chosen.cases.time).min() > 1_000

    def recall(*families: Family) -> float:
        spec = TrainSpec(
            asof=paths,
            sessions=ranges,
            sessions_digest=DIGEST,
            recipe=small_recipe(families=families, steps=150, eval_every=75, lr=3e-3, negatives=40),
            seed=SEED,
            out=tmp_path / "-".join(families),
            device="cpu",
            train_end=TRAIN_END,
        )
        return chosen.measure(asof, Snert.load(train(spec).out, asof))["recall@20"]

    complete = recall("body", "meta", "time", "interaction", "popularity")
    without = recall("body", "meta", "time", "interaction")
    assert complete > 0.6
    assert without < 2 / 3 * complete
    assert without > 3 * 20 / 1_000, "it still knows content and age: the fall is not a failed training"
