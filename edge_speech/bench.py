"""Latency, RTF and memory of a bundle's artifacts, each measured in a process of its own.

`python -m edge_speech.bench REQUEST` is that process: a `Request` in JSON in, a `Measurement` in JSON out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_speech.audio import read_audio
from edge_speech.bundle import GOLDEN_WAVEFORM, Bundle, read_bundle
from edge_speech.decoder import DecoderOptions
from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.recognizer import Recognizer

SHORTEST_S = 20.0  # the golden waveform is repeated to this, so that a 99th percentile means something
_WARM_UP_CHUNKS = 10


@dataclass(frozen=True)
class StreamTimes:
    """One stream fed in pieces of one encoder chunk; times in milliseconds.

    `latencies_ms`: what each piece that ran an encoder step took, features and decoding included.
    `first_partial_ms`: from the first sample to the first text, for live audio; None without text.
    `final_latency_ms`: from the end of the audio to the final text.
    `deadline_misses`: pieces that were not done when the next one was due.
    `rtf`: working time over `audio_s`.
    """

    audio_s: float
    chunk_ms: float
    latencies_ms: tuple[float, ...]
    first_partial_ms: float | None
    final_latency_ms: float
    deadline_misses: int
    rtf: float
    text: str


@dataclass(frozen=True)
class Request:
    """What one process measures; `artifact` is its path in the bundle and `backend` the engine that loads it,
    `audio` None the golden waveform, `options` what is changed in the bundle's decoder."""

    bundle: str
    artifact: str
    backend: str
    threads: int = 1
    audio: str | None = None
    realtime: bool = False
    options: DecoderOptions = field(default_factory=DecoderOptions)


@dataclass(frozen=True)
class Measurement:
    """A bench result and the latencies behind its percentiles."""

    result: dict[str, Any]
    latencies_ms: list[float]


def measure(request: Request) -> Measurement:
    """Measure in a fresh process. Raises InputError."""
    command = [sys.executable, "-m", "edge_speech.bench", json.dumps(asdict(request))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        raise InputError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise RuntimeError(
            f"the measuring process ended with {done.returncode}: {done.stderr.strip()[-400:]}"
        )
    return Measurement(**json.loads(done.stdout))


def measure_here(request: Request) -> Measurement:
    """Measure in this process. Raises InputError."""
    start = time.perf_counter()
    bundle = read_bundle(request.bundle)
    artifact = next(a for a in bundle.manifest.artifacts if a.path == request.artifact)
    artifact = replace(artifact, backend=request.backend)
    recognizer = Recognizer.from_artifact(bundle, artifact, request.threads)
    recognizer.decoder = request.options.over(recognizer.decoder)
    load_ms = 1000 * (time.perf_counter() - start)
    waveform, sample_rate = _audio(bundle, request.audio, recognizer.frontend.sample_rate)
    times = time_stream(recognizer, waveform, sample_rate, request.realtime)
    result = {"backend": artifact.backend, "precision": artifact.precision, "threads": request.threads}
    result |= summary(times)
    result |= {"peak_rss_mib": round(peak_rss_mib(), 1), "load_ms": round(load_ms, 1)}
    return Measurement(result | {"artifact_bytes": artifact.bytes}, list(times.latencies_ms))


def summary(times: StreamTimes) -> dict[str, Any]:
    """The part of a bench result that comes from the stream: `audio_s` to `deadline_misses`."""
    first = times.first_partial_ms
    return {
        "audio_s": round(times.audio_s, 3),
        "rtf": round(times.rtf, 5),
        "chunk_ms": times.chunk_ms,
        "chunk_latency_ms": percentiles(times.latencies_ms),
        "first_partial_ms": None if first is None else round(first, 1),
        "final_latency_ms": round(times.final_latency_ms, 3),
        "deadline_misses": times.deadline_misses,
    }


def percentiles(latencies_ms: tuple[float, ...]) -> dict[str, float]:
    """p50, p95, p99 and max, in milliseconds; zeros when there is nothing."""
    values = np.array(latencies_ms or (0.0,))
    result = {f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 95, 99)}
    return result | {"max": round(float(values.max()), 3)}


def time_stream(
    recognizer: Recognizer, waveform: FloatArray, sample_rate: int, realtime: bool = False
) -> StreamTimes:
    """Feed `waveform` chunk by chunk; with `realtime` each piece waits until it would have been recorded."""
    chunk_ms = recognizer.encoder.spec.chunk_frames * recognizer.frontend.frame_shift_ms
    size = max(1, round(chunk_ms * sample_rate / 1000))
    pieces = [waveform[i : i + size] for i in range(0, len(waveform), size)]
    warm = recognizer.create_stream()
    for piece in pieces[:_WARM_UP_CHUNKS]:
        warm.accept_waveform(piece, sample_rate)
    warm.input_finished()
    return _Stopwatch(recognizer, sample_rate, chunk_ms, realtime).run(pieces)


class _Stopwatch:
    def __init__(self, recognizer: Recognizer, sample_rate: int, chunk_ms: float, realtime: bool) -> None:
        self.stream, self.sample_rate = recognizer.create_stream(), sample_rate
        self.chunk_ms, self.realtime = chunk_ms, realtime
        self.latencies_ms: list[float] = []
        self.first_partial_ms: float | None = None
        self.misses, self.working_ms = 0, 0.0

    def run(self, pieces: list[FloatArray]) -> StreamTimes:
        start = time.perf_counter()
        for piece in pieces:
            self._feed(piece, start)
        before = time.perf_counter()
        self.stream.input_finished()
        text = self.stream.result.text
        final_ms = _since(before)
        self._note_text(self.stream.audio_s * 1000 + final_ms)
        audio_s = self.stream.audio_s
        rtf = (self.working_ms + final_ms) / 1000 / audio_s if audio_s else 0.0
        latencies = tuple(self.latencies_ms)
        return StreamTimes(
            audio_s, self.chunk_ms, latencies, self.first_partial_ms, final_ms, self.misses, rtf, text
        )

    def _feed(self, piece: FloatArray, start: float) -> None:
        steps = self.stream.steps
        recorded_ms = 1000 * (self.stream.audio_s + len(piece) / self.sample_rate)
        if self.realtime:
            time.sleep(max(0.0, recorded_ms - _since(start)) / 1000)
        before = time.perf_counter()
        self.stream.accept_waveform(piece, self.sample_rate)
        latency_ms = _since(before)
        behind_ms = _since(start) - recorded_ms if self.realtime else latency_ms
        self.working_ms += latency_ms
        if self.stream.steps > steps:
            self.latencies_ms.append(latency_ms)
        self.misses += behind_ms > self.chunk_ms
        self._note_text(recorded_ms + behind_ms)

    def _note_text(self, now_ms: float) -> None:
        if self.first_partial_ms is None and self.stream.result.text:
            self.first_partial_ms = now_ms


def _since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)


def _audio(bundle: Bundle, audio: str | None, sample_rate: int) -> tuple[FloatArray, int]:
    if audio is not None:
        return read_audio(audio)
    waveform = read_golden(bundle, GOLDEN_WAVEFORM)
    if waveform is None or waveform.ndim != 1 or not waveform.size:
        raise InputError(f"{bundle.root}: has no golden waveform to time; give a recording with --audio")
    return np.tile(waveform, int(np.ceil(SHORTEST_S * sample_rate / waveform.size))), sample_rate


def read_golden(bundle: Bundle, name: str) -> FloatArray | None:
    """A golden array after checking its hash; None when the bundle has none. Raises InputError."""
    entry = next((e for e in bundle.manifest.golden if e.path == name), None)
    if entry is None:
        return None
    path = bundle.verified_path(entry)
    try:
        array = np.load(
            path, mmap_mode="r", allow_pickle=False
        )  # maps: a header cannot claim more than is there
        return np.array(array, dtype=np.float32)
    except (ValueError, EOFError, TypeError) as error:
        raise InputError(f"{path}: not a numpy array ({error}); make the bundle again") from None


def peak_rss_mib() -> float:
    """Peak resident memory of this process since it began its program."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def _main(request: str) -> int:
    try:
        given = json.loads(request)
        given["options"] = DecoderOptions(**given["options"])
        print(json.dumps(asdict(measure_here(Request(**given)))))
        return 0
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
