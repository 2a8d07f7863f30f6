"""The bundle on disk: the published EB-NeRD layout, and the sealed oracle beside it.

Belongs here: Arrow schemas of the layout, and writers that take one day at a time. Does not belong here: what
happens (`play`), who may read the oracle (`ml.oracle`).
"""

from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml.simulator.play import DayLog, Play
from ml.simulator.text import CATEGORIES, PLACES, SENTIMENTS, TOPICS, Texts, draw_texts
from ml.simulator.world import Articles, Readers, stream

TIME = pa.timestamp("us")
IDS = pa.large_list(pa.int32())

BEHAVIORS = pa.schema(
    [
        ("impression_id", pa.uint32()),
        ("article_id", pa.int32()),
        ("impression_time", TIME),
        ("read_time", pa.float32()),
        ("scroll_percentage", pa.float32()),
        ("device_type", pa.int8()),
        ("article_ids_inview", IDS),
        ("article_ids_clicked", IDS),
        ("user_id", pa.uint32()),
        ("is_sso_user", pa.bool_()),
        ("gender", pa.int8()),
        ("postcode", pa.int8()),
        ("age", pa.int8()),
        ("is_subscriber", pa.bool_()),
        ("session_id", pa.uint32()),
        ("next_read_time", pa.float32()),
        ("next_scroll_percentage", pa.float32()),
    ]
)
HISTORY = pa.schema(
    [
        ("user_id", pa.uint32()),
        ("impression_time_fixed", pa.large_list(TIME)),
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
        ("last_modified_time", TIME),
        ("premium", pa.bool_()),
        ("body", pa.large_string()),
        ("published_time", TIME),
        ("image_ids", pa.large_list(pa.int64())),
        ("article_type", pa.large_string()),
        ("url", pa.large_string()),
        ("ner_clusters", pa.large_list(pa.large_string())),
        ("entity_groups", pa.large_list(pa.large_string())),
        ("topics", pa.large_list(pa.large_string())),
        ("category", pa.int16()),
        ("subcategory", pa.large_list(pa.int16())),
        ("category_str", pa.large_string()),
        ("total_inviews", pa.int32()),
        ("total_pageviews", pa.int32()),
        ("total_read_time", pa.float32()),
        ("sentiment_score", pa.float32()),
        ("sentiment_label", pa.large_string()),
    ]
)
ORACLE_INVIEW = pa.schema(
    [
        pa.field("impression_id", pa.int64(), nullable=False),
        pa.field("articles", pa.list_(pa.int64()), nullable=False),
        pa.field("probability", pa.list_(pa.float32()), nullable=False),
    ]
)
READERS = 65_536
"""Readers in a row group of histories."""
UNKNOWN = 255
"""A scroll depth that was not measured, among whole percent."""
TEXTS = 10_000
"""Articles whose texts are drawn together."""
ORACLE_README = (
    "# Sealed\n\nThe simulator's truth. Evaluation alone may read it, through `ml.oracle`; no feature, sampler or "
    "model may.\n"
)


def write_table(table: pa.Table, path: Path) -> None:
    """Parquet with the settings of this bundle; equal tables give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def times(seconds: np.ndarray) -> pa.Array:
    """Seconds since the epoch as naive timestamps in UTC."""
    return pa.array(np.asarray(seconds, dtype=np.int64) * 1_000_000, type=TIME)


def unless(values: np.ndarray, unknown: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Values as Arrow, null where `unknown` holds."""
    return pa.array(values, mask=unknown).cast(kind)


def ragged(values: pa.Array, lengths: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Flat `values` cut into lists of `lengths`, as list or large list type `kind`."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if pa.types.is_large_list(kind):
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values.cast(kind.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.cast(kind.value_type))


class DayWriter:
    """Writes one split's behaviors and the oracle's probabilities of them, a row group a day."""

    def __init__(self, folder: Path, oracle: pq.ParquetWriter, play: Play) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._behaviors = pq.ParquetWriter(folder / "behaviors.parquet", BEHAVIORS, compression="zstd")
        self._oracle = oracle
        self._play = play

    def __enter__(self) -> "DayWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._behaviors.close()

    def write(self, log: DayLog, first_id: int) -> None:
        """Appends a day; its impressions are numbered from `first_id` on."""
        ids = first_id + np.arange(len(log), dtype=np.int64)
        shown = log.rows >= 0
        articles = self._play.articles.article_id[log.rows[shown]]
        lengths = shown.sum(axis=1)
        self._behaviors.write_table(behaviors_table(self._play, log, ids, articles, lengths))
        truth = (
            pa.array(ids),
            ragged(pa.array(articles), lengths, ORACLE_INVIEW.field(1).type),
            ragged(pa.array(log.probability[shown]), lengths, ORACLE_INVIEW.field(2).type),
        )
        self._oracle.write_table(pa.Table.from_arrays(list(truth), schema=ORACLE_INVIEW))


def behaviors_table(play: Play, log: DayLog, ids: np.ndarray, articles: np.ndarray, lengths: np.ndarray) -> pa.Table:
    """A day as behaviors: impression `ids`, and the in-view lists as flat `articles` with `lengths`."""
    event, user, readers = log.event, log.event["user"], play.readers
    front = event["page"] < 0
    second = log.clicked >= 0
    clicked = play.articles.article_id[log.clicked[second]]
    columns = {
        "impression_id": pa.array(ids).cast(pa.uint32()),
        "article_id": unless(play.articles.article_id[event["page"]], front, pa.int32()),
        "impression_time": times(event["time"]),
        "read_time": pa.array(log.browse, pa.float32()),
        "scroll_percentage": unless(event["scroll"], front | np.isnan(event["scroll"]), pa.float32()),
        "device_type": pa.array(event["device"]),
        "article_ids_inview": ragged(pa.array(articles), lengths, IDS),
        "article_ids_clicked": ragged(pa.array(clicked), second.sum(axis=1), IDS),
        "user_id": pa.array(readers.user_id[user]).cast(pa.uint32()),
        "is_sso_user": pa.array(readers.sso[user]),
        "gender": unless(readers.gender[user], readers.gender[user] < 0, pa.int8()),
        "postcode": unless(readers.postcode[user], readers.postcode[user] < 0, pa.int8()),
        "age": unless(readers.age[user], readers.age[user] < 0, pa.int8()),
        "is_subscriber": pa.array(readers.subscriber[user]),
        "session_id": pa.array(event["session"] + 1).cast(pa.uint32()),
        "next_read_time": pa.array(log.read),
        "next_scroll_percentage": unless(log.scroll, np.isnan(log.scroll), pa.float32()),
    }
    return pa.table([columns[name] for name in BEHAVIORS.names], schema=BEHAVIORS)


class ClickStore:
    """The clicks that histories will hold, and the articles' totals: 15 bytes a click, each day's sorted by reader."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._days: dict[int, dict[str, np.ndarray]] = {}
        articles = len(play.articles)
        self.inviews, self.pageviews = np.zeros(articles, dtype=np.int64), np.zeros(articles, dtype=np.int64)
        self.read_time = np.zeros(articles, dtype=np.float64)

    def count(self, log: DayLog) -> int:
        """Adds a day to the totals and returns its number of clicks."""
        size, clicked = len(self.inviews), log.clicked >= 0
        article, which = log.clicked[clicked], np.nonzero(clicked)[0]
        self.inviews += np.bincount(log.rows[log.rows >= 0], minlength=size)
        self.pageviews += np.bincount(article, minlength=size)
        self.read_time += np.bincount(article, weights=log.read[which], minlength=size)
        return len(article)

    def keep(self, day: int, log: DayLog) -> None:
        """Keeps the clicks of `day` for histories; a day's clicks stay in order of time for each reader."""
        which, column = np.nonzero(log.clicked >= 0)
        user = log.event["user"][which]
        order = np.argsort(user, kind="stable")
        which, column = which[order], column[order]
        self._days[day] = {
            "user": user[order],
            "article": log.clicked[which, column],
            "time": self._clicked_at(day, log)[which].astype(np.uint32),
            "read": log.read[which].astype(np.uint16),
            "scroll": np.nan_to_num(log.scroll[which], nan=UNKNOWN).astype(np.uint8),
        }

    def _clicked_at(self, day: int, log: DayLog) -> np.ndarray:
        """When the clicks of the impressions happened, int64 [n] seconds since the epoch: after the time on the list,
        within the log day."""
        return np.minimum(log.event["time"] + log.browse.astype(np.int64), self._play.size.day_start(day + 1) - 1)

    def forget(self, first_day: int) -> None:
        """Lets go of the days before `first_day`."""
        self._days = {day: clicks for day, clicks in self._days.items() if day >= first_day}

    def write_history(self, path: Path, first_day: int, end_day: int) -> None:
        """The clicks of days [first_day, end_day) as frozen histories, one row a reader who clicked; READERS readers
        at a time."""
        path.parent.mkdir(parents=True, exist_ok=True)
        days = [self._days[day] for day in range(max(first_day, 0), end_day)]
        with pq.ParquetWriter(path, HISTORY, compression="zstd") as writer:
            for first in range(0, len(self._play.readers), READERS):
                cuts = [np.searchsorted(day["user"], [first, first + READERS]) for day in days]
                parts = {
                    name: np.concatenate([day[name][a:b] for day, (a, b) in zip(days, cuts, strict=True)])
                    for name in days[0]
                }
                writer.write_table(self._histories(**parts))

    def _histories(
        self, user: np.ndarray, article: np.ndarray, time: np.ndarray, read: np.ndarray, scroll: np.ndarray
    ) -> pa.Table:
        """Clicks in order of day as one row a reader."""
        order = np.argsort(user, kind="stable")
        who, lengths = np.unique(user[order], return_counts=True)
        depth = scroll[order]
        arrays = [
            pa.array(self._play.readers.user_id[who]).cast(pa.uint32()),
            ragged(times(time[order]), lengths, HISTORY.field(1).type),
            ragged(unless(depth, depth == UNKNOWN, pa.float32()), lengths, HISTORY.field(2).type),
            ragged(pa.array(self._play.articles.article_id[article[order]]), lengths, IDS),
            ragged(pa.array(read[order]).cast(pa.float32()), lengths, HISTORY.field(4).type),
        ]
        return pa.table(arrays, schema=HISTORY)


def articles_table(articles: Articles, store: ClickStore, seed: int) -> pa.Table:
    """The articles in the published layout, with their texts and the totals of the whole log."""
    rng = stream(seed, 4)
    count = len(articles)
    parts = [slice(first, first + TEXTS) for first in range(0, count, TEXTS)]
    texts = Texts.joined([draw_texts(articles.topics[part], articles.place[part], rng) for part in parts])
    names = {code: name for name, code in CATEGORIES.items()}
    later = np.where(rng.random(count) < 0.2, rng.integers(300, 10_800, count), 0)
    seen = store.inviews > 0
    images = rng.integers(0, 3, count)
    label = np.digitize(articles.tone, [-0.33, 0.33])
    feature = rng.random(count) < 0.05
    local = articles.place >= 0
    places = np.array(PLACES)[articles.place[local]].tolist()
    strings = ARTICLES.field("topics").type
    category = [names[code] for code in articles.category.tolist()]
    columns = {
        "article_id": pa.array(articles.article_id).cast(pa.int32()),
        "title": pa.array(texts.title, pa.large_string()),
        "subtitle": pa.array(texts.subtitle, pa.large_string()),
        "last_modified_time": times(articles.published + later),
        "premium": pa.array(articles.premium),
        "body": pa.array(texts.body, pa.large_string()),
        "published_time": times(articles.published),
        "image_ids": ragged(pa.array(3_000_000 + np.arange(images.sum())), images, pa.large_list(pa.int64())),
        "article_type": pa.array(np.where(feature, "article_feature", "article_default").tolist(), pa.large_string()),
        "url": pa.array(
            [f"https://news.invalid/{c}/{i}" for c, i in zip(category, articles.article_id.tolist(), strict=True)],
            pa.large_string(),
        ),
        "ner_clusters": ragged(pa.array(places, pa.large_string()), local, strings),
        "entity_groups": ragged(pa.array(["LOC"] * len(places), pa.large_string()), local, strings),
        "topics": pa.array([[TOPICS[t].name] for t in articles.topic.tolist()], strings),
        "category": pa.array(articles.category),
        "subcategory": pa.array([[100 + t] for t in articles.topic.tolist()], ARTICLES.field("subcategory").type),
        "category_str": pa.array(category, pa.large_string()),
        "total_inviews": unless(store.inviews, ~seen, pa.int32()),
        "total_pageviews": unless(store.pageviews, ~seen, pa.int32()),
        "total_read_time": unless(store.read_time, ~seen, pa.float32()),
        "sentiment_score": pa.array(0.4 + 0.6 * np.abs(articles.tone), pa.float32()),
        "sentiment_label": pa.array([SENTIMENTS[i] for i in label.tolist()], pa.large_string()),
    }
    return pa.table([columns[name] for name in ARTICLES.names], schema=ARTICLES)


def vectors(values: np.ndarray) -> pa.Array:
    """Rows of a float32 matrix as lists."""
    return ragged(pa.array(values.ravel()), np.full(len(values), values.shape[1]), pa.list_(pa.float32()))


def write_latent(folder: Path, articles: Articles, readers: Readers, interests: np.ndarray) -> None:
    """The oracle's tables of what articles and readers are; `interests` float32 [N, K] as of the last day."""
    reader_columns = {
        "user_id": pa.array(readers.user_id),
        "activity": pa.array(readers.activity),
        "home": pa.array(readers.home),
        "interests_first_day": vectors(readers.interests),
        "interests_last_day": vectors(interests),
    }
    write_table(pa.table(reader_columns), folder / "readers.parquet")
    article_columns = {
        "article_id": pa.array(articles.article_id),
        "topics": vectors(articles.topics),
        "quality": pa.array(articles.quality),
        "tau_minutes": pa.array(articles.tau),
        "breaking": pa.array(articles.breaking),
    }
    write_table(pa.table(article_columns), folder / "articles.parquet")
    (folder / "README.md").write_text(ORACLE_README, encoding="utf-8")
