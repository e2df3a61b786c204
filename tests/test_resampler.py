"""The resampler against soxr, scipy and closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

import oracles
from edge_speech.errors import InputError
from edge_speech.features import FloatArray, Resampler

PAIRS = [
    (8000, 16000),
    (11025, 16000),
    (15999, 16000),
    (22050, 16000),
    (44100, 16000),
    (44101, 16000),
    (48000, 16000),
    (96000, 16000),
    (192000, 4000),
    (16000, 44100),
    (4000, 192000),
]


def resample(samples: FloatArray, in_hz: int, out_hz: int, cuts: list[int] | None = None) -> FloatArray:
    resampler = Resampler(in_hz, out_hz)
    return np.concatenate([*map(resampler.process, np.split(samples, cuts or [])), resampler.flush()])


def db(error: FloatArray, reference: FloatArray) -> float:
    return float(10 * np.log10(np.mean(np.square(error)) / np.mean(np.square(reference))))


def tones(rate_hz: int, frequencies_hz: FloatArray) -> FloatArray:
    """One second of tones with smooth ends, so that its spectrum stays near the tones."""
    time_s = np.arange(rate_hz) / rate_hz
    waves = np.cos(2 * np.pi * frequencies_hz[:, None] * time_s + np.arange(len(frequencies_hz))[:, None])
    return (np.sin(np.pi * time_s) ** 4 * waves.sum(0) / len(frequencies_hz)).astype(np.float32)


@pytest.mark.parametrize(("in_hz", "out_hz"), PAIRS)
def test_passband_is_exact_and_aligned(in_hz: int, out_hz: int) -> None:
    """Tones up to 0.89 of the lower Nyquist frequency come out as the same tones sampled at out_hz."""
    frequencies = np.array([0.01, 0.1, 0.3, 0.5, 0.7, 0.8, 0.89]) * min(in_hz, out_hz) / 2
    expected = tones(out_hz, frequencies)
    assert db(resample(tones(in_hz, frequencies), in_hz, out_hz) - expected, expected) < -90


@pytest.mark.parametrize(("in_hz", "out_hz"), [pair for pair in PAIRS if pair[0] > pair[1]])
def test_stopband(in_hz: int, out_hz: int) -> None:
    """Tones from just above the output's Nyquist frequency upwards do not alias."""
    for ratio in (1.01, 1.1, 1.3, in_hz / out_hz * 0.97):
        if ratio * out_hz < in_hz:
            tone = tones(in_hz, np.array([ratio * out_hz / 2]))
            assert db(resample(tone, in_hz, out_hz), tone) < -85


@pytest.mark.parametrize(("in_hz", "out_hz"), [pair for pair in PAIRS if pair[0] < pair[1]])
def test_images(in_hz: int, out_hz: int) -> None:
    """Nothing appears above the input's Nyquist frequency."""
    tone = tones(in_hz, np.array([0.3, 0.85]) * in_hz / 2)
    spectrum = np.abs(np.fft.rfft(resample(tone, in_hz, out_hz).astype(np.float64))) ** 2
    above = spectrum[in_hz // 2 :]  # one bin is 1 Hz
    assert 10 * np.log10(above.sum() / spectrum.sum() + 1e-30) < -85


@pytest.mark.parametrize("clip", oracles.CLIPS, ids=lambda clip: clip.stem)
def test_equals_soxr_and_scipy_on_speech(clip: Path) -> None:
    """Speech within the common passband, from six times its rate down to twice its rate."""
    samples, clip_hz = oracles.read_clip(clip)
    narrow = soxr.resample(soxr.resample(samples, clip_hz, clip_hz * 7 / 8, "VHQ"), 7, 48, "VHQ")
    ours = resample(narrow, 48000, 16000)
    theirs = soxr.resample(narrow, 48000, 16000, "VHQ")
    inner = slice(400, min(len(ours), len(theirs)) - 400)
    assert db(ours[inner] - theirs[inner], theirs[inner]) < -75
    poly = resample_poly(narrow.astype(np.float64), 1, 3, window=("kaiser", 12.0))
    assert db(ours[inner] - poly[inner], poly[inner]) < -40  # scipy's filter is short: a wide transition


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(0, 3000),
    cuts=st.lists(st.integers(0, 3000), max_size=10),
    in_hz=st.one_of(st.sampled_from([8000, 44100, 48000]), st.integers(4000, 192000)),
    out_hz=st.one_of(st.just(16000), st.integers(4000, 192000)),
)
def test_length_and_any_chunking(n: int, cuts: list[int], in_hz: int, out_hz: int) -> None:
    samples = np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32)
    whole = resample(samples, in_hz, out_hz)
    assert len(whole) == -(-n * out_hz // in_hz)
    assert np.array_equal(resample(samples, in_hz, out_hz, sorted(cuts)), whole)


def test_equal_rates_copy() -> None:
    samples = np.linspace(-1, 1, 1001, dtype=np.float32)
    assert np.array_equal(resample(samples, 22050, 22050, [10, 500]), samples)


def test_flush_then_reset() -> None:
    resampler = Resampler(44100, 16000)
    samples = tones(44100, np.array([440.0]))
    first = np.concatenate([resampler.process(samples), resampler.flush()])
    assert len(resampler.flush()) == 0
    with pytest.raises(InputError, match="reset"):
        resampler.process(samples)
    resampler.reset()
    assert np.array_equal(np.concatenate([resampler.process(samples), resampler.flush()]), first)
