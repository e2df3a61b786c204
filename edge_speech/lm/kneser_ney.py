"""Interpolated modified Kneser-Ney estimation with three discounts per order.

S. F. Chen, J. Goodman, "An empirical study of smoothing techniques for language modeling", Harvard TR-10-98,
1998, section 3. Lower orders count distinct left neighbours, except after "<s>", and pruned n-grams leave
their mass to the back-off weight: K. Heafield et al., "Scalable modified Kneser-Ney language model
estimation", ACL 2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_speech.lm.counts import Level
from edge_speech.lm.vocabulary import BOS, PAD

Floats = npt.NDArray[np.float64]
FALLBACK = (0.5, 1.0, 1.5)


@dataclass(frozen=True)
class Estimate:
    """One order of a model: for each n-gram of its Level the probability, the back-off weight of the n-gram
    as a context, and whether it stays in the model. `discounts` are for counts 1, 2 and 3 or more."""

    level: Level
    prob: Floats
    backoff: Floats
    kept: npt.NDArray[np.bool_]
    discounts: tuple[float, float, float]


def estimate(levels: Sequence[Level], prune: Sequence[int]) -> list[Estimate]:
    """Estimate all orders; n-grams of order n with at most prune[n - 1] occurrences leave the model.

    The thresholds must not fall and begin with 0: then contexts and suffixes of what stays, stay too.
    """
    estimates: list[Estimate] = []
    for n, level in enumerate(levels):
        above = levels[n + 1] if n + 1 < len(levels) else None
        estimates.append(_estimate_order(level, above, estimates, prune[n]))
    return estimates


def _estimate_order(level: Level, above: Level | None, below: list[Estimate], prune: int) -> Estimate:
    counts = _adjusted(level, above, first=not below)
    discounts = _discounts(counts)
    kept = level.count > prune if below else level.word != PAD
    contexts = len(below[-1].prob) if below else 1
    discount = np.array([0.0, *discounts])[np.minimum(counts, 3)]
    given = np.where(kept, discount, counts)  # to the back-off weight
    total = np.maximum(np.bincount(level.parent, counts, contexts), 1e-300)
    gamma = np.bincount(level.parent, given, contexts) / total
    prob = np.where(kept, counts - discount, 0.0) / total[level.parent]
    if below:
        prob += gamma[level.parent] * below[-1].prob[level.suffix]
        below[-1].backoff[:] = np.where(gamma > 0, gamma, 1.0)
    else:
        prob += gamma[0] / (len(level.word) - 2)  # every word but PAD and "<s>"
    return Estimate(level, prob, np.ones(len(prob)), kept, discounts)


def _adjusted(level: Level, above: Level | None, first: bool) -> npt.NDArray[np.int64]:
    """Distinct left neighbours; occurrences in the highest order and after "<s>", which nothing precedes."""
    counts: npt.NDArray[np.int64] = level.count.copy()
    if above is not None:
        neighbours = np.bincount(above.suffix, minlength=len(counts))
        counts[~level.after_begin] = neighbours[~level.after_begin]
    if first:
        counts[[PAD, BOS]] = 0  # "<s>" is never predicted
    return counts


def _discounts(counts: npt.NDArray[np.int64]) -> tuple[float, float, float]:
    """D1, D2 and D3+ from the numbers of n-grams with counts 1 to 4 (Chen and Goodman, equation 17).

    FALLBACK where a small text gives none in range.
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == k)) for k in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    d1, d2, d3 = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
    in_range = 0 < d1 <= 1 and 0 < d2 <= 2 and 0 < d3 <= 3
    return (d1, d2, d3) if in_range else FALLBACK
