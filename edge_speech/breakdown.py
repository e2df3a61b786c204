"""Where the errors of an evaluation are: by speaker, and by word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_speech.alignment import DELETE, EQUAL, INSERT, SUBSTITUTE, align
from edge_speech.evaluation import Decoded, error_rates

_NAMES = {SUBSTITUTE: "substitutions", DELETE: "deletions", INSERT: "insertions"}


@dataclass(frozen=True)
class SpeakerScores:
    """Rates in percent, None where no word was said; `speaker` is None for lines that name none."""

    speaker: str | None
    utterances: int
    words: int
    wer: float | None
    cer: float | None


@dataclass(frozen=True)
class FrequentError:
    """How often `heard` was put for `said`, one of them empty for insertions and deletions, and a place."""

    said: str
    heard: str
    count: int
    example: Decoded


def by_speaker(decoded: Sequence[Decoded]) -> list[SpeakerScores]:
    """One for each speaker, the highest WER first."""
    groups: dict[str | None, list[Decoded]] = {}
    for one in decoded:
        groups.setdefault(one.speaker, []).append(one)
    scores = [_speaker(speaker, group) for speaker, group in groups.items()]
    return sorted(scores, key=lambda s: (-(s.wer or 0.0), s.speaker or ""))


def _speaker(speaker: str | None, group: Sequence[Decoded]) -> SpeakerScores:
    truth, heard = [d.text for d in group], [d.hypothesis for d in group]
    if not any(text.split() for text in truth):
        return SpeakerScores(speaker, len(group), 0, None, None)
    wer, cer, words = error_rates(truth, heard)
    return SpeakerScores(speaker, len(group), words, wer, cer)


def frequent_errors(decoded: Iterable[Decoded], most: int) -> dict[str, list[FrequentError]]:
    """The `most` most frequent substitutions, deletions and insertions, each with the first place."""
    found: dict[str, dict[tuple[str, str], FrequentError]] = {kind: {} for kind in _NAMES}
    for one in decoded:
        for pair in align(one.text, one.hypothesis):
            if pair.kind != EQUAL:
                words, kind = (pair.said, pair.heard), found[pair.kind]
                before = kind.get(words, FrequentError(*words, 0, one))
                kind[words] = FrequentError(*words, before.count + 1, before.example)
    return {_NAMES[kind]: sorted(errors.values(), key=_most_first)[:most] for kind, errors in found.items()}


def _most_first(error: FrequentError) -> tuple[int, str, str]:
    return -error.count, error.said, error.heard
