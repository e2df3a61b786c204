"""Parts of self-contained HTML pages, without script or outside resource: frame, table, inline SVG charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from edge_speech.errors import InputError
from edge_speech.lm.output import replaced

_WIDTH, _HEIGHT, _ROW, _LABEL = 640, 160, 20, 140
_STYLE = (
    "body{font:15px system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.25em .8em;text-align:right;border-bottom:1px solid #ddd}"
    "svg{width:100%;height:auto;background:#fafafa}.s0{fill:#3b7dd8}.s1{fill:#d9622b}"
    "text{font-size:11px;fill:#555}line{stroke:#c33;stroke-dasharray:4 3}"
)


@dataclass(frozen=True)
class Series:
    """Values of one colour of a histogram, and what they are."""

    name: str
    values: Sequence[float]


def page(title: str, body: str, style: str = "") -> str:
    """The whole page; `body` is HTML."""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<style>{_STYLE}{style}</style><h1>{escape(title)}</h1>{body}</html>\n"
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Plain text cells; the first row is the header."""
    return f"<table>{''.join(_table_row(row, 'td' if i else 'th') for i, row in enumerate(rows))}</table>"


def _table_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def histogram(
    name: str,
    series: Sequence[Series],
    highest: float,
    bins: int,
    *,
    unit: str = "",
    mark: float | None = None,
) -> str:
    """Stacked counts from zero to `highest`; a dashed line at `mark` says p99."""
    counts = [np.histogram(s.values, bins=bins, range=(0, highest))[0] for s in series]
    stacked = np.cumsum(counts, axis=0)
    step, scale = _WIDTH / bins, _HEIGHT / max(1, int(stacked[-1].max()))
    bars = "".join(
        f'<rect class="s{k}" x="{i * step:.1f}" y="{_HEIGHT - scale * stacked[k][i]:.1f}" '
        f'width="{step - 1:.1f}" height="{scale * counts[k][i]:.1f}">'
        f"<title>{counts[k][i]} {escape(s.name)} up to {highest * (i + 1) / bins:.2f}{unit}</title></rect>"
        for k, s in enumerate(series)
        for i in range(bins)
        if counts[k][i]
    )
    labels = "".join(
        f'<text x="{_WIDTH * part:.0f}" y="{_HEIGHT + 16}" text-anchor="{anchor}">'
        f"{highest * part:.2f}{unit}</text>"
        for part, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    )
    line = "" if mark is None else _mark(min(_WIDTH - 1.0, _WIDTH * mark / highest))
    return _svg(name, _HEIGHT + 22, bars + line + labels)


def _mark(x: float) -> str:
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HEIGHT}"/>'
        f'<text x="{x:.1f}" y="10" text-anchor="end">p99 </text>'
    )


def bars(name: str, values: Sequence[tuple[str, float, str]]) -> str:
    """A horizontal bar from zero for each (label, value, what to write beside it)."""
    largest = max((value for _, value, _ in values), default=0.0) or 1.0
    scale = (_WIDTH - 2 * _LABEL) / largest
    parts = "".join(
        f'<text x="0" y="{i * _ROW + 14}">{escape(label)}</text>'
        f'<rect class="s0" x="{_LABEL}" y="{i * _ROW + 4}" width="{scale * value:.1f}" height="{_ROW - 7}"/>'
        f'<text x="{_LABEL + scale * value + 5:.1f}" y="{i * _ROW + 14}">{escape(beside)}</text>'
        for i, (label, value, beside) in enumerate(values)
    )
    return _svg(name, len(values) * _ROW + 4, parts)


def _svg(name: str, height: int, parts: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role=img aria-label="{escape(name)}">{parts}</svg>'


def check_page(name: str | None) -> None:
    """Before minutes of measuring, not after. Raises InputError when --html cannot be written."""
    if name is not None and (Path(name).is_dir() or not Path(name).absolute().parent.is_dir()):
        raise InputError(f"--html {name}: not a file in an existing directory; choose another name")


def write_page(path: Path | str, html: str) -> None:
    """There completely or not at all."""
    with replaced(path) as part:
        part.write_text(html, encoding="utf-8")
