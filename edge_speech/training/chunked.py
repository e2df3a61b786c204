"""What our architectures share: settings with limits, normalised features, zeros as the initial state.

One `forward` serves the chunks of a stream and the whole utterances of training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from edge_speech.encoder import StreamingSpec, TensorSpec
from edge_speech.features import SILENCE
from edge_speech.training.models import StreamingModel

# Feature frames that one row of log_probs stands for, in every architecture here.
SUBSAMPLING_FACTOR = 4
HEADS = ("log_softmax", "linear")
# Normalised features are clamped here, so that digital silence stays near the speech it borders on.
FEATURE_FLOOR = -4.0


@dataclass(frozen=True)
class LimitedConfig:
    """Settings of every architecture.

    `LIMITS` holds the largest value accepted of every whole number, so that a hostile checkpoint cannot ask
    for a model without end; the least is 1, or what `LEAST` says. Raises ValueError.
    """

    LIMITS: ClassVar[dict[str, int]] = {"num_features": 1024, "vocab_size": 65536}
    LEAST: ClassVar[dict[str, int]] = {}

    num_features: int = 80
    vocab_size: int = 500
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name, most in self.LIMITS.items():
            value, least = getattr(self, name), self.LEAST.get(name, 1)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} is {value!r}; allowed are {least} to {most}")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout is {self.dropout!r}; allowed are 0 to 1")


@dataclass(frozen=True)
class ChunkedConfig(LimitedConfig):
    """Settings of every streaming architecture; `*_frames` are feature frames (10 ms each by default).

    `MULTIPLES` are the settings that must be multiples of the subsampling factor. The `head` "linear" gives
    plain numbers in place of log_probs, which objective "regression" trains and no bundle can hold. Raises
    ValueError.
    """

    LIMITS: ClassVar[dict[str, int]] = {**LimitedConfig.LIMITS, "chunk_frames": 1024}
    MULTIPLES: ClassVar[tuple[str, ...]] = ("chunk_frames",)

    chunk_frames: int = 16
    head: str = "log_softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head not in HEADS:
            raise ValueError(f"head is {self.head!r}; allowed are {', '.join(HEADS)}")
        for name in self.MULTIPLES:
            if getattr(self, name) % SUBSAMPLING_FACTOR:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be a multiple of {SUBSAMPLING_FACTOR}"
                )

    def derived(self) -> dict[str, int]:
        """The settings that follow from others where they are 0, and what they are."""
        return {}


class ChunkedModel(StreamingModel):
    """features (B, T, F) → log_probs (B, T / 4, V).

    `forward` takes the frames of any whole number of chunks, and the right context after them. A state has no
    dimension for the batch, which a device does not have: those of B streams lie behind each other along its
    first. A subclass builds its layers, sets `spec` with `_spec` and computes `chunks`.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, config: ChunkedConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("feature_mean", torch.zeros(config.num_features))
        self.register_buffer("feature_std", torch.ones(config.num_features))

    def _spec(self, state: Sequence[TensorSpec], right_context_frames: int = 0) -> StreamingSpec:
        return StreamingSpec(
            chunk_frames=self.config.chunk_frames,
            right_context_frames=right_context_frames,
            subsampling_factor=SUBSAMPLING_FACTOR,
            num_features=self.config.num_features,
            vocab_size=self.config.vocab_size,
            padding_value=SILENCE,
            state=tuple(state),
        )

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """features (B, T, F) and state → log_probs (B, T / 4, V) and the next state."""
        batch = features.shape[0]
        log_probs, *following = self.chunks(features, *(t.reshape(batch, -1, *t.shape[1:]) for t in state))
        return (log_probs, *(t.flatten(0, 1) for t in following))

    @abstractmethod
    def chunks(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """`forward`, with states (B, …) that have a dimension for the batch."""

    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:
        """Zeros of the shapes in `spec`, `batch_size` times along the first dimension."""
        like = self.feature_mean
        return tuple(
            torch.zeros(
                (batch_size * s.shape[0], *s.shape[1:]),
                dtype=torch.int64 if s.dtype == "int64" else like.dtype,
                device=like.device,
            )
            for s in self.spec.state
        )

    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the feature statistics (F,), in the units of the front end."""
        self.feature_mean.copy_(torch.as_tensor(mean))
        self.feature_std.copy_(torch.as_tensor(std))

    def normalised(self, features: Tensor) -> Tensor:
        """features (B, T, F) less their mean, over their deviation, not below the floor."""
        return ((features - self.feature_mean) / self.feature_std).clamp(min=FEATURE_FLOOR)

    def headed(self, outputs: Tensor) -> Tensor:
        """outputs (B, T, V) of the last layer → log_probs, or the same where the head is linear."""
        return functional.log_softmax(outputs, dim=-1) if self.config.head == "log_softmax" else outputs

    def parallel(self, features: Tensor) -> Tensor:
        """Whole utterances: features (B, T, F) → log_probs (B, ceil(T / 4), V), equal to the chunked run."""
        frames = features.shape[1]
        padding = -frames % self.spec.chunk_frames + self.spec.right_context_frames
        features = functional.pad(features, (0, 0, 0, padding), value=self.spec.padding_value)
        log_probs: Tensor = self(features, *self.initial_state(features.shape[0]))[0]
        return log_probs[:, : -(-frames // SUBSAMPLING_FACTOR)]
