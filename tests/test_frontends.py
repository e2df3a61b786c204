"""MFCC and log_mel against torchaudio on real speech, however the waveform is cut, and in the stream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from edge_speech.errors import InputError
from edge_speech.features import (
    FbankConfig,
    FloatArray,
    FrontendConfig,
    LogMelConfig,
    MfccConfig,
    OnlineFrontend,
    frontend_from_dict,
    frontend_to_dict,
)
from edge_speech.recognizer import Recognizer
from tiny import SPEC, TOKENS, TinyEncoder, speech_like

SLIDING: dict[str, Any] = {"normalization": "sliding", "sliding_frames": 50, "sliding_min_frames": 20}
CONFIGS: list[FrontendConfig] = [
    FbankConfig(),
    MfccConfig(),
    MfccConfig(delta_order=2, **SLIDING),
    MfccConfig(snip_edges=True, dither=1.0, use_energy=False, delta_order=1, delta_window=3),
    MfccConfig(normalization="fixed", feature_mean=(2.0,), feature_std=(3.0,)),
    LogMelConfig.whisper(),
    LogMelConfig.nemo(),
    LogMelConfig.librosa(16000, 40, 512),
    LogMelConfig(padding="zero", keep_last_frame=True, **SLIDING),
    LogMelConfig(keep_last_frame=True, frame_length_ms=20.0625, frame_shift_ms=3.0, preemphasis=0.5),
    FbankConfig(extra_features=("spectral_contrast", "chroma")),
    MfccConfig(extra_features=("chroma", "spectral_contrast"), delta_order=2, **SLIDING),
    LogMelConfig(
        extra_features=("spectral_contrast",), normalization="fixed", feature_mean=(1.0,), feature_std=(2.0,)
    ),
]


def run(samples: FloatArray, config: FrontendConfig, cuts: list[int] | None = None) -> FloatArray:
    """Frames (T, F) of a whole waveform, cut at the given sample numbers and read after every piece."""
    online = OnlineFrontend(config)
    frames = []
    for piece in np.split(samples, cuts or []):
        online.accept_waveform(piece, config.sample_rate)
        frames.append(online.read())
    online.input_finished()
    return np.concatenate([*frames, online.read()])


def speech(n: int = 40000) -> FloatArray:
    return oracles.read_clip(oracles.CLIPS[0])[0][:n]


@pytest.mark.parametrize("clip", oracles.CLIPS, ids=lambda clip: clip.stem)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_energy": False},
        {"raw_energy": False, "energy_floor": 1e9},
        {"num_ceps": 20, "num_mel_bins": 40, "cepstral_lifter": 0.0, "snip_edges": True, "window": "hamming"},
    ],
    ids=str,
)
def test_mfcc_equals_torchaudio(clip: Path, options: dict[str, Any]) -> None:
    samples, sample_rate = oracles.read_clip(clip)
    config = MfccConfig(sample_rate=sample_rate, **options)
    expected = oracles.torchaudio_mfcc(samples.astype(np.float64), config)
    frames = run(samples, config)
    assert frames.shape[1] == config.num_features
    np.testing.assert_allclose(frames, expected, rtol=0, atol=1e-4)


def test_deltas_equal_torchaudio_away_from_the_ends() -> None:
    """Kaldi repeats the features beyond the ends, torchaudio the differences: second order differs."""
    config = MfccConfig(delta_order=2)
    frames = run(speech(), config)
    base = torch.from_numpy(run(speech(), replace(config, delta_order=0)).T.astype(np.float64))
    compute_deltas = oracles.torchaudio_functional().compute_deltas
    first = compute_deltas(base)
    second = compute_deltas(first)
    np.testing.assert_allclose(frames[:, :13], base.T, rtol=0, atol=0)
    np.testing.assert_allclose(frames[:, 13:26], first.T, rtol=0, atol=1e-5)
    np.testing.assert_allclose(frames[4:-4, 26:], second.T[4:-4], rtol=0, atol=1e-5)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 80, 400, 1000, 8000])
def test_deltas_repeat_the_first_and_last_frame(order: int, n: int) -> None:
    """Kaldi's definition: differences of the sequence extended far enough at both ends."""
    config = MfccConfig(delta_order=order)
    frames, base = run(speech(n), config), run(speech(n), MfccConfig()).astype(np.float64)
    assert frames.shape == (len(base), 13 * (order + 1))
    if not len(base):
        return
    reach = 2 * order
    extended = np.pad(base, ((reach, reach), (0, 0)), mode="edge")
    kernel = np.arange(-2, 3) / 10
    for k in range(1, order + 1):
        extended = np.apply_along_axis(lambda x: np.correlate(x, kernel, "valid"), 0, extended)
        middle = extended[reach - 2 * k : reach - 2 * k + len(base)]
        np.testing.assert_allclose(frames[:, 13 * k : 13 * (k + 1)], middle, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize(("frames", "least"), [(600, 100), (30, 10), (20, 1)])
@pytest.mark.parametrize("n", [100, 1600, 40000])
def test_sliding_normalization_equals_torchaudio(variance: bool, frames: int, least: int, n: int) -> None:
    config = MfccConfig(
        normalization="sliding", sliding_frames=frames, sliding_min_frames=least, sliding_variance=variance
    )
    samples = speech()[4000 : 4000 + n]  # not from digital silence, whose variance torchaudio divides by
    base = run(samples, MfccConfig()).astype(np.float64)
    normalize = oracles.torchaudio_functional().sliding_window_cmn
    expected = (
        normalize(torch.from_numpy(base), frames, least, norm_vars=variance).numpy().reshape(base.shape)
    )
    np.testing.assert_allclose(run(samples, config), expected, rtol=0, atol=1e-4)


def test_fixed_normalization() -> None:
    mean, std = tuple(map(float, range(13))), tuple(map(float, range(1, 14)))
    frames = run(speech(), MfccConfig(normalization="fixed", feature_mean=mean, feature_std=std))
    expected = (run(speech(), MfccConfig()).astype(np.float64) - mean) / std
    np.testing.assert_allclose(frames, expected, rtol=1e-6, atol=1e-6)


LOG_MELS = {
    "librosa": LogMelConfig.librosa(16000),
    "librosa-8k": LogMelConfig.librosa(8000, 40, 256),
    "reflect": LogMelConfig(padding="reflect", keep_last_frame=True),
    "band": LogMelConfig(low_freq_hz=60.0, high_freq_hz=-400.0, num_mel_bins=23, fft_size=640),
}


@pytest.mark.parametrize("clip", oracles.CLIPS[:6], ids=lambda clip: clip.stem)
@pytest.mark.parametrize("config", LOG_MELS.values(), ids=LOG_MELS)
def test_log_mel_equals_torchaudio(clip: Path, config: LogMelConfig) -> None:
    samples, _ = oracles.read_clip(clip)
    energies = oracles.mel_energies(samples.astype(np.float64), config)
    if not config.keep_last_frame:
        energies = energies[:-1]
    log = np.log if config.log == "natural" else np.log10
    frames = run(samples, config)
    assert frames.shape == energies.shape
    np.testing.assert_allclose(frames, log(np.maximum(energies, config.log_floor)), rtol=0, atol=2e-5)


@pytest.mark.parametrize("num_mel_bins", [80, 128])
def test_whisper_is_its_definition(num_mel_bins: int) -> None:
    """whisper/audio.py, log_mel_spectrogram, without the step that needs the recording's loudest value."""
    samples = speech()
    config = LogMelConfig.whisper(num_mel_bins)
    energies = oracles.mel_energies(samples.astype(np.float64), config)[:-1]
    expected = (np.log10(np.maximum(energies, 1e-10)) + 4.0) / 4.0
    np.testing.assert_allclose(run(samples, config), expected, rtol=0, atol=1e-5)


def test_nemo_is_its_definition() -> None:
    """nemo/collections/asr/parts/preprocessing/features.py, FilterbankFeatures."""
    samples, config = speech(), LogMelConfig.nemo()
    emphasised = np.concatenate([samples[:1], samples[1:] - np.float32(0.97) * samples[:-1]])
    energies = oracles.mel_energies(emphasised.astype(np.float64), config)[:-1]
    np.testing.assert_allclose(run(samples, config), np.log(energies + 2.0**-24), rtol=0, atol=2e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("chunk", [1, 7, 160, 1600, 16001])
def test_chunking_is_bit_identical(config: FrontendConfig, chunk: int) -> None:
    samples = speech(8000 if chunk == 1 else 40000)
    whole = run(samples, config)
    assert np.array_equal(run(samples, config, list(range(chunk, len(samples), chunk))), whole)


@settings(max_examples=80, deadline=None)
@given(
    config=st.sampled_from(CONFIGS), n=st.integers(0, 3000), cuts=st.lists(st.integers(0, 3000), max_size=12)
)
def test_any_chunking_is_bit_identical(config: FrontendConfig, n: int, cuts: list[int]) -> None:
    samples = speech()[4000 : 4000 + n]
    assert np.array_equal(run(samples, config, sorted(cuts)), run(samples, config))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_reset_forgets_everything(config: FrontendConfig) -> None:
    online = OnlineFrontend(config)
    online.accept_waveform(speech(5000), 16000)
    online.read()
    online.reset()
    online.accept_waveform(speech(), 16000)
    online.input_finished()
    assert np.array_equal(online.read(), run(speech(), config))


@pytest.mark.parametrize("padding", ["reflect", "zero"])
@pytest.mark.parametrize("n", [201, 202, 399, 400, 401, 600])
def test_short_waveforms_reflect_as_torch_does(padding: str, n: int) -> None:
    config = LogMelConfig(padding=padding, keep_last_frame=True)
    expected = oracles.mel_energies(speech(n).astype(np.float64), config)
    np.testing.assert_allclose(
        run(speech(n), config), np.log10(np.maximum(expected, 1e-10)), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("n", [0, 1, 2, 159, 160, 200])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_very_short_waveforms_are_finite(config: FrontendConfig, n: int) -> None:
    frames = run(speech(n), config)
    assert frames.shape[1] == config.num_features
    assert np.isfinite(frames).all()
    if isinstance(config, LogMelConfig) and config.frame_shift_ms == 10.0:
        assert len(frames) == (0 if n == 0 else n // 160 + config.keep_last_frame)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_round_trip(config: FrontendConfig) -> None:
    assert frontend_from_dict(frontend_to_dict(config)) == config


BAD: list[tuple[str, str, Any]] = [
    ("mfcc", "num_ceps", 24),
    ("mfcc", "num_ceps", 0),
    ("mfcc", "num_mel_bins", 0),
    ("mfcc", "cepstral_lifter", -1.0),
    ("mfcc", "energy_floor", float("nan")),
    ("mfcc", "delta_order", 5),
    ("mfcc", "delta_window", 0),
    ("mfcc", "normalization", "per_feature"),
    ("mfcc", "fft_size", 512),
    ("log_mel", "normalization", "per_feature"),
    ("log_mel", "fft_size", 399),
    ("log_mel", "fft_size", 200),
    ("log_mel", "fft_size", 1 << 30),
    ("log_mel", "fft_size", -400),
    ("log_mel", "padding", "mirror"),
    ("log_mel", "log", "ln"),
    ("log_mel", "log_floor", 0.0),
    ("log_mel", "log_guard", -1.0),
    ("log_mel", "num_mel_bins", 1025),
    ("log_mel", "sample_rate", 1000),
    ("log_mel", "preemphasis", "much"),
    ("log_mel", "low_freq_hz", float("nan")),
    ("log_mel", "feature_mean", "zero"),
    ("log_mel", "feature_mean", ["zero"]),
]


@pytest.mark.parametrize(("kind", "name", "value"), BAD)
def test_bad_configurations_are_refused(kind: str, name: str, value: Any) -> None:
    with pytest.raises(InputError) as raised:
        frontend_from_dict({"type": kind, name: value})
    assert name in str(raised.value)
    assert "allowed" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"feature_mean": [0.0, 1.0], "feature_std": [1.0]},
        {"feature_mean": [0.0], "feature_std": [0.0]},
        {"feature_mean": [float("nan")], "feature_std": [1.0]},
        {"feature_mean": [0.0], "feature_std": [1e-164]},
        {"feature_mean": [1e300], "feature_std": [1.0]},
        {"feature_mean": [0.0]},
    ],
)
def test_wrong_statistics_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="feature_"):
        frontend_from_dict({"type": "mfcc", "normalization": "fixed", **wrong})


STREAMED: list[FrontendConfig] = [
    MfccConfig(num_ceps=SPEC.num_features // 2, delta_order=1, **SLIDING),
    replace(LogMelConfig.nemo(SPEC.num_features), preemphasis=0.9),
    FbankConfig(num_mel_bins=SPEC.num_features - 12, extra_features=("chroma",)),
]


@pytest.mark.parametrize("config", STREAMED, ids=str)
def test_the_stream_runs_every_front_end_in_any_cutting(config: FrontendConfig) -> None:
    waveform = speech_like(2)
    recognizer = Recognizer(TinyEncoder(), config, TOKENS)
    runs = []
    for chunk in (len(waveform), 777):
        stream = recognizer.create_stream(keep_log_probs=True)
        for start in range(0, len(waveform), chunk):
            stream.accept_waveform(waveform[start : start + chunk], 16000)
        stream.input_finished()
        runs.append((stream.log_probs(), stream.result))
    assert np.array_equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    frames = len(run(waveform, config))
    assert len(runs[0][0]) == -(-frames // SPEC.subsampling_factor)
    assert all(0.0 <= token.start_s <= token.end_s <= 2.0 for token in runs[0][1].tokens)
