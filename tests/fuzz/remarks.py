"""What must be remarked on, reckoned a second time in plain Python.

Belongs here: the remarks that every layout can have. Does not belong here: the rows that they are about (`subjects`,
`mind`, `own`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ml import schema
from ml.readers import DayTables


def outside(rows: Sequence[Mapping[str, Any]], column: str, most: float, below: bool = False) -> int:
    """How many known cells are no number from 0 to `most` (`below`: less than that)."""
    cells = [row[column] for row in rows if row.get(column) is not None]
    return sum(not (0 <= c < most if below else 0 <= c <= most) for c in cells)


def of_articles(tables: DayTables, listed: Sequence[Mapping[str, Any]], has_table: bool) -> dict[str, int]:
    """Remarks that follow from a day's published rows and its `listed` articles (raw, columns of EB-NeRD)."""
    dates: dict[int, int] = {}
    for row in listed:
        if row["article_id"] is not None and row["published_time"] is not None:
            dates[row["article_id"]] = min(row["published_time"], dates.get(row["article_id"], row["published_time"]))
    clicks = zip(*(_whole(tables.clicks[c]) for c in (schema.ARTICLE_ID, schema.CLICK_TIME)), strict=True)
    shown = zip(
        _whole(tables.impressions[schema.CLICK_TIME]), tables.impressions[schema.INVIEW].to_pylist(), strict=True
    )
    known = {row["article_id"] for row in listed}
    found = {
        "click_before_publication": sum(time < dates.get(article, time) for article, time in clicks),
        "shown_before_publication": sum(any(time < dates.get(a, time) for a in inview) for time, inview in shown),
        "unlisted_article": len(set(tables.articles[schema.ARTICLE_ID].to_pylist()) - known) if has_table else 0,
    }
    if len(known) == len(listed):
        found["value_out_of_range of sentiment_score"] = outside(
            [r for r in listed if r["article_id"] in set(tables.articles[schema.ARTICLE_ID].to_pylist())],
            "sentiment_score",
            1,
        )
    return found


def _whole(column: pa.ChunkedArray) -> list[int]:
    return column.cast(pa.int64()).to_pylist()  # type: ignore[no-any-return]


def losses(tables: DayTables, expected: Mapping[str, int]) -> list[str]:
    """Differences between a day's remarks and those `expected`, by reason ("value_out_of_range of COLUMN"); copies and
    lists with an article twice follow from the tables. Reasons that are not expected must not be there."""
    copies = sum(counts["duplicates"] for counts in tables.counts.values())
    twice = sum(len(set(items)) < len(items) for items in tables.impressions[schema.INVIEW].to_pylist())
    wanted = Counter({**expected, "exact_copy": copies, "twice_in_view": twice})
    found: Counter[str] = Counter()
    for r in tables.remarks:
        found[f"{r.reason} of {r.column}" if r.reason == "value_out_of_range" else r.reason] += r.count
    if "value_out_of_range of sentiment_score" not in expected:
        del found["value_out_of_range of sentiment_score"]
    said = [
        f"remarks: {w} {found[w]} times, expected {wanted[w]}"
        for w in sorted({*found, *wanted})
        if found[w] != wanted[w]
    ]
    bare = [r for r in tables.remarks if not r.file or not r.examples or not all(map(all, r.examples))]
    return said + [f"remarks: {r.reason} without file or example" for r in bare]
