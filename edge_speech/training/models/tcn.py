"""Causal depthwise-separable convolutions with growing dilation and no attention: for the smallest devices.

Dilated causal convolutions in residual layers: Bai et al. 2018, https://arxiv.org/abs/1803.01271. Depthwise
and pointwise halves, for speech: QuartzNet, Kriman et al. 2019, https://arxiv.org/abs/1910.10261; the
pointwise half widens and narrows as in Sandler et al. 2018, https://arxiv.org/abs/1801.04381. Batch norm
follows the depthwise convolution directly, so that exporters fold it into the weights.
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
from edge_speech.training.chunked import ChunkedConfig, ChunkedModel
from edge_speech.training.layers import Subsampling, over_time


@dataclass(frozen=True)
class Config(ChunkedConfig):
    """Dimensions of the encoder. Layer i has dilation 2 ** (i % dilation_cycle), in rows of log_probs, and
    widens to `hidden_dim`; 0 stands for expansion · d_model."""

    LIMITS: ClassVar[dict[str, int]] = {
        **ChunkedConfig.LIMITS,
        "d_model": 4096,
        "num_layers": 64,
        "expansion": 16,
        "kernel": 255,
        "dilation_cycle": 8,
        "hidden_dim": 65536,
    }
    LEAST: ClassVar[dict[str, int]] = {"kernel": 2, "hidden_dim": 0}

    d_model: int = 64
    num_layers: int = 8
    expansion: int = 2
    kernel: int = 5
    dilation_cycle: int = 4
    hidden_dim: int = 0

    def derived(self) -> dict[str, int]:
        """The width of the wide part."""
        return {"hidden_dim": self.hidden_dim or self.expansion * self.d_model}


SIZES = {
    "small": Config(d_model=64, num_layers=8),
    "medium": Config(d_model=128, num_layers=8),
    "large": Config(d_model=224, num_layers=12),
}


def build(config: Config) -> Tcn:
    """Build the encoder with fresh weights."""
    return Tcn(config)


class Tcn(ChunkedModel):
    """features (B, T, F) → log_probs (B, T / 4, V). State: the frames before each convolution."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.subsampling = Subsampling(config.num_features, config.d_model)
        dilations = [2 ** (i % config.dilation_cycle) for i in range(config.num_layers)]
        self.layers = nn.ModuleList(SeparableLayer(config, dilation) for dilation in dilations)
        self.norm = nn.LayerNorm(config.d_model)
        self.output = nn.Linear(config.d_model, config.vocab_size)
        state = self.subsampling.state()
        for i, layer in enumerate(self.layers):
            state += layer.state(f"layer{i}")  # type: ignore[operator]
        self.spec = self._spec(state)

    def residual(self) -> list[Axis]:
        """What the output reads."""
        return [*giving("norm"), *reading("output")]

    def layer_stack(self) -> LayerStack:
        """A whole cycle of dilations can be left out, as the layers after it keep theirs; so can the last."""
        count, cycle = self.config.num_layers, self.config.dilation_cycle
        cycles = [tuple(range(i, i + cycle)) for i in range(count - cycle + 1)]
        return LayerStack(r"layers\.(\d+)\.", tuple(dict.fromkeys([*cycles, (count - 1,)])))

    def chunks(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Any number of chunks: features (B, T, F) and state → log_probs (B, T / 4, V) and the next state."""
        cache1, cache2, *caches = state
        x, *next_state = self.subsampling(self.normalised(features), cache1, cache2)
        for layer, cache in zip(self.layers, caches, strict=True):
            x, next_cache = layer(x, cache)
            next_state.append(next_cache)
        return (self.headed(self.output(self.norm(x))), *next_state)


class SeparableLayer(nn.Module, HasChannels):
    """Causal depthwise convolution → batch norm → wide Linear → ReLU → Linear, with a residual connection."""

    def __init__(self, config: Config, dilation: int) -> None:
        super().__init__()
        d, wide = config.d_model, config.derived()["hidden_dim"]
        self.d_model, self.cache_frames = d, (config.kernel - 1) * dilation
        self.depthwise = nn.Conv1d(d, d, config.kernel, dilation=dilation, groups=d)
        self.batch_norm = nn.BatchNorm1d(d)
        self.expand = nn.Linear(d, wide)
        self.contract = nn.Linear(wide, d)
        self.dropout = nn.Dropout(config.dropout)

    def own_channels(self) -> dict[str, list[Group]]:
        """The wide part."""
        return {"hidden_dim": [group(giving("expand"), reading("contract"))]}

    def residual(self) -> list[Axis]:
        """What goes in, each channel by itself through the convolution, and what comes out."""
        convolved = [*giving("depthwise"), *batch_norm("batch_norm")]
        return [*convolved, *reading("expand"), *giving("contract")]

    def state(self, prefix: str) -> list[TensorSpec]:
        """The frames before."""
        return [TensorSpec(f"{prefix}_conv", (self.cache_frames, self.d_model), "float32")]

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, D) and cache (B, (kernel - 1) dilation, D) → (B, T, D) and the next cache."""
        padded = torch.cat((cache, x), dim=1)
        y = over_time(lambda z: self.batch_norm(self.depthwise(z)), padded)
        y = self.contract(functional.relu(self.expand(y)))
        return x + self.dropout(y), padded[:, -self.cache_frames :]
