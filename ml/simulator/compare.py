"""The figures of a bundle beside what they should be, as a table.

Belongs here: which figure is judged by what, and how it is printed. Does not belong here: computing figures (`check`),
the numbers to hold them against (`expected`).

A verdict is that of the printed numbers: what reads as inside is inside.
"""

import math
from pathlib import Path

from ml.errors import DataError
from ml.simulator.bundle import read_marker
from ml.simulator.check import LIFECYCLE_ARTICLES, LIFECYCLE_CLICKS, figures
from ml.simulator.config import VERSION
from ml.simulator.expected import CONFIDENCE, EXPECTED, TARGETED, TARGETS, Range

HEAD = ("figure", "target at large", "expected here", "reached", "")


def report(root: Path, impressions: int = 20_000, clicks: int = 2_000) -> tuple[dict[str, float], str]:
    """Figures of the bundle at `root` by name, from as many `impressions` and `clicks` as `check.figures` takes, and a
    text table: the published target (of the preset and size that has one), the range that other seeds of this preset
    and size span, what was reached, and whether that lies inside: of the target where it is this bundle's own, else of
    the range. Raises DataError if the bundle is incomplete, of another version, or has no oracle."""
    root = Path(root)
    marker = read_marker(root)
    if marker["version"] != VERSION:
        raise DataError(
            f"{root} is of version {marker['version']} of the simulator, not {VERSION}: simulate it anew with --replace"
        )
    found = figures(root, impressions, clicks)
    return found, table(found, marker["preset"], marker["size"], marker["seed"])


def table(found: dict[str, float], preset: str, size: str, seed: int) -> str:
    """The table of `found`, figures by name, of one bundle."""
    lines = [HEAD, *(_line(name, value, found, preset, size) for name, value in found.items())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    texts = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([f"{preset}, {size}, seed {seed}, model version {VERSION}", *texts, "", *_notes(preset, size)])


def _line(name: str, value: float, found: dict[str, float], preset: str, size: str) -> tuple[str, ...]:
    target = TARGETS.get(name) if preset == TARGETED[0] else None
    measured = EXPECTED.get((preset, size))
    usual = measured.band(name) if measured is not None else None
    aim = "" if target is None else f"{_range(target.range)} ({target.source})"
    cells = (name, aim, "" if usual is None else _range(usual))
    if math.isnan(value):
        needed = f"{LIFECYCLE_CLICKS:,} clicks and a full life in the log"
        return (
            *cells,
            "too few articles",
            f"{found['lifecycle_articles']:.0f} with {needed}, {LIFECYCLE_ARTICLES} needed",
        )
    judge = target.range if target is not None and (preset, size) == TARGETED else usual
    return *cells, number(value), "" if judge is None else verdict(value, judge)


def verdict(value: float, judge: Range) -> str:
    """Whether `value` lies in the range, both as they are printed."""
    low, shown, high = (float(number(x).replace(",", "")) for x in (judge.low, value, judge.high))
    return "inside" if low <= shown <= high else "OUTSIDE"


def number(value: float) -> str:
    """Four digits, and all of a larger number.

    >>> number(0.90149), number(9.5), number(1581234.4)
    ('0.9015', '9.5', '1,581,234')
    """
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.4g}"


def _range(found: Range) -> str:
    return f"{number(found.low)} to {number(found.high)}"


def _notes(preset: str, size: str) -> list[str]:
    """What the columns are."""
    aimed, at = TARGETED
    if preset == aimed:
        notes = [
            f"target: what {aimed}, {at} aims at; smaller sizes have too few clicks and articles to reach all of it"
        ]
    else:
        notes = [f"target: none, no figure is published for a newspaper like {preset}"]
    measured = EXPECTED.get((preset, size))
    if measured is None:
        return [*notes, f"expected here: not measured for {preset}, {size}"]
    return [
        *notes,
        f"expected here: {CONFIDENCE:.1%} of bundles by what seeds {measured.seeds} gave (`make calibrate`)",
    ]
