"""Sections of report.html about what was found on the way: lint, drift, sensitivity, search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from edge_speech_tools.svg import Bar, Curve, Dot, bar_chart, curve_chart, scatter_chart

# Layers that a picture has room for; the table has all.
_PICTURED = 20


def figure(chart: str, caption: str) -> str:
    """A chart with a sentence under it."""
    return f"<figure>{chart}<figcaption>{escape(caption)}</figcaption></figure>"


def table(heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], text_columns: int = 1) -> str:
    """`rows` are (row class, cells), the cells already HTML; columns after the first few are numbers."""

    def cell(tag: str, index: int, html: str) -> str:
        kind = "" if index < text_columns else ' class="number"'
        return f"<{tag}{kind}>{html}</{tag}>"

    head = "".join(cell("th", i, escape(h)) for i, h in enumerate(heads))
    body = "".join(
        f'<tr class="{kind}">{"".join(cell("td", i, c) for i, c in enumerate(cells))}</tr>'
        for kind, cells in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def key_of_entry(entry: dict[str, Any]) -> str:
    """`backend/precision`."""
    return f"{entry['backend']}/{entry['precision']}"


def findings(found: list[dict[str, str]]) -> str:
    """What the linter found, each with its remedy."""
    if not found:
        return "<p>Nothing was found.</p>"
    rows = [
        ("", [f'<span class="{f["severity"]}">{f["severity"]}</span>', *(escape(f[k]) for k in _FINDING)])
        for f in found
    ]
    return table(["", "check", "what", "remedy"], rows, text_columns=4)


_FINDING = ("check", "message", "remedy")


def drift(measured: list[dict[str, Any]]) -> str:
    """Curves of the divergence over a long stream, and whether they grow."""
    if not measured:
        return "<p>Not measured: no recordings were given.</p>"
    seconds = measured[0]["seconds"]
    curves = [
        Curve(key_of_entry(m), [(p["at_s"] / 60, p["mean_abs"]) for p in m["points"]]) for m in measured
    ]
    short = "" if seconds >= 590 else " (the recordings given hold no more)"
    caption = (
        f"Mean |difference of log_probs| from PyTorch over {seconds:.0f} s of speech in one stream, never "
        f"reset{short}."
    )
    chart = curve_chart(curves, "minutes", "mean |difference of log_probs|")
    heads = [
        "artifact",
        "mean",
        "KL, nats a row",
        "first fifth",
        "last fifth",
        "a minute",
        "95 % interval",
        "",
    ]
    return figure(chart, caption) + table(heads, [("", _drift_cells(m)) for m in measured])


def _drift_cells(m: dict[str, Any]) -> list[str]:
    figures = [f"{m[k]:.2e}" for k in ("mean_abs", "kl", "first", "last", "slope_per_minute")]
    low, high = m["slope_ci95"]
    verdict = f'<span class="warning">{escape(m["warning"])}</span>' if m["warning"] else _unwarned(low)
    return [escape(key_of_entry(m)), *figures, f"{low:+.1e} … {high:+.1e}", verdict]


def _unwarned(low: float) -> str:
    return "grows, by less than double" if low > 0 else "no growth"


def prediction(predicted: dict[str, Any]) -> str:
    """A row for each artifact and power mode; what was measured on the device stands beside its first row."""
    work = predicted["work"]
    lead = (
        f"A chunk of {predicted['chunk_ms']:g} ms takes {work['multiply_adds'] / 1e6:.2f} million "
        "multiply-adds. Predicted: the greater of arithmetic and memory, plus what the graph's nodes cost "
        "besides, on one core of the CPU or on the GPU. A floor: where it was compared, engines took up to "
        "four times as long."
    )
    rows = [
        ("", _predicted_cells(a, m, not i)) for a in predicted["artifacts"] for i, m in enumerate(a["modes"])
    ]
    heads = [
        "artifact",
        "power mode",
        "bound by",
        "arithmetic ms",
        "memory ms",
        "nodes ms",
        "predicted ms",
        "RTF",
    ]
    unsure = ", ".join(predicted["unconfirmed"])
    note = (
        f"<p><small>Figures of the profile that are not confirmed: {escape(unsure)}.</small></p>"
        if unsure
        else ""
    )
    return f"<p>{lead}</p>" + table([*heads, "measured ms"], rows, text_columns=3) + note


def _predicted_cells(artifact: dict[str, Any], mode: dict[str, Any], first: bool) -> list[str]:
    times = [f"{mode[key]:.3g}" for key in ("compute_ms", "memory_ms", "overhead_ms", "latency_ms")]
    measured = artifact["measured"] if first else None
    beside = f"{measured['latency_ms']:.3f} <small>on the {measured['where']}</small>" if measured else "–"
    name = escape(key_of_entry(artifact)) if first else ""
    return [name, escape(mode["mode"]), mode["bound"], *times, f"{mode['rtf']:.5f}", beside]


def sensitivity(layers: list[dict[str, Any]]) -> str:
    """What each layer costs when it alone is quantised, the dearest first."""
    ordered = sorted(layers, key=lambda one: -one["divergence"])
    shown = ordered[:_PICTURED]
    chart = bar_chart([Bar(o["layer"], (o["divergence"],)) for o in shown], ("",), "", "Sensitivity by layer")
    caption = (
        f"Divergence of log_probs when only this layer is quantised; {len(shown)} of {len(layers)} layers."
    )
    heads = ["layer", "precision", "parameters", "divergence", "WER added"]
    return figure(chart, caption) + table(heads, [("", _layer_cells(o)) for o in ordered], text_columns=2)


def _layer_cells(one: dict[str, Any]) -> list[str]:
    added = one.get("wer_added")
    return [
        f"<code>{escape(one['layer'])}</code>",
        escape(str(one["precision"])),
        f"{one['parameters']}",
        f"{one['divergence']:.3g}",
        "–" if added is None else f"{added:+.2f}",
    ]


def pruning(pruned: dict[str, Any]) -> str:
    """What pruning took out: of the settings, and of every weight."""
    trained = f", trained by {pruned['fine_tune']}" if pruned["fine_tune"] else ", not trained after it"
    lead = (
        f"{pruned['asked_ratio']:.0%} asked for, {pruned['ratio']:.1%} gone: {pruned['dense_parameters']} "
        f"parameters before, {pruned['parameters']} now{trained}. WER is against the model given."
    )
    changes = [("", [escape(name), f"{a}", f"{b}"]) for name, (a, b) in pruned["changes"].items()]
    weights = [
        ("", [f"<code>{escape(w['weight'])}</code>", _shape(w["before"]), _shape(w["after"])])
        for w in pruned["weights"]
    ]
    heads = ["before", "now"]
    layers = table(["weight", *heads], weights)
    folded = f"<details><summary>{len(weights)} weights changed their shape</summary>{layers}</details>"
    return f"<p>{escape(lead)}</p>{table(['setting', *heads], changes)}{folded}"


def _shape(shape: list[int] | None) -> str:
    return "gone" if shape is None else " × ".join(map(str, shape))


def search(found: dict[str, Any]) -> str:
    """WER against time of all trials, the front as a line, and a table; the chosen filled."""
    trials = found["trials"]
    measured = [t for t in trials if t["failed"] is None]
    largest = max(t["bytes"] for t in measured)
    chart = scatter_chart([_dot(t, largest) for t in measured], _TIME, "WER %", _front(measured))
    caption = (
        "WER in percent against the time to compute a second of audio, which compares chunks of any length; "
        "the area of a dot is its bytes. Filled: chosen. The line joins trials that no other beats in both; "
        "with a number: none beats them in WER, time and bytes. What was not measured again, on all "
        "utterances and in turns with the others, is pale."
    )
    heads = ["trial", "", "", "WER %", "utterances", _TIME, "ms of a chunk", "ms per chunk", "KiB"]
    rows = [("kept" if t["chosen"] else "", _trial_cells(t)) for t in trials]
    return figure(chart, caption) + table(heads, rows, text_columns=3)


_TIME = "ms per second of audio"


def _dot(t: dict[str, Any], largest: int) -> Dot:
    label = str(t["trial"]) if t["pareto"] else ""
    kind = "chosen" if t["chosen"] else "open" if t["finalist"] else "pale"
    return Dot(label, 1e3 * t["rtf"], t["wer"], kind, 11 * (t["bytes"] / largest) ** 0.5)


def _front(measured: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """The points that none beats in both time and WER, the fastest first."""
    front: list[tuple[float, float]] = []
    for t in sorted((t for t in measured if t["pareto"]), key=lambda t: (t["rtf"], t["wer"])):
        if not front or t["wer"] < front[-1][1]:
            front.append((1e3 * t["rtf"], t["wer"]))
    return front


def _trial_cells(t: dict[str, Any]) -> list[str]:
    first = [str(t["trial"]), escape(t["name"])]
    if t["failed"] is not None:
        return [*first, f'<span class="warning">{escape(t["failed"])}</span>', *["–"] * 6]
    note = "chosen" if t["chosen"] else "front" if t["pareto"] else ""
    figures = [f"{t['wer']:.2f}", str(t["utterances"]), f"{1e3 * t['rtf']:.2f}", f"{t['chunk_ms']:g}"]
    return [*first, note, *figures, f"{t['latency_ms']:.3f}", f"{t['bytes'] / 1024:.0f}"]
