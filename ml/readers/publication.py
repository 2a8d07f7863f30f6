"""What articles' own tables do not bear out: appearances before publication, and articles that no table has.

Belongs here: finding and counting them. Nothing is held back for either: the first appearance then stands in for
publication (`ml.readers.canonical.articles`).
"""

import polars as pl

from ml import schema
from ml.readers.canonical import Canonical
from ml.readers.remarks import Remark, remarks_on, remarks_on_articles
from ml.readers.rules import SOURCE

_LISTED, _ROW = "__listed", "__row"


def early_appearances(listed: pl.DataFrame, clicks: Canonical, shown: Canonical, seen: pl.DataFrame) -> list[Remark]:
    """Clicks on articles that were published later, and impressions that show one. `listed`: article_id, and
    `published_time` (timestamp), of several rows of one article the earliest counts; `seen`: its first appearance
    (`canonical.first_seen`)."""
    time = pl.col("published_time").cast(pl.Datetime("ms")).cast(pl.Int64)
    known = listed.group_by(pl.col(schema.ARTICLE_ID).cast(pl.Int64)).agg(time.min().alias(_LISTED))
    early = known.join(seen, on=schema.ARTICLE_ID).filter(pl.col(schema.PUBLISHED) < pl.col(_LISTED))
    if not len(early):
        return []
    dates = early.select(schema.ARTICLE_ID, _LISTED)
    before = pl.col(schema.CLICK_TIME) < pl.col(_LISTED)
    clicked = clicks.rows.join(dates, on=schema.ARTICLE_ID, maintain_order="left").filter(before)
    pairs = _shown_pairs(shown.rows, dates).filter(before)
    return [
        *remarks_on(clicked, "clicks", "click_before_publication", schema.CLICK_TIME),
        *remarks_on(shown.rows[pairs[_ROW].unique().sort()], "impressions", "shown_before_publication", schema.INVIEW),
    ]


def unlisted_articles(missing: pl.DataFrame, clicks: Canonical, shown: Canonical) -> list[Remark]:
    """The articles that are clicked or shown and `missing` (column article_id) from the log's article table. Each
    counts for the file of the first click on it, or else impression that shows it."""
    clicked = clicks.rows.join(missing, on=schema.ARTICLE_ID, how="semi", maintain_order="left")
    clicked = clicked.select(schema.ARTICLE_ID, SOURCE)
    others = missing.join(clicked, on=schema.ARTICLE_ID, how="anti").select(schema.ARTICLE_ID)
    pairs = _shown_pairs(shown.rows, others)
    inview = pairs.select(schema.ARTICLE_ID, shown.rows[SOURCE].gather(pairs[_ROW]).alias(SOURCE))
    first = pl.concat([clicked, inview]).unique(schema.ARTICLE_ID, keep="first", maintain_order=True)
    return remarks_on_articles(first, "unlisted_article", schema.ARTICLE_ID)


def _shown_pairs(shown: pl.DataFrame, articles: pl.DataFrame) -> pl.DataFrame:
    """One row, in order, for each time that an impression (number `__row`) shows one of `articles`: with its time and
    their columns."""
    inview = pl.col(schema.INVIEW).alias(schema.ARTICLE_ID)
    if not len(articles):
        shown = shown.clear()
    pairs = shown.with_row_index(_ROW).select(_ROW, schema.CLICK_TIME, inview).explode(schema.ARTICLE_ID)
    return pairs.join(articles, on=schema.ARTICLE_ID, maintain_order="left")
