"""Held-back rows as examples in metadata, where an erasure does not reach: without their reader.

Belongs here: what of a row may stand there. Does not belong here: the rows themselves, which lie in quarantine, and
what `newsrec validate` prints for who holds the files.
"""

import json

_SHOWN = frozenset(
    (
        *("article_id", "click_article_id", "article_id_fixed"),
        *("impression_id", "impressions", "inview", "clicked", "article_ids_inview", "article_ids_clicked"),
        *("time", "impression_time", "click_timestamp", "session_start"),
        *("read_time", "scroll_percentage", "device", "device_type", "os", "region", "referrer", "__cut"),
    )
)
"""Cells of events that tell nothing of who the reader is."""

_UNCUT = frozenset(
    (
        *("unparsable", "unparsable_id", "unparsable_time", "unparsable_candidates", "wrong_number_of_cells"),
        *("wrong_number_of_fields", "unbalanced_quotes", "not_utf8", "line_too_long", "oversized_line"),
        "oversized_text",
    )
)
"""Reasons of rows of text files, of which it is not known which cell is the reader's."""


def without_reader(table: str, reason: str, row: str) -> str:
    """A row of quarantine (JSON) without ids of its reader; nothing of lines whose cells cannot be told apart."""
    if table == "articles":
        return row
    if reason in _UNCUT:
        return "(not shown: its cells cannot be told apart)"
    return json.dumps({name: cell for name, cell in json.loads(row).items() if name in _SHOWN and cell is not None})
