"""Two evaluations of the same utterances: which is better, how sure that is, and where they differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from edge_speech.errors import InputError
from edge_speech.evaluation import Decoded
from edge_speech.quality import (
    Score,
    better_fraction,
    difference_ci95,
    difference_p_value,
    require_words,
    score,
)

_REMEDY = "make it with `edge-speech eval BUNDLE MANIFEST --json --details`"


@dataclass(frozen=True)
class Change:
    """An utterance that both heard, with the word errors of each."""

    audio_filepath: str
    text: str
    hypothesis_a: str
    hypothesis_b: str
    errors_a: int
    errors_b: int


@dataclass(frozen=True)
class Comparison:
    """WERs in percent; `difference` is B's minus A's in points, so negative where B is better.

    `p_value` is two-sided, `b_better` the fraction of the resampled sets on which B makes fewer errors. See
    edge_speech.quality. `changes` holds utterances with other error counts, the largest change first.
    """

    utterances: int
    words: int
    wer_a: float
    wer_b: float
    difference: float
    difference_ci95: tuple[float, float]
    p_value: float
    b_better: float
    changes: tuple[Change, ...]


def read_details(path: Path | str) -> list[Decoded]:
    """The details of an eval's JSON. Raises InputError."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); {_REMEDY}") from None
    details = document.get("details") if isinstance(document, dict) else None
    if not isinstance(details, list) or not details:
        raise InputError(f"{path}: holds no 'details'; {_REMEDY}")
    return [_decoded(line, f"{path}: details[{number}]") for number, line in enumerate(details)]


def _decoded(line: Any, where: str) -> Decoded:
    keys = "audio_filepath", "text", "hypothesis"
    values = [line[key] for key in keys if isinstance(line, dict) and isinstance(line.get(key), str)]
    if len(values) != len(keys):
        raise InputError(f"{where} must have the strings {', '.join(keys)}; {_REMEDY}")
    return Decoded(*values)


def compare(a: Sequence[Decoded], b: Sequence[Decoded]) -> Comparison:
    """Pair the utterances in order. Raises InputError unless both have the same files and texts."""
    _check_same(a, b)
    truth = [one.text for one in a]
    require_words(truth)
    score_a, score_b = (score(truth, [d.hypothesis for d in one]) for one in (a, b))
    return Comparison(
        utterances=len(truth),
        words=int(score_a.words.sum()),
        wer_a=score_a.wer,
        wer_b=score_b.wer,
        difference=score_b.wer - score_a.wer,
        difference_ci95=difference_ci95(score_b, score_a),
        p_value=difference_p_value(score_b, score_a),
        b_better=better_fraction(score_b, score_a),
        changes=_changes(a, b, score_a, score_b),
    )


def _check_same(a: Sequence[Decoded], b: Sequence[Decoded]) -> None:
    """File names without folders: the two may come from different machines."""
    for number, (one, other) in enumerate(zip(a, b, strict=False)):
        names = PurePath(one.audio_filepath).name, PurePath(other.audio_filepath).name
        if names[0] != names[1] or one.text != other.text:
            raise InputError(
                f"utterance {number} is {names[0]} {one.text!r} in A and {names[1]} {other.text!r} in B; "
                "evaluate both on one manifest, with the same --normalize"
            )
    if len(a) != len(b):
        raise InputError(f"A has {len(a)} utterances, B {len(b)}; evaluate both on one manifest, all of it")


def _changes(
    a: Sequence[Decoded], b: Sequence[Decoded], score_a: Score, score_b: Score
) -> tuple[Change, ...]:
    found = [
        Change(one.audio_filepath, one.text, one.hypothesis, other.hypothesis, int(errors_a), int(errors_b))
        for one, other, errors_a, errors_b in zip(a, b, score_a.errors, score_b.errors, strict=True)
        if errors_a != errors_b
    ]
    return tuple(sorted(found, key=lambda c: -abs(c.errors_b - c.errors_a)))
