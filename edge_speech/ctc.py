"""CTC decoding over the C++ decoder: log_probs in, tokens out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_speech import _core
from edge_speech.errors import InputError


@dataclass(frozen=True)
class CtcToken:
    """A token and the rows [start_row, end_row) on which it was the most probable symbol.

    `confidence` is the mean of its posterior, exp(log_prob), over these rows.
    """

    token: str
    start_row: int
    end_row: int
    confidence: float


@dataclass(frozen=True)
class CtcResult:
    """What has been decoded so far."""

    text: str
    tokens: tuple[CtcToken, ...]


class CtcGreedy:
    """Best-path decoding: the most probable symbol per row, equal neighbours merged, blanks dropped.

    `tokens` has one symbol per column of log_probs, blank included. Raises InputError on a bad blank_id.
    """

    def __init__(self, tokens: Sequence[str], blank_id: int = 0) -> None:
        if not 0 <= blank_id < len(tokens):
            raise InputError(f"blank_id is {blank_id}; allowed: 0 to {len(tokens) - 1}, one of the tokens")
        self._symbols = list(tokens)
        self._decoder = _core.CtcGreedy(len(self._symbols), blank_id)

    def step(self, log_probs: npt.ArrayLike) -> None:
        """Decode more rows, (T, V) natural-log probabilities. Raises InputError on NaN or a wrong shape."""
        rows = np.ascontiguousarray(log_probs, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != len(self._symbols):
            raise InputError(f"log_probs have shape {rows.shape}; allowed: (T, {len(self._symbols)})")
        try:
            self._decoder.step(rows)
        except RuntimeError as error:
            raise InputError(str(error)) from None

    def result(self) -> CtcResult:
        """Tokens and text so far; only the last token can still grow."""
        decoded = [CtcToken(self._symbols[i], start, end, c) for i, start, end, c in self._decoder.tokens()]
        return CtcResult(join_pieces(t.token for t in decoded), tuple(decoded))

    def finish(self) -> CtcResult:
        """The final result; greedy decoding holds nothing back."""
        return self.result()

    def reset(self) -> None:
        """Ready for a new utterance."""
        self._decoder.reset()


def join_pieces(pieces: Iterable[str]) -> str:
    """Text of SentencePiece pieces: "▁" begins a word; no space at either end."""
    text: str = _core.join_pieces(list(pieces))
    return text
