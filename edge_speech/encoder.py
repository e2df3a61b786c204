"""The encoder contract: what a streaming encoder is, wherever it runs.

A streaming encoder takes a fixed window of feature frames and its state, and gives log-probabilities and
the next state. `StreamingSpec` is its shape; training, tools and device read the same one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Tensors = dict[str, tuple[str, tuple[int, ...]]]  # name → (numpy dtype name, shape)


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and numpy dtype name (`float32`, `int64`) of one state tensor, for batch size 1."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class StreamingSpec:
    """Fixed shapes of one encoder step.

    A step reads `chunk_frames + right_context_frames` frames of `num_features` bins and gives
    `chunk_frames // subsampling_factor` rows of `vocab_size` natural-log probabilities; the stream then moves
    on by `chunk_frames`. After the last real frame the window is filled with `padding_value`, and of `n` real
    frames the first `ceil(n / subsampling_factor)` output rows count.
    """

    chunk_frames: int
    right_context_frames: int
    subsampling_factor: int
    num_features: int
    vocab_size: int
    padding_value: float
    state: tuple[TensorSpec, ...]

    @property
    def window_frames(self) -> int:
        """Feature frames one step reads."""
        return self.chunk_frames + self.right_context_frames

    @property
    def output_frames(self) -> int:
        """Rows of log_probs one step gives."""
        return self.chunk_frames // self.subsampling_factor

    @staticmethod
    def next_name(name: str) -> str:
        """Name of the graph output that becomes state `name` of the following step."""
        return f"next_{name}"

    def inputs(self) -> Tensors:
        """What a step reads, by the names of an exported graph, in its order."""
        features = {"features": ("float32", (1, self.window_frames, self.num_features))}
        return features | {t.name: (t.dtype, t.shape) for t in self.state}

    def outputs(self) -> Tensors:
        """What a step writes."""
        log_probs = {"log_probs": ("float32", (1, self.output_frames, self.vocab_size))}
        return log_probs | {self.next_name(t.name): (t.dtype, t.shape) for t in self.state}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> StreamingSpec:
        """Inverse of `dataclasses.asdict`. Raises KeyError or TypeError on missing or odd fields."""
        state = tuple(
            TensorSpec(s["name"], tuple(int(n) for n in s["shape"]), s["dtype"]) for s in data["state"]
        )
        numbers = {key: int(data[key]) for key in _INTEGER_FIELDS}
        return StreamingSpec(**numbers, padding_value=float(data["padding_value"]), state=state)


_INTEGER_FIELDS = ("chunk_frames", "right_context_frames", "subsampling_factor", "num_features", "vocab_size")


class EncoderStream(Protocol):
    """One stream's encoder: its state, bound to the two buffers it was opened with."""

    def step(self) -> None:
        """Read the features buffer, write the log_probs buffer, advance the state."""

    def reset(self) -> None:
        """Back to the initial state."""


class Encoder(Protocol):
    """A loaded engine, shared by its streams."""

    @property
    def spec(self) -> StreamingSpec:
        """Fixed shapes of one step."""

    def open(self, features: FloatArray, log_probs: FloatArray) -> EncoderStream:
        """Open a stream on caller-owned C-contiguous buffers that live as long as it does.

        features (window_frames, num_features) is read by every step; log_probs (output_frames, vocab_size) is
        written by it. Fixed buffers let an engine bind them once and copy nothing.
        """


def step_buffers(encoder: Encoder) -> tuple[FloatArray, FloatArray]:
    """Zeroed features and log_probs to open a stream of `encoder` on.

    They are in its own kind of memory where it has one: such an encoder has `allocate(shape)`.
    """
    spec, allocate = encoder.spec, getattr(encoder, "allocate", lambda shape: np.zeros(shape, np.float32))
    features = allocate((spec.window_frames, spec.num_features))
    return features, allocate((spec.output_frames, spec.vocab_size))
