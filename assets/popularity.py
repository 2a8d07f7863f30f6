"""`popularity_tensor`: the exact sparse form of the paper's P[φ(t), ι(a), :] (App. A.3).

Belongs here: building it from one interactions version. Does not belong here: the tensor itself (`ml.popularity`).
"""

from assets import plots
from assets.stage import Need, Stage, Summary, Work, no_recipe


def _compute(work: Work) -> Summary:
    from ml.log import Catalogue, Clicks
    from ml.popularity import Popularity

    catalogue = Catalogue.load(work.one("article_features").file("features.parquet"))
    clicks = Clicks.load(work.one("interactions").file("interactions.parquet"), catalogue)
    popularity = Popularity.build(clicks.article, clicks.time, len(catalogue))
    path = work.out / "popularity.safetensors"
    popularity.save(path)
    return Summary(
        rows={path.name: len(clicks)},
        metrics={"clicks": len(clicks), "articles": len(catalogue), "bytes": path.stat().st_size},
        plots={"clicks_per_hour": plots.clicks_per_hour(clicks.time)},
    )


POPULARITY_TENSOR = Stage(
    name="popularity_tensor",
    group="features",
    description="Clicks of every article in seven windows at every minute, exact and sparse.",
    needs=(Need("interactions", "interactions"), Need("article_features", "article_features")),
    modules=("assets.popularity", "ml.popularity", "ml.log"),
    recipe=no_recipe,
    compute=_compute,
    kinds=("numpy",),
)
