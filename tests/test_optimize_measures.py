"""Parity and word error rate: the figures that gates and reports rest on."""

from __future__ import annotations

import jiwer
import numpy as np
import pytest

from edge_speech.errors import CheckFailed, InputError
from edge_speech.quality import Score, difference_ci95, require_words, score, wer_ci95
from edge_speech_tools.decoding import Decoded
from edge_speech_tools.parity import Parity, check_fp32, compare

REFERENCES = ["one two three", "four", "five six", "seven eight nine zero", ""]
HYPOTHESES = ["one three", "four four", "five six", "eight seven nine", "one"]


def test_wer_is_jiwers() -> None:
    ours = score(REFERENCES[:4], HYPOTHESES[:4])
    assert ours.wer == pytest.approx(100 * jiwer.wer(REFERENCES[:4], HYPOTHESES[:4]))


def test_words_where_nothing_was_said_are_insertions() -> None:
    assert (
        score(REFERENCES, HYPOTHESES).errors.sum() == score(REFERENCES[:4], HYPOTHESES[:4]).errors.sum() + 1
    )


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    words = np.full(60, 10)
    covered = 0
    for _ in range(60):
        low, high = wer_ci95(Score(rng.binomial(10, 0.1, size=60), words))
        covered += low <= 10 <= high
    assert 50 <= covered <= 60


def test_difference_of_equal_systems_is_zero_and_paired() -> None:
    rng = np.random.default_rng(2)
    words, errors = np.full(40, 8), rng.binomial(8, 0.3, size=40)
    assert difference_ci95(Score(errors, words), Score(errors, words)) == (0.0, 0.0)
    one_more = Score(errors + 1, words)
    assert difference_ci95(one_more, Score(errors, words)) == (12.5, 12.5)


def test_a_set_without_words_has_no_error_rate() -> None:
    with pytest.raises(InputError, match="no words"):
        require_words(["", " "])


def decoded(text: str, rows: list[list[float]]) -> Decoded:
    return Decoded(text, np.array(rows, np.float32))


def test_parity_counts_frames_and_texts() -> None:
    reference = [decoded("a", [[-1, -2], [-3, -1]]), decoded("b", [[-1, -2]])]
    artifact = [decoded("a", [[-1, -2], [-3, -1.5]]), decoded("c", [[-2, -1]])]
    found = compare(reference, artifact)
    assert (found.recordings, found.frames) == (2, 3)
    assert found.max_abs == 1.0
    assert found.mean_abs == pytest.approx(2.5 / 6)
    assert found.argmax_agreement == pytest.approx(2 / 3)
    assert found.text_identical == 0.5


def test_a_missing_row_is_no_parity() -> None:
    with pytest.raises(CheckFailed, match=r"\(1, 2\).*\(2, 2\)"):
        compare([decoded("a", [[-1, -2], [-3, -1]])], [decoded("a", [[-1, -2]])])


@pytest.mark.parametrize(("max_abs", "text"), [(3e-3, 1.0), (1e-6, 0.9), (float("nan"), 1.0)])
def test_fp32_gate(max_abs: float, text: float) -> None:
    check_fp32("x/fp32", Parity(1e-5, 1e-6, 1.0, 1.0, 1, 10))
    with pytest.raises(CheckFailed, match="x/fp32 differs"):
        check_fp32("x/fp32", Parity(max_abs, 1e-6, 1.0, text, 1, 10))
