"""How a layer's input is distributed, in bounded memory, and the range of it that eight bits should cover."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edge_speech.encoder import FloatArray
from edge_speech.training.scales import INPUT_LEVELS

BINS = 4096
# Ranges tried on each side of zero, as fractions of the largest value seen.
CANDIDATES = 64
Counts = npt.NDArray[np.float64]
Range = tuple[float, float]


class Histogram:
    """Counts of values in BINS equal bins over ±limit, and the least and greatest value.

    A value beyond the limit doubles it until it fits, each time merging the bins in pairs, so that memory
    depends neither on the range nor on how many values come.
    """

    def __init__(self) -> None:
        self.counts: Counts = np.zeros(BINS)
        self.limit = 0.0
        self.least, self.greatest = 0.0, 0.0

    def add(self, values: FloatArray) -> None:
        """Count `values` of any shape; they must be finite."""
        low, high = float(values.min()), float(values.max())
        self.least, self.greatest = min(self.least, low), max(self.greatest, high)
        self._reach(max(-low, high))
        if self.limit:
            self.counts += np.histogram(values, BINS, (-self.limit, self.limit))[0]

    @property
    def centres(self) -> Counts:
        """The middle of each bin, (BINS,)."""
        edges = np.linspace(-self.limit, self.limit, BINS + 1)
        return (edges[1:] + edges[:-1]) / 2

    def _reach(self, value: float) -> None:
        if self.limit == 0.0:
            self.limit = value
        while self.limit < value:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(merged, BINS // 4)
            self.limit *= 2


def min_max(histogram: Histogram) -> Range:
    """Everything that was seen."""
    return histogram.least, histogram.greatest


def percentile(histogram: Histogram, percent: float) -> Range:
    """All but (100 - percent) % of the values, half of them at each end."""
    total = histogram.counts.sum()
    if total == 0:
        return min_max(histogram)
    share = np.cumsum(histogram.counts) / total
    rest = (100 - percent) / 200
    low = histogram.centres[int(np.searchsorted(share, rest))]
    high = histogram.centres[min(int(np.searchsorted(share, 1 - rest)), BINS - 1)]
    return max(float(low), histogram.least), min(float(high), histogram.greatest)


def mse(histogram: Histogram) -> Range:
    """The range with the least mean squared error of clipping and rounding together."""
    return _searched(histogram, _squared_error)


def entropy(histogram: Histogram) -> Range:
    """The range whose integers are distributed most as the values were, by Kullback-Leibler divergence.

    Migacz, "8-bit inference with TensorRT", GTC 2017, with both ends of the range searched.
    """
    return _searched(histogram, _divergence)


def _searched(histogram: Histogram, cost: Callable[[Counts, Counts, float, float], float]) -> Range:
    """The cheapest range: one end, then the other, then the first again."""
    used = np.flatnonzero(histogram.counts)
    if len(used) == 0:
        return min_max(histogram)
    counts, centres = histogram.counts[used[0] : used[-1] + 1], histogram.centres[used[0] : used[-1] + 1]
    low, high = min_max(histogram)
    fractions = np.linspace(1, 1 / CANDIDATES, CANDIDATES)
    for _ in range(2):
        high = min(fractions * histogram.greatest, key=lambda end: cost(counts, centres, low, end))
        low = min(fractions * histogram.least, key=lambda end: cost(counts, centres, end, high))
    return float(low), float(high)


def _squared_error(counts: Counts, centres: Counts, low: float, high: float) -> float:
    step = (high - low) / INPUT_LEVELS
    if step <= 0:
        return float(np.sum(counts * centres**2))
    error = np.clip(low + np.rint((centres - low) / step) * step, low, high) - centres
    return float(np.sum(counts * error**2))


def _divergence(counts: Counts, centres: Counts, low: float, high: float) -> float:
    """What was clipped belongs to the outermost bins of the values, but not to the integers' own counts."""
    inside = (centres >= low) & (centres <= high)
    if high <= low or not counts[inside].sum():
        return np.inf
    own = counts[inside]
    clipped = own.copy()
    clipped[0] += counts[centres < low].sum()
    clipped[-1] += counts[centres > high].sum()
    level = np.minimum(
        ((centres[inside] - low) * (INPUT_LEVELS + 1) / (high - low)).astype(int), INPUT_LEVELS
    )
    filled = own > 0
    sums = np.bincount(level, own, INPUT_LEVELS + 1)
    sizes = np.bincount(level, filled.astype(float), INPUT_LEVELS + 1)
    spread = np.where(filled, sums[level] / np.maximum(sizes[level], 1), 0.0)
    p, q = clipped / clipped.sum(), spread / spread.sum()
    both = p > 0
    return float(np.sum(p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))))
