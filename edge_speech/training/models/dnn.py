"""Feed-forward network over spliced frames: each row of log_probs sees a fixed stretch of feature frames.

Hinton et al. 2012, https://doi.org/10.1109/MSP.2012.2205597; with CTC and rectified units: Hannun et al.
2014, https://arxiv.org/abs/1412.5567; one row for several frames: Pundak and Sainath 2016,
https://doi.org/10.21437/Interspeech.2016-275. The spliced frames and the first layer's weights meet in one
strided convolution, which is the same product without the copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_speech.encoder import TensorSpec
from edge_speech.training.channels import Group, LayerStack, giving, group, reading
from edge_speech.training.chunked import SUBSAMPLING_FACTOR, ChunkedConfig, ChunkedModel


@dataclass(frozen=True)
class Config(ChunkedConfig):
    """Dimensions of the encoder.

    A row of log_probs sees its own four frames, the left context before them and the right one after.
    """

    LIMITS: ClassVar[dict[str, int]] = {
        **ChunkedConfig.LIMITS,
        "hidden_dim": 16384,
        "num_layers": 64,
        "left_context_frames": 1024,
        "right_context_frames": 1024,
    }
    LEAST: ClassVar[dict[str, int]] = {"right_context_frames": 0}

    hidden_dim: int = 256
    num_layers: int = 3
    left_context_frames: int = 16
    right_context_frames: int = 0


SIZES = {
    "small": Config(hidden_dim=256, num_layers=3, left_context_frames=16),
    "medium": Config(hidden_dim=512, num_layers=4, left_context_frames=20),
    "large": Config(hidden_dim=768, num_layers=5, left_context_frames=20),
}


def build(config: Config) -> Dnn:
    """Build the encoder with fresh weights."""
    return Dnn(config)


class Dnn(ChunkedModel):
    """features (B, T, F) → log_probs (B, T / 4, V). State: the left context."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.left, self.right = config.left_context_frames, config.right_context_frames
        self.splice = nn.Conv1d(
            config.num_features,
            config.hidden_dim,
            self.left + SUBSAMPLING_FACTOR + self.right,
            stride=SUBSAMPLING_FACTOR,
        )
        self.norm = nn.LayerNorm(config.hidden_dim)
        self.layers = nn.ModuleList(HiddenLayer(config) for _ in range(config.num_layers - 1))
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_dim, config.vocab_size)
        left_context = TensorSpec("left_context", (config.num_features, self.left), "float32")
        self.spec = self._spec([left_context], self.right)

    def own_channels(self) -> dict[str, list[Group]]:
        """Those between two layers, of every two."""
        hidden = [f"layers.{i}" for i in range(len(self.layers))]
        given = [("splice", "norm"), *((f"{one}.linear", f"{one}.norm") for one in hidden)]
        read = [*(f"{one}.linear" for one in hidden), "output"]
        return {"hidden_dim": [group(giving(*g), reading(r)) for g, r in zip(given, read, strict=True)]}

    def layer_stack(self) -> LayerStack:
        """Any layer but the first, which reads the features."""
        return LayerStack(r"layers\.(\d+)\.", tuple((i,) for i in range(len(self.layers))))

    def chunks(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Any number of chunks and the right context: features (B, T + right, F), left context (B, F, left) →
        log_probs (B, T / 4, V) and the next left context."""
        frames = features.shape[1] - self.right
        spliced = torch.cat((state[0], self.normalised(features).transpose(1, 2)), dim=2)
        x = self.dropout(functional.relu(self.norm(self.splice(spliced).transpose(1, 2))))
        for layer in self.layers:
            x = layer(x)
        return self.headed(self.output(x)), spliced[:, :, frames : frames + self.left]


class HiddenLayer(nn.Module):
    """Linear → layer norm → ReLU, (B, T, H) → (B, T, H)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.linear = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.norm = nn.LayerNorm(config.hidden_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, H) → (B, T, H)."""
        hidden: Tensor = self.dropout(functional.relu(self.norm(self.linear(x))))
        return hidden
