"""The PyTorch model as an engine, so that it runs through the same C++ stream as every artifact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.training.chunked import ChunkedModel
from edge_speech_tools.streaming import windows

# Chunks that one call of `rows` takes, 20 s of 320 ms chunks: attention over an hour would not fit memory.
SPAN_CHUNKS = 64


@contextmanager
def single_thread() -> Iterator[None]:
    """PyTorch on one thread: a step is too small to share, threads that wait for each other cost more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class TorchEncoder:
    """`Encoder` over a module that follows the encoder contract."""

    model: torch.nn.Module
    spec: StreamingSpec

    def open(self, features: FloatArray, log_probs: FloatArray) -> TorchStream:
        """Open a stream on features (window, F) and log_probs (rows, V)."""
        return TorchStream(self.model, features, log_probs)


class TorchStream:
    """`EncoderStream`: the buffers are seen as tensors, nothing is copied on the way in."""

    def __init__(self, model: torch.nn.Module, features: FloatArray, log_probs: FloatArray) -> None:
        self._model = model
        self._features = torch.from_numpy(features)[None]
        self._log_probs = torch.from_numpy(log_probs)
        self._state: tuple[torch.Tensor, ...] = ()
        self.reset()

    def step(self) -> None:
        """One forward call, the state carried."""
        with torch.inference_mode():
            log_probs, *state = self._model(self._features, *self._state)
            self._log_probs.copy_(log_probs[0])
        self._state = tuple(state)

    def reset(self) -> None:
        """Back to the model's initial state."""
        self._state = tuple(self._model.initial_state(1))  # type: ignore[operator]


def rows(model: torch.nn.Module, spec: StreamingSpec, features: FloatArray) -> FloatArray:
    """log_probs (ceil(T / subsampling), V) of one stream's features (T, F).

    A ChunkedModel takes many chunks at a time, which the law says is the chunked run, and is an order of
    magnitude faster; any other model goes chunk by chunk.
    """
    parts, wanted = [], -(-len(features) // spec.subsampling_factor)
    state = tuple(model.initial_state(1))  # type: ignore[operator]
    with torch.inference_mode():
        for window in _spans(features, spec) if isinstance(model, ChunkedModel) else windows(features, spec):
            log_probs, *following = model(torch.from_numpy(window), *state)
            state = tuple(following)
            parts.append(log_probs[0].numpy())
    whole = np.concatenate(parts) if parts else np.zeros((0, spec.vocab_size), np.float32)
    return np.ascontiguousarray(whole[:wanted], np.float32)


def _spans(features: FloatArray, spec: StreamingSpec) -> Iterator[FloatArray]:
    """Features (T, F) in windows (1, n * chunk + right context, F) of many chunks, the last filled up."""
    chunks = -(-len(features) // spec.chunk_frames)
    length = chunks * spec.chunk_frames + spec.right_context_frames
    padded = np.full((length, spec.num_features), spec.padding_value, np.float32)
    padded[: len(features)] = features
    for first in range(0, chunks, SPAN_CHUNKS):
        end = min(chunks, first + SPAN_CHUNKS) * spec.chunk_frames + spec.right_context_frames
        yield padded[None, first * spec.chunk_frames : end]
