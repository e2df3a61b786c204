"""Figures of keyword spotting and of classification."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_speech.errors import InputError


@dataclass(frozen=True)
class OperatingPoint:
    """A detector that fires where its score is above `threshold`; `false_reject_rate` is a fraction."""

    threshold: float
    false_reject_rate: float
    false_accepts_per_hour: float


@dataclass(frozen=True)
class ClassScores:
    """Of one class, as fractions; a fraction of nothing is 0. `count` is how often it was the truth."""

    precision: float
    recall: float
    f1: float
    count: int


def false_rejects_at(
    positives: npt.ArrayLike, negatives: npt.ArrayLike, negative_s: float, false_accepts_per_hour: float
) -> OperatingPoint:
    """The lowest threshold that keeps false accepts to a rate, and what it costs in missed keywords.

    `positives` (N,) is the highest score of each recording that has the keyword, -inf where the
    detector cannot fire; `negatives` (M,) is the score of every peak in `negative_s` seconds of audio without
    it. Raises InputError.
    """
    said, other = np.asarray(positives, np.float64), np.sort(np.asarray(negatives, np.float64))[::-1]
    if not said.size or np.isnan(said).any() or np.isnan(other).any():
        raise InputError(f"{said.size} scores of the keyword; needed: at least one, and no NaN among scores")
    if not (negative_s > 0 and false_accepts_per_hour >= 0):
        raise InputError(
            f"{negative_s} s without the keyword, {false_accepts_per_hour} false accepts per hour; "
            "allowed: more than 0 s, a rate of 0 or more"
        )
    hours = negative_s / 3600
    allowed = int(false_accepts_per_hour * hours + 1e-9)  # 0.1 an hour in 10 hours is one, despite rounding
    threshold = float(other[allowed]) if allowed < other.size else -np.inf
    accepts = int(np.sum(other > threshold))
    return OperatingPoint(threshold, float(np.mean(said <= threshold)), accepts / hours)


def class_scores(truth: Sequence[Hashable], found: Sequence[Hashable]) -> dict[Hashable, ClassScores]:
    """Precision, recall and F1 of every class that was said or found, in the order of first appearance."""
    if len(truth) != len(found) or not truth:
        raise InputError(f"{len(truth)} true classes, {len(found)} found; needed: as many, at least one")
    return {label: _class(label, truth, found) for label in dict.fromkeys([*truth, *found])}


def _class(label: Hashable, truth: Sequence[Hashable], found: Sequence[Hashable]) -> ClassScores:
    hits = sum(t == f == label for t, f in zip(truth, found, strict=True))
    said, claimed = sum(t == label for t in truth), sum(f == label for f in found)
    return ClassScores(_over(hits, claimed), _over(hits, said), _over(2 * hits, said + claimed), said)


def _over(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def macro_f1(scores: dict[Hashable, ClassScores]) -> float:
    """Mean F1 of the classes, each counting the same."""
    return float(np.mean([one.f1 for one in scores.values()]))
