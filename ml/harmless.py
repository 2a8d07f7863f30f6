"""Texts of a log where a program would take them for more than text.

Belongs here: cells that a spreadsheet would reckon with, characters that steer a page. Does not belong
here: markup, which the page's template escapes.
"""

import re

import pyarrow as pa
import pyarrow.compute as pc

FORMULA = r"^[=+\-@\t\r\n]"
"""How a cell begins that a spreadsheet takes for a formula."""
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def for_spreadsheets(table: pa.Table) -> pa.Table:
    """The table with an apostrophe before each text that a spreadsheet would take for a formula."""
    for i, column in enumerate(table.schema):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            texts = table.column(i)
            marked = pc.binary_join_element_wise(pa.scalar("'", column.type), texts, pa.scalar("", column.type))
            table = table.set_column(i, column, pc.if_else(pc.match_substring_regex(texts, FORMULA), marked, texts))
    return table


def without_controls(page: str) -> str:
    """Text whose control characters, but for tabs and line ends, and changes of direction are U+FFFD."""
    return _CONTROL.sub("\ufffd", page)
