"""`faiss_index`: the catalogue's vectors as of the as-of day, ready to be searched.

Belongs here: encoding the catalogue with a checkpoint and handing it to retrieval. Does not belong here: the choice
of the index (`ml.retrieval`).
"""

from typing import Any

import numpy as np

from assets.stage import Need, Stage, Summary, Work, fit_needs
from ml.datasets import Dataset
from ml.errors import UsageError
from ml.models import MODELS, Embeds
from resources.bindings import RunSettings, Tools

QUERIES = 2000


def _recipe(dataset: Dataset, settings: RunSettings, tools: Tools, model: str | None) -> dict[str, Any]:
    return {"seed": settings.seed, "queries": QUERIES}


def _compute(work: Work) -> Summary:
    from ml.asof import AsOf
    from ml.retrieval import build_index

    asof = AsOf.open(work.asof_paths())
    model = MODELS[work.model or ""].load(work.one("checkpoint").path, work.tools.device.name)
    if not isinstance(model, Embeds):
        raise UsageError(f"{work.model} has no vectors to index: set embeds=False in its line of the registry")
    now = work.split.fit_end(work.dataset.clock, work.day)
    rows = np.arange(int(asof.available(np.array([now]))[0]))
    vectors = model.article_vectors(asof, now, rows)
    readers = np.unique(asof.clicks.user)
    sample = np.sort(np.random.default_rng(work.settings.seed).permutation(readers)[:QUERIES])
    queries = model.user_vectors(asof, asof.cases(sample, np.full(len(sample), now)))
    choice = build_index(vectors, asof.catalogue.article_id[rows], queries, work.out, seed=work.settings.seed)
    return Summary(
        rows={"index.faiss": len(rows)},
        metrics={"articles": len(rows), "recall@20": float(choice["recall@20"])},
        metadata={"choice": choice},
        artifacts=["choice.json"],
    )


FAISS_INDEX = Stage(
    name="faiss_index",
    group="training",
    description="Index of the catalogue's vectors; kind chosen from measured recall and size, ids beside it.",
    needs=(Need("checkpoint", "checkpoint", model="same"), *fit_needs()),
    modules=("assets.index", "ml.retrieval"),
    recipe=_recipe,
    compute=_compute,
    by_split="fit",
    models="embedding",
    kinds=("faiss",),
)
