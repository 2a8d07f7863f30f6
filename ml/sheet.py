"""A self-contained page of sections: notes, drawings and tables.

Belongs here: layout. Does not belong here: what the pages say (each from its own figures).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with a note, an SVG drawing and a table (`columns`, `rows` of texts), each of them optional. `folded`
    sections open with a click. A cell that begins with "+ " is drawn as good, with "! " as bad, without the mark."""

    title: str
    note: str = ""
    drawing: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = field(default_factory=list)
    folded: bool = False


def template() -> bytes:
    """The bytes of the page's template."""
    return resources.files("ml").joinpath("sheet.html.j2").read_bytes()


def sheet(title: str, lead: str, sections: Sequence[Section], badge: str = "") -> str:
    """The page as HTML. The same input gives the same bytes; nothing is loaded from elsewhere."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(template().decode())
    return page.render(title=title, lead=lead, sections=sections, badge=badge)


def estimate(entry: dict[str, float | None] | None, key: str = "value", digits: int = 4) -> str:
    """An entry with its interval as text; a dash where there is none.

    >>> estimate({"value": 0.5, "low": 0.25, "high": 0.75}, digits=2)
    '0.50 [0.25, 0.75]'
    """
    if not entry or entry.get(key) is None:
        return "–"
    sign = "+" if key == "difference" else ""
    value, low, high = entry[key], entry.get("low"), entry.get("high")
    if low is None or high is None:
        return f"{value:{sign}.{digits}f}"
    return f"{value:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
