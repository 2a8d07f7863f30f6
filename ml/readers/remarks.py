"""Remarks: what was published in spite of something, and cells that were unset, counted with file and examples.

Belongs here: the form of a remark, making them from rows, adding them up. Does not belong here: rows that are held back
(`ml.readers.rules`), and which remark is made when (the readers and `ml.readers.canonical`).
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from ml import schema
from ml.readers.rules import SOURCE

EXAMPLES = 5
SHOWN_ITEMS = 20
_FILE = "__file"
_SHOWN = {
    "clicks": (schema.ARTICLE_ID, schema.CLICK_TIME),
    "impressions": (schema.IMPRESSION_ID, schema.CLICK_TIME),
    "articles": (schema.ARTICLE_ID,),
}
"""What an example tells of a row beside the cell. No reader: remarks stand in metadata."""


@dataclass(frozen=True, slots=True)
class Remark:
    """`count` rows of `table` from one source `file`, whose `column` is remarked on for one `reason`. `examples`: at
    most `EXAMPLES` pairs of a source and what it says. `ids`: the articles, where it is these that count, since one may
    lie in several days."""

    table: str
    reason: str
    column: str
    file: str
    count: int
    examples: tuple[tuple[str, str], ...]
    ids: frozenset[int] = frozenset()


def remarks_on(rows: pl.DataFrame, table: str, reason: str, column: str) -> list[Remark]:
    """One remark for each source file of `rows` (canonical columns, `source`), about each row's `column`."""
    parts = _by_file(rows).items()
    return [Remark(table, reason, column, file, len(part), _examples(part, table, column)) for file, part in parts]


def remarks_on_articles(rows: pl.DataFrame, reason: str, column: str) -> list[Remark]:
    """The same about each article that `rows` name in `article_id`."""
    found = []
    for file, part in _by_file(rows).items():
        ids = frozenset(part[schema.ARTICLE_ID].to_list())
        found.append(Remark("articles", reason, column, file, len(ids), _examples(part, "articles", column), ids))
    return found


def _by_file(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Rows by source file, which `source` may follow with a row number."""
    if not len(rows):
        return {}
    file = pl.col(SOURCE).cast(pl.String).str.replace(r":[0-9]+$", "").alias(_FILE)
    parts = rows.with_columns(file).partition_by(_FILE, as_dict=True, maintain_order=True)
    return {str(name): part for (name,), part in parts.items()}


def _examples(rows: pl.DataFrame, table: str, column: str) -> tuple[tuple[str, str], ...]:
    """The source of the first rows, and these as JSON: their keys and the cell."""
    names = [n for n in dict.fromkeys((*_SHOWN[table], column)) if n in rows.columns]
    some = rows.head(EXAMPLES)
    told = [json.dumps({n: _plain(n, row[n]) for n in names}) for row in some.select(names).to_dicts()]
    return tuple(zip(some[SOURCE].cast(pl.String).to_list(), told, strict=True))


def renamed(remark: Remark, column: str) -> Remark:
    """The remark under the name that its source has for the column."""
    old, new = (f"{json.dumps(name)}: " for name in (remark.column, column))
    examples = tuple((source, said.replace(old, new)) for source, said in remark.examples)
    return replace(remark, column=column, examples=examples)


def added(remarks: Iterable[Remark]) -> list[Remark]:
    """Remarks of several days as one for each table, reason, column and file, in that order. An article counts for the
    first file alone."""
    groups: dict[tuple[str, ...], list[Remark]] = {}
    for r in remarks:
        groups.setdefault((r.table, r.reason, r.column, r.file), []).append(r)
    known: dict[tuple[str, ...], set[int]] = {}
    found = []
    for key in sorted(groups):
        said = _sum(groups[key])
        if said.ids:
            counted = known.setdefault(key[:3], set())
            said = replace(said, ids=said.ids - counted, count=len(said.ids - counted))
            counted |= said.ids
        found.append(said)
    return [r for r in found if r.count]


def _sum(parts: Sequence[Remark]) -> Remark:
    """Remarks that differ in count, examples and ids as one."""
    examples = tuple(dict.fromkeys(e for p in parts for e in p.examples))[:EXAMPLES]
    ids: frozenset[int] = frozenset().union(*(p.ids for p in parts))
    return replace(parts[0], count=len(ids) or sum(p.count for p in parts), examples=examples, ids=ids)


def _plain(column: str, value: Any) -> Any:
    """A value that JSON can say: times (ms) as ISO text, numbers that JSON lacks as text, long lists cut."""
    if column == schema.CLICK_TIME:
        return (datetime(1970, 1, 1) + timedelta(milliseconds=value)).isoformat(timespec="milliseconds") + "Z"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value[:SHOWN_ITEMS] if isinstance(value, list) else value
