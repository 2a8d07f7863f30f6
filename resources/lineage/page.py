"""The audit page: one self-contained HTML file over a graph's payload.

Belongs here: putting the payload into the page without letting it out of its place. Does not belong here: the payload
(`resources.lineage.payload`); `page.html` is what draws: rows are made for the visible part only, and a node
that several others share has one place and links to it.
"""

import html
import json
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("page.html")


def page(data: dict[str, Any]) -> str:
    """The page as text. The same payload gives the same text."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    before, after = TEMPLATE.read_text(encoding="utf-8").split("__DATA__")
    return before.replace("__TITLE__", html.escape(str(data["title"]))) + text + after
