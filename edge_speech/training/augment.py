"""Augmentation of waveforms and features. Every function takes its own random generator."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edge_speech.encoder import FloatArray
from edge_speech.features import resample
from edge_speech.training.codec import check_codecs, check_telephone, code, telephone
from edge_speech.training.recipe import Augment
from edge_speech.training.reverb import draw_response, reverberate


@dataclass(frozen=True)
class Chain:
    """What happens to a waveform, in the order in which it would happen to sound.

    speed (of each recording, before several are joined) → room → noise → codec → telephone → gain;
    then of the features: channel (`tilt`), masks (`mask`). `noises` and `rirs` are at `sample_rate`.
    """

    how: Augment
    sample_rate: int
    noises: list[FloatArray] = field(default_factory=list)
    rirs: list[FloatArray] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.how.codec_probability:
            check_codecs(self.how.codecs, self.sample_rate)
        if self.how.telephone_probability:
            check_telephone(self.sample_rate)

    def __call__(self, rng: np.random.Generator, waveform: FloatArray) -> FloatArray:
        """The waveform (N,) at the end of the chain, as long as it was."""
        waveform = add_room(rng, waveform, self.sample_rate, self.rirs, self.how)
        waveform = add_noise(rng, waveform, self.noises, self.how)
        waveform = add_codec(rng, waveform, self.sample_rate, self.how)
        waveform = add_telephone(rng, waveform, self.sample_rate, self.how)
        return change_gain(rng, waveform, self.how)


def change_speed(waveform: FloatArray, sample_rate: int, speed: float) -> FloatArray:
    """Play a waveform (samples,) `speed` times as fast; tempo and pitch change together."""
    return resample(waveform, round(sample_rate * speed), sample_rate)


def add_room(
    rng: np.random.Generator,
    waveform: FloatArray,
    sample_rate: int,
    rirs: list[FloatArray],
    how: Augment,
) -> FloatArray:
    """Put a recording into a room: one of the impulse responses, or a made-up one where there is none."""
    if rng.random() >= how.reverb_probability:
        return waveform
    if rirs:
        return reverberate(waveform, rirs[rng.integers(len(rirs))])
    return reverberate(waveform, draw_response(rng, sample_rate, how.rt60_s, how.reverb_direct_db))


def add_noise(
    rng: np.random.Generator, waveform: FloatArray, noises: list[FloatArray], how: Augment
) -> FloatArray:
    """Add a stretch of recorded noise, or white noise if there is none, at a random ratio to the speech."""
    speech = waveform[np.abs(waveform) > 1e-4]
    if rng.random() >= how.noise_probability or not len(speech):
        return waveform
    noise = _stretch(rng, noises, len(waveform))
    snr_db = rng.uniform(*how.noise_snr_db)
    scale = rms(speech) / max(rms(noise), 1e-6) * 10 ** (-snr_db / 20)
    noisy: FloatArray = waveform + np.float32(scale) * noise
    return noisy


def add_codec(rng: np.random.Generator, waveform: FloatArray, sample_rate: int, how: Augment) -> FloatArray:
    """Encode a waveform with one of the codecs and decode it."""
    if rng.random() >= how.codec_probability:
        return waveform
    return code(rng, waveform, sample_rate, how.codecs[rng.integers(len(how.codecs))])


def add_telephone(
    rng: np.random.Generator, waveform: FloatArray, sample_rate: int, how: Augment
) -> FloatArray:
    """Send a waveform through a telephone line."""
    return telephone(waveform, sample_rate) if rng.random() < how.telephone_probability else waveform


def change_gain(rng: np.random.Generator, waveform: FloatArray, how: Augment) -> FloatArray:
    """Scale a waveform by up to `gain_db` decibels either way, and clip it at full scale."""
    scaled = waveform * np.float32(10 ** (rng.uniform(-how.gain_db, how.gain_db) / 20))
    clipped: FloatArray = np.clip(scaled, -1.0, 1.0)
    return clipped


def tilt(rng: np.random.Generator, features: FloatArray, how: Augment) -> FloatArray:
    """Add a random smooth channel response to log-mel features (T, F): four points, linear between them."""
    bins = features.shape[1]
    points = rng.uniform(-how.tilt_db, how.tilt_db, 4) * (np.log(10) / 10)
    response = np.interp(np.arange(bins), np.linspace(0, bins - 1, 4), points)
    tilted: FloatArray = features + response.astype(np.float32)
    return tilted


def mask(rng: np.random.Generator, features: FloatArray, how: Augment) -> FloatArray:
    """SpecAugment: set random stretches of time and frequency of features (T, F) to their mean."""
    masked: FloatArray = features.copy()
    mean = features.mean()
    for count, width, axis in (
        (how.time_masks, how.time_mask_frames, 0),
        (how.frequency_masks, how.frequency_mask_bins, 1),
    ):
        for _ in range(count):
            size = int(rng.integers(0, width + 1))
            start = int(rng.integers(0, max(1, features.shape[axis] - size)))
            masked[(slice(None),) * axis + (slice(start, start + size),)] = mean
    return masked


def _stretch(rng: np.random.Generator, noises: list[FloatArray], samples: int) -> FloatArray:
    if not noises:
        return rng.standard_normal(samples, dtype=np.float32)
    noise = noises[rng.integers(len(noises))]
    start = int(rng.integers(len(noise)))
    stretch: FloatArray = noise.take(np.arange(start, start + samples), mode="wrap")
    return stretch


def rms(waveform: FloatArray) -> float:
    """Root of the mean square of the samples; 0 where there are none."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) if len(waveform) else 0.0
