"""Causal Conformer with chunked attention and cached state.

Conformer: Gulati et al. 2020, https://arxiv.org/abs/2005.08100. Causal convolutions and attention limited to
the own chunk and a fixed left context make the encoder streamable.

Every convolution looks only back, so there is no right context; the only lookahead is within the chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_speech.encoder import TensorSpec
from edge_speech.training.channels import (
    Axis,
    Group,
    HasChannels,
    LayerStack,
    batch_norm,
    giving,
    group,
    reading,
)
from edge_speech.training.chunked import ChunkedModel
from edge_speech.training.layers import (
    Attention,
    AttentionConfig,
    FeedForward,
    KeyCounter,
    Subsampling,
    over_time,
)


@dataclass(frozen=True)
class Config(AttentionConfig):
    """Dimensions of the encoder; a convolution has `conv_channels`, 0 stands for d_model, and sees
    `conv_kernel` rows."""

    LIMITS: ClassVar[dict[str, int]] = {**AttentionConfig.LIMITS, "conv_kernel": 255, "conv_channels": 4096}
    LEAST: ClassVar[dict[str, int]] = {**AttentionConfig.LEAST, "conv_kernel": 2, "conv_channels": 0}

    conv_kernel: int = 15
    conv_channels: int = 0

    def derived(self) -> dict[str, int]:
        """The widths of a head and of the convolution."""
        return {**super().derived(), "conv_channels": self.conv_channels or self.d_model}


SIZES = {
    "small": Config(d_model=64, num_layers=5, feed_forward_dim=256),
    "medium": Config(d_model=112, num_layers=6, feed_forward_dim=448),
    "large": Config(d_model=144, num_layers=8, feed_forward_dim=576),
}


def build(config: Config) -> Conformer:
    """Build the encoder with fresh weights."""
    return Conformer(config)


class Conformer(ChunkedModel):
    """features (B, T, F) → log_probs (B, T / 4, V).

    State: the caches of the subsampling, the counter of keys, and of each layer keys, values and the frames
    before its convolution.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.keys = KeyCounter(config.left_context_frames, config.chunk_frames)
        self.subsampling = Subsampling(config.num_features, config.d_model)
        self.layers = nn.ModuleList(ConformerLayer(config, self.keys) for _ in range(config.num_layers))
        self.output = nn.Linear(config.d_model, config.vocab_size)
        state = self.subsampling.state() + self.keys.state()
        for i, layer in enumerate(self.layers):
            state += layer.state(f"layer{i}")  # type: ignore[operator]
        self.spec = self._spec(state)

    def residual(self) -> list[Axis]:
        """What the output reads."""
        return reading("output")

    def layer_stack(self) -> LayerStack:
        """Any layer can be left out."""
        return LayerStack(r"layers\.(\d+)\.", tuple((i,) for i in range(len(self.layers))))

    def chunks(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Any number of chunks: features (B, T, F) and state → log_probs (B, T / 4, V) and the next state."""
        cache1, cache2, processed, *caches = state
        x, *next_state = self.subsampling(self.normalised(features), cache1, cache2)
        mask, processed = self.keys.mask(processed, x)
        next_state.append(processed)
        for i, layer in enumerate(self.layers):
            x, *next_caches = layer(x, mask, *caches[3 * i : 3 * i + 3])
            next_state += next_caches
        return (self.headed(self.output(x)), *next_state)


class ConformerLayer(nn.Module, HasChannels):
    """Half feed-forward, attention, convolution, half feed-forward; each with a residual connection."""

    def __init__(self, config: Config, keys: KeyCounter) -> None:
        super().__init__()
        d = config.d_model
        self.feed_forward1 = FeedForward(d, config.feed_forward_dim)
        self.attention = Attention(config, keys)
        self.convolution = Convolution(d, config.derived()["conv_channels"], config.conv_kernel)
        self.feed_forward2 = FeedForward(d, config.feed_forward_dim)
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(config.dropout)

    def residual(self) -> list[Axis]:
        """What comes out."""
        return giving("norm")

    def state(self, prefix: str) -> list[TensorSpec]:
        """Keys, values and the frames before the convolution."""
        return [*self.attention.state(prefix), *self.convolution.state(prefix)]

    def forward(
        self, x: Tensor, mask: Tensor, keys: Tensor, values: Tensor, conv: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (B, T, D) → the same shape, and the next keys, values and convolution caches."""
        x = x + 0.5 * self.dropout(self.feed_forward1(x))
        attended, keys, values = self.attention(x, mask, keys, values)
        x = x + self.dropout(attended)
        convolved, conv = self.convolution(x, conv)
        x = x + self.dropout(convolved)
        x = x + 0.5 * self.dropout(self.feed_forward2(x))
        return self.norm(x), keys, values, conv


class Convolution(nn.Module, HasChannels):
    """Pointwise GLU → causal depthwise convolution → batch norm → SiLU → pointwise."""

    def __init__(self, d_model: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.channels, self.cache_frames = channels, kernel - 1
        self.norm = nn.LayerNorm(d_model)
        self.expand = nn.Linear(d_model, 2 * channels)
        self.depthwise = nn.Conv1d(channels, channels, kernel, groups=channels)
        self.batch_norm = nn.BatchNorm1d(channels)
        self.contract = nn.Linear(channels, d_model)

    def own_channels(self) -> dict[str, list[Group]]:
        """Those of the depthwise convolution; GLU has two halves of them."""
        inside = [*giving("depthwise"), *batch_norm("batch_norm"), *reading("contract")]
        return {"conv_channels": [group(giving("expand", blocks=2), inside)]}

    def residual(self) -> list[Axis]:
        """What goes in and what comes out."""
        return [*giving("norm", "contract"), *reading("expand")]

    def state(self, prefix: str) -> list[TensorSpec]:
        """The frames before."""
        return [TensorSpec(f"{prefix}_conv", (self.cache_frames, self.channels), "float32")]

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, D) and cache (B, kernel - 1, C) → (B, T, D) and the next cache."""
        padded = torch.cat((cache, functional.glu(self.expand(self.norm(x)), dim=-1)), dim=1)
        y = functional.silu(over_time(lambda z: self.batch_norm(self.depthwise(z)), padded))
        return self.contract(y), padded[:, -self.cache_frames :]
