"""Searches over the words of a lexicon, and models whose words are the tokens."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_speech.ctc import CtcConfig, CtcPrefixBeam
from edge_speech.errors import InputError
from edge_speech.lm.lexicon import Lexicon
from edge_speech.lm.model import NgramLm
from edge_speech.lm.train import TrainConfig, train
from test_hotwords import OPEN, spelled, textbook_with_bonus
from test_lm_fusion import LM
from test_prefix_beam import SEED, TOKENS, ids, peaky_rows

LETTERS = ["<blk>", "▁", "a", "b", "c", "d"]
WORDS = st.lists(st.text("abcd", min_size=1, max_size=6), min_size=1, max_size=40)


@settings(max_examples=80, deadline=None)
@given(WORDS, st.integers(1, 80), SEED)
def test_only_its_words_are_heard(words: list[str], rows: int, seed: int) -> None:
    decoder = CtcPrefixBeam(LETTERS, CtcConfig(lexicon=Lexicon(words)))
    log_probs = peaky_rows(rows, len(LETTERS), seed)
    for row in log_probs:
        decoder.step(row[None])
        *done, last = decoder.result().text.split(" ")
        assert {*done} <= {*words}
        assert any(word.startswith(last) for word in words)
    decoder.finish()
    whole = [h.text for h in decoder.n_best() if h.score > -math.inf]
    assert all({*text.split()} <= {*words} for text in whole)
    if whole:
        assert decoder.result().text == whole[0]


@settings(max_examples=40, deadline=None)
@given(WORDS, st.integers(1, 80), SEED)
def test_a_word_has_a_letter(words: list[str], rows: int, seed: int) -> None:
    """Of tokens that are nothing but the mark of a word's start, no two follow each other."""
    for config in (CtcConfig(lexicon=Lexicon(words)), CtcConfig(lm=LM)):
        decoder = CtcPrefixBeam(LETTERS, config)
        decoder.step(peaky_rows(rows, len(LETTERS), seed))
        assert all("▁▁" not in "".join(t.token for t in h.tokens) for h in decoder.n_best())


def test_a_lexicon_without_a_model_counts_words() -> None:
    plain, bound = CtcPrefixBeam(LETTERS), CtcPrefixBeam(LETTERS, CtcConfig(lexicon=Lexicon(["ab", "c"])))
    said = np.full((6, len(LETTERS)), math.log(0.01), np.float32)
    said[range(6), [1, 2, 5, 1, 4, 0]] = math.log(0.9)  # " ad c"
    said[2, 3] = math.log(0.08)
    for decoder in (plain, bound):
        decoder.step(said)
    assert (plain.finish().text, bound.finish().text) == ("ad c", "ab c")


def test_rows_that_allow_no_word_are_passed_over() -> None:
    decoder = CtcPrefixBeam(LETTERS, CtcConfig(lexicon=Lexicon(["ab"])))
    said = np.full((5, len(LETTERS)), -np.inf, np.float32)
    said[range(5), [1, 2, 4, 3, 0]] = 0.0  # "ac" and "b"
    decoder.step(said)
    assert decoder.finish().text == "ab"


def test_reading_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("ab\ta b\n\nc  c\nab\n", encoding="utf-8")
    assert Lexicon.read(path).words == ("ab", "c")
    path.write_bytes(b"\n\n")
    with pytest.raises(InputError, match="no word"):
        Lexicon.read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        Lexicon.read(path)
    with pytest.raises(InputError, match="missing"):
        Lexicon.read(tmp_path / "missing")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="without spaces"):
        Lexicon(["a b"])
    with pytest.raises(InputError, match="can spell no word"):
        CtcPrefixBeam(LETTERS, CtcConfig(lexicon=Lexicon(["AB", "C"])))
    with pytest.raises(InputError, match="a Lexicon of words"):
        CtcPrefixBeam(LETTERS, CtcConfig(lexicon=["ab"]))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lm_level"):
        CtcPrefixBeam(LETTERS, CtcConfig(lm=LM, lm_level="letter"))
    with pytest.raises(InputError, match="takes no lexicon"):
        CtcPrefixBeam(LETTERS, CtcConfig(lm=LM, lm_level="token", lexicon=Lexicon(["a"])))
    with pytest.raises(InputError, match="none of the tokens"):
        CtcPrefixBeam(["<blk>", "▁x", "▁y"], CtcConfig(lm=LM, lm_level="token"))


@pytest.fixture(scope="module")
def token_lm(tmp_path_factory: pytest.TempPathFactory) -> NgramLm:
    """A trigram model of lines of tokens; it does not have "f"."""
    folder = tmp_path_factory.mktemp("lm")
    rng = np.random.default_rng(0)
    lines = [" ".join(TOKENS[1 + i % 5] for i in rng.integers(0, 99, 9)) for _ in range(60)]
    (folder / "text").write_text("\n".join(lines) + "\n", encoding="utf-8")
    train(folder / "text", folder / "lm.arpa", TrainConfig(3))
    return NgramLm.load(folder / "lm.arpa")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(1, 10), SEED, st.sampled_from([-3.0, 0.4]))
def test_a_model_of_tokens(
    token_lm: NgramLm, rows: int, beam_size: int, seed: int, word_bonus: float
) -> None:
    log_probs = peaky_rows(rows, len(TOKENS), seed)
    weights = {"lm_weight": 0.7, "word_bonus": word_bonus, "unknown_score": -2.0}
    decoder = CtcPrefixBeam(TOKENS, CtcConfig(beam_size, **OPEN, lm=token_lm, lm_level="token", **weights))

    def bonus(sequence: tuple[int, ...]) -> float:
        tokens = [TOKENS[i] for i in sequence]
        log_prob = sum(token_lm.log_probs(" ".join(tokens))[:-1])
        return 0.7 * log_prob + word_bonus * len(tokens) - 2.0 * tokens.count("f")

    decoder.step(log_probs)
    expected = textbook_with_bonus(log_probs, beam_size, bonus)
    found = {ids(h): h.score for h in decoder.n_best()}
    assert found.keys() == expected.keys()
    assert [found[s] for s in expected] == pytest.approx(list(expected.values()), abs=1e-4)
    decoder.finish()
    for h in decoder.n_best():
        end = token_lm.log_probs(" ".join(TOKENS[i] for i in ids(h)))[-1]
        assert h.score == pytest.approx(h.log_prob + bonus(ids(h)) + 0.7 * end, abs=1e-4), spelled(ids(h))
