"""Small charts as inline SVG; colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LABEL, _RIGHT = 760, 210, 90


@dataclass(frozen=True)
class Bar:
    """One label, one value per series."""

    label: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Interval:
    """A value with its lower and upper bound."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A named line through (x, y) points."""

    label: str
    points: Sequence[tuple[float, float]]


# What lies below what.
_KINDS = ("pale", "open", "chosen")
_LINE_HEIGHT = 13


@dataclass(frozen=True)
class Dot:
    """A point of a scatter; `kind` is "chosen" (filled), "open" or "pale", `radius` in pixels."""

    label: str
    x: float
    y: float
    kind: str = "open"
    radius: float = 5.0


def bar_chart(bars: Sequence[Bar], series: Sequence[str], unit: str, title: str = "Latency per chunk") -> str:
    """Horizontal bars from zero, one group per label."""
    step = 14
    scale = _Scale(max((v for bar in bars for v in bar.values), default=1.0))
    parts, y = [], 4
    for bar in bars:
        middle = y + step * len(series) / 2 + 4
        parts.append(f'<text x="0" y="{middle:.0f}">{escape(bar.label)}</text>')
        for i, (name, value) in enumerate(zip(series, bar.values, strict=True)):
            width, top = scale(value), y + i * step
            parts.append(
                f'<rect class="b{i}" x="{_LABEL}" y="{top}" width="{width:.1f}" height="{step - 3}"/>'
            )
            text = f"{escape(name)} {value:.3g} {escape(unit)}"
            parts.append(
                f'<text class="soft" x="{_LABEL + width + 5:.1f}" y="{top + step - 4}">{text}</text>'
            )
        y += step * len(series) + 12
    return _svg(parts, y, title)


def interval_chart(intervals: Sequence[Interval]) -> str:
    """A dot with whiskers per label, on one scale from zero."""
    step = 26
    scale = _Scale(max((i.high for i in intervals), default=1.0))
    parts = []
    for row, one in enumerate(intervals):
        y = row * step + 16
        low, high, dot = (_LABEL + scale(v) for v in (one.low, one.high, one.value))
        parts.append(f'<text x="0" y="{y + 4}">{escape(one.label)}</text>')
        parts.append(f'<line x1="{_LABEL}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}"/>')
        parts.append(f'<line class="whisker" x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}"/>')
        parts.append(f'<circle cx="{dot:.1f}" cy="{y}" r="5"/>')
        parts.append(f'<text class="soft" x="{_WIDTH - _RIGHT + 8}" y="{y + 4}">{one.value:.2f} %</text>')
    return _svg(parts, len(intervals) * step + 8, "Word error rate")


_PLOT_HEIGHT, _MARGIN = 240, 70


def curve_chart(curves: Sequence[Curve], x_label: str, y_label: str) -> str:
    """Lines over one x axis; y is logarithmic, as divergences differ by orders of magnitude."""
    axes = _Axes([p for curve in curves for p in curve.points], log_y=True)
    parts = axes.frame(x_label, y_label)
    labels_y = _apart([axes.y(curve.points[-1][1]) + 4 for curve in curves])
    for i, (curve, y) in enumerate(zip(curves, labels_y, strict=True)):
        path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in curve.points)
        parts.append(f'<polyline class="c{i % 4}" points="{path}"/>')
        parts.append(f'<text class="soft" x="{axes.end + 6:.1f}" y="{y:.1f}">{escape(curve.label)}</text>')
    return _svg(parts, _PLOT_HEIGHT + 44, y_label)


def _apart(heights: Sequence[float]) -> list[float]:
    """The same, moved down where two lines of text would lie on each other."""
    moved, last = list(heights), -math.inf
    for i in sorted(range(len(heights)), key=heights.__getitem__):
        last = moved[i] = max(heights[i], last + _LINE_HEIGHT)
    return moved


def scatter_chart(
    dots: Sequence[Dot], x_label: str, y_label: str, line: Sequence[tuple[float, float]] = ()
) -> str:
    """Points with their names over a line."""
    axes = _Axes([(dot.x, dot.y) for dot in dots], log_y=False)
    parts = axes.frame(x_label, y_label)
    path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in line)
    parts += [f'<polyline class="front" points="{path}"/>'] if line else []
    for dot in sorted(dots, key=lambda dot: (_KINDS.index(dot.kind), -dot.radius)):
        x, y = axes.x(dot.x), axes.y(dot.y)
        parts.append(f'<circle class="{dot.kind}" cx="{x:.1f}" cy="{y:.1f}" r="{dot.radius:.1f}"/>')
    for dot in dots:
        x, y = axes.x(dot.x) + dot.radius + 3, axes.y(dot.y) - dot.radius
        parts.append(f'<text class="soft" x="{x:.1f}" y="{y:.1f}">{escape(dot.label)}</text>')
    return _svg(parts, _PLOT_HEIGHT + 44, f"{y_label} against {x_label}")


class _Axes:
    """Data → pixels of a plot, x from zero; y from zero, or over whole decades."""

    end = float(_WIDTH - 190)

    def __init__(self, points: Sequence[tuple[float, float]], log_y: bool) -> None:
        self.log_y = log_y
        self.largest_x = max((x for x, _ in points), default=1.0) or 1.0
        ys = [y for _, y in points if math.isfinite(y)]
        if log_y:
            positive = [y for y in ys if y > 0] or [1.0]
            self.low = float(math.floor(math.log10(min(positive))))
            self.high = max(self.low + 1, float(math.ceil(math.log10(max(positive)))))
        else:
            self.low, self.high = 0.0, (max(ys, default=1.0) or 1.0) * 1.1

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return _MARGIN + value / self.largest_x * (self.end - _MARGIN)

    def y(self, value: float) -> float:
        """Pixels from the top; what is off the scale is at its border."""
        if self.log_y:
            value = math.log10(value) if value > 0 and math.isfinite(value) else self.low
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return 12 + (1 - share) * (_PLOT_HEIGHT - 12)

    def frame(self, x_label: str, y_label: str) -> list[str]:
        """Grid lines with their figures, and what the axes are."""
        parts = []
        for value in self._ticks():
            y = self.y(value)
            parts.append(f'<line x1="{_MARGIN}" y1="{y:.1f}" x2="{self.end}" y2="{y:.1f}"/>')
            figure = (
                f'<text class="soft" x="{_MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
            )
            parts.append(figure)
        for i in range(5):
            value = self.largest_x * i / 4
            figure = f'y="{_PLOT_HEIGHT + 18}" text-anchor="middle">{value:.3g}</text>'
            parts.append(f'<text class="soft" x="{self.x(value):.1f}" {figure}')
        middle, y = (_MARGIN + self.end) / 2, _PLOT_HEIGHT + 38
        parts.append(f'<text class="soft" x="{middle}" y="{y}" text-anchor="middle">{escape(x_label)}</text>')
        return parts

    def _ticks(self) -> list[float]:
        if not self.log_y:
            return [self.high * i / 4 for i in range(5)]
        step = max(1, math.ceil((self.high - self.low) / 6))
        return [10.0**n for n in range(int(self.low), int(self.high) + 1, step)]


class _Scale:
    """Value → pixels, the largest value filling the chart."""

    def __init__(self, largest: float) -> None:
        self._factor = (_WIDTH - _LABEL - _RIGHT) / largest if largest > 0 else 0.0

    def __call__(self, value: float) -> float:
        return value * self._factor


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" role="img"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )
