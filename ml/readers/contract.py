"""The contract of a newspaper's own log: three parquet tables, as data.

Belongs here: which columns there are, which are required, their types, units and meaning. Does not belong here: reading
them (`ml.readers.own_log`), the description that a log gives of itself (`ml.own_log`), the text for people
(`docs/own_log.md`, whose tables are this file's).
"""

from dataclasses import dataclass

from ml.readers.files import Kind, is_flag, is_integer, is_number, is_text, is_time, list_of

KINDS: dict[str, Kind] = {
    "integer": is_integer,
    "number": is_number,
    "time": is_time,
    "flag": is_flag,
    "text": is_text,
    "list of integers": list_of(is_integer),
}
"""Type names of the contract, and what fits them. Integers may be of any width."""

TIME_RULE = "with a zone, or without one if log.toml names it in `times_without_zone`"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its type (a key of `KINDS`), its unit or range, and what it says."""

    name: str
    kind: str
    required: bool
    unit: str
    meaning: str

    @property
    def fits(self) -> Kind:
        """What Arrow types this column may have."""
        return KINDS[self.kind]


@dataclass(frozen=True, slots=True)
class Table:
    """A table: `<name>.parquet`, or all parquet files of the folder `<name>/`."""

    name: str
    required: bool
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column:
        """The column called `name`."""
        return next(c for c in self.columns if c.name == name)

    @property
    def names(self) -> list[str]:
        """Names of all columns."""
        return [c.name for c in self.columns]


def _context() -> tuple[Column, ...]:
    said = {"device": "kind of device", "os": "system", "region": "region", "referrer": "where the reader came from"}
    codes = [Column(name, "integer", False, "code, 0 to 2^31-1", what) for name, what in said.items()]
    return (*codes, Column("subscriber", "flag", False, "true, false", "whether the reader subscribes"))


CLICKS = Table(
    "clicks",
    True,
    (
        Column("user_id", "integer", True, "id, 0 to 2^63-1", "the reader"),
        Column("article_id", "integer", True, "id, 0 to 2^63-1", "the article that was opened"),
        Column("time", "time", True, TIME_RULE, "when it was opened"),
        Column("session_id", "integer", False, "id", "the visit; without it, 30 idle minutes end one"),
        Column("impression_id", "integer", False, "id, 1 to 2^63-1", "the impression that was clicked"),
        Column("read_time", "number", False, "seconds, 0 to 86,400", "how long this article was read"),
        Column("scroll_percentage", "number", False, "percent, 0 to 100", "how far this article was scrolled"),
        *_context(),
    ),
)
ARTICLES = Table(
    "articles",
    False,
    (
        Column("article_id", "integer", True, "id, 0 to 2^63-1", "the article, once"),
        Column("published", "time", False, TIME_RULE, "without it, the first appearance stands in"),
        Column("modified", "time", False, TIME_RULE, "last change of the text"),
        Column("title", "text", False, "UTF-8", "headline"),
        Column("subtitle", "text", False, "UTF-8", "second headline or abstract"),
        Column("body", "text", False, "UTF-8", "the text itself"),
        Column("category_id", "integer", False, "code, 0 to 2^31-1", "without it, codes are made from `category`"),
        Column("category", "text", False, "UTF-8", "name of the category"),
        Column("subcategory", "text", False, "UTF-8", "name of the finer category"),
        Column("premium", "flag", False, "true, false", "whether it is behind the paywall"),
        Column("sentiment_score", "number", False, "0 to 1", "sentiment of the text"),
    ),
)
IMPRESSIONS = Table(
    "impressions",
    False,
    (
        Column("impression_id", "integer", True, "id, 1 to 2^63-1", "the impression, once"),
        Column("user_id", "integer", True, "id, 0 to 2^63-1", "the reader"),
        Column("time", "time", True, TIME_RULE, "when it was shown"),
        Column("inview", "list of integers", True, "ids, at least one", "the articles that were shown"),
        Column("clicked", "list of integers", True, "ids, each of them in view", "those that were opened"),
        Column("session_id", "integer", False, "id", "the visit"),
        *_context(),
    ),
)
TABLES = (CLICKS, ARTICLES, IMPRESSIONS)
