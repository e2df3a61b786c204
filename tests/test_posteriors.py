"""The simulated log_probs that language models are measured with: what they claim, they are."""

from __future__ import annotations

import sys
from pathlib import Path

import jiwer
import numpy as np
import pytest

from edge_speech.ctc import CtcGreedy

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from posteriors import Simulator, character_pieces, frequent_pieces, segment

TEXT = [f"the {w} of the wörld is {w}ing round and {w}s".split() for w in "turn ball spell wooll".split()] * 5
PIECES = {"characters": character_pieces(TEXT), "pieces": frequent_pieces(TEXT, 80)}


def heard(units: str, error_rate: float, seed: int = 0) -> list[str]:
    simulator, decoder, texts = Simulator(PIECES[units], error_rate, seed), CtcGreedy(PIECES[units]), []
    for words in TEXT:
        decoder.reset()
        decoder.step(simulator.log_probs(words))
        texts.append(decoder.result().text)
    return texts


@pytest.mark.parametrize("units", PIECES)
def test_without_errors_the_best_path_is_the_text(units: str) -> None:
    assert heard(units, 0.0) == [" ".join(words) for words in TEXT]


@pytest.mark.parametrize("error_rate", [0.05, 0.2])
def test_errors_are_as_many_as_asked_for(error_rate: float) -> None:
    cer = jiwer.cer([" ".join(words) for words in TEXT], heard("characters", error_rate))
    assert error_rate / 2 < cer < error_rate * 2


def test_rows_are_distributions_and_follow_from_the_seed() -> None:
    a, b, other = (Simulator(PIECES["pieces"], 0.1, seed).log_probs(TEXT[0]) for seed in (0, 0, 1))
    np.testing.assert_allclose(np.exp(a).sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, other)


def test_what_is_right_stays_in_sight() -> None:
    """With every piece wrong, each is still first or second in its row."""
    rows = Simulator(PIECES["characters"], 1.0).log_probs(TEXT[0])
    near = [set(np.argsort(row)[-2:].tolist()) for row in rows]
    for piece in segment(TEXT[0], PIECES["characters"]):
        while piece not in near.pop(0):
            assert near, "a piece is missing"


def test_frequent_pieces_shorten_the_text() -> None:
    lengths = {units: len(segment(TEXT[0], pieces)) for units, pieces in PIECES.items()}
    assert len(PIECES["pieces"]) == 80
    assert lengths["pieces"] < 0.6 * lengths["characters"]
    assert "".join(PIECES["pieces"][i] for i in segment(TEXT[0], PIECES["pieces"])) == "▁" + "▁".join(TEXT[0])
