"""A validation as one self-contained page: the sets, the findings, and histograms of each set."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edge_speech.page import Series, histogram, page, table
from edge_speech.validation.finding import DataSet, Finding
from edge_speech.validation.report import Validation, describe, set_rows, speaking_rates

_BINS, _SHOWN_CASES, _SHOWN_CHARACTERS = 48, 50, 100
_STYLE = (
    "body{max-width:80em}td,th{text-align:left;vertical-align:top}.broken{color:#b3261e;font-weight:600}"
    ".sets{overflow-x:auto}td,th{padding-left:0}.sets td{white-space:nowrap}"
    "details{margin:.3em 0}.charts{display:grid;grid-template-columns:1fr 1fr;gap:1em}"
    "figure{margin:0}figcaption{color:#555}code{overflow-wrap:anywhere}"
)


def render(validation: Validation) -> str:
    """The page. No script, no outside resource."""
    sets = table(set_rows([describe(data) for data in validation.sets]))
    findings = "".join(_finding(f) for f in validation.findings)
    charts = "".join(_charts(data) for data in validation.sets)
    body = f"<div class=sets>{sets}</div><p>Three figures: 5 %, median, 95 %.</p>"
    body += f"<h2>Findings</h2>{findings or '<p>None.</p>'}{charts}"
    return page("Edge Speech data validation", body, _STYLE)


def _finding(f: Finding) -> str:
    head = f"<span class={f.severity}>{f.severity}</span> {escape(f.manifest)}: <b>{escape(f.check)}</b>"
    head += f" × {f.count}: {escape(f.message)}"
    if not f.cases:
        return f"<p>{head}</p>"
    rows = [[case.utterance, case.detail] for case in f.cases[:_SHOWN_CASES]]
    more = len(f.cases) - len(rows)
    rest = f"<p>and {more} more; --json lists them all</p>" if more else ""
    return f"<details><summary>{head}</summary>{table([['utterance', ''], *rows])}{rest}</details>"


def _charts(data: DataSet) -> str:
    measures = [m for _, m in data.readable]
    charts = [
        _chart("duration", [m.duration_s for m in measures], " s"),
        _chart("characters per second", speaking_rates(data), ""),
        _chart("signal-to-noise ratio", [m.snr_db for m in measures if m.snr_db is not None], " dB"),
        _chart("level below full scale", [-m.level_db for m in measures], " dB"),
    ]
    return f"<h2>{escape(data.name)}</h2><div class=charts>{''.join(charts)}</div>{_characters(data)}"


def _chart(name: str, values: Sequence[float], unit: str) -> str:
    """From zero to the largest; what is below zero counts as zero."""
    if not values:
        return ""
    highest = max(1e-3, *values)
    shown = histogram(name, [Series("utterances", [max(0.0, v) for v in values])], highest, _BINS, unit=unit)
    return f"<figure>{shown}<figcaption>{escape(name)}, {len(values)} utterances</figcaption></figure>"


def _characters(data: DataSet) -> str:
    counts = sorted(describe(data)["characters"].items(), key=lambda pair: -pair[1])
    if not counts:
        return ""
    shown = "  ".join(f"{'␣' if c == ' ' else c} {n}" for c, n in counts[:_SHOWN_CHARACTERS])
    rest = len(counts) - _SHOWN_CHARACTERS
    more = f" and {rest} more" if rest > 0 else ""
    return f"<p>{len(counts)} characters: <code>{escape(shown)}</code>{more}</p>"
