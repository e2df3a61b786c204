"""A bench as one self-contained HTML page: the table, and a latency histogram per artifact in inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from edge_speech.bench import Measurement
from edge_speech.page import Series, histogram, page, table

_BARS = 48


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
    """The page."""
    charts = "".join(_chart(m) for m in measurements)
    return page(title, table(table_rows([m.result for m in measurements])) + charts)


def _chart(measurement: Measurement) -> str:
    """Histogram of chunk latencies from zero to the slowest, with the 99th percentile marked."""
    result, latencies = measurement.result, measurement.latencies_ms or [0.0]
    chunks = f"{len(measurement.latencies_ms)} chunks of {result['chunk_ms']:g} ms"
    name = f"{result['backend']} {result['precision']}, {chunks}"
    highest, p99 = max(1e-3, *latencies), result["chunk_latency_ms"]["p99"]
    chart = histogram(name, [Series("chunks", latencies)], highest, _BARS, unit=" ms", mark=p99)
    return f"<h2>{escape(name)}</h2>{chart}"
