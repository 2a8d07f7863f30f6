"""The graph that README draws is the graph that runs."""

import re
from itertools import pairwise, product
from pathlib import Path

from assets.graph import BY_NAME, STAGES

README = Path(__file__).parents[2] / "README.md"
DOOR = "door"


def _drawn() -> set[tuple[str, str]]:
    """Arrows of README's Mermaid picture; those through the as-of door as arrows from its inputs to its users."""
    picture = re.search(r"```mermaid\n(.*?)```", README.read_text(), re.S)
    assert picture, "README.md has no Mermaid picture"
    arrows: set[tuple[str, str]] = set()
    for line in picture[1].splitlines():
        steps = [[re.sub(r"\{\{.*\}\}", "", n.strip()) for n in part.split("&")] for part in line.split("-->")]
        for left, right in pairwise(steps):
            arrows |= set(product(left, right))
    into = {a for a, b in arrows if b == DOOR}
    out = {b for a, b in arrows if a == DOOR}
    return {(a, b) for a, b in arrows if DOOR not in (a, b)} | set(product(into, out))


def test_readme_draws_every_arrow_and_no_other():
    real = {(need.stage, stage.name) for stage in STAGES for need in stage.needs}
    assert _drawn() == real


def test_stages_come_after_what_they_need():
    order = [stage.name for stage in STAGES]
    assert len(BY_NAME) == len(STAGES)
    for stage in STAGES:
        assert all(order.index(need.stage) < order.index(stage.name) for need in stage.needs)
