"""Small PNG plots for the asset pages of the UI.

Belongs here: matplotlib figures as bytes. Does not belong here: the report's figures (`ml.report`).
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ml.clock import MS_PER_HOUR


def _figure(width: float = 6.0, height: float = 2.6) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=80, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def clicks_per_hour(time_ms: np.ndarray) -> bytes:
    """Clicks per hour over the span of `time_ms` (int64 [N] ms)."""
    figure, axes = _figure()
    if len(time_ms):
        hours, counts = np.unique(time_ms // MS_PER_HOUR, return_counts=True)
        axes.fill_between((hours * 3600).astype("datetime64[s]"), counts, step="mid", alpha=0.6)
    axes.set_ylabel("clicks per hour")
    figure.autofmt_xdate()
    return _png(figure)


def curves(rows: Sequence[Mapping[str, float]], names: Mapping[str, str], label: str) -> bytes:
    """Lines of `names` over `step`, each called as the mapping says, leaving out the steps at which one was not
    measured."""
    figure, axes = _figure()
    for name, shown in names.items():
        points = [(r["step"], r[name]) for r in rows if r.get(name) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=shown)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.legend(frameon=False)
    return _png(figure)


def line(x: Sequence[Any], y: Sequence[float], xlabel: str, ylabel: str, sigma: Sequence[float] | None = None) -> bytes:
    """One line, with a band of one `sigma` around it where it is given."""
    figure, axes = _figure()
    axes.plot(x, y)
    if sigma is not None:
        axes.fill_between(x, np.subtract(y, sigma), np.add(y, sigma), alpha=0.25)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_ylim(bottom=0)
    return _png(figure)


def bars(values: Mapping[str, float], label: str) -> bytes:
    """Horizontal bars, one a name."""
    figure, axes = _figure(height=0.6 + 0.28 * len(values))
    axes.barh(list(values), list(values.values()))
    axes.invert_yaxis()
    axes.set_xlabel(label)
    return _png(figure)
