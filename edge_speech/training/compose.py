"""Join recordings into longer ones, as training and the test strings of the digits example do."""

from __future__ import annotations

import numpy as np

from edge_speech.encoder import FloatArray
from edge_speech.training.recipe import Compose


def compose(rng: np.random.Generator, clips: list[FloatArray], sample_rate: int, how: Compose) -> FloatArray:
    """Join waveforms (samples,) in [-1, 1] at `sample_rate` Hz with random gaps and gains."""
    pieces = [_silence(rng, how.edge_s, sample_rate)]
    for i, clip in enumerate(clips):
        if i and rng.random() >= how.gapless:
            pieces.append(_silence(rng, how.gap_s, sample_rate))
        pieces.append(clip * np.float32(10 ** (rng.uniform(-how.gain_db, how.gain_db) / 20)))
    pieces.append(_silence(rng, how.edge_s, sample_rate))
    return np.concatenate(pieces)


def _silence(rng: np.random.Generator, longest_s: float, sample_rate: int) -> FloatArray:
    return np.zeros(int(rng.uniform(0, longest_s) * sample_rate), np.float32)
