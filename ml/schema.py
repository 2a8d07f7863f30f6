"""Canonical tables: column names and Arrow schemas, defined once.

Belongs here: what the columns of `articles`, `clicks`, `impressions`, `interactions` and sessions are.
Does not belong here: how a dataset's files become these tables (`ml.readers`).

Times are `timestamp[ms, UTC]`; as integers, milliseconds since the epoch. Ids are int64. An unknown
value is null in tables, -1 in integer arrays and NaN in float arrays.
"""

import pyarrow as pa

from ml.synthetic import SYNTHETIC as SYNTHETIC

TIME = pa.timestamp("ms", tz="UTC")

USER_ID = "user_id"
ARTICLE_ID = "article_id"
CLICK_TIME = "time"
SESSION_ID = "session_id"
IMPRESSION_ID = "impression_id"
READ_TIME = "read_time"
SCROLL = "scroll_percentage"
PUBLISHED = "published"
MODIFIED = "modified"
INVIEW = "inview"
CLICKED = "clicked"
REASON = "reason"

CONTEXT = ("device", "os", "region", "referrer")
"""Categorical circumstances of a click, codes as in the source, int32, null where the source has none."""

ARTICLES = pa.schema(
    [
        pa.field(ARTICLE_ID, pa.int64(), nullable=False),
        pa.field(PUBLISHED, TIME, nullable=False),
        pa.field("published_is_first_seen", pa.bool_(), nullable=False),
        pa.field(MODIFIED, TIME),
        pa.field("title", pa.string()),
        pa.field("subtitle", pa.string()),
        pa.field("body", pa.string()),
        pa.field("category_id", pa.int32()),
        pa.field("category", pa.string()),
        pa.field("subcategory", pa.string()),
        pa.field("premium", pa.bool_()),
        pa.field("sentiment_score", pa.float32()),
    ]
)
"""One row an article, in the partition of the day it was published (the first day for older ones).

`published_is_first_seen` marks articles without a known publication time: their first click or first
in-view appearance stands in for it.
"""

CLICKS = pa.schema(
    [
        pa.field(USER_ID, pa.int64(), nullable=False),
        pa.field(ARTICLE_ID, pa.int64(), nullable=False),
        pa.field(CLICK_TIME, TIME, nullable=False),
        pa.field(SESSION_ID, pa.int64()),
        pa.field(IMPRESSION_ID, pa.int64()),
        pa.field(READ_TIME, pa.float32()),
        pa.field(SCROLL, pa.float32()),
        *(pa.field(name, pa.int32()) for name in CONTEXT),
        pa.field("subscriber", pa.bool_()),
    ]
)
"""One row a click, sorted by (time, user_id, article_id). `read_time` in seconds; it and `scroll_percentage`
describe this click's own article and are known only once time + read_time has passed."""

IMPRESSIONS = pa.schema(
    [
        pa.field(IMPRESSION_ID, pa.int64(), nullable=False),
        pa.field(USER_ID, pa.int64(), nullable=False),
        pa.field(CLICK_TIME, TIME, nullable=False),
        pa.field(INVIEW, pa.list_(pa.int64()), nullable=False),
        pa.field(CLICKED, pa.list_(pa.int64()), nullable=False),
        pa.field(SESSION_ID, pa.int64()),
        *(pa.field(name, pa.int32()) for name in CONTEXT),
        pa.field("subscriber", pa.bool_()),
        pa.field(SYNTHETIC, pa.string()),
    ]
)
"""One row an impression, sorted by (time, impression_id): what was shown, and which of it was clicked.
`synthetic_inview` says how a list that nobody was shown was made (`ml.inview`); null where it was shown."""

INTERACTIONS = pa.schema([CLICKS.field(n) for n in CLICKS.names if n not in (SCROLL, "subscriber")])
"""Clicks of a trailing window, sorted by (user_id, time, article_id), with `session_id` never null: the source's
session, or sessions split at gaps of 30 minutes, numbered 0.. within the reader."""

SESSIONS = pa.schema(
    [
        pa.field("first", pa.int64(), nullable=False),
        pa.field("target", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""Row ranges into one `interactions` version (its digest is in the schema metadata under `interactions`):
the history of the click at row `target` is rows [first, target), all of the same reader."""

QUARANTINE = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field(REASON, pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("row", pa.string(), nullable=False),
    ]
)
"""Rows kept out of a canonical table: which, why, from which source file, and the row itself as JSON."""


def some(table: pa.Schema, *names: str) -> pa.Schema:
    """The named columns of a table, in the order of the names."""
    return pa.schema([table.field(name) for name in names])
