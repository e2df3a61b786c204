"""Chunk-causal Transformer with cached keys and values.

Transformer: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; normalisation before each part: Xiong et
al. 2020, https://arxiv.org/abs/2002.04745. Attention to the own chunk and a fixed left context, as in Chen et
al. 2021, https://arxiv.org/abs/2010.11395, makes it streamable; there is no right context.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edge_speech.encoder import TensorSpec
from edge_speech.training.channels import Axis, LayerStack, giving, reading
from edge_speech.training.chunked import ChunkedModel
from edge_speech.training.layers import Attention, AttentionConfig, FeedForward, KeyCounter, Subsampling


@dataclass(frozen=True)
class Config(AttentionConfig):
    """Dimensions of the encoder."""

    d_model: int = 96
    num_layers: int = 4
    feed_forward_dim: int = 384
    left_context_frames: int = 128


SIZES = {
    "small": Config(d_model=96, num_layers=4, feed_forward_dim=384),
    "medium": Config(d_model=144, num_layers=6, feed_forward_dim=576),
    "large": Config(d_model=192, num_layers=8, feed_forward_dim=768),
}


def build(config: Config) -> Transformer:
    """Build the encoder with fresh weights."""
    return Transformer(config)


class Transformer(ChunkedModel):
    """features (B, T, F) → log_probs (B, T / 4, V).

    State: the caches of the subsampling, the counter of keys, and keys and values of each layer.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.keys = KeyCounter(config.left_context_frames, config.chunk_frames)
        self.subsampling = Subsampling(config.num_features, config.d_model)
        self.layers = nn.ModuleList(TransformerLayer(config, self.keys) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.output = nn.Linear(config.d_model, config.vocab_size)
        state = self.subsampling.state() + self.keys.state()
        for i, layer in enumerate(self.layers):
            state += layer.state(f"layer{i}")  # type: ignore[operator]
        self.spec = self._spec(state)

    def residual(self) -> list[Axis]:
        """What the output reads."""
        return [*giving("norm"), *reading("output")]

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
            x, *next_caches = layer(x, mask, *caches[2 * i : 2 * i + 2])
            next_state += next_caches
        return (self.headed(self.output(self.norm(x))), *next_state)


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each with a residual connection."""

    def __init__(self, config: Config, keys: KeyCounter) -> None:
        super().__init__()
        self.attention = Attention(config, keys)
        self.feed_forward = FeedForward(config.d_model, config.feed_forward_dim)
        self.dropout = nn.Dropout(config.dropout)

    def state(self, prefix: str) -> list[TensorSpec]:
        """Keys and values of the left context."""
        return self.attention.state(prefix)

    def forward(self, x: Tensor, mask: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D) → the same shape, and the next keys and values."""
        attended, keys, values = self.attention(x, mask, keys, values)
        x = x + self.dropout(attended)
        return x + self.dropout(self.feed_forward(x)), keys, values
