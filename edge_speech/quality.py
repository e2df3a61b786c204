"""Word error rates with bootstrap intervals, of one system and of two on the same utterances.

Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004,
https://doi.org/10.1109/ICASSP.2004.1326009: whole utterances are drawn with replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_speech.alignment import EQUAL, align
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
    errors = np.array([word_errors(r, h) for r, h in pairs], np.int64)
    return Score(errors, np.array([len(text.split()) for text in references], np.int64))


def word_errors(reference: str, hypothesis: str) -> int:
    """Substitutions, deletions and insertions."""
    return sum(pair.kind != EQUAL for pair in align(reference, hypothesis))


def wer_ci95(one: Score) -> tuple[float, float]:
    """95 % interval of the WER in percent."""
    return _interval(_resampled(one.words, one.errors))


def difference_ci95(one: Score, reference: Score) -> tuple[float, float]:
    """95 % interval of `one`'s WER minus `reference`'s in points, both on the same resampled utterances."""
    return _interval(_resampled(one.words, one.errors - reference.errors))


def better_fraction(one: Score, reference: Score) -> float:
    """Fraction of the resampled sets on which `one` makes fewer errors: the paper's probability of
    improvement."""
    return float(np.mean(_resampled(one.words, one.errors - reference.errors) < 0))


def difference_p_value(one: Score, reference: Score) -> float:
    """Two-sided p-value of the difference being zero, from the same resampled sets as its interval.

    Twice the fraction on the smaller side of zero, ties on both. One set is added to each side, so that
    finitely many resamples never give 0 (Davison and Hinkley, Bootstrap Methods, 1997, section 4.2).
    """
    differences = _resampled(one.words, one.errors - reference.errors)
    smaller = min(np.sum(differences <= 0), np.sum(differences >= 0))
    return min(1.0, 2.0 * (float(smaller) + 1.0) / (RESAMPLES + 1.0))


def _resampled(words: npt.NDArray[np.int64], errors: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(RESAMPLES,) percent of errors per word; always the same draws for the same number of utterances."""
    rng = np.random.default_rng(0)
    draws = (rng.integers(len(words), size=len(words)) for _ in range(RESAMPLES))
    return np.array([100.0 * errors[d].sum() / max(1, words[d].sum()) for d in draws])


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return round(float(low), 3), round(float(high), 3)
