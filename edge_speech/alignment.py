"""Said beside heard, word by word, by jiwer (https://github.com/jitsi/jiwer)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_speech.errors import InputError

EQUAL, SUBSTITUTE, DELETE, INSERT = "equal", "substitute", "delete", "insert"


@dataclass(frozen=True)
class Pair:
    """A word that was said and the one heard for it; `said` is empty for an insertion, `heard` for a
    deletion. `kind` is one of equal, substitute, delete, insert."""

    kind: str
    said: str
    heard: str


def align(said: str, heard: str) -> tuple[Pair, ...]:
    """The words of both texts in order, with the fewest errors. Raises InputError where jiwer is missing."""
    words, found = said.split(), heard.split()
    if not words or not found:
        return (*(Pair(DELETE, word, "") for word in words), *(Pair(INSERT, "", word) for word in found))
    [chunks] = import_jiwer().process_words(" ".join(words), " ".join(found)).alignments
    return tuple(pair for chunk in chunks for pair in _pairs(chunk, words, found))


def _pairs(chunk: Any, words: Sequence[str], found: Sequence[str]) -> list[Pair]:
    said = words[chunk.ref_start_idx : chunk.ref_end_idx]
    heard = found[chunk.hyp_start_idx : chunk.hyp_end_idx]
    empty = [""] * max(len(said), len(heard))  # of an insertion `said` is empty, of a deletion `heard`
    return [Pair(chunk.type, s, h) for s, h in zip(said or empty, heard or empty, strict=True)]


def import_jiwer() -> Any:
    """jiwer. Raises InputError where it is not installed: call it before long work."""
    try:
        import jiwer
    except ImportError:
        raise InputError('scoring needs jiwer; install it with `pip install "edge-speech[tools]"`') from None
    return jiwer
