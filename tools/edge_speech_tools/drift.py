"""Does an artifact's error grow with time? Its divergence from PyTorch, by chunk, over one long stream."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_speech.encoder import Encoder, FloatArray, StreamingSpec
from edge_speech.features import FrontendConfig, features_of
from edge_speech_tools.recordings import Recording, at_rate
from edge_speech_tools.streaming import windows

LONGEST_S = 600.0
POINTS = 60
# Below this mean difference of log_probs an error is rounding, however it grows: a tenth of a percent.
NEGLIGIBLE = 1e-3
# The end against the beginning: the last fifth of the stream over the first.
GROWN = 2.0


@dataclass(frozen=True)
class Drift:
    """Divergence of one artifact over `seconds` of speech without reset.

    `points` are equal parts of the stream: `at_s` (their middle), `mean_abs` (mean |difference of log_probs|)
    and `kl` (nats per row, PyTorch to artifact). `slope_per_minute` is the regression of mean_abs on time,
    `slope_ci95` its 95 % interval; `first` and `last` are mean_abs of the first and last fifth; `warning` is
    None where all is well.
    """

    seconds: float
    chunks: int
    points: Sequence[dict[str, float]]
    mean_abs: float
    kl: float
    slope_per_minute: float
    slope_ci95: Sequence[float]
    first: float
    last: float
    warning: str | None


def long_stream(recordings: Sequence[Recording], frontend: FrontendConfig) -> FloatArray:
    """Features (T, F) of the recordings as one stream, at most ten minutes of it."""
    parts: list[FloatArray] = []
    left = int(LONGEST_S * frontend.sample_rate)
    for recording in recordings:
        parts.append(at_rate(recording, frontend.sample_rate)[:left])
        left -= len(parts[-1])
        if left <= 0:
            break
    return features_of(np.concatenate(parts), frontend)


def stream_rows(encoder: Encoder, features: FloatArray, spec: StreamingSpec) -> FloatArray:
    """log_probs (ceil(T / subsampling), V) of one stream of features (T, F), chunk by chunk, never reset."""
    window = np.zeros((spec.window_frames, spec.num_features), np.float32)
    log_probs = np.zeros((spec.output_frames, spec.vocab_size), np.float32)
    stream, parts = encoder.open(window, log_probs), []
    for chunk in windows(features, spec):
        window[:] = chunk[0]
        stream.step()
        parts.append(log_probs.copy())
    return np.concatenate(parts)[: -(-len(features) // spec.subsampling_factor)]


def diverge(reference: FloatArray, artifact: FloatArray, output_frames: int, row_s: float) -> Drift:
    """Compare rows (N, V) of the same stream; a row lasts `row_s`, a chunk has `output_frames` of them."""
    per_chunk = _per_chunk(np.abs(artifact - reference).mean(axis=1, dtype=np.float64), output_frames)
    kl_rows = (np.exp(reference.astype(np.float64)) * (reference - artifact)).sum(axis=1)
    kl_chunk = _per_chunk(kl_rows, output_frames)
    chunk_s = output_frames * row_s
    groups = np.array_split(np.arange(len(per_chunk)), min(POINTS, len(per_chunk)))
    at_s = np.array([(g[0] + g[-1] + 1) / 2 * chunk_s for g in groups])
    mean_abs = np.array([per_chunk[g].mean() for g in groups])
    slope, interval = regression(at_s / 60, mean_abs)
    fifth = max(1, len(per_chunk) // 5)
    first, last = float(per_chunk[:fifth].mean()), float(per_chunk[-fifth:].mean())
    return Drift(
        seconds=round(len(reference) * row_s, 2),
        chunks=len(per_chunk),
        points=[
            {"at_s": round(float(t), 2), "mean_abs": float(m), "kl": float(kl_chunk[g].mean())}
            for t, m, g in zip(at_s, mean_abs, groups, strict=True)
        ],
        mean_abs=float(per_chunk.mean()),
        kl=float(kl_chunk.mean()),
        slope_per_minute=slope,
        slope_ci95=interval,
        first=first,
        last=last,
        warning=_warning(first, last, slope, interval),
    )


def _per_chunk(values: npt.NDArray[np.float64], output_frames: int) -> npt.NDArray[np.float64]:
    """Means (C,) over the rows of each chunk, the last one perhaps cut short."""
    starts = np.arange(0, len(values), output_frames)
    counts = np.diff(np.append(starts, len(values)))
    means: npt.NDArray[np.float64] = np.add.reduceat(values, starts) / counts
    return means


def _warning(first: float, last: float, slope: float, interval: Sequence[float]) -> str | None:
    if not math.isfinite(last):
        return "the artifact gives numbers that are not finite"
    if last < NEGLIGIBLE:
        return None
    if last > GROWN * first:
        return f"the error at the end ({last:.2g}) is over twice that at the beginning ({first:.2g})"
    if interval[0] > 0 and slope * LONGEST_S / 60 > first:
        return (
            f"the error grows by {slope:.2g} a minute (95 % interval {interval[0]:.2g} to {interval[1]:.2g})"
        )
    return None


def regression(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    """Least-squares slope of y on x, and its 95 % interval by Student's t; zeros without three points."""
    if len(x) < 3 or not np.isfinite(y).all():
        return 0.0, (0.0, 0.0)
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    residual = y - y.mean() - slope * centred
    error = math.sqrt(float(residual @ residual) / (len(x) - 2) / float(centred @ centred))
    reach = _student_975(len(x) - 2) * error
    return slope, (slope - reach, slope + reach)


def _student_975(freedom: int) -> float:
    """97.5 % quantile of Student's t, expanded about the normal one (Abramowitz and Stegun 26.7.5)."""
    exact = {1: 12.706205, 2: 4.302653}
    if freedom in exact:
        return exact[freedom]
    z, n = 1.959964, float(freedom)
    terms = [
        z,
        (z**3 + z) / (4 * n),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3),
    ]
    return sum(terms)


def summary(drift: Drift) -> dict[str, Any]:
    """Plain data for report.json."""
    return {
        "seconds": drift.seconds,
        "chunks": drift.chunks,
        "mean_abs": drift.mean_abs,
        "kl": drift.kl,
        "slope_per_minute": drift.slope_per_minute,
        "slope_ci95": list(drift.slope_ci95),
        "first": drift.first,
        "last": drift.last,
        "warning": drift.warning,
        "points": list(drift.points),
    }


def drift_line(key: str, drift: Drift) -> str:
    """One measurement in words."""
    grows = f": {drift.warning}" if drift.warning else f", {drift.slope_per_minute:+.1e} a minute"
    return f"drift    {key}: {drift.mean_abs:.2e} on average over {drift.seconds:.0f} s{grows}"
