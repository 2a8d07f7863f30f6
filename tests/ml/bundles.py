"""Hand-made logs in the published layouts, for tests.

Belongs here: writing small EB-NeRD bundles and Globo hour files from plain rows. Does not belong here: logs of a size
that needs drawing (`ml.simulator`).
"""

import gzip
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = Mapping[str, Any]

NAIVE = pa.timestamp("us")
IDS = pa.large_list(pa.int32())
BEHAVIORS = pa.schema(
    [
        ("impression_id", pa.int64()),
        ("article_id", pa.int32()),
        ("impression_time", NAIVE),
        ("read_time", pa.float32()),
        ("scroll_percentage", pa.float32()),
        ("device_type", pa.int8()),
        ("article_ids_inview", IDS),
        ("article_ids_clicked", IDS),
        ("user_id", pa.int64()),
        ("is_subscriber", pa.bool_()),
        ("session_id", pa.uint32()),
        ("next_read_time", pa.float32()),
        ("next_scroll_percentage", pa.float32()),
    ]
)
HISTORY = pa.schema(
    [
        ("user_id", pa.uint32()),
        ("impression_time_fixed", pa.large_list(NAIVE)),
        ("scroll_percentage_fixed", pa.large_list(pa.float32())),
        ("article_id_fixed", IDS),
        ("read_time_fixed", pa.large_list(pa.float32())),
    ]
)
ARTICLES = pa.schema(
    [
        ("article_id", pa.int32()),
        ("title", pa.large_string()),
        ("subtitle", pa.large_string()),
        ("last_modified_time", NAIVE),
        ("premium", pa.bool_()),
        ("body", pa.large_string()),
        ("published_time", NAIVE),
        ("category", pa.int16()),
        ("category_str", pa.large_string()),
        ("sentiment_score", pa.float32()),
        ("total_pageviews", pa.int32()),
    ]
)


def at(text: str) -> datetime:
    """A time without a zone: `at("2023-05-18 08:00")`."""
    return datetime.fromisoformat(text)


def ms(text: str) -> int:
    """The same time, taken as UTC, in ms."""
    return int(at(text).replace(tzinfo=UTC).timestamp() * 1000)


def impression(
    number: int | None,
    user: int | None,
    time: str,
    inview: Sequence[int | None] | None,
    clicked: list[int],
    **other: Any,
) -> Row:
    """A row of behaviors, in session 10 x reader."""
    fixed = {"device_type": 2, "is_subscriber": False, "session_id": 10 * abs(user or 0), "next_read_time": 30.0}
    named = {"impression_id": number, "user_id": user, "impression_time": at(time)}
    lists = {"article_ids_inview": inview, "article_ids_clicked": clicked, "next_scroll_percentage": 50.0}
    return fixed | named | lists | other


def history(user: int, *clicks: tuple[str, int]) -> Row:
    """A row of history: (time, article) each, read for a minute."""
    return {
        "user_id": user,
        "impression_time_fixed": [at(time) for time, _ in clicks],
        "article_id_fixed": [article for _, article in clicks],
        "read_time_fixed": [60.0] * len(clicks),
        "scroll_percentage_fixed": [None] * len(clicks),
    }


def article(number: int | None, published: str | None, **other: Any) -> Row:
    """A row of articles, in category number mod 3."""
    category = (number or 0) % 3
    return {
        "article_id": number,
        "title": f"Title {number}",
        "subtitle": "",
        "body": f"Body of {number}. Two sentences!",
        "published_time": at(published) if published else None,
        "last_modified_time": at("2023-06-29 06:00"),
        "category": category,
        "category_str": ("news", "sport", "krimi")[category],
        "premium": False,
        "sentiment_score": 0.5,
        "total_pageviews": 1,
    } | other


def write_rows(path: Path, rows: Sequence[Row], columns: pa.Schema) -> None:
    """One parquet file; missing values are null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(r) for r in rows], schema=columns), path)


def write_bundle(
    root: Path,
    behaviors: Mapping[str, Sequence[Row]],
    histories: Mapping[str, Sequence[Row]],
    articles: Sequence[Row] | None = None,
) -> Path:
    """A bundle in the EB-NeRD layout: behaviors and histories by split name. `test` gets no columns about clicks."""
    hidden = [
        c for c in BEHAVIORS.names if c not in ("article_ids_clicked", "next_read_time", "next_scroll_percentage")
    ]
    for split, rows in behaviors.items():
        columns = pa.schema([BEHAVIORS.field(c) for c in hidden]) if split == "test" else BEHAVIORS
        shown = [{k: v for k, v in r.items() if k in columns.names} for r in rows]
        write_rows(root / split / "behaviors.parquet", shown, columns)
    for split, rows in histories.items():
        write_rows(root / split / "history.parquet", rows, HISTORY)
    if articles is not None:
        write_rows(root / "articles.parquet", articles, ARTICLES)
    return root


def synthetic_bundle(root: Path, with_articles: bool = True) -> Path:
    """Three readers, six articles, data on 17, 18, 19 and 20 May 2023 (days begin at 07:00 UTC). The history of
    validation repeats the clicks of train's behaviors, one of them dated a second later."""
    first = [("2023-05-17 08:00", 101), ("2023-05-17 20:00", 102)]
    read = [("2023-05-18 08:00", 103), ("2023-05-18 09:30:21", 102)]
    return write_bundle(
        root,
        {
            "train": [
                impression(1, 1, "2023-05-18 08:00", [101, 102, 103], [103]),
                impression(2, 1, "2023-05-18 09:30", [104, 102], [102], next_read_time=-5.0, read_time=20.0),
                impression(3, 2, "2023-05-19 06:59:59", [101, 104, 105], [105, 104], read_time=30.0),
            ],
            "validation": [
                impression(4, 2, "2023-05-19 07:00", [106, 104], [106]),
                impression(5, 3, "2023-05-20 12:00", [105, 106], [106], device_type=1, is_subscriber=True),
            ],
        },
        {
            "train": [history(1, *first), history(2, ("2023-05-17 09:00", 101))],
            "validation": [history(1, *first, *read), history(2, ("2023-05-17 09:00", 101))],
        },
        [
            article(101, "2020-01-01 00:00"),
            article(102, "2023-05-17 08:30", premium=True),
            article(103, "2023-05-18 07:00"),
            article(104, "2023-05-18 06:59"),
            article(105, "2023-05-18 10:00"),
            article(106, "2023-05-19 06:00"),
        ]
        if with_articles
        else None,
    )


GLOBO_COLUMNS = (
    "user_id,session_id,session_start,session_size,click_article_id,click_timestamp,click_environment,"
    "click_deviceGroup,click_os,click_country,click_region,click_referrer_type"
)


def globo_click(user: object, session: int, start: str, article_id: object, time: str | int) -> str:
    """A line of an hour file."""
    clicked = time if isinstance(time, int) else ms(time)
    return f"{user},{session},{ms(start)},2,{article_id},{clicked},4,3,20,1,21,2"


def write_hour(root: Path, hour: int, lines: Sequence[str], header: str = GLOBO_COLUMNS, packed: bool = True) -> Path:
    """One hour file of the Globo layout."""
    path = root / "clicks" / f"clicks_hour_{hour:03d}.csv{'.gz' if packed else ''}"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{line}\n" for line in (header, *lines)).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if packed else text)
    return path
