"""Effects that others published, shown on a simulated newspaper of four days.

Belongs here: properties of section 4 of the metric cases that need a trained model, at the published direction and
rough size. Does not belong here: the properties that hold of every model (`test_models`, `test_predict`), published
figures themselves (`ml.published`).
"""

from collections.abc import Callable
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
from ml.train import TrainSpec, train
from ml.validation import Validation
from tests.ml.interests import DIGEST, small_recipe

SIZE = Size("effects", 500, 6_000, 165, 535, 2, 1, 1, 30)
"""500 readers and some 4 x 6,000 clicks; 165 new articles a day and 535 older ones, 1,000 and more to rank."""
SEED = 0
TRAIN_END, END = (1000 * SIZE.day_start(day) for day in (3, 4))


@dataclass(frozen=True)
class Newspaper:
    """The simulated log: `play` has its articles, `days` what readers saw and clicked."""

    play: Play
    days: list[DayLog]


@pytest.fixture(scope="module")
def newspaper() -> Newspaper:
    play = Play(SIZE, SEED)
    return Newspaper(play, [play.day(day) for day in range(SIZE.days)])


# --- ids alone memorise (document 5: AUC .9737 in training, .5101 on later news)


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

    def fit(self, reader: torch.Tensor, article: torch.Tensor, clicked: torch.Tensor, epochs: int) -> None:
        """Binary cross-entropy on what was in view."""
        optimiser = torch.optim.Adam(self.parameters(), lr=0.01)
        for _ in range(epochs):
            for batch in torch.randperm(len(reader)).split(4096):
                loss = torch.nn.functional.binary_cross_entropy_with_logits(
                    self(reader[batch], article[batch]), clicked[batch].float()
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()


def pairs(log: DayLog, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the impressions where `keep` [n]: reader and article of every article in view, whether clicked; offsets."""
    rows = log.rows[keep]
    shown = rows >= 0
    clicked = (rows[:, :, None] == log.clicked[keep][:, None, :]).any(axis=2)
    offsets = np.concatenate([[0], np.cumsum(shown.sum(axis=1))])
    reader = np.repeat(log.event["user"][keep].astype(np.int64), np.diff(offsets))
    return reader, rows[shown].astype(np.int64), clicked[shown], offsets


def test_ids_alone_memorise_and_know_nothing_of_later_articles(newspaper: Newspaper) -> None:
    before, later = DayLog.joined(newspaper.days[:2]), newspaper.days[3]
    seen = np.unique(before.rows)
    unseen = ~np.isin(later.rows, seen[seen >= 0]).any(axis=1)
    assert unseen.sum() > 1_000
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = IdsAlone(SIZE.readers, len(newspaper.play.articles))
        fitted, new = pairs(before, np.ones(len(before), dtype=bool)), pairs(later, unseen)
        model.fit(*(torch.from_numpy(column) for column in fitted[:3]), epochs=15)

    def measured(of: tuple[np.ndarray, ...], score: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
        reader, article, clicked, offsets = of
        return float(auc(RankedLists.rank(clicked, score(reader, article), offsets)).mean())

    def by_ids(reader: np.ndarray, article: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(reader), torch.from_numpy(article)).numpy()

    def by_topic(reader: np.ndarray, article: np.ndarray) -> np.ndarray:
        return (newspaper.play.readers.interests[reader] * newspaper.play.articles.topics[article]).sum(axis=1)

    print(measured(fitted, by_ids), measured(new, by_ids), measured(new, by_topic), measured(fitted, by_topic))
    assert measured(fitted, by_ids) > 0.93
    assert measured(new, by_ids) == pytest.approx(0.5, abs=0.03)
    assert measured(new, by_topic) > 0.6  # there was something to know


# --- without popularity, retrieval collapses (document 1, Table 5.5: Recall@20 .770 with it, .294 without)

WITHOUT: tuple[Family, ...] = ("body", "meta", "time", "interaction")


@pytest.fixture(scope="module")
def paths(newspaper: Newspaper, tmp_path_factory: pytest.TempPathFactory) -> AsOfPaths:
    """The newspaper as the stages write it; what an article is about (its true topics) stands in for its body."""
    folder = tmp_path_factory.mktemp("newspaper")
    articles, log = newspaper.play.articles, DayLog.joined(newspaper.days)
    _write(folder / "articles.parquet", schema.ARTICLES, {
        schema.ARTICLE_ID: articles.article_id,
        schema.PUBLISHED: 1000 * articles.published,
        "published_is_first_seen": np.zeros(len(articles), dtype=bool),
        "category_id": articles.category,
        "premium": articles.premium,
    })
    build_article_features([folder / "articles.parquet"], folder / "features.parquet")
    _write(folder / "clicks.parquet", schema.INTERACTIONS, {
        schema.USER_ID: log.event["user"],
        schema.ARTICLE_ID: articles.article_id[log.clicked[:, 0]],
        schema.CLICK_TIME: 1000 * log.event["time"],
        schema.SESSION_ID: log.event["session"],
        schema.READ_TIME: log.read,
    })
    with duckdb.connect() as con:
        build_interactions(con, [folder / "clicks.parquet"], folder / "interactions.parquet", 0, END)
    about = pa.FixedSizeListArray.from_arrays(articles.topics.ravel(), articles.topics.shape[1])
    columns = {schema.ARTICLE_ID: articles.article_id, "since": pa.nulls(len(articles), schema.TIME), "vector": about}
    pq.write_table(pa.table(columns), folder / "body.parquet")
    clicks = Clicks.load(folder / "interactions.parquet", Catalogue.load(folder / "features.parquet"))
    Popularity.build(clicks.article, clicks.time, len(articles)).save(folder / "popularity.safetensors")
    spans = {"train": (1000 * SIZE.day_start(1), TRAIN_END), "validation": (TRAIN_END, END)}
    write_sessions(session_ranges(clicks, spans), folder / "sessions.parquet", DIGEST)
    return AsOfPaths(
        dataset="simulated",
        features=folder / "features.parquet",
        interactions=folder / "interactions.parquet",
        popularity=folder / "popularity.safetensors",
        content={"body": [folder / "body.parquet"]},
        impressions=[],
    )


def _write(path: Path, columns: pa.Schema, known: dict[str, np.ndarray]) -> None:
    """A table of `columns`, null where not `known`; times are given in ms."""
    rows = len(next(iter(known.values())))
    arrays = [pa.array(known[f.name]) if f.name in known else pa.nulls(rows, f.type) for f in columns]
    arrays = [a.cast(pa.int64()).cast(f.type) if f.type == schema.TIME else a.cast(f.type)
              for a, f in zip(arrays, columns, strict=True)]
    pq.write_table(pa.table(arrays, schema=columns), path)


def test_without_popularity_retrieval_collapses(paths: AsOfPaths, tmp_path: Path) -> None:
    asof = AsOf.open(paths)
    sessions_path = paths.features.parent / "sessions.parquet"
    sessions = read_sessions(sessions_path, DIGEST)
    chosen = Validation.choose(asof, sessions.target[sessions.split == "validation"], 1_500, SEED)

    def recall(families: tuple[Family, ...]) -> float:
        out = tmp_path / "-".join(families)
        recipe = small_recipe(families=families, steps=150, eval_every=50, lr=3e-3, epochs=50, negatives=40)
        train(TrainSpec(asof=paths, sessions=sessions_path, sessions_digest=DIGEST, recipe=recipe, seed=SEED, out=out,
                        device="cpu", train_end=TRAIN_END), print)
        return chosen.measure(asof, Snert.load(out, asof))["recall@20"]

    from ml.models.popular import Popular
    print(asof.available(np.array([TRAIN_END])), chosen.measure(asof, Popular(60)), chosen.measure(asof, Popular(15)))
    a, b = recall((*WITHOUT, "popularity")), recall(WITHOUT)
    print(a, b, b / a)
    assert b < 2 / 3 * a
