"""Causal Conformer with chunked attention and cached state.

Conformer: Gulati et al. 2020, https://arxiv.org/abs/2005.08100. Causal convolutions and attention limited to
the own chunk and a fixed left context make the encoder streamable; a learned bias per head and relative
distance (Raffel et al. 2020, section 2.1, https://arxiv.org/abs/1910.10683) takes the place of positional
encodings.

Every convolution looks only back, so there is no right context; the only lookahead is within the chunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_speech.encoder import StreamingSpec, TensorSpec
from edge_speech.features import SILENCE
from edge_speech.training.models import StreamingModel

SUBSAMPLING_FACTOR = 4
SUBSAMPLING_KERNEL = 5
SUBSAMPLING_STRIDE = 2
# A convolution of kernel k and stride s that ends on the newest frame looks k - s frames back.
SUBSAMPLING_CACHE = SUBSAMPLING_KERNEL - SUBSAMPLING_STRIDE
# Normalised features are clamped here, so that digital silence stays near the speech it borders on.
FEATURE_FLOOR = -4.0
# Added to the scores of keys that do not exist; exp() of it is 0 in float32 and float16.
MASKED = -1e4
# Largest settings accepted, so that a hostile checkpoint cannot ask for a model without end.
LIMITS = {
    "num_features": 1024,
    "vocab_size": 65536,
    "d_model": 4096,
    "num_layers": 64,
    "num_heads": 64,
    "feed_forward_dim": 16384,
    "conv_kernel": 255,
    "chunk_frames": 1024,
    "left_context_frames": 4096,
}


@dataclass(frozen=True)
class Config:
    """Dimensions of the encoder; `*_frames` are feature frames (10 ms each by default)."""

    num_features: int = 80
    vocab_size: int = 500
    d_model: int = 64
    num_layers: int = 5
    num_heads: int = 4
    feed_forward_dim: int = 256
    conv_kernel: int = 15
    chunk_frames: int = 16
    left_context_frames: int = 64
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name, most in LIMITS.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed are 1 to {most}")
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of num_heads {self.num_heads}")
        for name in ("chunk_frames", "left_context_frames"):
            if getattr(self, name) % SUBSAMPLING_FACTOR:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be a multiple of {SUBSAMPLING_FACTOR}"
                )
        if self.conv_kernel < 2:
            raise ValueError("conv_kernel is 1; it must be at least 2")


SIZES = {
    "small": Config(d_model=64, num_layers=5, feed_forward_dim=256),
    "medium": Config(d_model=112, num_layers=6, feed_forward_dim=448),
    "large": Config(d_model=144, num_layers=8, feed_forward_dim=576),
}


def build(config: Config) -> Conformer:
    """Build the encoder with fresh weights."""
    return Conformer(config)


class Conformer(StreamingModel):
    """features (B, T, F) → log_probs (B, T / 4, V). State: see `initial_state`."""

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.left_frames = config.left_context_frames // SUBSAMPLING_FACTOR
        self.chunk_output_frames = config.chunk_frames // SUBSAMPLING_FACTOR
        self.register_buffer("feature_mean", torch.zeros(config.num_features))
        self.register_buffer("feature_std", torch.ones(config.num_features))
        self.subsampling = Subsampling(config)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.num_layers))
        self.output = nn.Linear(config.d_model, config.vocab_size)
        self.spec = self._spec()

    def _spec(self) -> StreamingSpec:
        c = self.config
        head_dim = c.d_model // c.num_heads
        state = [
            TensorSpec("subsampling1_cache", (1, c.num_features, SUBSAMPLING_CACHE), "float32"),
            TensorSpec("subsampling2_cache", (1, c.d_model, SUBSAMPLING_CACHE), "float32"),
            TensorSpec("processed_frames", (1,), "int64"),
        ]
        for i in range(c.num_layers):
            state.append(
                TensorSpec(f"layer{i}_keys", (1, c.num_heads, head_dim, self.left_frames), "float32")
            )
            state.append(
                TensorSpec(f"layer{i}_values", (1, c.num_heads, self.left_frames, head_dim), "float32")
            )
            state.append(TensorSpec(f"layer{i}_conv", (1, c.d_model, c.conv_kernel - 1), "float32"))
        return StreamingSpec(
            chunk_frames=c.chunk_frames,
            right_context_frames=0,
            subsampling_factor=SUBSAMPLING_FACTOR,
            num_features=c.num_features,
            vocab_size=c.vocab_size,
            padding_value=SILENCE,
            state=tuple(state),
        )

    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:
        """Zeros of the shapes in `spec`, with `batch_size` as first dimension.

        `processed_frames` counts output frames up to the left context and tells which cached keys exist.
        """
        weight = self.output.weight
        return tuple(
            torch.zeros(
                (batch_size, *s.shape[1:]),
                dtype=torch.int64 if s.dtype == "int64" else weight.dtype,
                device=weight.device,
            )
            for s in self.spec.state
        )

    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the feature statistics (F,), natural-log mel units."""
        self.feature_mean.copy_(torch.as_tensor(mean))
        self.feature_std.copy_(torch.as_tensor(std))

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One chunk: features (B, chunk_frames, F) and state → log_probs (B, T_out, V) and the next state."""
        processed = state[2]
        missing = self._missing_keys(processed).unsqueeze(1)
        log_probs, next_state = self._run(features, missing, state)
        next_state.insert(2, (processed + self.chunk_output_frames).clamp(max=self.left_frames))
        return (log_probs, *next_state)

    def parallel(self, features: Tensor) -> Tensor:
        """Whole utterances: features (B, T, F) → log_probs (B, ceil(T / 4), V), equal to the chunked run."""
        frames = features.shape[1]
        padding = -frames % self.config.chunk_frames
        features = functional.pad(features, (0, 0, 0, padding), value=SILENCE)
        chunks = torch.arange(features.shape[1] // self.config.chunk_frames, device=features.device)
        missing = self._missing_keys(chunks * self.chunk_output_frames)
        log_probs, _ = self._run(features, missing, self.initial_state(features.shape[0]))
        return log_probs[:, : -(-frames // SUBSAMPLING_FACTOR)]

    def _run(
        self, features: Tensor, missing: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, list[Tensor]]:
        """Any number of chunks; `missing` is broadcast to (B, chunks, left + chunk), see `_missing_keys`."""
        cache1, cache2, _, *caches = state
        normalised = ((features - self.feature_mean) / self.feature_std).clamp(min=FEATURE_FLOOR)
        x, *next_state = self.subsampling(normalised, cache1, cache2)
        mask = (missing.to(x.dtype) * MASKED).unsqueeze(-2)
        for i, layer in enumerate(self.layers):
            x, *next_caches = layer(x, mask, *caches[3 * i : 3 * i + 3])
            next_state += next_caches
        return functional.log_softmax(self.output(x), dim=-1), next_state

    def _missing_keys(self, processed: Tensor) -> Tensor:
        """(N, left + chunk): which cached keys do not exist yet after `processed` (N,) output frames."""
        key = torch.arange(self.left_frames + self.chunk_output_frames, device=processed.device)
        return key < (self.left_frames - processed).unsqueeze(1)


class Subsampling(nn.Module):
    """Two causal strided convolutions: (B, T, F) → (B, T / 4, D)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        d = config.d_model
        self.conv1 = nn.Conv1d(config.num_features, d, SUBSAMPLING_KERNEL, SUBSAMPLING_STRIDE)
        self.conv2 = nn.Conv1d(d, d, SUBSAMPLING_KERNEL, SUBSAMPLING_STRIDE)
        self.norm = nn.LayerNorm(d)

    def forward(self, features: Tensor, cache1: Tensor, cache2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """features (B, T, F), caches (B, F, 3) and (B, D, 3) → x (B, T / 4, D) and the next caches."""
        x = torch.cat((cache1, features.transpose(1, 2)), dim=2)
        next1 = x[:, :, -SUBSAMPLING_CACHE:]
        y = torch.cat((cache2, functional.silu(self.conv1(x))), dim=2)
        next2 = y[:, :, -SUBSAMPLING_CACHE:]
        return self.norm(functional.silu(self.conv2(y)).transpose(1, 2)), next1, next2


class ConformerLayer(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward; each with a residual connection."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.feed_forward1 = FeedForward(config)
        self.attention = Attention(config)
        self.convolution = Convolution(config)
        self.feed_forward2 = FeedForward(config)
        self.norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

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


class FeedForward(nn.Module):
    """LayerNorm → Linear → SiLU → Linear, (B, T, D) → (B, T, D)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.d_model)
        self.expand = nn.Linear(config.d_model, config.feed_forward_dim)
        self.contract = nn.Linear(config.feed_forward_dim, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) → (B, T, D)."""
        hidden: Tensor = self.contract(functional.silu(self.expand(self.norm(x))))
        return hidden


class Attention(nn.Module):
    """Multi-head attention of each chunk over itself and the frames before, with a learned relative bias."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.left = config.left_context_frames // SUBSAMPLING_FACTOR
        self.chunk = config.chunk_frames // SUBSAMPLING_FACTOR
        self.norm = nn.LayerNorm(config.d_model)
        self.query = nn.Linear(config.d_model, config.d_model)
        self.key = nn.Linear(config.d_model, config.d_model)
        self.value = nn.Linear(config.d_model, config.d_model)
        self.output = nn.Linear(config.d_model, config.d_model)
        self.distance_bias = nn.Parameter(torch.zeros(config.num_heads, self.left + 2 * self.chunk - 1))
        self.scale = 1.0 / math.sqrt(config.d_model // config.num_heads)

    def forward(self, x: Tensor, mask: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D), T = N chunks → (B, T, D) and the next caches.

        mask broadcasts to (B, H, N, chunk, left + chunk); keys (B, H, d, left) and values (B, H, left, d).
        """
        batch, frames, _ = x.shape
        x = self.norm(x)
        query = self._heads(self.query(x) * self.scale).permute(0, 2, 1, 3)
        keys = torch.cat((keys, self._heads(self.key(x)).permute(0, 2, 3, 1)), dim=3)
        values = torch.cat((values, self._heads(self.value(x)).permute(0, 2, 1, 3)), dim=2)
        if frames == self.chunk:  # one chunk, as on the device: the caches are the window
            heads = self._attend(query, keys, values, mask)
        else:
            heads = self._attend_chunks(query, keys, values, mask)
        joined = heads.permute(0, 2, 1, 3).reshape(batch, frames, -1)
        return self.output(joined), keys[:, :, :, -self.left :], values[:, :, -self.left :]

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.num_heads, -1)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """One chunk: query (B, H, chunk, d), keys (B, H, d, S), values (B, H, S, d) → (B, H, chunk, d)."""
        scores = torch.matmul(query, keys) + (self._bias() + mask)
        return torch.matmul(scores.softmax(dim=-1), values)

    def _attend_chunks(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """`_attend` for all chunks at once: each chunk sees its own window of keys and values."""
        span = self.left + self.chunk
        query = query.reshape(*query.shape[:2], -1, self.chunk, query.shape[3])
        keys = keys.unfold(3, span, self.chunk).permute(0, 1, 3, 2, 4)
        values = values.unfold(2, span, self.chunk).transpose(3, 4)
        scores = torch.matmul(query, keys) + (self._bias().unsqueeze(1) + mask)
        return torch.matmul(scores.softmax(dim=-1), values).flatten(2, 3)

    def _bias(self) -> Tensor:
        """(H, chunk, left + chunk): the bias of every query-key distance."""
        query = torch.arange(self.chunk, device=self.distance_bias.device)[:, None] + self.left
        key = torch.arange(self.left + self.chunk, device=self.distance_bias.device)[None, :]
        return self.distance_bias[:, query - key + self.chunk - 1]


class Convolution(nn.Module):
    """Pointwise GLU → causal depthwise convolution → batch norm → SiLU → pointwise."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        d = config.d_model
        self.cache_frames = config.conv_kernel - 1
        self.norm = nn.LayerNorm(d)
        self.expand = nn.Linear(d, 2 * d)
        self.depthwise = nn.Conv1d(d, d, config.conv_kernel, groups=d)
        self.batch_norm = nn.BatchNorm1d(d)
        self.contract = nn.Linear(d, d)

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, D) and cache (B, D, kernel - 1) → (B, T, D) and the next cache."""
        gated = functional.glu(self.expand(self.norm(x)), dim=-1).transpose(1, 2)
        padded = torch.cat((cache, gated), dim=2)
        y = functional.silu(self.batch_norm(self.depthwise(padded))).transpose(1, 2)
        return self.contract(y), padded[:, :, -self.cache_frames :]
