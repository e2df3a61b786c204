"""The words of a model and their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from edge_speech.errors import InputError

PAD, BOS, EOS, UNK = range(4)  # PAD fills n-grams that a sentence's end cuts short; it is in no model
SPECIAL = ("", "<s>", "</s>", "<unk>")


@dataclass(frozen=True)
class Vocabulary:
    """`words[i]` has id i: the special ones, then the text's, the most frequent first."""

    words: tuple[str, ...]

    def ids(self) -> dict[str, int]:
        """The id of each word."""
        return {word: i for i, word in enumerate(self.words)}


def count_words(sentences: Iterable[list[str]], limit: int | None = None) -> Vocabulary:
    """The `limit` most frequent words (equals in alphabetical order), or all. Raises InputError.

    Memory: one entry per distinct word.
    """
    counts: Counter[str] = Counter()
    for words in sentences:
        counts.update(words)
    for mark in SPECIAL[1:3]:
        if mark in counts:
            raise InputError(f"the text has the word {mark}, which marks the ends of sentences; take it out")
    counts.pop("<unk>", None)
    if not counts:
        raise InputError("the text has no words; give at least one sentence")
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return Vocabulary((*SPECIAL, *ranked[:limit]))
