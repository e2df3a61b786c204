"""Feature chunks as the device cuts them, for tools that work below the audio line."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edge_speech.encoder import FloatArray, StreamingSpec


def windows(features: FloatArray, spec: StreamingSpec) -> Iterator[FloatArray]:
    """Cut features (T, F) into one stream's windows (1, window, F), the last ones filled with padding."""
    rows = -(-len(features) // spec.subsampling_factor)
    steps = -(-rows // spec.output_frames)
    length = max(0, steps - 1) * spec.chunk_frames + spec.window_frames
    padded = np.full((length, spec.num_features), spec.padding_value, np.float32)
    padded[: min(length, len(features))] = features[:length]
    for step in range(steps):
        start = step * spec.chunk_frames
        yield padded[None, start : start + spec.window_frames]
