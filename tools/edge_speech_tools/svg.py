"""Two small charts as inline SVG; colours come from the page's style."""

from __future__ import annotations

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


def bar_chart(bars: Sequence[Bar], series: Sequence[str], unit: str) -> str:
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
    return _svg(parts, y, "Latency per chunk")


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
