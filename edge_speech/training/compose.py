"""Join recordings into longer ones, as training and the test strings of the digits example do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_speech.encoder import FloatArray
from edge_speech.training.augment import rms
from edge_speech.training.recipe import Compose

# Of the stretches around a recording so many are speech; the others are silent.
SPEECH_AROUND = 0.75
# Speech around a recording is as loud as it, up to so many decibels either way.
AROUND_DB = 6.0


def compose(rng: np.random.Generator, clips: list[FloatArray], sample_rate: int, how: Compose) -> FloatArray:
    """Join waveforms (samples,) in [-1, 1] at `sample_rate` Hz with random gaps and gains."""
    pieces = [_silence(rng, how.edge_s, sample_rate)]
    for i, clip in enumerate(clips):
        if i and rng.random() >= how.gapless:
            pieces.append(_silence(rng, how.gap_s, sample_rate))
        pieces.append(clip * np.float32(10 ** (rng.uniform(-how.gain_db, how.gain_db) / 20)))
    pieces.append(_silence(rng, how.edge_s, sample_rate))
    return np.concatenate(pieces)


def surround(
    rng: np.random.Generator, clip: FloatArray, counts: tuple[int, int], speech: Callable[[], FloatArray]
) -> FloatArray:
    """The clip (samples,) between two stretches of `counts` (least, most) samples.

    A stretch is silence, or part of a recording that `speech` draws, brought to about the level of the clip:
    all of the recording where it is shorter. Each side is drawn by itself, so there may be speech before the
    clip, after it, both or neither.
    """
    before, after = (_around(rng, clip, counts, speech) for _ in range(2))
    return np.concatenate([before, clip, after])


def _around(
    rng: np.random.Generator, clip: FloatArray, counts: tuple[int, int], speech: Callable[[], FloatArray]
) -> FloatArray:
    count = int(rng.integers(counts[0], counts[1] + 1))
    if rng.random() >= SPEECH_AROUND:
        return np.zeros(count, np.float32)
    spoken = speech()
    start = int(rng.integers(max(1, len(spoken) - count + 1)))
    gain = rms(clip) / max(rms(spoken), 1e-6) * 10 ** (rng.uniform(-AROUND_DB, AROUND_DB) / 20)
    part: FloatArray = spoken[start : start + count] * np.float32(gain)
    return part


def _silence(rng: np.random.Generator, longest_s: float, sample_rate: int) -> FloatArray:
    return np.zeros(int(rng.uniform(0, longest_s) * sample_rate), np.float32)
