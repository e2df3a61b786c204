"""Writing models in the ARPA format: http://www.speech.sri.com/projects/srilm/manpages/ngram-format.5.html."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TextIO

import numpy as np

from edge_speech.lm.kneser_ney import Estimate, Floats
from edge_speech.lm.vocabulary import BOS, Vocabulary

_BLOCK = 1 << 16
_NEVER = -99.0  # customary log10 probability of "<s>"


def write_arpa(file: TextIO, estimates: Sequence[Estimate], vocabulary: Vocabulary) -> None:
    """Write all n-grams that were kept, block by block."""
    file.write("\\data\\\n")
    for n, estimate in enumerate(estimates, start=1):
        file.write(f"ngram {n}={np.count_nonzero(estimate.kept)}\n")
    for n in range(1, len(estimates) + 1):
        file.write(f"\n\\{n}-grams:\n")
        file.writelines(_lines(estimates[:n], vocabulary, highest=n == len(estimates)))
    file.write("\n\\end\\\n")


def _lines(estimates: Sequence[Estimate], vocabulary: Vocabulary, highest: bool) -> Iterator[str]:
    last = estimates[-1]
    words = np.array(vocabulary.words, dtype=object)
    rows = np.flatnonzero(last.kept)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        prob, backoff = _log10(last.prob[block]), _log10(last.backoff[block])
        if len(estimates) == 1:
            prob[block == BOS] = _NEVER
        ngrams = map(" ".join, zip(*_word_columns(estimates, block, words), strict=True))
        for p, ngram, weight in zip(prob.tolist(), ngrams, backoff.tolist(), strict=True):
            yield f"{p:.6f}\t{ngram}\n" if highest or weight == 0 else f"{p:.6f}\t{ngram}\t{weight:.6f}\n"


def _word_columns(
    estimates: Sequence[Estimate], rows: np.typing.NDArray[np.int64], words: np.typing.NDArray[np.object_]
) -> list[list[str]]:
    """The words of n-grams, first words first."""
    columns = []
    for estimate in reversed(estimates):
        columns.append(words[estimate.level.word[rows]].tolist())
        rows = estimate.level.parent[rows]
    return columns[::-1]


def _log10(values: Floats) -> Floats:
    return np.minimum(np.log10(values), 0.0)
