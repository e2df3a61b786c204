"""The PyTorch model as an engine, so that it runs through the same C++ stream as every artifact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from edge_speech.encoder import FloatArray, StreamingSpec


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
