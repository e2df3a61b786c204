"""What both CTC decoders do at the edges of their input, alike."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_speech.ctc import CtcGreedy, CtcPrefixBeam
from edge_speech.errors import InputError

TOKENS = ["<blk>", "▁a", "b", "▁c"]
EYE = np.where(np.eye(4, dtype=bool), 0, -np.inf).astype(np.float32)  # row i: symbol i for certain
Open = Callable[[list[str]], CtcGreedy | CtcPrefixBeam]

pytestmark = pytest.mark.parametrize("open_decoder", [CtcGreedy, CtcPrefixBeam])


@pytest.mark.parametrize("bad", [[0, np.nan, 0, 0], [0, 0, 0, np.inf], [-np.inf] * 4])
def test_a_broken_row_is_refused_and_decoding_may_go_on(open_decoder: Open, bad: list[float]) -> None:
    decoder, without = open_decoder(TOKENS), open_decoder(TOKENS)
    rows = np.stack([EYE[1], EYE[0], np.array(bad, np.float32), EYE[3]])
    with pytest.raises(InputError, match="output row 2"):
        decoder.step(rows)
    assert decoder.result().text == "a"
    decoder.step(EYE[[1, 1, 2]])
    without.step(EYE[[1, 0, 1, 1, 2]])
    assert decoder.finish() == without.finish()
    assert [(t.token, t.start_row, t.end_row) for t in decoder.result().tokens] == [
        ("▁a", 0, 1),
        ("▁a", 2, 4),
        ("b", 4, 5),
    ]


def test_impossible_symbols_are_allowed(open_decoder: Open) -> None:
    decoder = open_decoder(TOKENS)
    decoder.step(EYE[[3, 0, 2, 2, 0, 2]])
    assert decoder.finish().text == "cbb"
    assert [t.confidence for t in decoder.result().tokens] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("rows", [0, 1, 50])
def test_a_vocabulary_of_the_blank_alone_says_nothing(open_decoder: Open, rows: int) -> None:
    decoder = open_decoder(["<blk>"])
    decoder.step(np.zeros((rows, 1), np.float32))
    result = decoder.finish()
    assert (result.text, result.tokens, result.committed_text) == ("", (), "")


def test_no_vocabulary_is_refused(open_decoder: Open) -> None:
    with pytest.raises(InputError, match="blank_id"):
        open_decoder([])


def test_steps_without_rows_change_nothing(open_decoder: Open) -> None:
    decoder, nothing = open_decoder(TOKENS), EYE[:0]
    decoder.step(nothing)
    assert decoder.result().tokens == ()
    for row in EYE[[1, 1, 0, 2]]:
        decoder.step(row[None])
        before = decoder.result()
        decoder.step(nothing)
        assert decoder.result() == before
    assert [(t.start_row, t.end_row) for t in decoder.finish().tokens] == [(0, 2), (3, 4)]


def test_nothing_was_said_without_rows(open_decoder: Open) -> None:
    result = open_decoder(TOKENS).finish()
    assert (result.text, result.tokens, result.committed_text) == ("", (), "")


@pytest.mark.parametrize("rows", [0, 1])
def test_rows_after_finish_are_refused_until_reset(open_decoder: Open, rows: int) -> None:
    decoder = open_decoder(TOKENS)
    decoder.step(EYE[[1]])
    final = decoder.finish()
    with pytest.raises(InputError, match=r"reset\(\)"):
        decoder.step(EYE[:rows])
    assert decoder.finish() == decoder.result() == final
    decoder.reset()
    decoder.step(EYE[[2]])
    assert decoder.finish().text == "b"
    assert decoder.result().tokens[0].start_row == 0
