"""Text in, ARPA file out."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from edge_speech.errors import InputError
from edge_speech.lm.arpa import write_arpa
from edge_speech.lm.counts import count_ngrams
from edge_speech.lm.kneser_ney import Estimate, estimate
from edge_speech.lm.output import replaced
from edge_speech.lm.text import read_sentences
from edge_speech.lm.vocabulary import EOS, count_words

MAX_ORDER = 6


@dataclass(frozen=True)
class TrainConfig:
    """`prune[n - 1]`: n-grams of order n that occur at most so often leave the model; the last value goes on
    for higher orders. `vocab_limit`: keep the most frequent words, all others count as "<unk>"."""

    order: int = 4
    prune: tuple[int, ...] = (0,)
    vocab_limit: int | None = None

    def __post_init__(self) -> None:
        """Raises InputError."""
        if not 1 <= self.order <= MAX_ORDER:
            raise InputError(f"--order is {self.order}; allowed: 1 to {MAX_ORDER}")
        if self.vocab_limit is not None and self.vocab_limit < 1:
            raise InputError(f"--vocab-limit is {self.vocab_limit}; allowed: 1 or more words")
        if not 1 <= len(self.prune) <= self.order or self.prune[0] or list(self.prune) != sorted(self.prune):
            shown = " ".join(map(str, self.prune))
            raise InputError(
                f"--prune is {shown}; allowed: one count per order, at most {self.order}, not falling, "
                "0 first (--vocab-limit drops words)"
            )

    def thresholds(self) -> tuple[int, ...]:
        """One per order."""
        return self.prune + self.prune[-1:] * (self.order - len(self.prune))


def train(text: Path | str, output: Path | str, config: TrainConfig, quiet: bool = True) -> dict[str, Any]:
    """Estimate a model of `text` (read twice) and write it to `output`, packed if it ends in .gz.

    Memory: `count_ngrams` and `count_words` say how much. Gives the command's JSON. Raises InputError.
    """
    vocabulary = count_words(read_sentences(text, "words", quiet), config.vocab_limit)
    levels = count_ngrams(read_sentences(text, "n-grams", quiet), vocabulary, config.order)
    estimates = estimate(levels, config.thresholds())
    ngrams = [int(np.count_nonzero(e.kept)) for e in estimates]
    if 0 in ngrams:
        raise InputError(
            f"{text}: {ngrams.index(0) + 1}-grams: none found or none left; lower --order or --prune"
        )
    with replaced(output) as part, _writer(part, str(output).endswith(".gz")) as file:
        write_arpa(file, estimates, vocabulary)
    return {"path": str(output), "order": config.order, "ngrams": ngrams, **_text_size(estimates)}


def _text_size(estimates: list[Estimate]) -> dict[str, Any]:
    count = estimates[0].level.count
    sentences = int(count[EOS])
    return {
        "vocabulary": len(count) - 1,
        "sentences": sentences,
        "words": int(count.sum()) - 2 * sentences,
        "discounts": [[round(d, 4) for d in e.discounts] for e in estimates],
    }


@contextmanager
def _writer(path: Path, pack: bool) -> Iterator[TextIO]:
    """Text into `path`; packed, equal texts give equal bytes."""
    with path.open("wb") as raw:
        target = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if pack else raw
        with io.TextIOWrapper(target, encoding="utf-8", newline="\n") as file:
            yield file
