"""Greedy CTC against a second implementation, and against itself in pieces."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_speech.ctc import CtcGreedy, join_pieces
from edge_speech.errors import InputError
from tiny import log_softmax

TOKENS = ["<blk>", "▁a", "b", "▁c"]


def by_groupby(log_probs: np.ndarray, blank_id: int) -> list[tuple[str, int, int, float]]:
    """Best path by numpy and itertools."""
    found, row = [], 0
    for symbol, group in groupby(log_probs.argmax(axis=1)):
        end = row + len(list(group))
        if symbol != blank_id:
            confidence = np.exp(log_probs[row:end, symbol].astype(np.float64)).mean()
            found.append((TOKENS[symbol], row, end, confidence))
        row = end
    return found


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32 - 1), st.integers(0, 3), st.lists(st.integers(0, 40)))
def test_equals_groupby_in_any_pieces(rows: int, seed: int, blank_id: int, cuts: list[int]) -> None:
    log_probs = log_softmax(np.random.default_rng(seed).normal(0, 3, (rows, 4)).astype(np.float32))
    decoder = CtcGreedy(TOKENS, blank_id)
    for piece in np.split(log_probs, sorted(min(c, rows) for c in cuts)):
        decoder.step(piece)
    expected = by_groupby(log_probs, blank_id)
    result = decoder.finish()
    assert [(t.token, t.start_row, t.end_row) for t in result.tokens] == [e[:3] for e in expected]
    assert [t.confidence for t in result.tokens] == pytest.approx([e[3] for e in expected], abs=1e-6)
    assert result.text == "".join(e[0] for e in expected).replace("▁", " ").strip()


def test_ties_take_the_lowest_id_and_repeats_need_a_blank() -> None:
    decoder = CtcGreedy(TOKENS)
    decoder.step(np.zeros((3, 4), np.float32))
    assert decoder.result().tokens == ()
    eye = np.where(np.eye(4, dtype=bool), 0, -np.inf).astype(np.float32)
    decoder.step(eye[[1, 1, 0, 1, 2, 2]])
    assert decoder.result().text == "a ab"
    assert [t.confidence for t in decoder.result().tokens] == [1.0, 1.0, 1.0]
    decoder.reset()
    assert decoder.result().text == ""


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_log_probs_are_an_error(bad: float) -> None:
    rows = np.zeros((5, 4), np.float32)
    rows[3, 2] = bad
    with pytest.raises(InputError, match="output row 3"):
        CtcGreedy(TOKENS).step(rows)


def test_wrong_shapes_and_blank() -> None:
    with pytest.raises(InputError, match=r"\(T, 4\)"):
        CtcGreedy(TOKENS).step(np.zeros((2, 5), np.float32))
    with pytest.raises(InputError, match="blank_id"):
        CtcGreedy(TOKENS, 4)


@pytest.mark.parametrize(
    ("pieces", "text"),
    [([], ""), (["▁"], ""), (["▁one", "▁", "▁two"], "one two"), (["你", "好"], "你好"), (["▁a▁b"], "a b")],
)
def test_join_pieces(pieces: list[str], text: str) -> None:
    assert join_pieces(pieces) == text
