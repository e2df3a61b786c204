"""Shallow fusion of a language model: scores by hand from the model's own, any pieces, the stream."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_speech import _core
from edge_speech.ctc import CtcConfig, CtcPrefixBeam
from edge_speech.errors import InputError
from edge_speech.features import frontend_from_dict
from edge_speech.lm.lexicon import Lexicon
from edge_speech.lm.model import NgramLm
from edge_speech.recognizer import Recognizer
from test_hotwords import BOOSTS, HOTWORDS, OPEN, SAID, bonus_so_far, spelled, textbook_with_bonus
from test_prefix_beam import SEED, TOKENS, ids, peaky_rows, random_rows
from tiny import FRONTEND, TinyEncoder, speech_like
from tiny import TOKENS as WORDS

ARPA = """\\data\\
ngram 1=6
ngram 2=5

\\1-grams:
-1.5\t<unk>
-99\t<s>\t-0.4
-1.1\t</s>
-0.6\ta\t-0.3
-0.9\tab\t-0.2
-0.8\tc\t-0.5

\\2-grams:
-0.3\t<s> ab
-0.2\tab c
-1.4\ta c
-0.5\tc ab
-0.4\tc </s>

\\end\\
"""
LM = NgramLm(_core.NgramModel.from_arpa(ARPA.encode()))
LN10 = math.log(10)
WEIGHTS = {"lm_weight": 0.8, "word_bonus": 0.6, "unknown_score": -2.5}


LEXICON = Lexicon(["ab", "c", "d"])  # the model does not have d


def word_scores(words: list[str]) -> list[float]:
    """lm_weight * ln p + word_bonus, and the penalty, of each word; lm_weight * ln p of the end."""
    log_probs = [WEIGHTS["lm_weight"] * p for p in LM.log_probs(" ".join(words))]
    extra = [WEIGHTS["word_bonus"] + (0 if word in LM else WEIGHTS["unknown_score"]) for word in words]
    return [p + e for p, e in zip(log_probs, [*extra, 0.0], strict=True)]


def lm_in_the_end(sequence: tuple[int, ...], lexicon: Lexicon | None = None) -> float:
    words = spelled(sequence).split()
    return -math.inf if lexicon and not {*words} <= {*lexicon.words} else sum(word_scores(words))


def lm_so_far(sequence: tuple[int, ...], lexicon: Lexicon | None = None) -> float:
    """The words but the last one, and the best that it may become by the unigrams."""
    *done, last = spelled(sequence).split(" ")
    words = [word for word in done if word]
    if lexicon and not {*words} <= {*lexicon.words}:
        return -math.inf
    begun = worth_at_most(last, lexicon) if done or last else 0.0
    return sum(word_scores(words)[:-1]) + begun


def worth_at_most(beginning: str, lexicon: Lexicon | None) -> float:
    unigrams = {"a": -0.6, "ab": -0.9, "c": -0.8}
    known = [w for w in (lexicon.words if lexicon else unigrams) if w.startswith(beginning)]
    if lexicon and not known:
        return -math.inf
    best = max((unigrams[w] * LN10 for w in known if w in unigrams), default=-math.inf)
    unknown = WEIGHTS["lm_weight"] * -1.5 * LN10 + WEIGHTS["unknown_score"]
    return max(WEIGHTS["lm_weight"] * best, unknown) + WEIGHTS["word_bonus"]


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 50), st.integers(1, 10), SEED, st.booleans(), st.booleans())
def test_the_search_ranks_with_the_model(
    rows: int, beam_size: int, seed: int, with_hotwords: bool, closed: bool
) -> None:
    lexicon = LEXICON if closed else None
    log_probs = (peaky_rows if seed % 2 else random_rows)(rows, len(TOKENS), seed)
    hotwords = HOTWORDS if with_hotwords else ()
    config = CtcConfig(beam_size, **OPEN, hotwords=hotwords, lm=LM, lexicon=lexicon, **WEIGHTS)
    decoder = CtcPrefixBeam(TOKENS, config)
    decoder.step(log_probs)

    def bonus(sequence: tuple[int, ...]) -> float:
        return lm_so_far(sequence, lexicon) + (bonus_so_far(sequence) if with_hotwords else 0.0)

    expected = textbook_with_bonus(log_probs, beam_size, bonus)
    found = {ids(h): h.score for h in decoder.n_best()}
    assert found.keys() == expected.keys()
    assert [found[s] for s in expected] == pytest.approx(list(expected.values()), abs=1e-4)
    decoder.finish()
    for h in decoder.n_best():
        boosts = sum(BOOSTS.get(w, 0.0) for w in spelled(ids(h)).split(" ")[1:]) if with_hotwords else 0.0
        assert h.score == pytest.approx(h.log_prob + lm_in_the_end(ids(h), lexicon) + boosts, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), SEED, st.lists(st.integers(0, 200), max_size=30), st.sampled_from([2, 64]))
def test_any_pieces_give_the_same_bits(rows: int, seed: int, cuts: list[int], undecided: int) -> None:
    log_probs = peaky_rows(rows, len(TOKENS), seed)
    config = CtcConfig(lm=LM, max_undecided_tokens=undecided, **WEIGHTS)
    whole, cut = CtcPrefixBeam(TOKENS, config), CtcPrefixBeam(TOKENS, config)
    whole.step(log_probs)
    for piece in np.split(log_probs, sorted(min(c, rows) for c in cuts)):
        cut.step(piece)
    assert cut.n_best() == whole.n_best()
    assert cut.finish() == whole.finish()
    assert cut.n_best() == whole.n_best()


def test_the_model_decides_between_rivals() -> None:
    plain, fused = CtcPrefixBeam(TOKENS), CtcPrefixBeam(TOKENS, CtcConfig(lm=LM))
    for decoder in (plain, fused):
        decoder.step(SAID)
    assert (plain.finish().text, fused.finish().text) == ("ad c", "ab c")


def test_words_of_any_length_and_pieces_of_several_words() -> None:
    tokens = ["<blk>", "▁a▁c", "b" * 40, "▁ab"]
    decoder = CtcPrefixBeam(tokens, CtcConfig(lm=LM, **WEIGHTS))
    rows = np.full((8, 4), -np.inf, np.float32)
    rows[[0, 2, 4, 6], [1, 2, 2, 3]] = 0
    rows[1::2, 0] = 0
    decoder.step(rows)
    decoder.finish()
    expected = sum(word_scores(["a", "c" + "b" * 80, "ab"]))
    assert decoder.n_best(1)[0].score == pytest.approx(expected, abs=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="no token begins one"):
        CtcPrefixBeam(["<blk>", "a", "b"], CtcConfig(lm=LM))
    with pytest.raises(InputError, match=r"NgramLm\.load"):
        CtcPrefixBeam(TOKENS, CtcConfig(lm="lm.arpa"))  # type: ignore[arg-type]
    for weights in (
        {"lm_weight": -1},
        {"lm_weight": math.nan},
        {"word_bonus": math.inf},
        {"unknown_score": 1},
    ):
        with pytest.raises(InputError, match=next(iter(weights))):
            CtcPrefixBeam(TOKENS, CtcConfig(lm=LM, **weights))
    with pytest.raises(InputError, match="word_bonus"):
        CtcPrefixBeam(TOKENS, CtcConfig(lm=LM, word_bonus="1"))  # type: ignore[arg-type]


def test_a_stream_with_a_model() -> None:
    """The model has one word: with enough weight, the stream hears hardly any other; in any cutting."""
    arpa = "\\data\\\nngram 1=4\n\n\\1-grams:\n-4\t<unk>\n-99\t<s>\n-1\t</s>\n-0.1\ttwo\n\n\\end\\\n"
    lm = NgramLm(_core.NgramModel.from_arpa(arpa.encode()))
    recognizer, waveform = Recognizer(TinyEncoder(), frontend_from_dict(FRONTEND), WORDS), speech_like(8)

    def heard(config: CtcConfig, piece: int) -> object:
        stream = recognizer.create_stream(config=config)
        for i in range(0, len(waveform), piece):
            stream.accept_waveform(waveform[i : i + piece], 16000)
        stream.input_finished()
        return stream.result

    fused, plain = heard(CtcConfig(16, lm=lm), 8000), heard(CtcConfig(16), 8000)
    assert fused == heard(CtcConfig(16, lm=lm), 321)
    others = [sum(word != "two" for word in result.text.split()) for result in (fused, plain)]
    assert others[0] < others[1]
    with pytest.raises(InputError, match="CtcConfig"):
        recognizer.create_stream(beam_size=4, config=CtcConfig())
