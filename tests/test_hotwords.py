"""Hotwords: the boost against a count of words, phrases in progress, changes on a live search, the file."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_speech.ctc import CtcConfig, CtcPrefixBeam
from edge_speech.errors import InputError
from edge_speech.features import frontend_from_dict
from edge_speech.hotwords import Hotword, read_hotwords
from edge_speech.recognizer import Recognizer
from test_prefix_beam import SEED, TOKENS, all_alignments, ids, peaky_rows, random_rows
from tiny import FRONTEND, TinyEncoder, speech_like
from tiny import TOKENS as WORDS

BOOSTS = {"ab": 2.0, "c": 1.5, "cd": 3.0, "a": 0.7}
HOTWORDS = tuple(Hotword(phrase, boost) for phrase, boost in BOOSTS.items())
OPEN = {"beam_threshold": math.inf, "tokens_per_row": 99, "token_threshold": math.inf}


def spelled(sequence: tuple[int, ...]) -> str:
    return "".join(TOKENS[i] for i in sequence).replace("▁", " ")


def bonus_in_the_end(sequence: tuple[int, ...]) -> float:
    """What the words of a finished text are worth, but for a first one that begins in its middle."""
    words = spelled(sequence).split(" ")
    return sum(BOOSTS.get(word, 0.0) for word in words[1:])


def bonus_so_far(sequence: tuple[int, ...]) -> float:
    """The same for a text that goes on: the last word has the best part of a hotword that it begins."""
    *done, last = spelled(sequence).split(" ")
    if not done:
        return 0.0
    parts = [b * (1 + len(last)) / (1 + len(h)) for h, b in BOOSTS.items() if h.startswith(last)]
    return sum(BOOSTS.get(word, 0.0) for word in done[1:]) + max(parts, default=0.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(2, 5), SEED)
def test_the_boost_is_a_count_of_words(rows: int, vocab: int, seed: int) -> None:
    log_probs = random_rows(rows, vocab, seed)
    expected = all_alignments(log_probs, 0)
    decoder = CtcPrefixBeam(TOKENS, CtcConfig(4096, **OPEN, hotwords=HOTWORDS))
    padded = np.full((rows, len(TOKENS)), -np.inf, np.float32)
    padded[:, :vocab] = log_probs
    decoder.step(padded)
    for bonus in (bonus_so_far, bonus_in_the_end):
        found = {ids(h): h for h in decoder.n_best()}
        assert found.keys() == expected.keys()
        for sequence, log_prob in expected.items():
            assert found[sequence].log_prob == pytest.approx(log_prob, abs=1e-9)
            assert found[sequence].score == pytest.approx(log_prob + bonus(sequence), abs=1e-9)
        scores = [h.score for h in decoder.n_best()]
        assert scores == sorted(scores, reverse=True)
        decoder.finish()


def textbook_with_bonus(
    log_probs: np.ndarray, beam_size: int, bonus: Callable[[tuple[int, ...]], float]
) -> dict[tuple[int, ...], float]:
    """arXiv:1408.2873, algorithm 1, ranked with a bonus computed anew from each text."""
    beam = {(): (0.0, -np.inf)}
    for row in log_probs.astype(np.float64):
        grown: dict[tuple[int, ...], tuple[float, float]] = {}

        def add(prefix: tuple[int, ...], blank: float, nonblank: float, grown: dict = grown) -> None:
            b, n = grown.get(prefix, (-np.inf, -np.inf))
            grown[prefix] = float(np.logaddexp(b, blank)), float(np.logaddexp(n, nonblank))

        for prefix, (blank, nonblank) in beam.items():
            total = float(np.logaddexp(blank, nonblank))
            add(prefix, total + row[0], nonblank + row[prefix[-1]] if prefix else -np.inf)
            for symbol in range(1, len(row)):
                again = bool(prefix) and prefix[-1] == symbol
                add((*prefix, symbol), -np.inf, (blank if again else total) + row[symbol])
        scores = {p: np.logaddexp(*masses) + bonus(p) for p, masses in grown.items()}
        ranked = sorted(grown, key=lambda p: -scores[p])
        beam = {p: grown[p] for p in ranked[:beam_size] if scores[p] > -np.inf}
    return {p: float(np.logaddexp(*masses)) + bonus(p) for p, masses in beam.items()}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(1, 10), SEED, st.booleans())
def test_the_search_ranks_with_the_boost(rows: int, beam_size: int, seed: int, peaky: bool) -> None:
    log_probs = (peaky_rows if peaky else random_rows)(rows, len(TOKENS), seed)
    decoder = CtcPrefixBeam(TOKENS, CtcConfig(beam_size, **OPEN, hotwords=HOTWORDS))
    decoder.step(log_probs)
    expected = textbook_with_bonus(log_probs, beam_size, bonus_so_far)
    found = {ids(h): h.score for h in decoder.n_best()}
    assert found.keys() == expected.keys()
    assert [found[s] for s in expected] == pytest.approx(list(expected.values()), abs=1e-8)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200), SEED, st.lists(st.integers(0, 200), max_size=30), st.sampled_from([2, 64]))
def test_any_pieces_give_the_same_bits(rows: int, seed: int, cuts: list[int], undecided: int) -> None:
    log_probs = peaky_rows(rows, len(TOKENS), seed)
    config = CtcConfig(hotwords=HOTWORDS, max_undecided_tokens=undecided)
    whole, cut = CtcPrefixBeam(TOKENS, config), CtcPrefixBeam(TOKENS, config)
    whole.step(log_probs)
    for piece in np.split(log_probs, sorted(min(c, rows) for c in cuts)):
        cut.step(piece)
    assert cut.n_best() == whole.n_best()
    final = cut.finish()
    assert final == whole.finish()
    acted = [h.text for h in final.hotwords]
    assert acted == [word for word in spelled(ids(final)).split(" ")[1:] if word in BOOSTS]


def say(*choices: dict[str, float]) -> np.ndarray:
    """A row per choice (symbol: probability) with a row of blank after each."""
    rows = np.full((2 * len(choices), len(TOKENS)), -np.inf, np.float32)
    rows[1::2, 0] = 0
    for row, choice in zip(rows[::2], choices, strict=True):
        for symbol, p in choice.items():
            row[TOKENS.index(symbol)] = math.log(p)
    return rows


SAID = say({"▁a": 1.0}, {"b": 0.3, "d": 0.7}, {"▁c": 1.0})


def test_a_hotword_wins_and_shows() -> None:
    plain, boosted = CtcPrefixBeam(TOKENS), CtcPrefixBeam(TOKENS, CtcConfig(hotwords=["ab"]))
    for decoder in (plain, boosted):
        decoder.step(SAID)
    assert (plain.finish().text, plain.result().hotwords) == ("ad c", ())
    assert boosted.finish().text == "ab c"
    [hotword] = boosted.result().hotwords
    assert (hotword.text, hotword.start_row, hotword.end_row) == ("ab", 0, 3)


def test_a_hotword_is_whole_words() -> None:
    """ "a" has no part in "ab": its boost is lent while the word may still end, and taken back."""
    decoder = CtcPrefixBeam(TOKENS, CtcConfig(hotwords=[Hotword("a", 5.0)]))
    decoder.step(SAID)
    best = decoder.finish()
    assert (best.text, best.hotwords) == ("ad c", ())
    assert decoder.n_best(1)[0].score == pytest.approx(decoder.n_best(1)[0].log_prob)


def test_phrases_of_several_words() -> None:
    config = CtcConfig(hotwords=[Hotword("a c", 2.0), Hotword("a c ab", 5.0), Hotword("c", 1.0)])
    decoder = CtcPrefixBeam(TOKENS, config)
    a, b, c = {"▁a": 1.0}, {"b": 1.0}, {"▁c": 1.0}
    for said, score in [
        ((a, c), 2.0),
        ((a, c, a, b), 5.0),
        ((a, c, a), 2.0),
        ((c, a), 1.0),
        ((a, b, c), 1.0),
    ]:
        decoder.reset()
        decoder.step(say(*said))
        decoder.finish()
        assert decoder.n_best(1)[0].score == pytest.approx(score), said


def test_pieces_without_word_starts_match_anywhere() -> None:
    decoder = CtcPrefixBeam(["<blk>", "你", "好", "吗"], CtcConfig(hotwords=[Hotword("好吗", 2.0)]))
    decoder.step(np.log(np.eye(4, dtype=np.float32)[[1, 2, 3, 1]] + np.float32(1e-30)))
    assert [h.text for h in decoder.finish().hotwords] == ["好吗"]


def test_hotwords_change_on_a_live_search() -> None:
    decoder = CtcPrefixBeam(TOKENS)
    decoder.step(SAID)
    decoder.add_hotword("ab")
    decoder.step(SAID)
    decoder.remove_hotword("ab")
    decoder.step(SAID)
    result = decoder.finish()
    assert result.text == "ad c ab c ad c"
    assert [(h.text, h.start_row) for h in result.hotwords] == [("ab", 6)]
    with pytest.raises(InputError, match="no hotword 'ab'"):
        decoder.remove_hotword("ab")


def test_adding_and_removing_a_phrase_in_progress_leaves_no_trace() -> None:
    decoder, plain = CtcPrefixBeam(TOKENS, CtcConfig(hotwords=["c"])), CtcPrefixBeam(TOKENS)
    for piece in np.split(SAID, [1]):
        decoder.add_hotword("ab", 3.0)
        decoder.step(piece)
        plain.step(piece)
        decoder.remove_hotword("ab")
    decoder.remove_hotword("c")
    assert [(h.text, h.log_prob) for h in decoder.n_best()] == [(h.text, h.log_prob) for h in plain.n_best()]
    assert [h.score for h in decoder.n_best()] == pytest.approx([h.score for h in plain.n_best()])


@pytest.mark.parametrize(
    ("hotwords", "match"),
    [
        ([""], "one word"),
        (["AB"], "no token has"),
        ("ab", "a list"),
        ([Hotword("ab"), 3], "one word"),
    ],
)
def test_odd_hotwords_are_refused(hotwords: object, match: str) -> None:
    with pytest.raises(InputError, match=match):
        CtcPrefixBeam(TOKENS, CtcConfig(hotwords=hotwords))  # type: ignore[arg-type]


@pytest.mark.parametrize("boost", [0, -1.0, math.nan, math.inf, 1001, "2", True])
def test_odd_boosts_are_refused(boost: float) -> None:
    with pytest.raises(InputError, match="boost"):
        Hotword("ab", boost)


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "hotwords.txt"
    path.write_text("# names\nab\n\n a  c \t2.5\n", encoding="utf-8")
    assert read_hotwords(path) == (Hotword("ab"), Hotword("a  c", 2.5))
    path.write_text("ab\tmuch\n")
    with pytest.raises(InputError, match=r"hotwords.txt:1: boost 'much'"):
        read_hotwords(path)
    path.write_text("ab\t-1\n")
    with pytest.raises(InputError, match=r"hotwords.txt:1: the boost"):
        read_hotwords(path)
    path.write_text("# nothing\n")
    with pytest.raises(InputError, match="no hotword in it"):
        read_hotwords(path)


def test_a_stream_with_hotwords() -> None:
    """Any cutting the same; the hotword is heard where it was not, at the times of its tokens; it can go."""
    recognizer, waveform = Recognizer(TinyEncoder(), frontend_from_dict(FRONTEND), WORDS), speech_like(8)

    def heard(hotwords: list[Hotword], piece: int) -> object:
        stream = recognizer.create_stream(hotwords=hotwords)
        for i in range(0, len(waveform), piece):
            stream.accept_waveform(waveform[i : i + piece], 16000)
        stream.input_finished()
        return stream.result

    plain, boosted = heard([], 8000), heard([Hotword("three", 40.0)], 8000)
    assert boosted == heard([Hotword("three", 40.0)], 321)
    assert boosted.text.split().count("three") > plain.text.split().count("three")
    assert len(boosted.hotwords) == boosted.text.split().count("three")
    starts = {t.start_s for t in boosted.tokens if t.token == "▁th"}
    assert all(h.start_s in starts and h.end_s > h.start_s for h in boosted.hotwords)
    stream = recognizer.create_stream(beam_size=8)
    stream.add_hotword("three", 40.0)
    stream.remove_hotword("three")
    stream.accept_waveform(waveform, 16000)
    stream.input_finished()
    assert stream.result.text == heard([Hotword("three", 1e-9)], 8000).text
    with pytest.raises(InputError, match="no hotword"):
        stream.remove_hotword("three")
