"""Output units and their spelling: text = "".join(pieces).replace("▁", " ").strip()."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edge_speech.errors import InputError
from edge_speech.training import bpe

BLANK = "<blk>"
WORD_START = "▁"
# Whole words; whole texts; letters, the first of a word marked; hanzi, which no spaces part; BPE's pieces;
# in place of text the numbers in those fields of a manifest that the vocabulary names.
UNITS = ("words", "phrases", "characters", "hanzi", "bpe", "numbers")


@dataclass(frozen=True)
class Tokens:
    """The symbols of a model, blank first, and how text becomes their numbers.

    `bpe_model` is SentencePiece's; cutting text needs it, spelling does not.
    """

    units: str
    symbols: tuple[str, ...]
    bpe_model: bytes = field(default=b"", repr=False)

    @staticmethod
    def build(
        units: str, texts: Iterable[str], vocabulary: tuple[str, ...], vocabulary_size: int = 500
    ) -> Tokens:
        """Take the units from `vocabulary`, or from `texts` where that is empty. Raises InputError.

        `vocabulary_size` is of "bpe" alone, which learns its pieces and so takes no `vocabulary`.
        """
        if units not in UNITS:
            raise InputError(f"unknown units {units!r}; there are {', '.join(UNITS)}")
        if units == "bpe":
            if vocabulary:
                raise InputError(
                    "data.units = 'bpe' learns its pieces from the training texts; "
                    "set data.vocabulary_size in place of data.vocabulary"
                )
            model = bpe.learn(texts, vocabulary_size)
            return Tokens(units, (BLANK, *bpe.pieces(model)), model)
        if units == "numbers":
            if not vocabulary:
                raise InputError("data.units = 'numbers' needs data.vocabulary: fields of the manifests")
            return Tokens(units, vocabulary)
        if vocabulary and units in ("words", "phrases"):
            return Tokens(units, (BLANK, *(_marked(entry) for entry in vocabulary)))
        found = vocabulary or sorted({piece for text in texts for piece in _pieces(units, text)})
        return Tokens(units, (BLANK, *found))

    @property
    def error_rate(self) -> str:
        """What evaluations count: "wer", or "cer" where the units mark no words."""
        return "cer" if self.units == "hanzi" else "wer"

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a manifest whose numbers are learnt in place of its texts."""
        return self.symbols if self.units == "numbers" else ()

    def encode(self, text: str) -> Sequence[float] | None:
        """Token numbers of `text`, or None where it needs a unit that is not there; or the numbers it is."""
        if self.units == "numbers":
            return [float(number) for number in text.split()]
        if self.bpe_model:
            return bpe.encode(self.bpe_model, text)
        number = {symbol: i for i, symbol in enumerate(self.symbols)}
        pieces = _pieces(self.units, text)
        return [number[p] for p in pieces] if all(p in number for p in pieces) else None

    def decode(self, numbers: Iterable[int]) -> str:
        """Text of token numbers (no blanks, repeats already collapsed)."""
        return spell(self.symbols, numbers)


def spell(symbols: Sequence[str], numbers: Iterable[int]) -> str:
    """Text of token numbers (no blanks, repeats already collapsed)."""
    return "".join(symbols[n] for n in numbers).replace(WORD_START, " ").strip()


def _pieces(units: str, text: str) -> list[str]:
    if units == "hanzi":
        return list("".join(text.split()))
    if units == "words":
        return [_marked(word) for word in text.split()]
    phrase = _marked(text)
    return [phrase] if phrase and units == "phrases" else list(phrase)


def _marked(text: str) -> str:
    """The words of a text, each after its mark."""
    return "".join(WORD_START + word for word in text.split())
