"""CTC prefix beam search against flashlight-text, where both keep every hypothesis."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from edge_speech.ctc import CtcConfig, CtcPrefixBeam
from edge_speech.lm.model import NgramLm
from test_lm_fusion import ARPA
from test_prefix_beam import EXACT, TOKENS, ids, random_rows

pytestmark = pytest.mark.optional


def flashlight_n_best(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Its hypotheses that end in a blank and those that do not, summed by their sequence."""
    fl = pytest.importorskip("flashlight.lib.text.decoder", reason="needs flashlight-text")
    options = fl.LexiconFreeDecoderOptions(
        beam_size=10**6,
        beam_size_token=log_probs.shape[1],
        beam_threshold=1e6,
        lm_weight=0.0,
        sil_score=0.0,
        log_add=True,
        criterion_type=fl.CriterionType.CTC,
    )
    decoder = fl.LexiconFreeDecoder(options, fl.ZeroLM(), -1, 0, [])
    found: dict[tuple[int, ...], float] = {}
    for result in decoder.decode(log_probs.ctypes.data, *log_probs.shape):
        path = itertools.groupby(result.tokens[1:-1])
        sequence = tuple(symbol for symbol, _ in path if symbol != 0)
        found[sequence] = float(np.logaddexp(found.get(sequence, -math.inf), result.score))
    return found


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("seed", range(4))
def test_the_n_best_agree(rows: int, seed: int) -> None:
    log_probs = random_rows(rows, 3, seed)
    decoder = CtcPrefixBeam(TOKENS[:3], EXACT)
    decoder.step(log_probs)
    expected = flashlight_n_best(log_probs)
    found = {ids(h): h.log_prob for h in decoder.n_best()}
    assert found.keys() == expected.keys()
    assert [found[s] for s in expected] == pytest.approx(list(expected.values()), abs=1e-4)


def flashlight_best(
    log_probs: np.ndarray, letters: list[str], arpa: Path, words: list[str]
) -> tuple[str, float]:
    """Best text of words of the model, each spelled "▁" and its letters; the last column is its silence."""
    fl = pytest.importorskip("flashlight.lib.text.decoder", reason="needs flashlight-text")
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    dictionary, silence = Dictionary(), len(letters)
    for word in (*words, "<unk>"):
        dictionary.add_entry(word)
    unknown = dictionary.get_index("<unk>")
    dictionary.set_default_index(unknown)
    model, trie = KenLM(str(arpa), dictionary), fl.Trie(silence + 1, silence)
    for i, word in enumerate(words):
        spelling = [letters.index(letter) for letter in "▁" + word]
        trie.insert(spelling, i, model.score(model.start(False), i)[1])
    trie.smear(fl.SmearingMode.MAX)
    options = fl.LexiconDecoderOptions(
        beam_size=10**5,
        beam_size_token=silence + 1,
        beam_threshold=1e6,
        lm_weight=0.8 * math.log(10),
        word_score=0.6,
        unk_score=-math.inf,
        sil_score=0.0,
        log_add=True,
        criterion_type=fl.CriterionType.CTC,
    )
    decoder = fl.LexiconDecoder(options, trie, model, silence, 0, unknown, [], False)
    never = np.full((len(log_probs), 1), -1e5, np.float32)
    rows = np.ascontiguousarray(np.concatenate([log_probs, never], axis=1))
    best = decoder.decode(rows.ctypes.data, *rows.shape)[0]
    return " ".join(words[i] for i in best.words if 0 <= i < len(words)), best.score


@pytest.mark.parametrize("seed", range(12))
def test_with_a_model_the_best_of_its_words_agrees(seed: int, tmp_path: Path) -> None:
    letters = ["<blk>", "▁", "a", "b", "c"]
    arpa = tmp_path / "lm.arpa"
    arpa.write_text(ARPA, encoding="utf-8")
    log_probs = random_rows(9, len(letters), seed)
    log_probs[0] = np.float32([-60, 0, -60, -60, -60])  # its texts begin with "▁"
    log_probs[1::2] = np.float32([0, -60, -60, -60, -60])  # its words do not end in a letter of several rows
    weights = {"lm_weight": 0.8, "word_bonus": 0.6, "unknown_score": -math.inf}
    exact = CtcConfig(4096, math.inf, 99, math.inf, lm=NgramLm.load(arpa), **weights)
    decoder = CtcPrefixBeam(letters, exact)
    decoder.step(log_probs)
    decoder.finish()
    best = next(h for h in decoder.n_best() if h.tokens[-1].token != "▁")  # and do not end with it
    expected, score = flashlight_best(log_probs, letters, arpa, ["a", "ab", "c"])
    assert best.text == expected
    assert best.score == pytest.approx(score, abs=1e-3)
