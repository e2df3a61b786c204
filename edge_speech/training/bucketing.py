"""Batches by seconds of audio: utterances of like length, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

# Utterances for so many batches are drawn and sorted by length, and one of the batches is taken.
POOL_BATCHES = 16
# Nothing counts as shorter, so that a pool has a size whatever the manifests claim.
LEAST_S = 0.1


class Timed(Protocol):
    """Anything of known length."""

    @property
    def seconds(self) -> float: ...


T = TypeVar("T", bound=Timed)


def batch_of_seconds(rng: np.random.Generator, draw: Callable[[], T], batch_s: float) -> list[T]:
    """One batch of at most `batch_s` seconds with its padding, each item as likely in it as `draw` makes it.

    An item that is longer by itself makes a batch of its own.
    """
    pool, seconds = [], 0.0
    while seconds < POOL_BATCHES * batch_s:
        pool.append(draw())
        seconds += max(LEAST_S, pool[-1].seconds)
    batches = cut_by_length(pool, batch_s)
    return batches[int(rng.integers(len(batches)))]


def cut_by_length(items: Sequence[T], batch_s: float) -> list[list[T]]:
    """Cut items, longest first, into batches whose number times the longest is at most `batch_s` seconds."""
    batches: list[list[T]] = []
    longest_s = 0.0
    for item in sorted(items, key=lambda item: item.seconds, reverse=True):
        if not batches or (len(batches[-1]) + 1) * longest_s > batch_s:
            batches.append([])
            longest_s = max(LEAST_S, item.seconds)
        batches[-1].append(item)
    return batches
