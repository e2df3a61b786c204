"""The tiny encoder for PyTorch's lite interpreter."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tiny import SPEC, WEIGHT


class TinyModule(nn.Module):
    """What tests/tiny.py's TinyStream does, as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(WEIGHT))

    def forward(self, features: Tensor, carry: Tensor, steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        head, tail = features[:, : SPEC.chunk_frames], features[:, SPEC.chunk_frames :]
        rows = head.reshape(1, SPEC.output_frames, SPEC.subsampling_factor, SPEC.num_features).mean(2)
        hidden = (rows + tail.mean(1, keepdim=True)) @ self.weight
        return torch.log_softmax(hidden + carry, -1), hidden[:, -1] * 0.5, steps + 1


def save_lite(path: Path) -> None:
    window = torch.zeros(1, SPEC.window_frames, SPEC.num_features)
    state = torch.zeros(1, SPEC.vocab_size), torch.zeros(1, dtype=torch.int64)
    traced = torch.jit.freeze(torch.jit.trace(TinyModule().eval(), (window, *state)))
    traced._save_for_lite_interpreter(str(path))
