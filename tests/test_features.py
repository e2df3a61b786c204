"""The front end against torchaudio and kaldi-native-fbank on real speech, and however the waveform is cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from edge_speech.errors import InputError
from edge_speech.features import (
    FbankConfig,
    FloatArray,
    OnlineFbank,
    Resampler,
    frontend_from_dict,
    frontend_to_dict,
)

# In natural log units. Single precision errs by more in mel bins far below the loudest of a frame (torchaudio
# in single differs from itself in double by up to 3e-3), so torchaudio computes in double here.
# kaldi-native-fbank cannot, so a few of its values may lie further off.
TOLERANCE = 1e-3
DOUBLE_TOLERANCE = 2e-5  # to torchaudio, all in double
FLOOR = np.log(np.finfo(np.float32).eps)


def fbank(
    samples: Any, config: FbankConfig, cuts: list[int] | None = None, sample_rate: int = 0
) -> FloatArray:
    """Frames (T, F) of a whole waveform, cut at the given sample numbers and read after every piece."""
    online = OnlineFbank(config)
    frames = []
    for piece in np.split(samples, cuts or []):
        online.accept_waveform(piece, sample_rate or config.sample_rate)
        frames.append(online.read())
    online.input_finished()
    return np.concatenate([*frames, online.read()])


def torchaudio_fbank(samples: FloatArray, config: FbankConfig) -> FloatArray:
    return oracles.torchaudio_fbank(samples.astype(np.float64), config)


def speech() -> FloatArray:
    """A real recording (N,). Taken at a rate above its own it is fast speech that fills the spectrum."""
    return oracles.read_clip(oracles.CLIPS[0])[0]


@pytest.mark.parametrize("clip", oracles.CLIPS, ids=lambda clip: clip.stem)
@pytest.mark.parametrize("snip_edges", [False, True])
@pytest.mark.parametrize("window", ["povey", "hamming"])
@pytest.mark.parametrize("sample_rate", [0, 16000])
def test_equals_oracles_on_speech(clip: Path, snip_edges: bool, window: str, sample_rate: int) -> None:
    """At the clip's own rate (0), and with its samples taken as 16 kHz."""
    samples, clip_rate = oracles.read_clip(clip)
    config = FbankConfig(sample_rate=sample_rate or clip_rate, snip_edges=snip_edges, window=window)
    frames = fbank(samples, config)
    assert frames.dtype == np.float32
    assert len(frames) > 50
    np.testing.assert_allclose(frames, torchaudio_fbank(samples, config), rtol=0, atol=DOUBLE_TOLERANCE)
    difference = np.abs(frames - oracles.knf_fbank(samples, config))
    assert np.mean(difference > TOLERANCE) < 1e-3
    assert difference.max() < 0.02


@pytest.mark.parametrize("clip", oracles.CLIPS, ids=lambda clip: clip.stem)
def test_energies_are_within_1e_4_of_torchaudio(clip: Path) -> None:
    samples, sample_rate = oracles.read_clip(clip)
    config = FbankConfig(sample_rate=sample_rate)
    ours, theirs = fbank(samples, config).astype(np.float64), torchaudio_fbank(samples, config)
    assert np.abs(np.expm1(ours - theirs)).max() < 1e-4


CONFIGS = [
    *[FbankConfig(num_mel_bins=bins) for bins in (23, 40, 128)],
    *[FbankConfig(sample_rate=8000, num_mel_bins=bins) for bins in (23, 40, 80)],
    FbankConfig(sample_rate=44100, snip_edges=True),
    FbankConfig(preemphasis=0.0),
    FbankConfig(remove_dc_offset=False),
    FbankConfig(low_freq_hz=0.0, high_freq_hz=-400.0),
    FbankConfig(high_freq_hz=7600.0),
    FbankConfig(frame_length_ms=32.0, frame_shift_ms=8.0),
    FbankConfig(frame_length_ms=20.1, frame_shift_ms=12.6, snip_edges=True),
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_equals_torchaudio_for_every_option(config: FbankConfig) -> None:
    samples = speech()
    np.testing.assert_allclose(
        fbank(samples, config), torchaudio_fbank(samples, config), rtol=0, atol=DOUBLE_TOLERANCE
    )


@pytest.mark.parametrize("n", [0, 1, 79, 80, 81, 119, 199, 200, 201, 279, 280, 281, 399, 400, 401, 560, 1000])
@pytest.mark.parametrize("snip_edges", [False, True])
def test_short_waveforms_equal_kaldi(n: int, snip_edges: bool) -> None:
    config = FbankConfig(snip_edges=snip_edges)
    samples = speech()[8000 : 8000 + n]
    frames = fbank(samples, config)
    expected = oracles.knf_fbank(samples, config)
    assert frames.shape == expected.shape
    np.testing.assert_allclose(frames, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("chunk", [1, 7, 160, 1600, 16001])
@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100])
@pytest.mark.parametrize("snip_edges", [False, True])
def test_chunking_is_bit_identical(chunk: int, sample_rate: int, snip_edges: bool) -> None:
    samples = speech()[:40000]
    config = FbankConfig(snip_edges=snip_edges)
    whole = fbank(samples, config, sample_rate=sample_rate)
    assert np.array_equal(fbank(samples, config, list(range(chunk, len(samples), chunk)), sample_rate), whole)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 6000),
    cuts=st.lists(st.integers(0, 6000), max_size=12),
    sample_rate=st.sampled_from([8000, 11025, 16000, 48000]),
    snip_edges=st.booleans(),
    dither=st.sampled_from([0.0, 1.0]),
)
def test_any_chunking_is_bit_identical(
    n: int, cuts: list[int], sample_rate: int, snip_edges: bool, dither: float
) -> None:
    samples = speech()[4000 : 4000 + n]
    config = FbankConfig(snip_edges=snip_edges, dither=dither)
    whole = fbank(samples, config, sample_rate=sample_rate)
    assert np.array_equal(fbank(samples, config, sorted(cuts), sample_rate), whole)


def test_frames_come_as_soon_as_their_samples_are_in() -> None:
    online = OnlineFbank(FbankConfig(snip_edges=False))
    online.accept_waveform(np.zeros(279, np.float32), 16000)
    assert len(online.read()) == 0
    online.accept_waveform(np.zeros(1, np.float32), 16000)
    assert len(online.read()) == 1


def test_silence_is_the_floor() -> None:
    frames = fbank(np.zeros(1600, np.float32), FbankConfig())
    np.testing.assert_allclose(frames, np.full((10, 80), FLOOR), rtol=1e-6)


def test_int16_equals_float() -> None:
    pcm = np.round(speech() * 32767).astype(np.int16)
    as_float = pcm.astype(np.float32) / 32768
    assert np.array_equal(fbank(pcm, FbankConfig()), fbank(as_float, FbankConfig()))


def test_other_rates_are_resampled() -> None:
    """Below 7 kHz, features of resampled speech equal those of the same speech at the front end's rate."""
    config = FbankConfig(high_freq_hz=7000.0)
    samples = speech()
    frames = fbank(soxr.resample(samples, 16000, 48000, "VHQ"), config, sample_rate=48000)
    expected = fbank(samples, config)
    assert frames.shape == expected.shape
    assert np.percentile(np.abs(frames - expected), 99) < 0.01


def test_dither_is_noise_of_its_size_and_repeats_after_reset() -> None:
    online = OnlineFbank(FbankConfig(dither=2.0, preemphasis=0.0, window="hamming"))
    runs = []
    for _ in range(2):
        online.accept_waveform(np.zeros(160000, np.float32), 16000)
        runs.append(online.read())
        online.reset()
    assert np.array_equal(runs[0], runs[1])
    noise = np.random.default_rng(0).normal(0.0, 2.0 / 32768, 160000).astype(np.float32)
    expected = fbank(noise, replace(online.config, dither=0.0))
    np.testing.assert_allclose(np.exp(runs[0]).mean(0), np.exp(expected).mean(0), rtol=0.25)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.array([0.0, np.nan], np.float32), "NaN or infinity"),
        (np.array([-np.inf], np.float32), "NaN or infinity"),
        (np.zeros((2, 100), np.float32), "shape (2, 100)"),
        (np.zeros(4, np.int32), "int32"),
        (np.zeros(4, np.complex64), "complex64"),
        ("speech", "shape ()"),
    ],
)
@pytest.mark.parametrize("sample_rate", [16000, 8000])
def test_bad_samples_are_refused_and_leave_no_trace(samples: Any, said: str, sample_rate: int) -> None:
    good = speech()[:3200]
    online = OnlineFbank()
    online.accept_waveform(good[:1000], sample_rate)
    with pytest.raises(InputError) as raised:
        online.accept_waveform(samples, sample_rate)
    assert said in str(raised.value)
    assert "allowed" in str(raised.value)
    online.accept_waveform(good[1000:], sample_rate)
    online.input_finished()
    assert np.array_equal(online.read(), fbank(good, FbankConfig(), sample_rate=sample_rate))


@pytest.mark.parametrize("sample_rate", [16000, 8000])
def test_order_of_calls(sample_rate: int) -> None:
    online = OnlineFbank()
    good = speech()[:3200]
    online.accept_waveform(good, sample_rate)
    with pytest.raises(InputError, match="sample_rate is 44100, was"):
        online.accept_waveform(good, 44100)
    online.input_finished()
    online.input_finished()
    with pytest.raises(InputError, match="reset"):
        online.accept_waveform(good, sample_rate)
    first = online.read()
    online.reset()
    online.accept_waveform(good, sample_rate)
    online.input_finished()
    assert np.array_equal(online.read(), first)


@pytest.mark.parametrize("sample_rate", [0, -1, 3999, 192001, 1 << 40, "16000"])
def test_odd_rates_are_refused(sample_rate: Any) -> None:
    with pytest.raises(InputError, match=str(sample_rate)):
        OnlineFbank().accept_waveform(np.zeros(10, np.float32), sample_rate)
    with pytest.raises(InputError, match=str(sample_rate)):
        Resampler(16000, sample_rate)


BAD_FIELDS: list[tuple[str, Any]] = [
    ("sample_rate", 1000),
    ("sample_rate", 1 << 40),
    ("sample_rate", 16000.0),
    ("num_mel_bins", 0),
    ("num_mel_bins", True),
    ("frame_length_ms", float("nan")),
    ("frame_shift_ms", 0),
    ("window", "hann"),
    ("preemphasis", 2.0),
    ("snip_edges", 1),
    ("low_freq_hz", 9000.0),
    ("high_freq_hz", 10.0),
    ("dither", -1.0),
    ("colour", "blue"),
    ("type", "ears"),
]


@pytest.mark.parametrize(("name", "value"), BAD_FIELDS)
def test_bad_frontends_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError) as raised:
        frontend_from_dict({"type": "fbank", name: value})
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_frontend_round_trip() -> None:
    config = FbankConfig(sample_rate=8000, window="hamming", low_freq_hz=60.0)
    assert frontend_from_dict(frontend_to_dict(config)) == config
    assert frontend_from_dict({"type": "fbank", "low_freq_hz": 60}) == FbankConfig(low_freq_hz=60.0)
    with pytest.raises(InputError, match="frontend"):
        frontend_from_dict([])  # type: ignore[arg-type]
