"""Latency of the artifacts against each other: in one run, interleaved, so that a busy moment hits all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from edge_speech import bench
from edge_speech.backends import load_encoder
from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.recognizer import Recognizer
from edge_speech_tools.decoding import Line
from edge_speech_tools.passes import PassResult
from edge_speech_tools.progress import Progress
from edge_speech_tools.recordings import Recording, at_rate

ROUNDS = 7


@dataclass(frozen=True)
class Loaded:
    """An artifact ready to run, and how long that took."""

    result: PassResult
    recognizer: Recognizer
    sample_rate: int
    load_ms: float


def measure_latency(
    line: Line,
    spec: StreamingSpec,
    results: Sequence[PassResult],
    recordings: Sequence[Recording],
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Bench results by `backend/precision`, on one thread, with the line's decoder; medians of the rounds.

    Peak memory is not among them: the artifacts share this process, `edge-speech bench` gives each its own.
    """
    loaded = [load(line, spec, result) for result in results]
    timed = interleaved(loaded, recordings, progress)
    return {one.result.key: each for one, each in zip(loaded, timed, strict=True)}


def interleaved(
    loaded: Sequence[Loaded], recordings: Sequence[Recording], progress: Progress
) -> list[dict[str, Any]]:
    """Bench results of artifacts that may be of different models, in their order."""
    rounds: list[list[dict[str, Any]]] = [[] for _ in loaded]
    audio = cache(lambda rate: _waveform(recordings, rate))
    for _ in progress.bar(range(ROUNDS), "latency"):
        for one, own in zip(loaded, rounds, strict=True):
            times = bench.time_stream(one.recognizer, audio(one.sample_rate), one.sample_rate)
            own.append(bench.summary(times))
    return [_result(*pair) for pair in zip(loaded, rounds, strict=True)]


def load(line: Line, spec: StreamingSpec, result: PassResult) -> Loaded:
    """An artifact in its engine."""
    start = time.perf_counter()
    encoder = load_encoder(result.backend, result.path, spec)
    recognizer = Recognizer(encoder, line.frontend, line.tokens, decoder=line.decoder)
    return Loaded(result, recognizer, line.frontend.sample_rate, 1e3 * (time.perf_counter() - start))


def _waveform(recordings: Sequence[Recording], sample_rate: int) -> FloatArray:
    """As much audio as a bench takes: recordings joined, repeated when they are few."""
    wanted = int(bench.SHORTEST_S * sample_rate)
    parts: list[FloatArray] = []
    for recording in recordings:
        parts.append(at_rate(recording, sample_rate))
        if sum(map(len, parts)) >= wanted:
            break
    return np.resize(np.concatenate(parts), wanted)


def _result(one: Loaded, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    latencies = [result["chunk_latency_ms"] for result in rounds]
    return {
        "backend": one.result.backend,
        "precision": one.result.precision,
        "threads": 1,
        **{key: _median([result[key] for result in rounds]) for key in rounds[0]},
        "chunk_latency_ms": {key: _median([latency[key] for latency in latencies]) for key in latencies[0]},
        "deadline_misses": max(result["deadline_misses"] for result in rounds),
        "load_ms": round(one.load_ms, 1),
        "artifact_bytes": one.result.path.stat().st_size,
    }


def _median(values: list[Any]) -> float | None:
    """The median of numbers; None of anything else (no text came, so there was no first partial)."""
    return float(np.median(values)) if all(isinstance(v, int | float) for v in values) else None
