"""A small streaming encoder that follows the contract: convolution cache, attention cache, frame counter.

It stands for a model that someone else trained: nothing of `edge_speech.training` is in it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_speech.encoder import StreamingSpec, TensorSpec

FEATURES, CHUNK, RIGHT, FACTOR, DIM, LEFT, VOCAB = 80, 16, 4, 4, 32, 8, 12


class StreamingDouble(nn.Module):
    """Four frames (and one group of right context) → one row; a causal convolution, then cached attention."""

    def __init__(self, vocab: int = VOCAB) -> None:
        super().__init__()
        self.embed = nn.Linear(2 * FACTOR * FEATURES, DIM)
        self.convolution = nn.Conv1d(DIM, DIM, kernel_size=3)
        self.norm = nn.LayerNorm(DIM)
        self.query, self.key_value = nn.Linear(DIM, DIM), nn.Linear(DIM, 2 * DIM)
        self.wide, self.narrow = nn.Linear(DIM, 8 * DIM), nn.Linear(8 * DIM, DIM)
        self.output = nn.Linear(DIM, vocab)
        self.vocab = vocab

    @property
    def spec(self) -> StreamingSpec:
        state = (
            TensorSpec("conv_cache", (1, DIM, 2), "float32"),
            TensorSpec("keys", (1, LEFT, DIM), "float32"),
            TensorSpec("values", (1, LEFT, DIM), "float32"),
            TensorSpec("frames_seen", (1,), "int64"),
        )
        return StreamingSpec(CHUNK, RIGHT, FACTOR, FEATURES, self.vocab, -15.0, state)

    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:
        dtypes = {"float32": torch.float32, "int64": torch.int64}
        return tuple(torch.zeros(batch_size, *s.shape[1:], dtype=dtypes[s.dtype]) for s in self.spec.state)

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        conv_cache, keys, values, frames_seen = state
        batch, rows = features.shape[0], CHUNK // FACTOR
        groups = features.reshape(batch, rows + 1, FACTOR * FEATURES) * 0.1
        x = self.embed(torch.cat([groups[:, :-1], groups[:, 1:]], dim=-1)).transpose(1, 2)
        joined = torch.cat([conv_cache, x], dim=2)
        x = self.norm(torch.relu(self.convolution(joined)).transpose(1, 2))
        new_keys, new_values = self.key_value(x).chunk(2, dim=-1)
        keys, values = torch.cat([keys, new_keys], dim=1), torch.cat([values, new_values], dim=1)
        scores = self.query(x) @ keys.transpose(1, 2) / DIM**0.5
        position = torch.arange(LEFT + rows, device=x.device)
        unseen = (position + frames_seen[:, None] < LEFT)[:, None, :]
        x = x + torch.softmax(scores.masked_fill(unseen, -1e4), dim=-1) @ values
        x = x + self.narrow(torch.relu(self.wide(x)))
        log_probs = torch.log_softmax(4.0 * self.output(x), dim=-1)
        return log_probs, joined[:, :, -2:], keys[:, -LEFT:], values[:, -LEFT:], frames_seen + rows


def streaming_double(seed: int = 7) -> StreamingDouble:
    """The double in eval mode, with the same weights every time."""
    torch.manual_seed(seed)
    return StreamingDouble().eval()
