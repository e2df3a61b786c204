"""Latency of the artifacts against each other: in one run, interleaved, so that a busy moment hits all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_speech.backends import load_encoder
from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.recognizer import Recognizer
from edge_speech_tools.decoding import Line
from edge_speech_tools.passes import PassResult
from edge_speech_tools.progress import Progress
from edge_speech_tools.recordings import Recording

ROUNDS = 5
MIN_AUDIO_S = 5.0


@dataclass(frozen=True)
class Loaded:
    """An artifact ready to run, and how long that took."""

    result: PassResult
    recognizer: Recognizer
    load_ms: float


def measure_latency(
    line: Line,
    spec: StreamingSpec,
    results: Sequence[PassResult],
    recordings: Sequence[Recording],
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Time per chunk of audio, on one thread, by `backend/precision`; keys as `edge-speech bench`'s."""
    loaded = [_load(line, spec, result) for result in results]
    audio = _audio(recordings)
    chunk_ms = spec.chunk_frames * line.frontend.frame_shift_ms
    rounds: dict[str, list[list[float]]] = {one.result.key: [] for one in loaded}
    for number in progress.bar(range(1 + ROUNDS), "latency"):
        for one in loaded:
            times = [ms for a in audio for ms in _chunk_times_ms(one.recognizer, *a, chunk_ms)]
            if number:  # the first round warms up
                rounds[one.result.key].append(times)
    audio_s = sum(len(samples) / rate for samples, rate in audio)
    return {one.result.key: _summary(one, rounds[one.result.key], audio_s, chunk_ms) for one in loaded}


def _load(line: Line, spec: StreamingSpec, result: PassResult) -> Loaded:
    start = time.perf_counter()
    encoder = load_encoder(result.backend, result.path, spec)
    return Loaded(
        result, Recognizer(encoder, line.frontend, line.tokens), 1e3 * (time.perf_counter() - start)
    )


def _audio(recordings: Sequence[Recording]) -> list[tuple[FloatArray, int]]:
    """Recordings until there is enough for a median."""
    taken: list[tuple[FloatArray, int]] = []
    for recording in recordings:
        taken.append(recording.read())
        if sum(len(samples) / rate for samples, rate in taken) >= MIN_AUDIO_S:
            break
    return taken


def _chunk_times_ms(
    recognizer: Recognizer, samples: FloatArray, sample_rate: int, chunk_ms: float
) -> list[float]:
    """Time of each `accept_waveform` of one chunk, the flush with the last one."""
    stream, size, times = recognizer.create_stream(), round(sample_rate * chunk_ms / 1000), []
    for first in range(0, len(samples), size):
        start = time.perf_counter()
        stream.accept_waveform(samples[first : first + size], sample_rate)
        if first + size >= len(samples):
            stream.input_finished()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def _summary(one: Loaded, rounds: list[list[float]], audio_s: float, chunk_ms: float) -> dict[str, Any]:
    """Medians over the rounds of each round's percentiles and total."""
    points = np.median([np.percentile(times, [50, 95, 99, 100]) for times in rounds], axis=0)
    latency: Mapping[str, float] = dict(zip(("p50", "p95", "p99", "max"), map(float, points), strict=True))
    return {
        "backend": one.result.backend,
        "precision": one.result.precision,
        "threads": 1,
        "audio_s": audio_s,
        "rtf": float(np.median([sum(times) for times in rounds])) / 1e3 / audio_s,
        "chunk_ms": chunk_ms,
        "chunk_latency_ms": latency,
        "deadline_misses": sum(ms > chunk_ms for times in rounds for ms in times),
        "load_ms": one.load_ms,
        "artifact_bytes": one.result.path.stat().st_size,
    }
