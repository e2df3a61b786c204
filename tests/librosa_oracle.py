"""librosa's spectral contrast and chroma of the spectra that a front end's configuration says."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest.mock import patch

import librosa
import numpy as np
import scipy.signal
import torch

import oracles
from edge_speech.features import FbankConfig, FloatArray, FrontendConfig, LogMelConfig, MfccConfig


def extra_features(samples: FloatArray, config: FrontendConfig) -> FloatArray:
    """The extra features (T, E) of a whole waveform, in their order, in double precision."""
    compute = {"spectral_contrast": spectral_contrast, "chroma": chroma}
    return np.concatenate([compute[name](samples, config) for name in config.extra_features], axis=1)


def spectral_contrast(samples: FloatArray, config: FrontendConfig, top_db: float | None = None) -> FloatArray:
    """In decibels: (T, contrast_bands + 1). librosa's own `top_db`, which it gives no argument for, is 80."""
    with patch("librosa.feature.spectral.power_to_db", partial(librosa.power_to_db, top_db=top_db)):
        rows = librosa.feature.spectral_contrast(
            **spectrum(samples, config, power=1), sr=config.sample_rate, n_bands=config.contrast_bands
        ).T
    return _frames(rows, config)


def chroma(samples: FloatArray, config: FrontendConfig) -> FloatArray:
    """Largest of a frame 1: (T, 12)."""
    rows = librosa.feature.chroma_stft(
        **spectrum(samples, config, power=2), sr=config.sample_rate, tuning=config.chroma_tuning
    ).T
    return _frames(rows, config)


def magnitudes(samples: FloatArray, config: LogMelConfig) -> FloatArray:
    """(T, fft_size / 2 + 1)."""
    return _frames(np.abs(librosa.stft(**spectrum(samples, config, power=1))).T, config)


def spectrum(samples: FloatArray, config: FrontendConfig, power: int) -> dict[str, Any]:
    """librosa's arguments: for log_mel the waveform and how to cut it, which librosa can do itself."""
    if not isinstance(config, LogMelConfig):
        return {"S": kaldi_magnitudes(samples.astype(np.float64), config).T ** power}
    factor = np.float32(config.preemphasis)
    emphasised = samples - factor * np.concatenate([np.zeros(1, np.float32), samples[:-1]])
    length, shift = (
        round(ms * config.sample_rate / 1000) for ms in (config.frame_length_ms, config.frame_shift_ms)
    )
    return {
        "y": emphasised.astype(np.float64),
        "n_fft": config.fft_size,
        "hop_length": shift,
        "win_length": length,
        "window": scipy.signal.get_window("hann", length, fftbins=config.window_periodic),
        "pad_mode": "reflect" if config.padding == "reflect" else "constant",
    }


def kaldi_magnitudes(samples: FloatArray, config: FbankConfig | MfccConfig) -> FloatArray:
    """(T, fft_size / 2 + 1): torchaudio's Kaldi frames, windowed and padded, through numpy's FFT."""
    length, shift = (
        int(ms * config.sample_rate * 0.001 + 1e-6) for ms in (config.frame_length_ms, config.frame_shift_ms)
    )
    with oracles.precision_of(samples):
        frames, _ = oracles.torchaudio_kaldi()._get_window(
            torch.from_numpy(samples) * 32768,
            padded_window_size=1 << (length - 1).bit_length(),
            window_size=length,
            window_shift=shift,
            window_type=config.window,
            blackman_coeff=0.42,
            snip_edges=config.snip_edges,
            raw_energy=True,
            energy_floor=0.0,
            dither=0.0,
            remove_dc_offset=config.remove_dc_offset,
            preemphasis_coefficient=config.preemphasis,
        )
    return np.abs(np.fft.rfft(frames.numpy()))


def _frames(rows: FloatArray, config: FrontendConfig) -> FloatArray:
    dropped = isinstance(config, LogMelConfig) and not config.keep_last_frame
    return rows[:-1] if dropped else rows
