"""Tokens and words of a stream that may run for hours: numbers, made into objects where somebody looks."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload


@dataclass(frozen=True)
class Token:
    """A recognised token. Times are seconds of the caller's audio; the step is a subsampled frame.

    `confidence` is the mean posterior of the token over its frames on the most probable alignment.
    """

    token: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class Word:
    """What stands between two word marks ("▁" or a space, anywhere in a token), with the times of its tokens.

    When the model's tokens have no such marks, each token is a word, as in Chinese. `confidence` is the least
    of its tokens' confidences: one wrong token makes the word wrong, which a mean hides in a long word, while
    a product would call every long word doubtful.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float


_T = TypeVar("_T")


class TimedLog(Generic[_T]):
    """Tokens or words that cannot change any more: 32 bytes each, and every text once; as objects 185."""

    def __init__(self, kind: Callable[[str, float, float, float], _T]) -> None:
        self._kind = kind
        self._texts: list[str] = []
        self._places: dict[str, int] = {}  # of the texts
        self._numbers = array("d")  # place of the text, start_s, end_s and confidence of each

    def __len__(self) -> int:
        return len(self._numbers) // 4

    def append(self, text: str, start_s: float, end_s: float, confidence: float) -> None:
        """Add one."""
        place = self._places.setdefault(text, len(self._texts))
        if place == len(self._texts):
            self._texts.append(text)
        self._numbers.extend((place, start_s, end_s, confidence))

    def item(self, index: int) -> _T:
        """The one of number `index`."""
        place, start_s, end_s, confidence = self._numbers[4 * index : 4 * index + 4]
        return self._kind(self._texts[int(place)], start_s, end_s, confidence)


class Timed(Sequence[_T]):
    """A tuple of tokens or words to its reader: those of `log` so far, which only ever grows, then `rest`.

    `rest` is a list because CPython keeps thousands of the tuples that were made from generators.
    """

    def __init__(self, log: TimedLog[_T], rest: list[_T]) -> None:
        self._log, self._settled, self._rest = log, len(log), rest

    def __len__(self) -> int:
        return self._settled + len(self._rest)

    @overload
    def __getitem__(self, index: int) -> _T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[_T, ...]: ...
    def __getitem__(self, index: int | slice) -> _T | tuple[_T, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(len(self))[index])
        place = range(len(self))[index]
        return self._log.item(place) if place < self._settled else self._rest[place - self._settled]

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Timed | tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))
