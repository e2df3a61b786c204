"""An evaluation as one self-contained HTML page: rates, speakers, confidences, every text with its errors."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edge_speech.alignment import DELETE, EQUAL, INSERT, SUBSTITUTE, Pair, align
from edge_speech.breakdown import FrequentError, SpeakerScores, by_speaker, frequent_errors
from edge_speech.evaluation import Decoded, Scores
from edge_speech.page import Series, bars, histogram, page, table

_FREQUENT, _BARS = 15, 40
_STYLE = (
    ".words{display:flex;flex-wrap:wrap;margin:.2em 0 1em}"
    ".pair{padding:.1em .35em;margin:1px}.pair b{display:block;font-weight:400;min-height:1.3em}"
    ".substitute{background:#ffe3b3}.delete{background:#ffd0cc}.insert{background:#cfe3ff}"
    ".file{color:#666;margin:0}.row{display:flex;gap:2.5em;flex-wrap:wrap}"
    ".heard0{color:#3b7dd8}.heard1{color:#d9622b}"
)
_LEGEND = (
    f"<p>Said above, heard below: <span class=pair><span class={SUBSTITUTE}>another word</span></span> "
    f"<span class={DELETE}>a word that was not heard</span> <span class={INSERT}>a word not said</span></p>"
)


def render(title: str, scores: Scores, decoded: Sequence[Decoded]) -> str:
    """The page; utterances with the most errors come first, those without any are folded away."""
    aligned = [(one, align(one.text, one.hypothesis)) for one in decoded]
    aligned.sort(key=lambda pair: -_errors(pair[1]))
    wrong = [_utterance(one, pairs) for one, pairs in aligned if _errors(pairs)]
    right = [_utterance(one, pairs) for one, pairs in aligned if not _errors(pairs)]
    body = (
        f"<p>{escape(_summary(scores))}</p>{_speakers(by_speaker(decoded))}{_confidences(decoded)}"
        f"{_frequent(frequent_errors(decoded, _FREQUENT))}"
        f"<h2>{len(wrong)} utterances with errors</h2>{_LEGEND}{''.join(wrong)}"
        f"<details><summary>{len(right)} utterances without</summary>{''.join(right)}</details>"
    )
    return page(title, body, _STYLE)


def _errors(pairs: Sequence[Pair]) -> int:
    return sum(pair.kind != EQUAL for pair in pairs)


def _summary(s: Scores) -> str:
    low, high = s.wer_ci95
    return (
        f"WER {s.wer:.2f} % (95 % interval {low:.2f} … {high:.2f}), CER {s.cer:.2f} %, "
        f"{s.utterances} utterances, {s.words} words, {s.audio_s:.1f} s, RTF {s.rtf:.4f}"
    )


def _speakers(speakers: Sequence[SpeakerScores]) -> str:
    """Nothing where the manifest names none."""
    named = [s for s in speakers if s.wer is not None]
    if all(s.speaker is None for s in named):
        return ""
    rows = [(s.speaker or "without a name", s.wer or 0.0, f"{s.wer:.2f} % of {s.words}") for s in named]
    return f"<h2>WER by speaker</h2>{bars('WER by speaker', rows)}"


def _confidences(decoded: Sequence[Decoded]) -> str:
    """Mean word confidence of utterances, those with an error on top of those without."""
    series: tuple[list[float], list[float]] = [], []
    for one in decoded:
        if one.confidence is not None:
            series[one.text.split() != one.hypothesis.split()].append(one.confidence)
    names = "utterances without an error", "utterances with errors"
    chart = histogram("confidence", [Series(*pair) for pair in zip(names, series, strict=True)], 1.0, _BARS)
    legend = "".join(f"<span class=heard{i}>■ {name}</span> " for i, name in enumerate(names))
    return f"<h2>Confidence: mean of an utterance's words</h2><p>{legend}</p>{chart}"


def _frequent(errors: dict[str, list[FrequentError]]) -> str:
    tables = [
        f"<div><h2>Most frequent {kind}</h2>{table([['said', 'heard', 'count'], *map(_row, found)])}</div>"
        for kind, found in errors.items()
        if found
    ]
    return f"<div class=row>{''.join(tables)}</div>"


def _row(error: FrequentError) -> list[str]:
    return [error.said, error.heard, str(error.count)]


def _utterance(one: Decoded, pairs: Sequence[Pair]) -> str:
    words = "".join(
        f'<span class="pair {p.kind}"><b>{escape(p.said)}</b><b>{escape(p.heard)}</b></span>' for p in pairs
    )
    speaker = "" if one.speaker is None else f", {one.speaker}"
    about = f"{one.audio_filepath}{speaker}: {_errors(pairs)} errors in {len(one.text.split())} words"
    return f"<p class=file>{escape(about)}</p><div class=words>{words}</div>"
