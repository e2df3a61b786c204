"""Word error rate with a bootstrap confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
import numpy.typing as npt

from edge_speech.errors import InputError

RESAMPLES = 1000


@dataclass(frozen=True)
class Score:
    """Word errors and reference words per utterance."""

    errors: npt.NDArray[np.int64]
    words: npt.NDArray[np.int64]

    @property
    def wer(self) -> float:
        """Percent."""
        return 100.0 * float(self.errors.sum()) / float(self.words.sum())


def require_words(references: Sequence[str]) -> None:
    """Raise InputError when the references hold no word."""
    if not any(text.split() for text in references):
        raise InputError("the --eval manifest has no words in its texts; WER needs at least one")


def score(references: Sequence[str], hypotheses: Sequence[str]) -> Score:
    """Align each pair; the references hold at least one word."""
    pairs = zip(references, hypotheses, strict=True)
    errors = np.array([_word_errors(r, h) for r, h in pairs], np.int64)
    return Score(errors, np.array([len(text.split()) for text in references], np.int64))


def _word_errors(reference: str, hypothesis: str) -> int:
    if not reference.split():
        return len(hypothesis.split())
    result = jiwer.process_words(reference, hypothesis)
    return int(result.substitutions + result.deletions + result.insertions)


def wer_ci95(one: Score) -> tuple[float, float]:
    """95 % interval of the WER in percent, by resampling utterances (Bisani and Ney 2004,
    https://doi.org/10.1109/ICASSP.2004.1326009)."""
    return _interval([100.0 * e / w for e, w in _resampled(one.words, one.errors)])


def difference_ci95(one: Score, reference: Score) -> tuple[float, float]:
    """95 % interval of `one`'s WER minus `reference`'s in points, both on the same resampled utterances."""
    return _interval([100.0 * e / w for e, w in _resampled(one.words, one.errors - reference.errors)])


def _resampled(words: npt.NDArray[np.int64], errors: npt.NDArray[np.int64]) -> list[tuple[float, float]]:
    rng = np.random.default_rng(0)
    draws = (rng.integers(len(words), size=len(words)) for _ in range(RESAMPLES))
    return [(float(errors[d].sum()), max(1.0, float(words[d].sum()))) for d in draws]


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return round(float(low), 3), round(float(high), 3)
