"""Counting n-grams of large texts with sorted arrays.

Each position of "<s> w1 w2 … </s>" gives one window of N words, filled with PAD beyond the end. The sorted
windows hold the n-grams of all orders: those of order n are the distinct prefixes of n words without PAD.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_speech.lm.vocabulary import BOS, EOS, PAD, UNK, Vocabulary

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
_BLOCK = 1 << 21  # words counted at a time


@dataclass(frozen=True)
class Level:
    """The n-grams of one order, sorted by (parent, word); level 1 has one row per word id, in use or not.

    parent: row in the level below of the n-gram without its last word; suffix: without its first word.
    count: occurrences in the text. after_begin: whether "<s>" is its first word.
    """

    parent: Ints
    word: Ints
    suffix: Ints
    count: Ints
    after_begin: npt.NDArray[np.bool_]


def count_ngrams(sentences: Iterable[list[str]], vocabulary: Vocabulary, order: int) -> list[Level]:
    """All n-grams of orders 1 to `order`.

    Memory grows with the distinct n-grams, not with the text. Training order 4 on 10 million words with 9.4
    million different 4-grams, 22.7 million n-grams in all, peaks at 1.6 GB, 0.2 GB of it the block at hand.
    """
    counter = _WindowCounter(len(vocabulary.words), order)
    ids, block = vocabulary.ids(), []
    tail = [EOS, *[PAD] * max(1, order - 1)]
    for words in sentences:
        block.append(BOS)
        block += [ids.get(word, UNK) for word in words]
        block += tail
        if len(block) >= _BLOCK:
            counter.add(np.array(block, dtype=np.uint64))
            block.clear()
    counter.add(np.array(block, dtype=np.uint64))
    return _levels(*counter.windows(), len(vocabulary.words))


class _WindowCounter:
    """Distinct windows and their counts. New blocks wait unmerged until they are as many as what is merged,
    so that every window is sorted only a logarithmic number of times."""

    def __init__(self, vocabulary_size: int, order: int) -> None:
        self.order, self.bits = order, vocabulary_size.bit_length()
        self.per_key = 64 // self.bits
        self.merged: list[tuple[Keys, Ints]] = []
        self.waiting: list[tuple[Keys, Ints]] = []

    def add(self, ids: Keys) -> None:
        starts = np.flatnonzero(ids != PAD)
        padded = np.concatenate([ids, np.zeros(self.order, np.uint64)])
        keys = np.zeros((len(starts), -(-self.order // self.per_key)), np.uint64)
        for i in range(self.order):
            column, place = divmod(i, self.per_key)
            keys[:, column] |= padded[starts + i] << np.uint64(self.bits * (self.per_key - 1 - place))
        self.waiting.append(_sum_equal(keys, np.ones(len(keys), np.int64)))
        if sum(len(k) for k, _ in self.waiting) >= sum(len(k) for k, _ in self.merged):
            self._merge()

    def _merge(self) -> None:
        keys, counts = zip(*self.merged, *self.waiting, strict=True)
        self.merged, self.waiting = [], []
        self.merged = [_sum_equal(np.concatenate(keys), np.concatenate(counts))]

    def windows(self) -> tuple[list[Ints], Ints]:
        """The sorted windows, one array per position, and their counts."""
        self._merge()
        ((keys, counts),) = self.merged
        mask = np.uint64((1 << self.bits) - 1)
        columns = []
        for i in range(self.order):
            column, place = divmod(i, self.per_key)
            shift = np.uint64(self.bits * (self.per_key - 1 - place))
            columns.append((keys[:, column] >> shift & mask).astype(np.int64))
        return columns, counts


def _sum_equal(keys: Keys, counts: Ints) -> tuple[Keys, Ints]:
    """Distinct rows, sorted, and the sums of their counts."""
    order = np.lexsort(keys.T[::-1])
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(_changes(list(keys.T)))
    return keys[starts], np.add.reduceat(counts, starts)


def _changes(columns: list[npt.NDArray[np.uint64]] | list[Ints]) -> npt.NDArray[np.bool_]:
    """Whether each row differs from the one above; the first does."""
    changed = np.zeros(len(columns[0]), np.bool_)
    changed[:1] = True
    for column in columns:
        changed[1:] |= column[1:] != column[:-1]
    return changed


def _levels(columns: list[Ints], counts: Ints, vocabulary_size: int) -> list[Level]:
    levels = [_unigrams(columns[0], counts, vocabulary_size)]
    row, changed = columns[0], _changes(columns[:1])  # of each window: its n-gram's row in the level so far
    for column in columns[1:]:
        changed |= _changes([column])
        full = column != PAD
        starts = np.flatnonzero(changed & full)
        parent, word = row[starts], column[starts]
        row = np.cumsum(changed & full) - 1
        count = np.bincount(row[full], counts[full], len(starts)).astype(np.int64)
        suffix = _suffixes(levels, parent, word, vocabulary_size)
        levels.append(Level(parent, word, suffix, count, levels[-1].after_begin[parent]))
    return levels


def _unigrams(first: Ints, counts: Ints, vocabulary_size: int) -> Level:
    words = np.arange(vocabulary_size)
    nothing = np.zeros(vocabulary_size, np.int64)
    count = np.bincount(first, counts, vocabulary_size).astype(np.int64)
    return Level(nothing, words, nothing, count, words == BOS)


def _suffixes(levels: list[Level], parent: Ints, word: Ints, vocabulary_size: int) -> Ints:
    """Rows in the last level of these n-grams without their first word: a child of the parent's suffix."""
    if len(levels) == 1:
        return word
    keys = levels[-1].parent * vocabulary_size + levels[-1].word
    return np.searchsorted(keys, levels[-1].suffix[parent] * vocabulary_size + word)
