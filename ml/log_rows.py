"""What became of a log's rows, from its files to the tables of all days: the account, and what was held back.

Belongs here: adding up over days, so that every row of a file counts once. Does not belong here: reading
(`ml.readers`), what is said of it (`ml.log_check`).

Clicks that impressions tell of have no row of their own: they are rows in of `clicks` once their impression has a day.
Articles that only appear have no row at all and are counted apart.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pyarrow as pa

from ml import schema
from ml.readers import DayTables
from ml.readers.account import Account, Rows
from ml.readers.base import FROM_IMPRESSIONS
from ml.readers.described import ROWS
from ml.readers.files import escaped
from ml.readers.rules import SOURCE

TABLES = ("articles", "clicks", "impressions")
EXAMPLES = 5
_SHOWN = 240
_PLACE = re.compile(r"^(.*):([0-9]+)$")


@dataclass(slots=True)
class HeldBack:
    """Held-back rows by (table, reason, file): how many, and a few of them as `file`, `row` (None: unknown) and
    `value`."""

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str, str], list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row of quarantine (`schema.QUARANTINE`)."""
        place = _PLACE.match(row[SOURCE] or "")
        file = place[1] if place else row[SOURCE] or ""
        key = (row["table"], row[schema.REASON], file)
        self.counts[key] += 1
        some = self.examples.setdefault(key, [])
        if len(some) < EXAMPLES:
            some.append({"file": file, "row": int(place[2]) if place else None, "value": short(row["row"])})


@dataclass(slots=True)
class LogRows:
    """The rows of a log, gathered from `account` and quarantine of the cut and from the tables of all days. `copies`:
    article rows that repeat another one exactly, by file, once `figures` has been called."""

    account: Account
    held_back: HeldBack = field(default_factory=HeldBack)
    _days: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in TABLES})
    _described: list[pl.DataFrame] = field(default_factory=list)
    _articles: dict[str, dict[str, Any]] = field(default_factory=dict)
    _shown: set[int] = field(default_factory=set)
    copies: Counter[str] = field(default_factory=Counter)

    def hold_back(self, rows: pa.Table) -> None:
        """Adds rows that were held back before they had a day."""
        for row in rows.to_pylist():
            self.held_back.add(row)

    def add(self, day: DayTables) -> None:
        """Adds a day. Article rows wait for the other days on which they lie."""
        for name, counts in day.counts.items():
            self._days[name].update(counts)
        for row in day.quarantine.to_pylist():
            if row["table"] == "articles" and row[SOURCE]:
                self._articles.setdefault(row[SOURCE], row)
            else:
                self.held_back.add(row)
        self._described.append(_frame(day.article_rows))
        self._shown.update(day.articles[schema.ARTICLE_ID].to_pylist())

    def figures(self) -> dict[str, dict[str, int]]:
        """For each table `rows_in`, `published`, `quarantined`, `duplicates`, with rows_in = published + quarantined +
        duplicates, and further figures. To be called once, after all days."""
        tables = {name: self._events(name) for name in ("clicks", "impressions")}
        return {"articles": self._of_articles(), **tables}

    def lost(self) -> dict[str, int]:
        """By file, or table: rows of which nothing is known (below 0: too many). Empty unless a reader is at fault."""
        files = {file: rows.lost for (file, _), rows in self.account.files.items()}
        placed = {name: self._days[name]["rows_in"] - self._days[name][FROM_IMPRESSIONS] for name in TABLES[1:]}
        placed["articles"] = self._fates().height
        tables = {f"table {name}": self.account.of_table(name).placed - n for name, n in placed.items()}
        return {where: n for where, n in {**files, **tables}.items() if n}

    def _events(self, name: str) -> dict[str, int]:
        before, days = self.account.of_table(name), self._days[name]
        return {
            **days,
            "rows_in": before.rows_in + days[FROM_IMPRESSIONS],
            "quarantined": before.quarantined + days["quarantined"],
            "duplicates": before.duplicates + days["duplicates"],
            "published": days["published"],
        }

    def _of_articles(self) -> dict[str, int]:
        """A row counts as published when any day's table shows it, else as quarantined when any day held it back, else
        as a copy."""
        before, fates = self.account.of_table("articles"), self._fates()
        shown = fates.filter("published")
        standing = set(shown[SOURCE].to_list())
        held_back = [row for source, row in self._articles.items() if source not in standing]
        for row in held_back:
            self.held_back.add(row)
        others = set(fates[SOURCE].to_list()) - standing - self._articles.keys()
        self.copies.update(_PLACE.sub(r"\1", source) for source in others)
        self.copies.update({f: r.duplicates for (f, table), r in self.account.files.items() if table == "articles"})
        return {
            "rows_in": before.rows_in,
            "published": len(shown),
            "quarantined": before.quarantined + len(held_back),
            "duplicates": before.duplicates + len(others),
            "without_a_row": len(self._shown - set(shown[schema.ARTICLE_ID].to_list())),
        }

    def _fates(self) -> pl.DataFrame:
        """One row for each article row that lies in a day: source, article_id, whether any day's table shows it."""
        every = pl.concat([_frame(ROWS.empty_table()), *self._described])
        return every.group_by(SOURCE).agg(pl.col(schema.ARTICLE_ID).first(), pl.col("published").any())


def of_files(account: Account) -> dict[str, Rows]:
    """The account by file."""
    return {file: rows for (file, _), rows in sorted(account.files.items())}


def _frame(table: pa.Table) -> pl.DataFrame:
    rows = pl.from_arrow(table)
    assert isinstance(rows, pl.DataFrame)
    return rows


def short(row: str) -> str:
    """A row as JSON, without its empty cells, cut to a line."""
    try:
        cells = {k: v for k, v in json.loads(row).items() if v is not None}
        text = json.dumps(cells, ensure_ascii=False)
    except ValueError:
        text = row
    return escaped(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
