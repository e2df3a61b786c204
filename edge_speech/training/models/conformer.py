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
from edge_speech.training.chunked import ChunkedModel
from edge_speech.training.layers import Attention, AttentionConfig, FeedForward, KeyCounter, Subsampling


@dataclass(frozen=True)
class Config(AttentionConfig):
    """Dimensions of the encoder; a convolution sees `conv_kernel` rows."""

    LIMITS: ClassVar[dict[str, int]] = {**AttentionConfig.LIMITS, "conv_kernel": 255}
    LEAST: ClassVar[dict[str, int]] = {"conv_kernel": 2}

    conv_kernel: int = 15


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

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Any number of chunks: features (B, T, F) and state → log_probs (B, T / 4, V) and the next state."""
        cache1, cache2, processed, *caches = state
        x, *next_state = self.subsampling(self.normalised(features), cache1, cache2)
        mask, processed = self.keys.mask(processed, x)
        next_state.append(processed)
        for i, layer in enumerate(self.layers):
            x, *next_caches = layer(x, mask, *caches[3 * i : 3 * i + 3])
            next_state += next_caches
        return (self.headed(self.output(x)), *next_state)


class ConformerLayer(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward; each with a residual connection."""

    def __init__(self, config: Config, keys: KeyCounter) -> None:
        super().__init__()
        d = config.d_model
        self.feed_forward1 = FeedForward(d, config.feed_forward_dim)
        self.attention = Attention(d, config.num_heads, keys)
        self.convolution = Convolution(d, config.conv_kernel)
        self.feed_forward2 = FeedForward(d, config.feed_forward_dim)
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(config.dropout)

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


class Convolution(nn.Module):
    """Pointwise GLU → causal depthwise convolution → batch norm → SiLU → pointwise."""

    def __init__(self, d_model: int, kernel: int) -> None:
        super().__init__()
        self.d_model, self.cache_frames = d_model, kernel - 1
        self.norm = nn.LayerNorm(d_model)
        self.expand = nn.Linear(d_model, 2 * d_model)
        self.depthwise = nn.Conv1d(d_model, d_model, kernel, groups=d_model)
        self.batch_norm = nn.BatchNorm1d(d_model)
        self.contract = nn.Linear(d_model, d_model)

    def state(self, prefix: str) -> list[TensorSpec]:
        """The frames before."""
        return [TensorSpec(f"{prefix}_conv", (1, self.d_model, self.cache_frames), "float32")]

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, D) and cache (B, D, kernel - 1) → (B, T, D) and the next cache."""
        gated = functional.glu(self.expand(self.norm(x)), dim=-1).transpose(1, 2)
        padded = torch.cat((cache, gated), dim=2)
        y = functional.silu(self.batch_norm(self.depthwise(padded))).transpose(1, 2)
        return self.contract(y), padded[:, :, -self.cache_frames :]
