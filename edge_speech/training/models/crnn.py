"""Two causal 2-D convolutions over time and frequency, then recurrent layers that look only back.

Deep Speech 2: Amodei et al. 2015, https://arxiv.org/abs/1512.02595. LSTM: Hochreiter and Schmidhuber 1997,
https://doi.org/10.1162/neco.1997.9.8.1735; GRU: Cho et al. 2014, https://arxiv.org/abs/1406.1078.

The first convolution is wide in time; part of its width may lie in the future, which is the right context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_speech.encoder import TensorSpec
from edge_speech.training.channels import Axis, Group, LayerStack, batch_norm, giving, group, reading
from edge_speech.training.chunked import ChunkedConfig, ChunkedModel

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}
FREQUENCY_KERNEL = 3
# Blocks of rows in a recurrent layer's weights, one for each gate.
GATES = {"gru": 3, "lstm": 4}
STRIDE = 2
# Frames that the second convolution sees, of those that the first one gives.
SECOND_KERNEL = 5


@dataclass(frozen=True)
class Config(ChunkedConfig):
    """Dimensions of the encoder. `cell` is `gru` or `lstm`.

    The first convolution sees `conv_kernel` frames; `right_context_frames` of them, up to conv_kernel - 3,
    lie after the frames that its row stands for.
    """

    LIMITS: ClassVar[dict[str, int]] = {
        **ChunkedConfig.LIMITS,
        "channels": 512,
        "conv_kernel": 255,
        "hidden_dim": 4096,
        "num_layers": 16,
        "right_context_frames": 252,
    }
    LEAST: ClassVar[dict[str, int]] = {"conv_kernel": 3, "right_context_frames": 0}

    channels: int = 16
    conv_kernel: int = 11
    cell: str = "gru"
    hidden_dim: int = 192
    num_layers: int = 2
    right_context_frames: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cell not in CELLS:
            raise ValueError(f"cell is {self.cell!r}; allowed are {', '.join(CELLS)}")
        if self.right_context_frames > self.conv_kernel - 3:
            raise ValueError(
                f"right_context_frames is {self.right_context_frames}; with conv_kernel {self.conv_kernel} "
                f"allowed are 0 to {self.conv_kernel - 3}"
            )


SIZES = {
    "small": Config(channels=16, hidden_dim=192),
    "medium": Config(channels=32, hidden_dim=320),
    "large": Config(channels=32, hidden_dim=512),
}


def build(config: Config) -> Crnn:
    """Build the encoder with fresh weights."""
    return Crnn(config)


class Crnn(ChunkedModel):
    """features (B, T, F) → log_probs (B, T / 4, V).

    State: the frames before each convolution, and what the recurrent layers carry (B, layers, H).
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c, right = config, config.right_context_frames
        self.conv1 = Convolution(1, c.num_features, c.channels, c.conv_kernel, right)
        self.conv2 = Convolution(c.channels, self.conv1.bins_out, c.channels, SECOND_KERNEL, 0)
        self.recurrent = CELLS[c.cell](
            c.channels * self.conv2.bins_out,
            c.hidden_dim,
            c.num_layers,
            batch_first=True,
            dropout=c.dropout if c.num_layers > 1 else 0.0,
        )
        self.norm = nn.LayerNorm(c.hidden_dim)
        self.dropout = nn.Dropout(c.dropout)
        self.output = nn.Linear(c.hidden_dim, c.vocab_size)
        carried = ["hidden", "cell"] if c.cell == "lstm" else ["hidden"]
        recurrent = [TensorSpec(name, (c.num_layers, c.hidden_dim), "float32") for name in carried]
        state = [*self.conv1.state("conv1"), *self.conv2.state("conv2"), *recurrent]
        self.spec = self._spec(state, right)

    def own_channels(self) -> dict[str, list[Group]]:
        """The maps of each convolution, every bin of which the recurrent layers read; each layer's units."""
        first = [*giving("conv1.conv"), *batch_norm("conv1.batch_norm"), *reading("conv2.conv")]
        second = [*giving("conv2.conv"), *batch_norm("conv2.batch_norm")]
        bins = [Axis("recurrent.weight_ih_l0", 1, run=self.conv2.bins_out)]
        units = [self._units(i) for i in range(self.config.num_layers)]
        return {"channels": [group(first), group(second, bins)], "hidden_dim": units}

    def _units(self, layer: int) -> Group:
        last, gates = layer == self.config.num_layers - 1, GATES[self.config.cell]
        kept = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        given = [Axis(f"recurrent.{name}_l{layer}", 0, gates) for name in kept]
        above = (
            [*giving("norm"), *reading("output")] if last else [Axis(f"recurrent.weight_ih_l{layer + 1}", 1)]
        )
        return group(given, [Axis(f"recurrent.weight_hh_l{layer}", 1)], above)

    def layer_stack(self) -> LayerStack:
        """Any recurrent layer but the first, which reads the convolutions."""
        return LayerStack(r"recurrent\..*_l(\d+)$", tuple((i,) for i in range(1, self.config.num_layers)))

    def chunks(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Any number of chunks and the right context: features (B, T + right, F) and state →
        log_probs (B, T / 4, V) and the next state."""
        cache1, cache2, *carried = state
        x, cache1 = self.conv1(self.normalised(features).unsqueeze(1), cache1)
        x, cache2 = self.conv2(x, cache2)
        x, *carried = self._recur(x.transpose(1, 2).flatten(2), carried)
        log_probs = self.headed(self.output(self.dropout(self.norm(x))))
        return (log_probs, cache1, cache2, *carried)

    def _recur(self, x: Tensor, carried: list[Tensor]) -> tuple[Tensor, ...]:
        """x (B, T, D) and carried (B, layers, H) → (B, T, H) and the next carried; torch has layers first."""
        first = [tensor.transpose(0, 1).contiguous() for tensor in carried]
        if len(first) == 1:
            y, hidden = self.recurrent(x, first[0])
            return y, hidden.transpose(0, 1)
        y, (hidden, cell) = self.recurrent(x, (first[0], first[1]))
        return y, hidden.transpose(0, 1), cell.transpose(0, 1)


class Convolution(nn.Module):
    """Strided by two in time and frequency, causal but for `right` frames; batch norm and ReLU after it."""

    def __init__(self, channels_in: int, bins: int, channels: int, kernel: int, right: int) -> None:
        super().__init__()
        self.right = right
        self.bins_out = -(-bins // STRIDE)
        self.cache_shape = (channels_in, kernel - STRIDE - right, bins)
        padding = (0, FREQUENCY_KERNEL // 2)
        self.conv = nn.Conv2d(channels_in, channels, (kernel, FREQUENCY_KERNEL), STRIDE, padding)
        self.batch_norm = nn.BatchNorm2d(channels)

    def state(self, prefix: str) -> list[TensorSpec]:
        """The frames before."""
        return [TensorSpec(f"{prefix}_cache", self.cache_shape, "float32")]

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, T + right, F), cache (B, C, kernel - 2 - right, F) → (B, D, T / 2, F / 2), next cache."""
        frames = x.shape[2] - self.right
        x = torch.cat((cache, x), dim=2)
        y = functional.relu(self.batch_norm(self.conv(x)))
        return y, x[:, :, frames : frames + self.cache_shape[1]]
