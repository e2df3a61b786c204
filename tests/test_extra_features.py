"""Spectral contrast and chroma against librosa on real speech, and beside every front end's own features."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import librosa_oracle
import oracles
from edge_speech.errors import InputError
from edge_speech.features import (
    FbankConfig,
    FloatArray,
    FrontendConfig,
    LogMelConfig,
    MfccConfig,
    features_of,
    frontend_from_dict,
    frontend_to_dict,
)

BOTH = ("spectral_contrast", "chroma")
CONFIGS: list[FrontendConfig] = [
    FbankConfig(extra_features=BOTH),
    FbankConfig(extra_features=("chroma",), window="hamming", snip_edges=True, chroma_tuning=0.3),
    FbankConfig(extra_features=("spectral_contrast",), frame_length_ms=100.0, remove_dc_offset=False),
    FbankConfig(extra_features=BOTH, sample_rate=8000, contrast_bands=5),
    FbankConfig(extra_features=BOTH, sample_rate=44100, contrast_bands=7),
    MfccConfig(extra_features=("chroma", "spectral_contrast"), contrast_bands=4),
    MfccConfig(extra_features=BOTH, use_energy=False, preemphasis=0.0),
    LogMelConfig(extra_features=BOTH),
    replace(LogMelConfig.nemo(), extra_features=BOTH, contrast_bands=1, chroma_tuning=-0.5),
    replace(LogMelConfig.librosa(22050), extra_features=BOTH),
    replace(LogMelConfig.librosa(16000, 40, 512), extra_features=("chroma", "spectral_contrast")),
    LogMelConfig(extra_features=BOTH, fft_size=640, frame_length_ms=32.0, frame_shift_ms=8.0),
]


def speech(clip: Path = oracles.CLIPS[0]) -> FloatArray:
    return oracles.read_clip(clip)[0]


def extras_of(samples: FloatArray, config: FrontendConfig) -> FloatArray:
    """The last columns of the frames: (T, E)."""
    return features_of(samples, config)[:, -config.num_extra_features :]


def assert_close(extras: FloatArray, expected: FloatArray) -> None:
    assert extras.shape == expected.shape
    np.testing.assert_allclose(extras, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("clip", oracles.CLIPS, ids=lambda clip: clip.stem)
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_equals_librosa_on_speech(clip: Path, config: FrontendConfig) -> None:
    assert_close(extras_of(speech(clip), config), librosa_oracle.extra_features(speech(clip), config))


@pytest.mark.parametrize("clip", oracles.CLIPS, ids=lambda clip: clip.stem)
def test_only_what_is_80_db_below_the_loudest_differs_from_librosas_defaults(clip: Path) -> None:
    """A stream does not know the recording's loudest value: librosa's clipping is left out."""
    config = LogMelConfig(extra_features=("spectral_contrast",))
    expected = librosa_oracle.spectral_contrast(speech(clip), config, top_db=80.0)
    magnitudes = librosa_oracle.magnitudes(speech(clip), config)
    unclipped = magnitudes.min(axis=1) > 1e-8 * magnitudes.max()
    assert unclipped.sum() > 50
    assert_close(extras_of(speech(clip), config)[unclipped], expected[unclipped])


def test_silence_has_no_contrast_and_no_pitch() -> None:
    for config in (FbankConfig(extra_features=BOTH), LogMelConfig(extra_features=BOTH)):
        assert not extras_of(np.zeros(4000, np.float32), config).any()


def test_a_tone_has_its_pitch_class_and_moves_with_the_tuning() -> None:
    """440 Hz is A, the tenth class from C; tuned half a semitone up it lies between A and G sharp."""
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
    config = FbankConfig(extra_features=("chroma",), frame_length_ms=250.0)
    middle = extras_of(tone, config)[40:60]
    assert (middle.argmax(axis=1) == 9).all()
    assert (middle[:, 8] < 0.5).all()
    between = extras_of(tone, replace(config, chroma_tuning=0.5))[40:60]
    np.testing.assert_allclose(between[:, 8], between[:, 9], rtol=0.05)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_loudness_changes_neither(config: FrontendConfig) -> None:
    samples = speech()[4000:12000]  # a stretch without digital silence
    quieter = extras_of(samples * np.float32(0.25), config)
    np.testing.assert_allclose(quieter, extras_of(samples, config), rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_other_features_are_as_without(config: FrontendConfig) -> None:
    plain = features_of(speech(), replace(config, extra_features=()))
    assert np.array_equal(features_of(speech(), config)[:, : plain.shape[1]], plain)


def test_normalisation_and_differences_are_of_the_extra_features_too() -> None:
    plain = MfccConfig(extra_features=BOTH)
    frames = features_of(speech(), plain).astype(np.float64)
    mean, std = frames.mean(axis=0), frames.std(axis=0)
    config = replace(
        plain, delta_order=1, normalization="fixed", feature_mean=tuple(mean), feature_std=tuple(std)
    )
    normalised = (frames - mean) / std
    padded = np.pad(normalised, ((2, 2), (0, 0)), mode="edge")
    n = len(frames)
    first = sum(j * padded[2 + j : 2 + j + n] for j in range(-2, 3)) / 10
    assert config.num_features == 2 * (13 + 7 + 12)
    np.testing.assert_allclose(
        features_of(speech(), config), np.hstack([normalised, first]), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_round_trip_through_json(config: FrontendConfig) -> None:
    written = json.loads(json.dumps(frontend_to_dict(config)))
    assert written["extra_features"] == list(config.extra_features)
    assert frontend_from_dict(written) == config


BAD: list[tuple[dict[str, Any], str]] = [
    ({"extra_features": ["tempo"]}, "tempo"),
    ({"extra_features": ["chroma", "chroma"]}, "twice"),
    ({"extra_features": "chroma"}, "extra_features"),
    ({"extra_features": [12]}, "12"),
    ({"extra_features": BOTH, "contrast_bands": 0}, "contrast_bands is 0"),
    ({"extra_features": BOTH, "contrast_bands": 7}, "contrast_bands is 7; allowed: 1 to 6"),
    ({"extra_features": BOTH, "contrast_bands": 6, "sample_rate": 8000}, "allowed: 1 to 5"),
    ({"extra_features": BOTH, "chroma_tuning": 0.6}, "chroma_tuning"),
    ({"extra_features": BOTH, "frame_length_ms": 2.0}, "take a longer frame"),
    ({"extra_features": BOTH, "frame_length_ms": 1000.0}, "take a shorter frame"),
]


@pytest.mark.parametrize(("fields", "said"), BAD, ids=str)
@pytest.mark.parametrize("kind", ["fbank", "mfcc"])
def test_bad_configurations_are_refused(kind: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as raised:
        frontend_from_dict({"type": kind, **fields})
    assert said in str(raised.value)
    assert "allowed" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("fft_size", [64, 16384])
def test_log_mel_refuses_an_fft_too_short_or_too_long(fft_size: int) -> None:
    fields = {"type": "log_mel", "fft_size": fft_size, "frame_length_ms": 4.0}
    assert frontend_from_dict(fields).num_features == 80
    with pytest.raises(InputError, match=f"the FFT's size is {fft_size}; allowed"):
        frontend_from_dict({**fields, "extra_features": list(BOTH)})


def test_a_plain_string_is_refused_in_code_too() -> None:
    with pytest.raises(InputError, match="wrong type"):
        features_of(speech(), FbankConfig(extra_features="chroma"))  # type: ignore[arg-type]
