"""Other people's front ends, which ours must agree with, and the speech they are compared on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kaldi_native_fbank as knf
import numpy as np
import soundfile
import torch

from edge_speech.features import FbankConfig, FloatArray, LogMelConfig, MfccConfig
from edge_speech.training.torchaudio_import import import_torchaudio

CLIPS = sorted((Path(__file__).parents[1] / "examples/digits/clips").iterdir())


def read_clip(path: Path) -> tuple[FloatArray, int]:
    """Samples (N,) in [-1, 1] and the sample rate of a mono clip."""
    samples, sample_rate = soundfile.read(path, dtype="float32")
    return samples, sample_rate


def torchaudio_fbank(samples: FloatArray, config: FbankConfig) -> FloatArray:
    """torchaudio.compliance.kaldi.fbank of a whole waveform, in the precision of `samples`: (T, F)."""
    with precision_of(samples):
        return _torchaudio_fbank(samples, config)


def _torchaudio_fbank(samples: FloatArray, config: FbankConfig) -> FloatArray:
    frames = torchaudio_kaldi().fbank(
        torch.from_numpy(samples)[None] * 32768,
        sample_frequency=config.sample_rate,
        num_mel_bins=config.num_mel_bins,
        frame_length=config.frame_length_ms,
        frame_shift=config.frame_shift_ms,
        window_type=config.window,
        preemphasis_coefficient=config.preemphasis,
        remove_dc_offset=config.remove_dc_offset,
        low_freq=config.low_freq_hz,
        high_freq=config.high_freq_hz,
        snip_edges=config.snip_edges,
        dither=config.dither,
    )
    return frames.numpy()  # type: ignore[no-any-return]


def torchaudio_mfcc(samples: FloatArray, config: MfccConfig) -> FloatArray:
    """torchaudio.compliance.kaldi.mfcc of a whole waveform, in the precision of `samples`: (T, num_ceps)."""
    with precision_of(samples):
        frames = torchaudio_kaldi().mfcc(
            torch.from_numpy(samples)[None] * 32768,
            sample_frequency=config.sample_rate,
            num_mel_bins=config.num_mel_bins,
            num_ceps=config.num_ceps,
            cepstral_lifter=config.cepstral_lifter,
            use_energy=config.use_energy,
            raw_energy=config.raw_energy,
            energy_floor=config.energy_floor,
            frame_length=config.frame_length_ms,
            frame_shift=config.frame_shift_ms,
            window_type=config.window,
            preemphasis_coefficient=config.preemphasis,
            remove_dc_offset=config.remove_dc_offset,
            low_freq=config.low_freq_hz,
            high_freq=config.high_freq_hz,
            snip_edges=config.snip_edges,
        )
    return frames.numpy()  # type: ignore[no-any-return]


def torchaudio_functional() -> Any:
    """torchaudio.functional, whose Python part is all that is needed."""
    return import_torchaudio("torchaudio.functional")


def mel_energies(samples: FloatArray, config: LogMelConfig) -> FloatArray:
    """Energies (T, F) of a whole waveform, before the logarithm, by torch.stft and torchaudio's filters."""
    rate = config.sample_rate
    length, shift = (round(ms * rate / 1000) for ms in (config.frame_length_ms, config.frame_shift_ms))
    with precision_of(samples):
        spectrum = torch.stft(
            torch.from_numpy(samples),
            config.fft_size,
            shift,
            length,
            torch.hann_window(length, periodic=config.window_periodic),
            pad_mode="reflect" if config.padding == "reflect" else "constant",
            return_complex=True,
        )
        high_hz = config.high_freq_hz if config.high_freq_hz > 0 else rate / 2 + config.high_freq_hz
        filters = torchaudio_functional().melscale_fbanks(
            config.fft_size // 2 + 1,
            config.low_freq_hz,
            high_hz,
            config.num_mel_bins,
            rate,
            "slaney",
            "slaney",
        )
        energies = spectrum.abs().square().T @ filters
    return energies.numpy()  # type: ignore[no-any-return]


@contextmanager
def precision_of(samples: FloatArray) -> Iterator[None]:
    """torch's default: torchaudio makes its mel filters in it, and rounding them to single shows at 1e-4."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.from_numpy(samples).dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def open_knf(config: FbankConfig) -> Any:
    """kaldi-native-fbank's online computer with the same options."""
    options = knf.FbankOptions()
    frame = options.frame_opts
    frame.samp_freq = config.sample_rate
    frame.frame_length_ms = config.frame_length_ms
    frame.frame_shift_ms = config.frame_shift_ms
    frame.window_type = config.window
    frame.preemph_coeff = config.preemphasis
    frame.remove_dc_offset = config.remove_dc_offset
    frame.snip_edges = config.snip_edges
    frame.dither = config.dither
    options.mel_opts.num_bins = config.num_mel_bins
    options.mel_opts.low_freq = config.low_freq_hz
    options.mel_opts.high_freq = config.high_freq_hz
    return knf.OnlineFbank(options)


def knf_fbank(samples: FloatArray, config: FbankConfig) -> FloatArray:
    """kaldi-native-fbank of a whole waveform: (T, F)."""
    fbank = open_knf(config)
    fbank.accept_waveform(config.sample_rate, (samples * 32768).tolist())
    fbank.input_finished()
    rows = [fbank.get_frame(i) for i in range(fbank.num_frames_ready)]
    return np.array(rows, dtype=np.float32).reshape(-1, config.num_mel_bins)


def torchaudio_kaldi() -> Any:
    """torchaudio's Kaldi module."""
    return import_torchaudio("torchaudio.compliance.kaldi")
