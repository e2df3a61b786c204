"""Words of tokens against the text: from rows, from a stream, and however often a result is read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge_speech as es
from edge_speech.ctc import CtcConfig, CtcGreedy, CtcPrefixBeam, CtcResult, join_pieces
from edge_speech.features import frontend_from_dict
from edge_speech.recognizer import Recognizer, Stream
from tiny import FRONTEND, SPEC, TOKENS, TinyEncoder, log_softmax, speech_like

PIECES = st.text(alphabet="ab▁ é", max_size=4)


def rows_of(ids: list[int], vocab: int, seed: int = 0) -> np.ndarray:
    """log_probs (2 * tokens, vocab) whose best path says the tokens of `ids`, a blank after each."""
    logits = np.random.default_rng(seed).normal(0, 1, (2 * len(ids), vocab)).astype(np.float32)
    logits[::2][np.arange(len(ids)), ids] += 9
    logits[1::2, 0] += 9
    return log_softmax(logits)


def by_definition(result: CtcResult) -> list[tuple[str, int, int, float]]:
    """Characters with their tokens, split at marks."""
    marked = [(c, t) for t in result.tokens for c in t.token.replace("▁", " ")]
    words: list[list] = [[]]
    for character, token in marked:
        words = [*words, []] if character == " " else [*words[:-1], [*words[-1], (character, token)]]
    return [
        ("".join(c for c, _ in w), w[0][1].start_row, w[-1][1].end_row, min(t.confidence for _, t in w))
        for w in words
        if w
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=6), st.data())
def test_words_are_the_texts(pieces: list[str], data: st.DataObject) -> None:
    pieces = ["<blk>", "▁x", *pieces]
    ids = data.draw(st.lists(st.integers(1, len(pieces) - 1), max_size=12))
    decoder = CtcGreedy(pieces)
    decoder.step(rows_of(ids, len(pieces)))
    result = decoder.result()
    assert [t.token for t in result.tokens] == [pieces[i] for i in ids]
    assert [w.text for w in result.words] == join_pieces(pieces[i] for i in ids).split()
    assert [(w.text, w.start_row, w.end_row, w.confidence) for w in result.words] == by_definition(result)


def test_without_marks_each_token_is_a_word() -> None:
    beam = CtcPrefixBeam(["<blk>", "你", "好"], CtcConfig(4))
    beam.step(rows_of([1, 2, 2], 3))
    result = beam.finish()
    assert [(w.text, w.start_row, w.end_row, w.confidence) for w in result.words] == [
        (t.token, t.start_row, t.end_row, t.confidence) for t in result.tokens
    ]
    assert [w.text for w in result.words] == ["你", "好", "好"]


def feed(stream: Stream, waveform: np.ndarray, read: bool) -> es.Result:
    for i in range(0, len(waveform), 800):
        stream.accept_waveform(waveform[i : i + 800], 16000)
        if read:
            words = stream.result.words
            assert [w.text for w in words] == stream.result.text.split()
    stream.input_finished()
    return stream.result


@pytest.mark.parametrize("beam_size", [1, 2, 8])
def test_a_streams_words_are_the_decoders(beam_size: int) -> None:
    """Read after every packet or only at the end; in seconds."""
    recognizer = Recognizer(TinyEncoder(), frontend_from_dict(FRONTEND), TOKENS)
    waveform = speech_like(10)
    stream = recognizer.create_stream(beam_size=beam_size, keep_log_probs=True)
    result = feed(stream, waveform, read=True)
    assert result == feed(recognizer.create_stream(beam_size=beam_size), waveform, read=False)
    decoder = CtcGreedy(TOKENS) if beam_size == 1 else CtcPrefixBeam(TOKENS, CtcConfig(beam_size))
    decoder.step(stream.log_probs())
    expected, row_s = decoder.finish().words, SPEC.subsampling_factor * 0.01
    assert len(result.words) > 10
    assert "fourree" in {w.text for w in result.words}  # of two tokens
    for word, other in zip(result.words, expected, strict=True):
        assert (word.text, word.confidence) == (other.text, other.confidence)
        assert word.start_s == pytest.approx(other.start_row * row_s)
        assert word.end_s == pytest.approx(min(other.end_row * row_s, stream.audio_s))
    assert (result.start_s, result.end_s) == (result.words[0].start_s, result.words[-1].end_s)


def test_settled_words_are_not_grouped_again() -> None:
    stream = Recognizer(TinyEncoder(), frontend_from_dict(FRONTEND), TOKENS).create_stream()
    feed(stream, speech_like(20), read=True)
    settled = stream._settled
    again = stream._stream.heard_from(settled.utterance, len(settled.tokens), *settled.rest)
    assert len(settled.words) > 20
    assert len(again.words) <= 2
