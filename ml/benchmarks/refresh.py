"""Benchmark of the minute's refresh: vectors of the catalogue and their index, against making both anew.

Belongs here: `newsrec bench refresh`. Does not belong here: what is kept between minutes (`ml.models.snert`), the index
(`ml.retrieval`).

The reference encodes all articles in full and trains and fills an index of inverted lists with as many lists as ours
has. Both sides end with an index that can be asked. The network has the recipe's size and no training; the index that
was refreshed for some minutes in a row must recall as much of the exact answers as one that is made anew.
"""

from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from ml.asof import AsOf
from ml.benchmarks.common import growth, interleaved, row, size_of, timed
from ml.benchmarks.evaluation import network
from ml.benchmarks.world import END_MS, World
from ml.clock import MS_PER_MINUTE
from ml.models.snert import Snert
from ml.retrieval import ArticleIndex, K, inverted_lists, refreshed, search

SIZES = {
    "quick": (World(20_000, 60, 2_000, 64), "snert_quick"),
    "paper": (World(125_542, 579, 2_000, 768), "snert_thesis"),
}

LIMIT_S = 0.5
"""What a refresh may take on two cores: a fixed figure, whatever the machine."""

_ROUNDS = 5
_QUERIES = 500
_PROBES = 16
_BEHIND = 30


@dataclass
class Live:
    """A model with the index of the minute that it has reached."""

    model: Snert
    asof: AsOf
    index: ArticleIndex
    minute: int

    @classmethod
    def begin(cls, model: Snert, asof: AsOf, minute: int) -> "Live":
        """With an index made from nothing."""
        return cls(model, asof, _anew(model, asof, minute), minute)

    def step(self) -> None:
        """One minute on."""
        self.minute += 1
        vectors = self.model.catalogue_vectors(self.asof, self.minute * MS_PER_MINUTE)
        self.index = refreshed(self.index, vectors, np.arange(len(vectors)), self.minute)


def bench_refresh(size: str = "quick") -> dict[str, Any]:
    """Seconds of a minute's refresh, ours and from nothing, and the recall of both.

    `size`: `quick` or `paper`; UsageError otherwise. Form: DESIGN, section 7.
    """
    world, name = size_of(SIZES, size)
    asof = world.make()
    model = network(asof, name)
    live = Live.begin(model, asof, END_MS // MS_PER_MINUTE - _BEHIND)
    later = count(live.minute + 1)
    pair = interleaved(live.step, lambda: _anew(model, asof, next(later)), _ROUNDS)
    kept, new = (_recall(live, index) for index in (live.index, _anew(model, asof, live.minute)))
    minutes = f"after {_ROUNDS + 1} minutes"
    results = [
        pair.row(f"refresh of {len(live.index.ids):,} articles / full encoder pass and index", "s"),
        row(f"refresh of {len(live.index.ids):,} articles / fixed limit", list(pair.ours), LIMIT_S, "s"),
        row(f"recall@{K} {minutes}, {_PROBES} probes / index made anew", kept, new, "recall", "more"),
    ]
    sizes = [world.articles // 4, world.articles // 2, world.articles]
    described = {"articles": world.articles, "recipe": name, "dimension": live.index.index.d}
    return {
        "bench": "refresh",
        "size": described,
        "results": results,
        "growth": [growth("refresh by articles", partial(_cost, world, name), sizes)],
    }


def _anew(model: Snert, asof: AsOf, minute: int) -> ArticleIndex:
    """All articles available in a minute, encoded in full, and an index of them."""
    time = minute * MS_PER_MINUTE
    rows = np.arange(int(asof.available(np.array([time]))[0]))
    index = inverted_lists(model.article_vectors(asof, time, rows))
    index.nprobe = _PROBES
    return ArticleIndex(index, rows, {"articles": len(rows)})


def _recall(live: Live, index: ArticleIndex) -> float:
    """Share of the exact top 20 of some readers that an index finds."""
    time = live.minute * MS_PER_MINUTE
    readers = np.unique(live.asof.clicks.user)[:_QUERIES]
    queries = live.model.user_vectors(live.asof, live.asof.cases(readers, np.full(len(readers), time)))
    scores = queries @ live.model.catalogue_vectors(live.asof, time).T
    exact = np.argpartition(-scores, K, axis=1)[:, :K]
    return float((search(index, queries, K)[0][:, :, None] == exact[:, None, :]).any(axis=1).mean())


def _cost(world: World, name: str, articles: int) -> float:
    """Seconds of a refresh of so many articles, the least of three."""
    asof = World(articles, world.clicks_per_minute // 4, world.minutes, world.dim).make()
    live = Live.begin(network(asof, name), asof, END_MS // MS_PER_MINUTE - _BEHIND)
    live.step()
    return min(timed(live.step)[1] for _ in range(3))
