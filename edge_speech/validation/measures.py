"""What one recording is like: level, clipping, offset, noise, and a hash of its samples."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.progress import track
from edge_speech.utterance import Utterance

_CEILING, _CLIPPED_RUN = 0.999, 3
_FRAME_S, _NOISE_QUANTILE, _SPEECH_QUANTILE = 0.02, 0.10, 0.95
_LEAST_ENERGY = 1e-10  # -100 dB, below the rounding noise of 16 bits: digital silence
_LEAST_FRAMES = 10


@dataclass(frozen=True)
class Measures:
    """`rms` and `dc_offset` of full scale 1; `clipped_samples` stand in runs at full scale.

    `snr_db` is None where the recording is too short or silent; `content` is the same for equal samples.
    """

    duration_s: float
    sample_rate: int
    rms: float
    dc_offset: float
    clipped_samples: int
    snr_db: float | None
    content: str

    @property
    def level_db(self) -> float:
        """The root mean square in dB, 0 being full scale, at least -100."""
        return float(20 * np.log10(max(self.rms, 1e-5)))


@dataclass(frozen=True)
class Checked:
    """An utterance with its measures; without them `problem` says why, `missing` that there is no file."""

    utterance: Utterance
    measures: Measures | None
    problem: str = ""
    missing: bool = False


def measure_all(utterances: Sequence[Utterance], label: str, quiet: bool) -> list[Checked]:
    """In the order given, a thread for each core: reading and hashing release Python's lock."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        futures = [pool.submit(_check, utterance) for utterance in utterances]
        return [future.result() for future in track(futures, label, quiet)]
    finally:
        pool.shutdown(cancel_futures=True)


def _check(utterance: Utterance) -> Checked:
    if not utterance.audio_path.is_file():
        return Checked(utterance, None, "no such file", missing=True)
    try:
        return Checked(utterance, measure(*utterance.read()))
    except InputError as error:
        return Checked(utterance, None, str(error).removeprefix(f"{utterance.audio_path}: "))


def measure(samples: FloatArray, sample_rate: int) -> Measures:
    """Of samples (N,) in [-1, 1], at least one."""
    full = np.abs(samples) >= _CEILING
    runs = np.convolve(full, np.ones(_CLIPPED_RUN), "valid") == _CLIPPED_RUN if full.any() else full[:0]
    inside = np.convolve(runs, np.ones(_CLIPPED_RUN)) > 0 if runs.any() else runs
    offset = float(samples.mean(dtype=np.float64))
    return Measures(
        duration_s=len(samples) / sample_rate,
        sample_rate=sample_rate,
        rms=float(np.sqrt(np.mean(np.square(samples), dtype=np.float64))),
        dc_offset=offset,
        clipped_samples=int(np.count_nonzero(inside)),
        snr_db=_snr_db(samples, sample_rate),
        content=hashlib.blake2b(samples.tobytes(), digest_size=16).hexdigest(),
    )


def _snr_db(samples: FloatArray, sample_rate: int) -> float | None:
    """Of frames of 20 ms: the 95 % quantile of their energies, less the noise, over the 10 % one, the noise.

    As in NIST's stnr the noise is what is heard between words, so an utterance cut without a pause seems
    noisier than it is. Frames of digital silence are left out: they are padding.
    """
    width = max(1, int(_FRAME_S * sample_rate))
    frames = samples[: len(samples) // width * width].reshape(-1, width)
    energies = np.asarray(frames.var(axis=1, dtype=np.float64))  # so an offset counts as neither
    energies = energies[energies > _LEAST_ENERGY]
    if len(energies) < _LEAST_FRAMES:
        return None
    noise, loud = (float(np.quantile(energies, q)) for q in (_NOISE_QUANTILE, _SPEECH_QUANTILE))
    return float(10 * np.log10(max(loud - noise, 1e-3 * noise) / noise))
