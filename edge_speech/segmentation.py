"""Long recordings → utterances, cut where the energy VAD hears no speech."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.vad import EnergyVad, VadConfig

_FRAME_S = 0.01


@dataclass(frozen=True)
class SegmentConfig:
    """Pauses of `pause_s` part utterances; `margin_s` of each, at most half of it, stays on either side.

    Less speech than `min_s` is dropped; more than `max_s` is cut at its quietest place, margins not counted.
    Raises InputError on values out of range.
    """

    pause_s: float = 0.5
    margin_s: float = 0.2
    min_s: float = 0.3
    max_s: float = 20.0

    def __post_init__(self) -> None:
        if not (self.pause_s > 0 and self.margin_s >= 0 and self.min_s >= 0):
            raise InputError(f"{self}; allowed: pause_s above 0, margin_s and min_s from 0")
        if self.max_s < max(1.0, self.min_s):
            raise InputError(f"max_s is {self.max_s}; allowed: from 1 second and from min_s")


def segment(
    samples: FloatArray, sample_rate: int, config: SegmentConfig | None = None
) -> list[tuple[float, float]]:
    """(start, end) in seconds of the utterances in samples (N,), in order, without overlap."""
    config = config or SegmentConfig()
    vad = EnergyVad(VadConfig(sample_rate=sample_rate, frame_ms=1000 * _FRAME_S))
    vad.accept_waveform(samples, sample_rate)
    width = int(_FRAME_S * sample_rate)
    frame_s = width / sample_rate  # not quite _FRAME_S where that is no whole number of samples
    least = config.min_s / frame_s
    spoken = [run for run in _joined(vad.read(), round(config.pause_s / frame_s)) if run[1] - run[0] >= least]
    if not spoken:
        return []
    energies, most = _energies(samples, width), int(config.max_s / frame_s)
    pieces = [piece for start, end in spoken for piece in _short_enough(start, end, energies, most)]
    spans = [(start * frame_s, end * frame_s) for start, end in pieces]
    return _widened(spans, config.margin_s, len(samples) / sample_rate)


def _joined(speech: npt.NDArray[np.bool_], pause: int) -> list[tuple[int, int]]:
    """Runs of speech in frames; those less than `pause` apart are one."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], speech.astype(np.int8), [0]))))
    runs: list[tuple[int, int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        joins = bool(runs) and start - runs[-1][1] < pause
        runs.append((runs.pop()[0] if joins else start, end))
    return runs


def _energies(samples: FloatArray, width: int) -> npt.NDArray[np.float64]:
    """Energy of each frame (T,), smoothed over a tenth of a second."""
    frames = samples[: len(samples) // width * width].reshape(-1, width)
    energies = np.mean(np.square(frames), axis=1, dtype=np.float64)
    return np.convolve(energies, np.full(10, 0.1), "same")


def _short_enough(
    start: int, end: int, energies: npt.NDArray[np.float64], most: int
) -> Iterator[tuple[int, int]]:
    """Pieces of at most `most` frames, each but the last at least half as long."""
    while end - start > most:
        from_frame = start + most // 2
        cut = from_frame + int(np.argmin(energies[from_frame : start + most]))
        yield start, cut
        start = cut
    yield start, end


def _widened(spans: list[tuple[float, float]], margin_s: float, length_s: float) -> list[tuple[float, float]]:
    """Each side moved outwards by the margin or half way to its neighbour."""
    ends = [0.0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), length_s]
    widened = []
    for i, (start, end) in enumerate(spans):
        before = (start - ends[i]) / (2 if i else 1)
        after = (starts[i + 1] - end) / (2 if i + 1 < len(spans) else 1)
        widened.append((start - min(margin_s, max(0.0, before)), end + min(margin_s, max(0.0, after))))
    return widened
