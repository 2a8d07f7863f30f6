"""`article_features`: the catalogue as of a day, in order of publication, with its metadata features.

Belongs here: the union of the days' articles. Does not belong here: the features (`ml.articles`) and their scaling,
which is fitted on training targets and stored with the checkpoint (`ml.features`).
"""

from assets.stage import Need, Stage, Summary, Work, no_recipe


def _compute(work: Work) -> Summary:
    from ml.articles import build_article_features

    files = [v.file("articles.parquet") for v in work.inputs["articles"]]
    rows = build_article_features(files, work.out / "features.parquet")
    return Summary(rows={"features.parquet": rows}, metrics={"articles": rows})


ARTICLE_FEATURES = Stage(
    name="article_features",
    group="features",
    description="All articles published before the as-of day with the metadata of Tab. A.5, not yet scaled.",
    needs=(Need("articles", "articles", lambda _: (None, -1)),),
    modules=("assets.features", "ml.articles"),
    recipe=no_recipe,
    compute=_compute,
    kinds=("polars", "parquet"),
)
