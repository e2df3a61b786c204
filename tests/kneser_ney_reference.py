"""Interpolated modified Kneser-Ney written down from its definition, slow and with dictionaries.

Shares no code with edge_speech.lm: n-grams are tuples, counts are sets and Counters.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

Ngram = tuple[str, ...]


class Reference:
    """p(word | context) of the model that `sentences` give."""

    def __init__(self, sentences: Sequence[Sequence[str]], order: int, prune: Sequence[int]) -> None:
        self.order, self.prune = order, prune
        self.raw: list[Counter[Ngram]] = [Counter() for _ in range(order + 1)]
        for sentence in sentences:
            padded = ("<s>", *sentence, "</s>")
            for n in range(1, order + 1):
                self.raw[n].update(tuple(padded[i : i + n]) for i in range(len(padded) - n + 1))
        self.counts = [{}, *(self._counts(n) for n in range(1, order + 1))]
        self.discounts = [(), *(self._discounts(n) for n in range(1, order + 1))]
        self.words = sorted({g[0] for g in self.raw[1]} - {"<s>"} | {"<unk>"})
        self.following: dict[Ngram, list[Ngram]] = defaultdict(list)
        for table in self.counts[1:]:
            for ngram in table:
                self.following[ngram[:-1]].append(ngram)

    def _counts(self, n: int) -> dict[Ngram, int]:
        if n == self.order:
            counts = dict(self.raw[n])
        else:
            left = defaultdict(set)
            for ngram in self.raw[n + 1]:
                left[ngram[1:]].add(ngram[0])
            counts = {g: c if g[0] == "<s>" else len(left[g]) for g, c in self.raw[n].items()}
        counts.pop(("<s>",), None)
        return counts

    def _discounts(self, n: int) -> tuple[float, ...]:
        t = [sum(c == k for c in self.counts[n].values()) for k in range(5)]
        if not (t[1] and t[2] and t[3]):
            return (0.5, 1.0, 1.5)
        d = [k - (k + 1) * t[1] * t[k + 1] / ((t[1] + 2 * t[2]) * t[k]) for k in (1, 2, 3)]
        return tuple(d) if all(0 < d[k - 1] <= k for k in (1, 2, 3)) else (0.5, 1.0, 1.5)

    def discount(self, ngram: Ngram) -> float:
        return self.discounts[len(ngram)][min(self.counts[len(ngram)][ngram], 3) - 1]

    def kept(self, ngram: Ngram) -> bool:
        n = len(ngram)
        return n == 1 or self.raw[n][ngram] > self.prune[n - 1]

    def prob(self, context: Ngram, word: str) -> float:
        context = context[-(self.order - 1) :] if self.order > 1 else ()
        lower = self.prob(context[1:], word) if context else 1 / len(self.words)
        following = self.following[context]
        if not following:
            return lower
        table, ngram = self.counts[len(context) + 1], (*context, word)
        total = sum(table[g] for g in following)
        given = sum(self.discount(g) if self.kept(g) else table[g] for g in following)
        own = table[ngram] - self.discount(ngram) if ngram in table and self.kept(ngram) else 0.0
        return own / total + given / total * lower
