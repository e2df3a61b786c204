"""Rooms: recorded impulse responses, or made-up ones, on a dry recording."""

from __future__ import annotations

import math

import numpy as np

from edge_speech.encoder import FloatArray


def reverberate(waveform: FloatArray, response: FloatArray) -> FloatArray:
    """A waveform (N,) as it sounds in a room with the impulse response (M,): as long, as loud, and in time.

    The direct path, the response's largest sample, is moved to delay 0: words stay where they were.
    """
    direct = int(np.abs(response).argmax())
    wet = convolve(waveform, response)[direct : direct + len(waveform)]
    energy = float(wet @ wet)
    if energy == 0:
        return waveform
    scaled: FloatArray = wet * np.float32(math.sqrt(float(waveform @ waveform) / energy))
    return scaled


def draw_response(
    rng: np.random.Generator, sample_rate: int, rt60_s: tuple[float, float], direct_db: tuple[float, float]
) -> FloatArray:
    """Impulse response (M,) of a room that is not there: direct sound, then noise that dies away.

    Polack's model of late reverberation: white Gaussian noise times exp(-d t) with d = 3 ln(10) / RT60, so
    that the level has fallen by 60 dB after RT60 seconds (J.-D. Polack, "La transmission de l'énergie sonore
    dans les salles", thesis, Le Mans 1988). `direct_db` is the level of the direct sound over all the rest.
    RT60 and this level are drawn evenly from their ranges.
    """
    reverberation_s, over_db = rng.uniform(*rt60_s), rng.uniform(*direct_db)
    time_s = np.arange(1, max(2, round(reverberation_s * sample_rate)), dtype=np.float32) / sample_rate
    tail = rng.standard_normal(len(time_s), dtype=np.float32)
    tail *= np.exp(time_s * np.float32(-3 * math.log(10) / reverberation_s))
    tail *= np.float32(10 ** (-over_db / 20) / max(float(np.linalg.norm(tail)), 1e-9))
    response: FloatArray = np.concatenate((np.ones(1, np.float32), tail))
    return response


def convolve(one: FloatArray, other: FloatArray) -> FloatArray:
    """The full linear convolution (N + M - 1,) of two signals, by FFT."""
    length = len(one) + len(other) - 1
    size = _fast_size(length)
    product = np.fft.rfft(one, size) * np.fft.rfft(other, size)
    convolved: FloatArray = np.fft.irfft(product, size)[:length].astype(np.float32)
    return convolved


def _fast_size(length: int) -> int:
    """The least 2^k, 3 * 2^k or 5 * 2^k from `length` up."""
    return min(odd << max(0, (-(-length // odd) - 1).bit_length()) for odd in (1, 3, 5))
