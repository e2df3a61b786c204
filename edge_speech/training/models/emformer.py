"""torchaudio's Emformer with its state as arguments and results.

Emformer: Shi et al. 2020, https://arxiv.org/abs/2010.10759: a Transformer over segments, here the chunks,
that attends to a left context and to a few rows after the segment, and remembers each segment before as one
vector. The rows after it are computed anew with every segment, so lookahead does not add up over the layers.

The layers are torchaudio's own modules, so weights trained with it load into `Emformer.encoder`. Their order
of computation is here: torchaudio's `infer` cuts its state to a length that it reads from the data, which
cannot be exported, and takes one segment a call; a mask takes the place of that, for any number of segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_speech.encoder import TensorSpec
from edge_speech.training.channels import Axis, Group, LayerStack, giving, group, reading
from edge_speech.training.chunked import SUBSAMPLING_FACTOR, ChunkedModel
from edge_speech.training.layers import MASKED, AttentionConfig, Subsampling
from edge_speech.training.torchaudio_import import import_torchaudio

ACTIVATIONS = ("relu", "gelu", "silu")


@dataclass(frozen=True)
class Config(AttentionConfig):
    """Dimensions of the encoder. `activation` is relu, gelu or silu; `memory_size` counts segments."""

    LIMITS: ClassVar[dict[str, int]] = {
        **AttentionConfig.LIMITS,
        "right_context_frames": 1024,
        "memory_size": 64,
    }
    LEAST: ClassVar[dict[str, int]] = {**AttentionConfig.LEAST, "right_context_frames": 0, "memory_size": 0}
    MULTIPLES: ClassVar[tuple[str, ...]] = (*AttentionConfig.MULTIPLES, "right_context_frames")

    d_model: int = 96
    num_layers: int = 4
    feed_forward_dim: int = 384
    left_context_frames: int = 128
    right_context_frames: int = 0
    memory_size: int = 0
    activation: str = "gelu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}; allowed are {', '.join(ACTIVATIONS)}")


SIZES = {
    "small": Config(d_model=96, num_layers=4, feed_forward_dim=384),
    "medium": Config(d_model=144, num_layers=6, feed_forward_dim=576),
    "large": Config(d_model=192, num_layers=8, feed_forward_dim=768),
}


def build(config: Config) -> Emformer:
    """Build the encoder with fresh weights. Raises InputError where torchaudio is not installed."""
    return Emformer(config)


class Emformer(ChunkedModel):
    """features (B, T, F) → log_probs (B, T / 4, V).

    State: the caches of the subsampling, a counter of rows, and of each layer keys and values of the left
    context and, with `memory_size`, one vector for each segment before.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        right = config.right_context_frames
        self.segment = Segment(config)
        self.subsampling = Subsampling(config.num_features, config.d_model, right)
        self.encoder = _torchaudio_emformer(config)
        self.output = nn.Linear(config.d_model, config.vocab_size)
        state = self.subsampling.state() + self.segment.state()
        for i in range(config.num_layers):
            state += self.segment.layer_state(f"layer{i}", config)
        self.spec = self._spec(state, right)

    def own_channels(self) -> dict[str, list[Group]]:
        """Of torchaudio's layers: feed-forward channels, heads, and the channels within a head."""
        found: dict[str, list[Group]] = {"feed_forward_dim": [], "num_heads": [], "head_dim": []}
        for layer in self._layers():
            found["feed_forward_dim"].append(group(giving(f"{layer}.pos_ff.1"), reading(f"{layer}.pos_ff.4")))
            whole, inside = self._heads(f"{layer}.attention")
            found["num_heads"].append(whole)
            found["head_dim"] += inside
        return found

    def _heads(self, attention: str) -> tuple[Group, list[Group]]:
        """One Linear gives keys, then values."""
        query, both, output = (f"{attention}.{n}" for n in ("emb_to_query", "emb_to_key_value", "out_proj"))
        width = self.config.derived()["head_dim"]
        inner, inside = self.config.num_heads * width, []
        for start in range(0, inner, width):
            scored = giving(query, both, start=start)
            inside.append(group(scored, rooted=(f"{query}.weight", f"{query}.bias")))
            inside.append(group(giving(both, start=inner + start), reading(output, start=start)))
        keys_values = giving(both, blocks=2, run=width)
        return group(giving(query, run=width), keys_values, reading(output, run=width)), inside

    def residual(self) -> list[Axis]:
        """What torchaudio's layers and the output read and give."""
        given = ("attention.out_proj", "pos_ff.0", "pos_ff.4", "layer_norm_input", "layer_norm_output")
        read = ("attention.emb_to_query", "attention.emb_to_key_value", "pos_ff.1")
        axes = [a for layer in self._layers() for n in given for a in giving(f"{layer}.{n}")]
        axes += [a for layer in self._layers() for n in read for a in reading(f"{layer}.{n}")]
        return [*axes, *reading("output")]

    def _layers(self) -> list[str]:
        return [f"encoder.emformer_layers.{i}" for i in range(self.config.num_layers)]

    def layer_stack(self) -> LayerStack:
        """Any layer can be left out."""
        removable = tuple((i,) for i in range(self.config.num_layers))
        return LayerStack(r"encoder\.emformer_layers\.(\d+)\.", removable)

    def chunks(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Any number of chunks and the right context: features (B, T + right, F) and state →
        log_probs (B, T / 4, V) and the next state."""
        x, *caches = self.subsampling(self.normalised(features), *state[:2])
        x, *next_state = self.encode(x, *state[2:])
        return (self.headed(self.output(x)), *caches, *next_state)

    def encode(self, x: Tensor, processed: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Rows of any number of segments, N, and of the right context, x (B, N segment + right, D) →
        the rows of the segments (B, N segment, D) and the next state.

        A segment's rows stand behind those of its right context, as torchaudio has them.
        """
        segment, batch = self.segment, x.shape[0]
        mask, processed = segment.mask(processed, x)
        x = windows(x, segment.rows + segment.right, segment.rows)
        own, following = x[:, : segment.rows], x[:, segment.rows :]
        rows = torch.cat((following, own), dim=1) if segment.right else own
        summary, next_state = own.mean(dim=1, keepdim=True), [processed]
        for i, layer in enumerate(self.encoder.emformer_layers):
            first = i * segment.caches
            rows, summary, *following_caches = segment.run(
                layer, rows, summary, mask, *caches[first : first + segment.caches]
            )
            next_state += following_caches
        return (rows[:, segment.right :].reshape(batch, -1, x.shape[2]), *next_state)


class Segment:
    """One layer over segments, in rows: `rows` of its own, `left` and `right` of it, and `memory` vectors.

    The N segments of a call lie in the batch, B N of them. What a segment attends to is, in this order,
    memory, right context, left context, itself.
    """

    def __init__(self, config: Config) -> None:
        self.rows = config.chunk_frames // SUBSAMPLING_FACTOR
        self.left = config.left_context_frames // SUBSAMPLING_FACTOR
        self.right = config.right_context_frames // SUBSAMPLING_FACTOR
        self.memory = config.memory_size
        self.caches = 3 if self.memory else 2

    def state(self) -> list[TensorSpec]:
        """How many rows there were, counted up to what left context and memory reach."""
        return [TensorSpec("processed_frames", (1,), "int64")]

    def layer_state(self, prefix: str, config: Config) -> list[TensorSpec]:
        """Keys and values of the left context, and the memory."""
        inner = config.num_heads * config.derived()["head_dim"]
        shapes = {"keys": (self.left, inner), "values": (self.left, inner)}
        if self.memory:
            shapes["memory"] = (self.memory, config.d_model)
        return [TensorSpec(f"{prefix}_{name}", shape, "float32") for name, shape in shapes.items()]

    def mask(self, processed: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """processed (B, 1), x (B, N rows + right, D) → what to add to scores, (B N, 1, 1 or queries,
        keys), and the next count."""
        end = x.shape[1] - self.right
        starts = (torch.arange(0, end, self.rows, device=x.device) + processed).reshape(-1, 1)
        following = (processed + end).clamp(max=max(self.left, self.memory * self.rows))
        no_row = torch.arange(self.left, device=x.device) < self.left - starts
        missing = functional.pad(no_row.to(x.dtype) * MASKED, (self.memory + self.right, self.rows))
        missing = missing[:, None, None]
        if self.memory:
            no_memory = torch.arange(self.memory, device=x.device) < self.memory - starts // self.rows
            missing = missing + self._memory_mask(no_memory, x)
        return missing, following

    def _memory_mask(self, missing: Tensor, x: Tensor) -> Tensor:
        """missing (B N, memory) → (B N, 1, queries, keys); the summary, the last query, sees no memory."""
        is_summary = torch.arange(self.right + self.rows + 1, device=x.device) == self.right + self.rows
        unseen = (missing[:, None, None] | is_summary[:, None]).to(x.dtype) * MASKED
        return functional.pad(unseen, (0, self.right + self.left + self.rows))

    def run(
        self, layer: Any, rows: Tensor, summary: Tensor, mask: Tensor, *caches: Tensor
    ) -> tuple[Tensor, ...]:
        """One layer of torchaudio's: rows (B N, right + rows, D), the segments' vectors of the layer below
        (B N, 1, D) and caches → rows and vectors for the layer above, and the next caches."""
        x = layer.layer_norm_input(rows)
        query, context = x, x
        following: tuple[Tensor, ...] = ()
        if self.memory:
            query = torch.cat((x, x[:, self.right :].mean(dim=1, keepdim=True)), dim=1)
            remembered, memory = self._carry(caches[2], summary)
            context, following = torch.cat((remembered, x), dim=1), (memory,)
        keys, values = layer.attention.emb_to_key_value(context).chunk(2, dim=2)
        keys, next_keys = self._extend(keys, caches[0])
        values, next_values = self._extend(values, caches[1])
        attended = attend(layer.attention, query, keys, values, mask)
        count = rows.shape[1]
        rows = rows + layer.dropout(attended[:, :count])
        rows = layer.layer_norm_output(rows + layer.pos_ff(rows))
        return (rows, torch.tanh(attended[:, count:]), next_keys, next_values, *following)

    def _extend(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Keys or values x (B N, S, D), cache (B, left, D) → with the left context before the segment's own,
        (B N, S + left, D), and the next cache."""
        before = x.shape[1] - self.rows
        own = torch.cat((cache, x[:, before:].reshape(cache.shape[0], -1, x.shape[2])), dim=1)
        extended = windows(own, self.left + self.rows, self.rows)
        if before:
            extended = torch.cat((x[:, :before], extended), dim=1)
        return extended, own[:, -self.left :]

    def _carry(self, cache: Tensor, summary: Tensor) -> tuple[Tensor, Tensor]:
        """cache (B, memory, D), summary (B N, 1, D) → of each segment those before (B N, memory, D), next."""
        every = torch.cat((cache, summary.reshape(cache.shape[0], -1, cache.shape[2])), dim=1)
        return windows(every[:, :-1], self.memory, 1), every[:, -self.memory :]


def attend(attention: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """query (B, Q, D), keys and values (B, K, D), mask (B, 1, Q, K) → (B, Q, D)."""

    def heads(x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], attention.num_heads, -1).transpose(1, 2)

    query = heads(attention.emb_to_query(query) * attention.scaling)
    scores = torch.matmul(query, heads(keys).transpose(2, 3)) + mask
    shares = functional.dropout(scores.softmax(dim=-1), attention.dropout, attention.training)
    joined = torch.matmul(shares, heads(values)).transpose(1, 2).flatten(2)
    attended: Tensor = attention.out_proj(joined)
    return attended


def windows(x: Tensor, size: int, step: int) -> Tensor:
    """x (B, T, D) → its N stretches of `size` rows, `step` apart: (B N, size, D)."""
    if x.shape[1] == size:  # one segment, as on the device
        return x
    return x.unfold(1, size, step).transpose(2, 3).reshape(-1, size, x.shape[2])


def _torchaudio_emformer(config: Config) -> Any:
    """torchaudio's, its memory squashed by tanh as in its own recipe (`emformer_rnnt_base`)."""
    own_width = config.d_model != config.num_heads * config.derived()["head_dim"]
    encoder = import_torchaudio("torchaudio.models").Emformer(
        input_dim=config.d_model,
        num_heads=1 if own_width else config.num_heads,
        ffn_dim=config.feed_forward_dim,
        num_layers=config.num_layers,
        segment_length=config.chunk_frames // SUBSAMPLING_FACTOR,
        dropout=config.dropout,
        activation=config.activation,
        left_context_length=config.left_context_frames // SUBSAMPLING_FACTOR,
        right_context_length=config.right_context_frames // SUBSAMPLING_FACTOR,
        max_memory_size=config.memory_size,
        tanh_on_mem=True,
    )
    for layer in encoder.emformer_layers if own_width else ():
        _set_heads(layer.attention, config)
    return encoder


def _set_heads(attention: Any, config: Config) -> None:
    """Heads that together are not as wide as the model, which torchaudio does not have."""
    heads, width = config.num_heads, config.derived()["head_dim"]
    attention.num_heads, attention.scaling = heads, width**-0.5
    attention.emb_to_query = nn.Linear(config.d_model, heads * width)
    attention.emb_to_key_value = nn.Linear(config.d_model, 2 * heads * width)
    attention.out_proj = nn.Linear(heads * width, config.d_model)
