"""Layers that several architectures are made of. `state` names what `forward` carries from chunk to chunk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_speech.encoder import TensorSpec
from edge_speech.training.channels import Axis, Group, HasChannels, giving, group, reading
from edge_speech.training.chunked import SUBSAMPLING_FACTOR, ChunkedConfig

SUBSAMPLING_KERNEL = 5
SUBSAMPLING_STRIDE = 2
# A convolution of kernel k and stride s that ends on the newest frame looks k - s frames back.
SUBSAMPLING_CACHE = SUBSAMPLING_KERNEL - SUBSAMPLING_STRIDE
# Added to the scores of keys that do not exist; exp() of it is 0 in float32 and float16.
MASKED = -1e4


@dataclass(frozen=True)
class AttentionConfig(ChunkedConfig):
    """Settings of an encoder whose layers attend; the left context is in feature frames.

    `head_dim` is the width of one head; 0 stands for d_model / num_heads.
    """

    LIMITS: ClassVar[dict[str, int]] = {
        **ChunkedConfig.LIMITS,
        "d_model": 4096,
        "num_layers": 64,
        "num_heads": 64,
        "head_dim": 4096,
        "feed_forward_dim": 16384,
        "left_context_frames": 4096,
    }
    LEAST: ClassVar[dict[str, int]] = {"head_dim": 0}
    MULTIPLES: ClassVar[tuple[str, ...]] = ("chunk_frames", "left_context_frames")

    d_model: int = 64
    num_layers: int = 5
    num_heads: int = 4
    feed_forward_dim: int = 256
    left_context_frames: int = 64
    head_dim: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.head_dim and self.d_model % self.num_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of num_heads {self.num_heads}")

    def derived(self) -> dict[str, int]:
        """The width of a head."""
        return {"head_dim": self.head_dim or self.d_model // self.num_heads}


class Subsampling(nn.Module, HasChannels):
    """Two causal strided convolutions: (B, T, F) → (B, T / 4, D).

    The last `right_context_frames` of T, a multiple of 4, are read again by the next call: its caches are the
    frames before them.
    """

    def __init__(self, num_features: int, d_model: int, right_context_frames: int = 0) -> None:
        super().__init__()
        self.num_features, self.d_model, self.right = num_features, d_model, right_context_frames
        self.conv1 = nn.Conv1d(num_features, d_model, SUBSAMPLING_KERNEL, SUBSAMPLING_STRIDE)
        self.conv2 = nn.Conv1d(d_model, d_model, SUBSAMPLING_KERNEL, SUBSAMPLING_STRIDE)
        self.norm = nn.LayerNorm(d_model)

    def own_channels(self) -> dict[str, list[Group]]:
        """The channels between the convolutions."""
        return {"d_model": [group(giving("conv1"), reading("conv2"))]}

    def residual(self) -> list[Axis]:
        """What comes out."""
        return giving("conv2", "norm")

    def state(self) -> list[TensorSpec]:
        """The frames before, of both convolutions."""
        return [
            TensorSpec("subsampling1_cache", (SUBSAMPLING_CACHE, self.num_features), "float32"),
            TensorSpec("subsampling2_cache", (SUBSAMPLING_CACHE, self.d_model), "float32"),
        ]

    def forward(self, features: Tensor, cache1: Tensor, cache2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """features (B, T, F), caches (B, 3, F) and (B, 3, D) → x (B, T / 4, D) and the next caches."""
        x = torch.cat((cache1, features), dim=1)
        y = torch.cat((cache2, functional.silu(over_time(self.conv1, x))), dim=1)
        next1, next2 = _cache(x, self.right), _cache(y, self.right // SUBSAMPLING_STRIDE)
        return self.norm(functional.silu(over_time(self.conv2, y))), next1, next2


def over_time(convolution: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A convolution (B, C, T) → (B, D, U) on x (B, T, C) → (B, U, D)."""
    return convolution(x.transpose(1, 2)).transpose(1, 2)


def _cache(x: Tensor, right: int) -> Tensor:
    """x (B, T, C) → the last (B, 3, C) before `right`."""
    end = x.shape[1] - right
    return x[:, end - SUBSAMPLING_CACHE : end]


class FeedForward(nn.Module, HasChannels):
    """LayerNorm → Linear → SiLU → Linear, (B, T, D) → (B, T, D)."""

    def __init__(self, d_model: int, feed_forward_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.expand = nn.Linear(d_model, feed_forward_dim)
        self.contract = nn.Linear(feed_forward_dim, d_model)

    def own_channels(self) -> dict[str, list[Group]]:
        """The wide part."""
        return {"feed_forward_dim": [group(giving("expand"), reading("contract"))]}

    def residual(self) -> list[Axis]:
        """What goes in and what comes out."""
        return [*giving("norm", "contract"), *reading("expand")]

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) → (B, T, D)."""
        hidden: Tensor = self.contract(functional.silu(self.expand(self.norm(x))))
        return hidden


class KeyCounter:
    """Which cached keys exist, from a frame counter in the state: the mask depends on nothing else.

    `left` and `chunk` are in rows of log_probs.
    """

    def __init__(self, left_context_frames: int, chunk_frames: int) -> None:
        self.left = left_context_frames // SUBSAMPLING_FACTOR
        self.chunk = chunk_frames // SUBSAMPLING_FACTOR

    def state(self) -> list[TensorSpec]:
        """How many rows there were, counted up to the left context."""
        return [TensorSpec("processed_frames", (1,), "int64")]

    def mask(self, processed: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """processed (B, 1), x (B, T, D), T = N chunks → what scores get (B, N, 1, left + chunk), next."""
        starts = torch.arange(0, x.shape[1], self.chunk, device=x.device) + processed
        following = (processed + x.shape[1]).clamp(max=self.left)
        masks = functional.embedding(starts.clamp(max=self.left), self._masks(x))
        return masks.unsqueeze(2), following

    def _masks(self, x: Tensor) -> Tensor:
        """(left + 1, left + chunk): what to add to scores after so many rows; a constant in an export."""
        key = torch.arange(self.left + self.chunk, device=x.device)
        rows = torch.arange(self.left + 1, device=x.device)
        return (key < self.left - rows.unsqueeze(1)).to(x.dtype) * MASKED


class Attention(nn.Module, HasChannels):
    """Multi-head attention of each chunk over itself and the frames before, with a learned relative bias.

    The bias per head and distance (Raffel et al. 2020, section 2.1, https://arxiv.org/abs/1910.10683) takes
    the place of positional encodings.
    """

    def __init__(self, config: AttentionConfig, keys: KeyCounter) -> None:
        super().__init__()
        d_model, num_heads, self.head_dim = config.d_model, config.num_heads, config.derived()["head_dim"]
        self.num_heads, inner = num_heads, num_heads * self.head_dim
        self.left, self.chunk = keys.left, keys.chunk
        self.norm = nn.LayerNorm(d_model)
        self.query = nn.Linear(d_model, inner)
        self.key = nn.Linear(d_model, inner)
        self.value = nn.Linear(d_model, inner)
        self.output = nn.Linear(inner, d_model)
        self.distance_bias = nn.Parameter(torch.zeros(num_heads, self.left + 2 * self.chunk - 1))
        self.scale = 1.0 / math.sqrt(self.head_dim)

    def own_channels(self) -> dict[str, list[Group]]:
        """The heads; and of each head the channels that scores sum over, and those of its values."""
        width, inside = self.head_dim, []
        for start in range(0, self.num_heads * width, width):
            scored = giving("query", "key", start=start)
            inside.append(group(scored, rooted=("query.weight", "query.bias")))
            inside.append(group(giving("value", start=start), reading("output", start=start)))
        heads = [*giving("query", "key", "value", run=width), *reading("output", run=width)]
        return {"num_heads": [group(heads, [Axis("distance_bias", 0)])], "head_dim": inside}

    def residual(self) -> list[Axis]:
        """What goes in and what comes out."""
        return [*giving("norm", "output"), *reading("query", "key", "value")]

    def state(self, prefix: str) -> list[TensorSpec]:
        """Keys and values of the left context."""
        heads, width = self.num_heads, self.head_dim
        return [
            TensorSpec(f"{prefix}_keys", (self.left, heads, width), "float32"),
            TensorSpec(f"{prefix}_values", (self.left, heads, width), "float32"),
        ]

    def forward(self, x: Tensor, mask: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D), T = N chunks → (B, T, D) and the next caches.

        mask (B, N, 1, left + chunk); keys and values (B, left, H, d).
        """
        x = self.norm(x)
        query = self._heads(self.query(x) * self.scale)
        keys = torch.cat((keys, self._heads(self.key(x))), dim=1)
        values = torch.cat((values, self._heads(self.value(x))), dim=1)
        if x.shape[1] == self.chunk:  # one chunk, as on the device: the caches are the window
            heads = self._attend(query, keys, values, mask)
        else:
            heads = self._attend_chunks(query, keys, values, mask)
        return self.output(heads.flatten(2)), keys[:, -self.left :], values[:, -self.left :]

    def _heads(self, x: Tensor) -> Tensor:
        """x (B, T, H d) → (B, T, H, d)."""
        return x.reshape(*x.shape[:2], self.num_heads, self.head_dim)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """One chunk: query (B, chunk, H, d), keys and values (B, S, H, d) → (B, chunk, H, d)."""
        scores = torch.matmul(query.transpose(1, 2), keys.permute(0, 2, 3, 1)) + (self._bias() + mask)
        return torch.matmul(scores.softmax(dim=-1), values.transpose(1, 2)).transpose(1, 2)

    def _attend_chunks(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """`_attend` for all chunks at once: each chunk sees its own window of keys and values."""
        span = self.left + self.chunk
        q = query.reshape(query.shape[0], -1, self.chunk, *query.shape[2:]).permute(0, 3, 1, 2, 4)
        k = keys.transpose(1, 2).unfold(2, span, self.chunk)  # (B, H, N, d, S)
        v = values.transpose(1, 2).unfold(2, span, self.chunk).transpose(3, 4)
        scores = torch.matmul(q, k) + (self._bias().unsqueeze(1) + mask.unsqueeze(1))
        heads = torch.matmul(scores.softmax(dim=-1), v)
        return heads.permute(0, 2, 3, 1, 4).flatten(1, 2)

    def _bias(self) -> Tensor:
        """(H, chunk, left + chunk): the bias of every query-key distance."""
        query = torch.arange(self.chunk, device=self.distance_bias.device)[:, None] + self.left
        key = torch.arange(self.left + self.chunk, device=self.distance_bias.device)[None, :]
        return self.distance_bias[:, query - key + self.chunk - 1]
