"""report.json → report.html: one file without links, readable in light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from edge_speech.bundle_manifest import LM_WEIGHTS
from edge_speech.decoder import in_words
from edge_speech_tools import report_parts
from edge_speech_tools.report_parts import figure as _figure
from edge_speech_tools.report_parts import key_of_entry as _key
from edge_speech_tools.report_parts import table as _table
from edge_speech_tools.svg import Bar, Interval, bar_chart, interval_chart

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5c6675; --paper: #ffffff; --line: #d9dee5;
  --card: #f5f7fa; --good: #1a7f4b; --plan: #8a6100; --bad: #b3261e; --mark: #2563c9;
  --mark2: #7aa5ea; --mark3: #b9d0f5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa5b4; --paper: #14181e;
  --line: #323a45; --card: #1c222a; --good: #56c88b; --plan: #e0b04c; --bad: #f2726a; --mark: #6ea2f5;
  --mark2: #3f69ac;
  --mark3: #2b4570; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
p.lead, small, figcaption { color: var(--soft); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; font-size: .85rem; } td.number, th.number { text-align: right; }
td.number, td:first-child { white-space: nowrap; }
tr.kept td:first-child { font-weight: 600; } .verified { color: var(--good); }
.error { color: var(--bad); font-weight: 600; } .warning, .planned, .built { color: var(--plan); }
code { font: .88em ui-monospace, monospace; background: var(--card); padding: .1em .3em;
  overflow-wrap: anywhere; }
figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
svg text { fill: var(--ink); font-size: 13px; }
svg text.soft { fill: var(--soft); font-size: 12px; } svg line { stroke: var(--line); }
svg .b0, svg circle { fill: var(--mark); } svg .b1 { fill: var(--mark2); } svg .b2 { fill: var(--mark3); }
svg polyline { fill: none; stroke: var(--mark); stroke-width: 2; } svg .c1 { stroke: var(--good); }
svg .c2 { stroke: var(--plan); } svg .c3 { stroke: var(--bad); }
svg circle.open { fill: var(--paper); stroke: var(--mark); stroke-width: 2; }
svg circle.pale { fill: none; stroke: var(--mark3); } svg polyline.front { stroke: var(--mark2); }
svg line.whisker { stroke: var(--mark); stroke-width: 2; }
"""


def as_html(report: dict[str, Any]) -> str:
    """The page of one report."""
    model, target = report["model"], report["target"]
    title = f"{model['path']} for {target['name']}"
    lead = (
        f"{model['architecture']}, {model['parameters'] / 1e6:.2f} M parameters, {model['tokens']} tokens, "
        f"chunks of {_chunk_ms(report):g} ms. {target['description']}."
    )
    sections = [
        _section("Decision", _list(report["decision"])),
        _section("Findings before the work", report_parts.findings(report["findings"])),
        _section("Artifacts", _artifacts(report["artifacts"])),
        _section("Decoder", _decoder(report["decoder"])),
        _section("Word error rate", _quality(report["quality"])),
        _section("Latency", _performance(report["performance"])),
        _section("Drift", report_parts.drift(report["drift"])),
        *_optional(report),
        _section("Plan", _plan(report["plan"])),
        _section("Provenance", _provenance(report["provenance"])),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f'<body><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>\n'
        f"{''.join(sections)}</body></html>\n"
    )


def _optional(report: dict[str, Any]) -> list[str]:
    """Sections of what only some jobs do."""
    shown = (
        ("Prediction", "prediction", report_parts.prediction),
        ("Pruning", "pruning", report_parts.pruning),
        ("Sensitivity by layer", "sensitivity", report_parts.sensitivity),
        ("Search", "search", report_parts.search),
    )
    return [_section(title, draw(report[key])) for title, key, draw in shown if report.get(key)]


def _chunk_ms(report: dict[str, Any]) -> float:
    frame_shift_ms = float(report["model"]["frontend"].get("frame_shift_ms", 10.0))
    return float(report["model"]["encoder"]["chunk_frames"]) * frame_shift_ms


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n"


def _list(sentences: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(s)}</li>' for s in sentences)}</ul>"


_ARTIFACT_HEADS = (
    "artifact", "file", "status", "KiB", "of fp32", "largest difference", "mean", "same best token",
    "same text",
)  # fmt: skip


def _artifacts(artifacts: list[dict[str, Any]]) -> str:
    fp32 = max((a["bytes"] for a in artifacts if a["precision"] == "fp32"), default=None)
    rows = [("kept" if a["kept"] else "", _artifact_cells(a, fp32)) for a in artifacts]
    commands = [a["command"] for a in artifacts if a["command"]]
    notes = [f"<p><small>On the device: <code>{escape(command)}</code></small></p>" for command in commands]
    compared = next((a["parity"] for a in artifacts if a["parity"]), None)
    if compared is not None:
        notes.append(
            "<p><small>Differences of log-probabilities against PyTorch, the state carried on, "
            f"over {compared['recordings']} whole recordings, {compared['frames']} frames. "
            "Bold: in the bundle.</small></p>"
        )
    return _table(_ARTIFACT_HEADS, rows, text_columns=3) + "".join(notes)


def _artifact_cells(artifact: dict[str, Any], fp32: int | None) -> list[str]:
    status, checked = escape(artifact["status"]), artifact["checked_with"]
    elsewhere = checked not in (None, artifact["backend"])
    return [
        escape(_key(artifact)),
        f"<code>{escape(artifact['path'])}</code>",
        f'<span class="{status}">{status}</span>'
        + (f" <small>checked with {escape(checked)}</small>" if elsewhere else ""),
        f"{artifact['bytes'] / 1024:.0f}",
        f"1 / {fp32 / artifact['bytes']:.2f}" if fp32 else "–",
        *_parity_cells(artifact["parity"]),
    ]


def _parity_cells(parity: dict[str, Any] | None) -> list[str]:
    if parity is None:
        return ["–"] * 4
    return [
        f"{parity['max_abs']:.2e}",
        f"{parity['mean_abs']:.2e}",
        f"{parity['argmax_agreement']:.2%}",
        f"{parity['text_identical']:.1%}",
    ]


def _decoder(decoder: dict[str, Any]) -> str:
    """The search; of a language model its size, and how it fits tokens and evaluation texts."""
    lm = decoder.get("lm")
    if lm is None:
        return f"<p>{escape(in_words(decoder)).capitalize()}, without a language model.</p>"
    ngrams = ", ".join(f"{count} {n}-grams" for n, count in enumerate(lm["ngrams"], start=1))
    rows = [
        ("search", f"beam {decoder['beam_size']}"),
        ("weights", ", ".join(f"{key} {decoder[key]:g}" for key in LM_WEIGHTS)),
        ("language model", f"{lm['source']}: {lm['bytes'] / 1024:.0f} KiB in the bundle, {ngrams}"),
        ("not spelled by the tokens", f"{lm['unspellable_words']} of its {lm['words']} words"),
        ("on the evaluation texts", _on_texts(lm["eval"])),
    ]
    return _table(["", ""], [("", [escape(cell) for cell in row]) for row in rows], text_columns=2)


def _on_texts(measured: dict[str, Any] | None) -> str:
    if measured is None:
        return "not measured: no --eval manifest was given"
    return (
        f"perplexity {measured['perplexity']:.2f}; {measured['oov_words']} of {measured['words']} words "
        f"({measured['oov_percent']:.1f} %) are not in the model"
    )


def _quality(quality: dict[str, Any] | None) -> str:
    if quality is None:
        return "<p>Not measured: no <code>--eval</code> manifest was given.</p>"
    searched = "wer_pytorch_greedy" in quality
    shown = [i for e in quality["artifacts"] for i in _intervals(_key(e), "wer", e)]
    heads = ["artifact", "WER %", "against PyTorch", "95 % interval of that"]
    heads += ["greedy WER %", "against greedy", "95 % interval of that"] if searched else []
    caption = (
        f"WER in percent on {quality['set']}: {quality['utterances']} utterances, {quality['words']} words; "
        f"lines are 95 % bootstrap intervals. Budget: {quality['accuracy_budget']:g} points above PyTorch."
    )
    chart = interval_chart([*_intervals("pytorch", "wer_pytorch", quality), *shown])
    return _figure(chart, caption) + _table(heads, [("", _quality_cells(e)) for e in quality["artifacts"]])


def _intervals(name: str, key: str, figures: dict[str, Any]) -> list[Interval]:
    """The bundle's decoder, and greedy where it is another."""
    own = [Interval(name, figures[key], *figures[f"{key}_ci95"])]
    greedy = f"{key}_greedy"
    beside = (
        [Interval(f"{name}, greedy", figures[greedy], *figures[f"{greedy}_ci95"])]
        if greedy in figures
        else []
    )
    return own + beside


def _quality_cells(e: dict[str, Any]) -> list[str]:
    cells = [escape(_key(e)), f"{e['wer']:.2f}", f"{e['wer_added']:+.2f}", _range(e["wer_added_ci95"])]
    if "wer_greedy" not in e:
        return cells
    against = f"{e['wer_against_greedy']:+.2f}", _range(e["wer_against_greedy_ci95"])
    return [*cells, f"{e['wer_greedy']:.2f}", *against]


def _range(interval: Sequence[float]) -> str:
    return f"{interval[0]:+.2f} … {interval[1]:+.2f}"


def _performance(performance: dict[str, Any]) -> str:
    host = performance["host"]
    where = f"Measured on {host['cpu']} ({host['arch']})"
    where += (
        "."
        if performance["host_is_target_arch"]
        else ", not on the target: only the order of magnitude carries over."
    )
    results = performance["results"]
    if not results:
        return "<p>Nothing in this bundle runs on the host, so nothing was timed.</p>"
    bars = [Bar(_key(r), tuple(r["chunk_latency_ms"][p] for p in ("p50", "p95", "p99"))) for r in results]
    heads = ["artifact", "p50 ms", "p95 ms", "p99 ms", "max ms", "RTF", "load ms", "threads"]
    rows = [("", _latency_cells(r)) for r in results]
    caption = f"Time per chunk in ms: p50, p95, p99. {where}"
    return _figure(bar_chart(bars, ("p50", "p95", "p99"), "ms"), caption) + _table(heads, rows)


def _latency_cells(result: dict[str, Any]) -> list[str]:
    latency = result["chunk_latency_ms"]
    times = [f"{latency[p]:.3f}" for p in ("p50", "p95", "p99", "max")]
    return [
        escape(_key(result)),
        *times,
        f"{result['rtf']:.4f}",
        f"{result['load_ms']:.0f}",
        str(result["threads"]),
    ]


def _plan(plan: dict[str, Any]) -> str:
    rows = [
        ("", [escape(s["action"]), escape(s["subject"]), escape(s["detail"]), escape(s["cached"])])
        for s in plan["steps"]
    ]
    left_out = _list(f"left out: {reason}" for reason in plan["left_out"]) if plan["left_out"] else ""
    return _table(["step", "what", "how", "kept from before"], rows, text_columns=4) + left_out


def _provenance(provenance: dict[str, Any]) -> str:
    rows = [("", [escape(key), _value(value)]) for key, value in provenance.items()]
    return _table(["", ""], rows, text_columns=2)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{escape(str(k))} {_value(v)}" for k, v in value.items())
    return f"<code>{escape(str(value))}</code>"
