"""The report's figures, as SVG to stand inside a page.

Belongs here: drawing from plain numbers. Does not belong here: choosing what to show (`ml.report`).

The same numbers give the same bytes: no dates, ids salted with the figure's name, text left to the page's fonts.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ml.harmless import without_controls

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Bar = tuple[str, float, float | None, float | None]
"""A model's name, value, and bounds where it has them."""

COLOURS = ("#1f5f8b", "#d1822a", "#4c9a6a", "#a64d79", "#6b6ecf", "#8c6d31")
_GREY = "#7a7f87"
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.edgecolor": "#b8bcc2",
    "axes.labelcolor": "#3a3f45",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "xtick.color": "#3a3f45",
    "ytick.color": "#3a3f45",
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot of lines: `lines` maps a label to (x, y), arrays of one length; `bands` maps the label of a line to half
    the width of the band around it. `grey` lines are drawn thin and dotted, as something to compare with."""

    title: str
    xlabel: str
    ylabel: str
    lines: Mapping[str, tuple[Any, Any]]
    bands: Mapping[str, Any] = field(default_factory=dict)
    grey: Sequence[str] = ()
    xlog: bool = False
    ylog: bool = False
    ticks: Mapping[float, str] = field(default_factory=dict)


def panels(name: str, shown: Sequence[Panel], width: float = 4.4, height: float = 2.9) -> str:
    """Plots of lines beside each other, each `width` x `height` inches."""
    with _style(name):
        figure = _figure(width * len(shown), height)
        for ax, panel in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            _draw(ax, panel)
        return _svg(figure)


def _draw(ax: Any, panel: Panel) -> None:
    colours = iter(COLOURS * 4)
    for label, (x, y) in panel.lines.items():
        grey = label in panel.grey
        colour = _GREY if grey else next(colours)
        ax.plot(x, y, color=colour, linewidth=0.9 if grey else 1.5, linestyle=":" if grey else "-", label=plain(label))
        if label in panel.bands:
            half = np.asarray(panel.bands[label])
            ax.fill_between(x, y - half, y + half, color=colour, alpha=0.2, linewidth=0)
    ax.set_title(panel.title)
    ax.set_xlabel(panel.xlabel)
    ax.set_ylabel(panel.ylabel)
    ax.grid(color="#eef0f2")
    if panel.xlog:
        ax.set_xscale("log")
    if panel.ylog:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0)
    if panel.ticks:
        ax.set_xticks(list(panel.ticks), list(panel.ticks.values()))
        ax.minorticks_off()
    if len(panel.lines) > 1:
        ax.legend(fontsize=8)


def models_with_intervals(name: str, panels: dict[str, list[Bar]], highlight: str) -> str:
    """Value and interval of every model, one panel a protocol, models from top to bottom; `highlight` is the baseline,
    whose value is drawn as a line through all of them."""
    with _style(name):
        models = list(dict.fromkeys(bar[0] for bars in panels.values() for bar in bars))
        figure = _figure(3.4 * len(panels) + 1.4, 0.32 * len(models) + 1.0)
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, (title, bars) in zip(axes, panels.items(), strict=True):
            for model, value, low, high in bars:
                y = models.index(model)
                colour = _GREY if model == highlight else COLOURS[0]
                if low is not None and high is not None:
                    ax.plot([low, high], [y, y], color=colour, linewidth=2, alpha=0.5, solid_capstyle="butt")
                ax.plot([value], [y], "o", color=colour, markersize=5)
                if model == highlight:
                    ax.axvline(value, color=_GREY, linewidth=0.8, linestyle=":")
            ax.set_title(title)
            ax.grid(axis="x", color="#e6e8eb")
            ax.set_axisbelow(True)
        axes[0].set_yticks(range(len(models)), models)
        axes[0].invert_yaxis()
        return _svg(figure)


def training_curves(name: str, points: Sequence[dict[str, float]], panels: dict[str, dict[str, str]]) -> str:
    """Curves over training steps: `panels` maps a title to {key of a point: label}. Points that lack a key are skipped,
    and so are panels without any; an empty string when nothing is left."""
    drawn = {
        title: {key: label for key, label in keys.items() if any(key in point for point in points)}
        for title, keys in panels.items()
    }
    drawn = {title: keys for title, keys in drawn.items() if keys}
    if not drawn:
        return ""
    with _style(name):
        figure = _figure(3.0 * len(drawn), 2.3)
        for ax, (title, keys) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items(), strict=True):
            for colour, (key, label) in zip(COLOURS, keys.items(), strict=False):
                at = [(point["step"], point[key]) for point in points if key in point]
                ax.plot(*zip(*at, strict=True), color=colour, linewidth=1.4, label=label, marker=_marker(at))
            ax.set_title(title)
            ax.set_xlabel("step")
            ax.grid(color="#eef0f2")
            if len(keys) > 1:
                ax.legend()
        return _svg(figure)


def category_bars(name: str, shares: dict[str, dict[str, float]]) -> str:
    """Share by category, one series a name in `shares`, categories in the order of the first series."""
    with _style(name):
        categories = list(dict.fromkeys(c for series in shares.values() for c in series))
        figure = _figure(max(5.0, 0.62 * len(categories) + 1.5), 2.9)
        ax = figure.subplots()
        width = 0.8 / len(shares)
        for number, (series, share) in enumerate(shares.items()):
            x = np.arange(len(categories)) - 0.4 + (number + 0.5) * width
            colour = "#c9cdd2" if number == 0 else COLOURS[(number - 1) % len(COLOURS)]
            ax.bar(x, [share.get(c, 0.0) for c in categories], width, color=colour, label=series)
        ax.set_xticks(range(len(categories)), [plain(c) for c in categories], rotation=35, ha="right")
        ax.set_ylabel("share")
        ax.grid(axis="y", color="#eef0f2")
        ax.set_axisbelow(True)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(shares), borderaxespad=0)
        return _svg(figure)


def _marker(points: list[Any]) -> str:
    return "o" if len(points) == 1 else ""


def plain(label: str) -> str:
    """A label that stands for itself: without formulas between dollars, controls, and the sign that hides it."""
    text = without_controls(label).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _style(name: str) -> Any:
    from matplotlib import rc_context

    settings: Any = _STYLE | {"svg.hashsalt": name}
    return rc_context(settings)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: "Figure") -> str:
    """The figure as an <svg> element without XML declaration."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
