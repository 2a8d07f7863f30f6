"""`article_embeddings`: what the day's articles are about, as vectors.

Belongs here: the choice of source per dataset: a text encoder where there is text, published vectors where the bundle
carries them, co-clicks where there is neither. Does not belong here: encoding (`resources.text_encoder`) and the
construction from co-clicks (`ml.coclick_vectors`).
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assets.stage import Need, Stage, Summary, Work
from ml import schema
from ml.datasets import Dataset
from ml.errors import DataError, UsageError
from ml.parquet import read_table
from resources.bindings import RunSettings, Tools
from resources.lake import write_parquet

FAMILIES = ("body", "title", "image")


def _recipe(dataset: Dataset, settings: RunSettings, tools: Tools, model: str | None) -> dict[str, Any]:
    from ml.readers import reader

    if not dataset.has_text:
        return {"source": "coclick"}
    families = _families(dataset, settings)
    unknown = sorted(set(families) - set(FAMILIES))
    if unknown:
        raise UsageError(f"unknown text family {unknown[0]!r}: choose from {', '.join(FAMILIES)}")
    published = reader(dataset.reader).artifact_vectors(tools.source.root(dataset))
    digests = tools.source.fingerprint(dataset)
    names = {f: published[f].relative_to(tools.source.root(dataset)).as_posix() for f in families if f in published}
    return {
        "source": "text",
        "families": families,
        "published": {family: digests[name] for family, name in names.items()},
        "encoder": tools.encoder.identity,
    }


def _families(dataset: Dataset, settings: RunSettings) -> list[str]:
    return list(settings.text_families or dataset.text)


def _compute(work: Work) -> Summary:
    summary = _text(work) if work.dataset.has_text else _coclick(work)
    (work.out / "families.json").write_text(json.dumps(sorted(summary.rows)) + "\n")
    return summary


def _text(work: Work) -> Summary:
    """Vectors of the text families of the settings (Tab. A.5, content features)."""
    from ml.readers import reader

    articles = read_table(work.one("articles").file("articles.parquet"), schema.ARTICLES)
    published = reader(work.dataset.reader).artifact_vectors(work.tools.source.root(work.dataset))
    rows = {}
    for family in _families(work.dataset, work.settings):
        if family in published:
            table = reader(work.dataset.reader).vectors_of(published[family], articles[schema.ARTICLE_ID].to_numpy())
        elif family == "image":
            raise DataError(f"{work.dataset.name}: no image vectors in the bundle: drop image from the text families")
        else:
            table = _encode(work, articles, family)
        if table is not None and len(table):
            write_parquet(table, work.out / f"{family}.parquet")
            rows[f"{family}.parquet"] = len(table)
    return Summary(rows=rows, metrics={"vectors": sum(rows.values())})


def _encode(work: Work, articles: pa.Table, family: str) -> pa.Table | None:
    from resources.text_encoder import text_digest

    known = articles.filter(pc.not_equal(pc.utf8_trim_whitespace(articles[family]), ""))
    if not len(known):
        return None
    texts = known[family].to_pylist()
    digests = [text_digest(t) for t in texts]
    vectors = work.tools.encoder.encode(texts, digests, work.tools.lake.cache("text"), work.progress)
    return vector_table(known[schema.ARTICLE_ID].to_numpy(), vectors)


def vector_table(article_id: np.ndarray, vectors: np.ndarray) -> pa.Table:
    """The table form of vectors that hold from the beginning: article_id, since (null), vector."""
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    return pa.table(
        {
            schema.ARTICLE_ID: pa.array(article_id, pa.int64()),
            "since": pa.nulls(len(article_id), schema.TIME),
            "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
    )


def _coclick(work: Work) -> Summary:
    from ml.coclick_vectors import build_coclick_day

    today = work.one("clicks").file("clicks.parquet")
    before = [v.file("clicks.parquet") for v in work.inputs["earlier_clicks"]]
    clock = work.dataset.clock
    path = work.out / "coclick.parquet"
    rows = build_coclick_day(before, today, clock.start(work.day), clock.end(work.day), path)
    return Summary(rows={path.name: rows}, metrics={"vectors": rows})


ARTICLE_EMBEDDINGS = Stage(
    name="article_embeddings",
    group="features",
    description="Vectors of the day's articles: text encoder, published artifacts, or co-clicks where no text is.",
    needs=(
        Need("articles", "articles"),
        Need("clicks", "clicks"),
        Need("earlier_clicks", "clicks", lambda _: (-2, -1)),
    ),
    modules=("assets.embeddings", "resources.text_encoder", "ml.coclick_vectors", "ml.readers"),
    recipe=_recipe,
    compute=_compute,
    daily=True,
    kinds=("huggingface",),
)
