"""Which columns of which input a published column comes from.

Belongs here: canonical tables, features, predictions and metrics, as plain values that Dagster's pages and the audit's
exports read. Does not belong here: how the columns are computed (`ml`).
"""

from collections.abc import Iterable, Mapping

from ml import schema
from ml.articles import NUMERIC, SENTIMENT
from ml.schema import ARTICLE_ID, CLICK_TIME, CLICKED, IMPRESSION_ID, INVIEW, MODIFIED, PUBLISHED, SESSION_ID, USER_ID

Source = tuple[str, str]
"""Input stage and column."""
Columns = Mapping[str, tuple[Source, ...]]


def _of(stage: str, columns: Mapping[str, Iterable[str] | str]) -> dict[str, tuple[Source, ...]]:
    """Columns that all come from one stage."""
    named = {c: [s] if isinstance(s, str) else list(s) for c, s in columns.items()}
    return {c: tuple((stage, s) for s in sources) for c, sources in named.items()}


def _same(stage: str, columns: Iterable[str]) -> dict[str, tuple[Source, ...]]:
    return _of(stage, {c: c for c in columns})


_EBNERD = {
    "articles": _of(
        "raw_parquet",
        {
            ARTICLE_ID: "article_id", PUBLISHED: ("published_time", "impression_time", "time"),
            "published_is_first_seen": "published_time", MODIFIED: "last_modified_time", "title": "title",
            "subtitle": "subtitle", "body": "body", "category_id": "category", "category": "category_str",
            "premium": "premium", "sentiment_score": "sentiment_score",
        },
    ),
    "clicks": _of(
        "raw_parquet",
        {
            USER_ID: "user_id", ARTICLE_ID: ("article_ids_clicked", "article_id"),
            CLICK_TIME: ("impression_time", "read_time", "time"), SESSION_ID: "session_id",
            IMPRESSION_ID: "impression_id",
            schema.READ_TIME: ("next_read_time", "read_time"), schema.SCROLL: ("next_scroll_percentage", "scroll"),
            "device": "device_type", "subscriber": "is_subscriber",
        },
    ),
    "impressions": _of(
        "raw_parquet",
        {
            IMPRESSION_ID: "impression_id", USER_ID: "user_id", CLICK_TIME: "impression_time",
            INVIEW: "article_ids_inview", CLICKED: "article_ids_clicked", SESSION_ID: "session_id",
            "device": "device_type", "subscriber": "is_subscriber",
        },
    ),
}  # fmt: skip
_GLOBO = {
    "articles": _of(
        "raw_parquet",
        {
            ARTICLE_ID: "click_article_id", PUBLISHED: "click_timestamp",
            "published_is_first_seen": "click_timestamp", "category_id": "category_id",
        },
    ),
    "clicks": _of(
        "raw_parquet",
        {
            USER_ID: "user_id", ARTICLE_ID: "click_article_id", CLICK_TIME: "click_timestamp",
            SESSION_ID: "session_id", "device": "click_deviceGroup", "os": "click_os", "region": "click_region",
            "referrer": "click_referrer_type",
        },
    ),
    "impressions": {},
}  # fmt: skip
_MIND = {
    "articles": _of(
        "raw_parquet",
        {
            ARTICLE_ID: ("inview", "article_id"), PUBLISHED: "time", "published_is_first_seen": "time",
            "category_id": "category", **{c: c for c in ("category", "subcategory", "title", "subtitle")},
        },
    ),
    "clicks": _of(
        "raw_parquet",
        {USER_ID: "user_id", ARTICLE_ID: "clicked", CLICK_TIME: "time", IMPRESSION_ID: "impression_id"},
    ),
    "impressions": _same("raw_parquet", (IMPRESSION_ID, USER_ID, CLICK_TIME, INVIEW, CLICKED)),
}  # fmt: skip
_OWN = {
    "articles": _same("raw_parquet", (n for n in schema.ARTICLES.names if n != "published_is_first_seen"))
    | _of("raw_parquet", {"published_is_first_seen": (PUBLISHED, CLICK_TIME)}),
    "clicks": _same("raw_parquet", schema.CLICKS.names),
    "impressions": _same("raw_parquet", schema.IMPRESSIONS.names),
}
BY_READER: Mapping[str, Mapping[str, Columns]] = {
    "ebnerd": _EBNERD, "globo": _GLOBO, "mind": _MIND, "own": _OWN,
}  # fmt: skip

_KEYS = (USER_ID, CLICK_TIME, ARTICLE_ID)
_LISTS = _of("predictions", dict.fromkeys(("recall@20", "ndcg@20", "mrr@20"), ("articles", ARTICLE_ID)))
_TEXT = {
    name: SENTIMENT if name == SENTIMENT else name.split("_")[0] for name in NUMERIC
}  # body_word_count comes from body, title_word_count from title
FEATURES: Mapping[str, Columns] = {
    "interactions": {
        **_same("clicks", [n for n in schema.INTERACTIONS.names if n != SESSION_ID]),
        SESSION_ID: tuple(("clicks", n) for n in (SESSION_ID, USER_ID, CLICK_TIME)),
    },
    "session_splits": _of(
        "interactions", {"first": (USER_ID, CLICK_TIME), "target": (USER_ID, CLICK_TIME), "split": CLICK_TIME}
    ),
    "article_features": {
        **_same("articles", (ARTICLE_ID, PUBLISHED, "category_id", "category", "premium")),
        **_of("articles", _TEXT),
    },
    "article_embeddings": {
        ARTICLE_ID: (("articles", ARTICLE_ID),),
        "vector": (*(("articles", n) for n in ("title", "subtitle", "body")), ("clicks", ARTICLE_ID)),
    },
    "popularity_tensor": _of("interactions", {"clicks by article and minute": (ARTICLE_ID, CLICK_TIME)}),
    "predictions": {
        **_same("interactions", _KEYS),
        "articles": (("article_features", ARTICLE_ID), ("impressions", INVIEW)),
        "clicked": (("impressions", CLICKED),),
        "scores": (
            *(("interactions", n) for n in _KEYS),
            ("article_embeddings", "vector"),
            *(("article_features", n) for n in (PUBLISHED, *NUMERIC)),
        ),
    },
    "evaluation_rq1": _LISTS,
    "evaluation_rq2": _of("predictions", dict.fromkeys(("auc", "mrr", "ndcg@5", "ndcg@10"), ("scores", "clicked"))),
    "evaluation_rq3": {
        "novelty": (("predictions", "articles"), ("predictions", ARTICLE_ID)),
        "ild": (("predictions", "articles"), ("article_embeddings", "vector")),
        "serendipity": (
            ("predictions", "articles"), ("article_embeddings", "vector"), ("interactions", ARTICLE_ID),
        ),
        "coverage": (("predictions", "articles"), ("article_features", PUBLISHED)),
    },
}  # fmt: skip


def columns_of(stage: str, reader: str) -> Columns:
    """Column lineage of a stage for datasets of `reader`; {} where the stage has no columns of its own."""
    return BY_READER.get(reader, {}).get(stage) or FEATURES.get(stage, {})
