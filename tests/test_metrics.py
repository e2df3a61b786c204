"""Keyword spotting by hand, classification against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from edge_speech.errors import InputError
from edge_speech.metrics import class_scores, false_rejects_at, macro_f1

SAID = [0.9, 0.8, 0.6, 0.4, -math.inf]
OTHER = [0.85, 0.7, 0.5, 0.5, 0.1]


@pytest.mark.parametrize(
    ("rate", "threshold", "rejects", "accepts"),
    [
        (0, 0.85, 4, 0),
        (0.5, 0.7, 3, 1),  # in the two hours one is allowed
        (1.4, 0.5, 2, 2),
        (1.5, 0.5, 2, 2),  # the third and the fourth come together
        (2, 0.1, 1, 4),
        (9, -math.inf, 1, 5),  # what never fired is never accepted
    ],
)
def test_false_rejects_by_hand(rate: float, threshold: float, rejects: int, accepts: int) -> None:
    point = false_rejects_at(SAID, OTHER, 7200, rate)
    assert point.threshold == threshold
    assert point.false_reject_rate == rejects / 5
    assert point.false_accepts_per_hour == accepts / 2


def test_no_lower_threshold_keeps_the_rate() -> None:
    rng = np.random.default_rng(0)
    said, other = rng.normal(1, 1, 50), rng.normal(0, 1, 400).round(1)
    for rate in (0.5, 3, 20):
        point = false_rejects_at(said, other, 36000, rate)
        assert point.false_accepts_per_hour <= rate
        below = np.nextafter(point.threshold, -np.inf)
        assert np.sum(other > below) / 10 > rate
        assert point.false_reject_rate == np.mean(said <= point.threshold)


def test_silence_without_a_peak_accepts_everything_that_fired() -> None:
    assert false_rejects_at([0.1, 0.2], [], 60, 0).false_reject_rate == 0


@pytest.mark.parametrize(
    ("said", "other", "seconds", "rate"),
    [([], [1], 1, 1), ([math.nan], [1], 1, 1), ([1], [math.nan], 1, 1), ([1], [1], 0, 1), ([1], [1], 1, -1)],
)
def test_odd_scores(said: list[float], other: list[float], seconds: float, rate: float) -> None:
    with pytest.raises(InputError, match=r"needed|allowed"):
        false_rejects_at(said, other, seconds, rate)


def test_class_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    truth, found = rng.choice(list("abc"), 100).tolist(), rng.choice(list("abcd"), 100).tolist()
    ours = class_scores(truth, found)
    labels = list(ours)
    theirs = precision_recall_fscore_support(truth, found, labels=labels, zero_division=0)
    figures = [(s.precision, s.recall, s.f1, s.count) for s in ours.values()]
    np.testing.assert_allclose(np.array(figures).T, np.array(theirs))
    averaged = precision_recall_fscore_support(truth, found, labels=labels, average="macro", zero_division=0)
    assert macro_f1(ours) == pytest.approx(averaged[2])


def test_classes_come_in_pairs() -> None:
    with pytest.raises(InputError, match="2 true classes, 1 found"):
        class_scores(["a", "b"], ["a"])
