"""A bench as one self-contained HTML page: the table, and a latency histogram per artifact in inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from edge_speech.bench import Measurement

_WIDTH, _HEIGHT, _BARS = 640, 160, 48
_STYLE = (
    "body{font:15px system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.25em .8em;text-align:right;border-bottom:1px solid #ddd}"
    "svg{width:100%;height:auto;background:#fafafa}rect{fill:#3b7dd8}text{font-size:11px;fill:#555}"
    "line{stroke:#c33;stroke-dasharray:4 3}"
)


def table_rows(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Header and one row per result, as a person reads them."""
    header = ["backend", "precision", "threads", "RTF", "p50 ms", "p95 ms", "p99 ms", "max ms"]
    header += ["first text ms", "final ms", "misses", "RSS MiB", "load ms", "MB"]
    return [header, *(_row(r) for r in results)]


def _row(r: dict[str, Any]) -> list[str]:
    latency, first = r["chunk_latency_ms"], r["first_partial_ms"]
    row = [r["backend"], r["precision"], str(r["threads"]), f"{r['rtf']:.4f}"]
    row += [f"{latency[key]:.2f}" for key in ("p50", "p95", "p99", "max")]
    row += [
        "-" if first is None else f"{first:.0f}",
        f"{r['final_latency_ms']:.2f}",
        str(r["deadline_misses"]),
    ]
    return [*row, f"{r['peak_rss_mib']:.0f}", f"{r['load_ms']:.0f}", f"{r['artifact_bytes'] / 1e6:.2f}"]


def render(title: str, measurements: Sequence[Measurement]) -> str:
    """The page. No script, no outside resource."""
    table = "".join(
        _table_row(row, "td" if i else "th")
        for i, row in enumerate(table_rows([m.result for m in measurements]))
    )
    charts = "".join(_chart(m) for m in measurements)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1><table>{table}</table>{charts}</html>\n"
    )


def _table_row(cells: list[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _chart(measurement: Measurement) -> str:
    """Histogram of chunk latencies from zero to the slowest, with the 99th percentile marked."""
    result, latencies = measurement.result, measurement.latencies_ms or [0.0]
    counts, edges = np.histogram(latencies, bins=_BARS, range=(0, max(1e-3, *latencies)))
    step, top = _WIDTH / _BARS, max(1, int(counts.max()))
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{_HEIGHT - _HEIGHT * n / top:.1f}" width="{step - 1:.1f}" '
        f'height="{_HEIGHT * n / top:.1f}"><title>{n} chunks up to {edges[i + 1]:.2f} ms</title></rect>'
        for i, n in enumerate(counts)
        if n
    )
    p99 = min(_WIDTH - 1.0, _WIDTH * result["chunk_latency_ms"]["p99"] / edges[-1])
    labels = "".join(
        f'<text x="{_WIDTH * part:.0f}" y="{_HEIGHT + 16}" text-anchor="{anchor}">'
        f"{edges[-1] * part:.2f} ms</text>"
        for part, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    )
    chunks = f"{len(measurement.latencies_ms)} chunks of {result['chunk_ms']:g} ms"
    name = escape(f"{result['backend']} {result['precision']}, {chunks}")
    return (
        f'<h2>{name}</h2><svg viewBox="0 0 {_WIDTH} {_HEIGHT + 22}" role=img aria-label="{name}">{bars}'
        f'<line x1="{p99:.1f}" x2="{p99:.1f}" y1="0" y2="{_HEIGHT}"/>'
        f'<text x="{p99:.1f}" y="10" text-anchor="end">p99 </text>{labels}</svg>'
    )
