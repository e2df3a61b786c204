"""Recordings to calibrate, compare and score on: from a manifest, or made up when there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.features import resample
from edge_speech.manifest import Utterance, read_manifest

SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class Recording:
    """One recording, read when it is needed: `read()` gives mono samples (N,) in [-1, 1] and their rate.

    `path` is its file, None when it was made up; `part` says which part of it, "" when all; `duration_s` is
    what the manifest says, None when it does not.
    """

    name: str
    text: str
    read: Callable[[], tuple[FloatArray, int]]
    path: Path | None = None
    part: str = ""
    duration_s: float | None = None


@dataclass(frozen=True)
class RecordingSet:
    """Where the recordings are from (a manifest's name, or `synthetic`), and the recordings."""

    name: str
    recordings: tuple[Recording, ...]


def from_manifest(path: Path, need_text: bool = True) -> RecordingSet:
    """The recordings of a data manifest, all of them there. Raises InputError."""
    utterances = read_manifest(path, need_text)
    missing = [u.audio_path for u in utterances if not u.audio_path.is_file()]
    if missing:
        raise InputError(
            f"{path} names {missing[0]}, which is no file ({len(missing)} of {len(utterances)} are missing); "
            "paths are relative to the manifest"
        )
    return RecordingSet(path.name, tuple(_recording(u) for u in utterances))


def _recording(utterance: Utterance) -> Recording:
    path = utterance.audio_path
    part = utterance.name.removeprefix(str(path))
    if utterance.offset_s is not None:
        part = f"{utterance.offset_s} {utterance.duration_s}"
    return Recording(path.name, utterance.text, utterance.read, path, part, utterance.duration_s)


def synthetic(sample_rate: int, count: int = 3, seconds: float = 4.0) -> RecordingSet:
    """Noise and gliding tones, the same every time: for comparing engines when there is no speech at hand."""
    waveforms = [_glide(sample_rate, seconds, seed) for seed in range(count)]
    named = [(f"{SYNTHETIC}-{i}", waveform) for i, waveform in enumerate(waveforms)]
    return RecordingSet(
        SYNTHETIC,
        tuple(Recording(n, "", lambda w=w: (w, sample_rate)) for n, w in named),  # type: ignore[misc]
    )


def _glide(sample_rate: int, seconds: float, seed: int) -> FloatArray:
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * sample_rate)) / sample_rate
    pitch_hz = rng.uniform(100, 250) * (1 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time_s))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / sample_rate
    voice = sum(rng.uniform(0.2, 1) * np.sin(k * phase) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 3 * time_s + rng.uniform(0, 6)), 0, 1)
    waveform = 0.2 * voice * syllables + 0.003 * rng.standard_normal(len(time_s))
    return np.asarray(waveform, np.float32)


def at_rate(recording: Recording, sample_rate: int) -> FloatArray:
    """Samples (N,) of a recording at `sample_rate`, resampled as the stream does."""
    samples, from_rate = recording.read()
    return resample(samples, from_rate, sample_rate)
