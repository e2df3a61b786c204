"""CTC prefix beam search against flashlight-text, where both keep every hypothesis."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from edge_speech.ctc import CtcPrefixBeam
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
