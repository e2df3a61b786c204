"""How well a model predicts a text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from edge_speech.errors import InputError
from edge_speech.lm.model import NgramLm


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean of -ln p over words and sentence ends.

    perplexity: over the words that the model has; perplexity_with_oov: with `oov_words` scored as "<unk>".
    """

    sentences: int
    words: int
    oov_words: int
    perplexity: float
    perplexity_with_oov: float


def perplexity(lm: NgramLm, sentences: Iterable[list[str]]) -> Perplexity:
    """Score all sentences. Raises InputError when there is none."""
    lines = words = oov_words = 0
    known = unknown = 0.0
    for sentence in sentences:
        log_probs = lm.core.log_probs(" ".join(sentence))
        oov = [p for word, p in zip(sentence, log_probs, strict=False) if word not in lm]
        lines, words, oov_words = lines + 1, words + len(sentence), oov_words + len(oov)
        unknown += sum(oov)
        known += sum(log_probs) - sum(oov)
    if lines == 0:
        raise InputError("the text has no words; give at least one sentence")
    events = words + lines
    mean, mean_with_oov = known / (events - oov_words), (known + unknown) / events
    return Perplexity(lines, words, oov_words, _exp(-mean), _exp(-mean_with_oov))


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))
