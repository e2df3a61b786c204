"""Tokens of a stream that may run for hours: plain numbers, made into objects where somebody looks."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload


@dataclass(frozen=True)
class Token:
    """A recognised token. Times are seconds of the caller's audio; the step is a subsampled frame.

    `confidence` is the mean posterior of the token over its frames on the most probable alignment.
    """

    token: str
    start_s: float
    end_s: float
    confidence: float


class TokenLog:
    """Tokens that cannot change any more, 32 bytes each; as objects they would take 185."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = symbols
        self._numbers = array("d")  # id, start_s, end_s and confidence of each

    def __len__(self) -> int:
        return len(self._numbers) // 4

    def append(self, numbers: tuple[int, float, float, float]) -> None:
        """Add a token: its id, start_s, end_s and confidence."""
        self._numbers.extend(numbers)

    def token(self, index: int) -> Token:
        """The token of number `index`."""
        symbol, start_s, end_s, confidence = self._numbers[4 * index : 4 * index + 4]
        return Token(self._symbols[int(symbol)], start_s, end_s, confidence)


class Tokens(Sequence[Token]):
    """A tuple of tokens to its reader. The first `settled` are those of `log`, which only ever grows.

    `rest` is a list because CPython keeps thousands of the tuples that were made from generators.
    """

    def __init__(self, log: TokenLog, settled: int, rest: list[Token]) -> None:
        self._log, self._settled, self._rest = log, settled, rest

    def __len__(self) -> int:
        return self._settled + len(self._rest)

    @overload
    def __getitem__(self, index: int) -> Token: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Token, ...]: ...
    def __getitem__(self, index: int | slice) -> Token | tuple[Token, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(len(self))[index])
        place = range(len(self))[index]
        return self._log.token(place) if place < self._settled else self._rest[place - self._settled]

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Tokens | tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))
