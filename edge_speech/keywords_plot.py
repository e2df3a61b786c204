"""Missed keywords over false accepts as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from edge_speech.keywords import Array
from edge_speech.lm.output import replaced

# Beyond this rate no detector is of use.
_MOST_PER_HOUR = 30.0


def plot(curves: dict[str, tuple[Array, Array]], rate: float, path: Path | str) -> None:
    """Share of misses (%) over false accepts per hour of each curve into a PNG, `rate` marked."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for keyword, (accepts, rejects) in curves.items():
        width = 2.5 if keyword == "all" else 1.2
        axes.step(accepts, 100 * rejects, where="post", label=keyword, linewidth=width)
    axes.axvline(rate, color="tab:gray", linestyle=":")
    axes.set_xlim(0, max(_MOST_PER_HOUR, 2 * rate))
    axes.set_ylim(bottom=0)
    axes.set(xlabel="false accepts per hour", ylabel="missed keywords, %")
    axes.legend()
    with replaced(path) as part:
        figure.savefig(part, dpi=110, format="png")
