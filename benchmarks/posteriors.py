"""CTC log_probs as an unsure but peaky model would give them for known texts, to measure language models.

Each piece of a text takes one row, then one to three rows are blank. At the chosen error rate a piece goes
wrong in one of three ways, and what is right stays the runner-up, so that a language model can bring it back:

    substitution, 70 %   one of three fixed rivals of the piece is on top
    deletion, 15 %       blank is on top
    insertion, 15 %      a spurious piece follows, with blank behind it

What a row leaves over goes to all other symbols unevenly. Everything follows from the seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from edge_speech.encoder import FloatArray

BLANK, WORD_START = "<blk>", "▁"
SUBSTITUTION, DELETION, INSERTION = range(3)
SHARES = (0.70, 0.15, 0.15)
RIVALS = 3
LONGEST_PIECE = 5


def character_pieces(sentences: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Blank, the mark of a word's start, and the characters of the text."""
    characters = {character for words in sentences for word in words for character in word}
    return (BLANK, WORD_START, *sorted(characters))


def frequent_pieces(sentences: Iterable[Sequence[str]], size: int) -> tuple[str, ...]:
    """character_pieces, then up to `size` in all the substrings of words that save the most symbols."""
    words = Counter(WORD_START + word for sentence in sentences for word in sentence)
    savings: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 2, min(start + LONGEST_PIECE, len(word)) + 1):
                savings[word[start:end]] += count * (end - start - 1)
    single = character_pieces([[word[1:] for word in words]])
    ranked = sorted(savings, key=lambda piece: (-savings[piece], piece))
    return (*single, *ranked[: max(0, size - len(single))])


def segment(words: Sequence[str], pieces: Sequence[str]) -> list[int]:
    """Numbers of the pieces of a text, the longest that fits each time. KeyError for an unknown character."""
    number = {piece: i for i, piece in enumerate(pieces)}
    text, found = "".join(WORD_START + word for word in words), []
    while text:
        size = next((n for n in range(LONGEST_PIECE, 1, -1) if text[:n] in number and len(text) >= n), 1)
        found.append(number[text[:size]])
        text = text[size:]
    return found


class Simulator:
    """Gives log_probs over `pieces` in which about `error_rate` of the pieces are wrong at first sight."""

    def __init__(self, pieces: Sequence[str], error_rate: float, seed: int = 0) -> None:
        self.pieces, self.error_rate = pieces, error_rate
        self.random = np.random.default_rng(seed)
        self.rivals = self._choose_rivals(np.random.default_rng(0))

    def _choose_rivals(self, random: np.random.Generator) -> list[list[int]]:
        """For each piece others that also begin a word, or that do not; the same for every seed."""
        starts = np.array([piece.startswith(WORD_START) for piece in self.pieces])
        rivals = []
        for i in range(len(self.pieces)):
            alike = np.flatnonzero(starts == starts[i])
            alike = alike[(alike != i) & (alike != 0)]
            others = alike if len(alike) else np.flatnonzero(np.arange(len(starts)) > 0)
            rivals.append(random.choice(others, min(RIVALS, len(others)), replace=False).tolist())
        return rivals

    def log_probs(self, words: Sequence[str]) -> FloatArray:
        """(T, V) float32 for a text."""
        rows = [self._blank()]
        for piece in segment(words, self.pieces):
            rows += self._piece_rows(piece)
            rows += [self._blank() for _ in range(self.random.integers(1, 4))]
        return np.log(np.array(rows)).astype(np.float32)

    def _piece_rows(self, piece: int) -> list[FloatArray]:
        rival = int(self.random.choice(self.rivals[piece]))
        if self.random.random() >= self.error_rate:
            return [self._row(piece, (0.70, 0.99), rival)]
        error = self.random.choice(3, p=SHARES)
        if error == SUBSTITUTION:
            return [self._row(rival, (0.45, 0.75), piece)]
        if error == DELETION:
            return [self._row(0, (0.50, 0.80), piece)]
        right = self._row(piece, (0.70, 0.99), rival)
        return [right, self._blank(), self._row(rival, (0.50, 0.75), 0)]

    def _blank(self) -> FloatArray:
        return self._row(0, (0.95, 0.999), 1)

    def _row(self, top: int, between: tuple[float, float], second: int) -> FloatArray:
        """Probabilities (V,): `top` gets a mass of the range, `second` 60 to 90 % of the rest."""
        mass = self.random.uniform(*between)
        runner_up = (1 - mass) * self.random.uniform(0.6, 0.9)
        noise = self.random.exponential(1, len(self.pieces)) ** 2 + 1e-6
        row: FloatArray = noise / noise.sum() * (1 - mass - runner_up)
        row[top] += mass
        row[second] += runner_up
        return row
