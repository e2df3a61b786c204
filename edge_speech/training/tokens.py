"""Output units and their spelling: text = "".join(pieces).replace("▁", " ").strip()."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edge_speech.errors import InputError

BLANK = "<blk>"
WORD_START = "▁"
UNITS = ("words", "characters")


@dataclass(frozen=True)
class Tokens:
    """The symbols of a model, blank first, and how text becomes their numbers."""

    units: str
    symbols: tuple[str, ...]

    @staticmethod
    def build(units: str, texts: Iterable[str], vocabulary: tuple[str, ...]) -> Tokens:
        """Take the units from `vocabulary`, or from `texts` where that is empty. Raises InputError."""
        if units not in UNITS:
            raise InputError(f"unknown units {units!r}; there are {', '.join(UNITS)}")
        found = vocabulary or sorted({piece for text in texts for piece in _pieces(units, text)})
        prefix = WORD_START if units == "words" and vocabulary else ""
        return Tokens(units, (BLANK, *(prefix + piece for piece in found)))

    def encode(self, text: str) -> list[int] | None:
        """Token numbers of `text`, or None where it needs a unit that is not there."""
        number = {symbol: i for i, symbol in enumerate(self.symbols)}
        pieces = _pieces(self.units, text)
        return [number[p] for p in pieces] if all(p in number for p in pieces) else None

    def decode(self, numbers: Iterable[int]) -> str:
        """Text of token numbers (no blanks, repeats already collapsed)."""
        return "".join(self.symbols[n] for n in numbers).replace(WORD_START, " ").strip()


def _pieces(units: str, text: str) -> list[str]:
    words = [WORD_START + word for word in text.split()]
    return words if units == "words" else list("".join(words))
