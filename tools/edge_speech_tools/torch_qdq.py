"""Puts quantised layers into a PyTorch model before `torch.export`: the q/dq pairs that XNNPACK's partitioner
turns into integer kernels.

A layer with fixed ranges has a pair on its input, one on its output and a dequantised weight; one with ranges
of the moment has a pair on its input whose scale is computed by the row, and gives floats:
https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-quantization.html
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators used below
from torch.func import functional_call

from edge_speech.training.scales import LayerScales, quantise_weight, weight_scales
from edge_speech_tools.calibration import OutputRange

Make = Callable[[Any], nn.Module]
Layers = Mapping[str, Make]
RECURRENT = (nn.GRU, nn.LSTM)
_OPS = torch.ops.quantized_decomposed
# What was uint8 0 … 255 in the scales is int8 -128 … 127 here: XNNPACK has signed activations alone.
LOW, HIGH = -128, 127
# The least range of a row, for a scale above zero.
LEAST_RANGE = 1e-9


class QuantisedLayer(nn.Module):
    """`layer`, a Linear, Conv1d or Conv2d, with its weight as integers; `forward` of a subclass rounds."""

    weight: Tensor
    scales: Tensor
    zeros: Tensor

    def __init__(self, layer: nn.Module, scales: LayerScales) -> None:
        super().__init__()
        floats: Tensor = layer.weight  # type: ignore[assignment]
        of = np.asarray(scales.weight, np.float32)
        integers = quantise_weight(floats.detach().float().numpy(), of, scales.weight_bits)
        self.register_buffer("weight", torch.from_numpy(integers))
        self.register_buffer("scales", torch.from_numpy(of))
        self.register_buffer("zeros", torch.zeros(len(of), dtype=torch.int64))
        self.layer = copy.copy(layer)
        self.layer._parameters = {**layer._parameters, "weight": None}

    def product(self, x: Tensor) -> Tensor:
        """What the layer gives for x with the weight that the integers stand for."""
        of = (self.scales, self.zeros, 0, -HIGH, HIGH, torch.int8)
        weight = _OPS.dequantize_per_channel(self.weight, *of)
        return functional_call(self.layer, {"weight": weight}, (x,))  # type: ignore[no-any-return]


class StaticLayer(QuantisedLayer):
    """Input and output in ranges that were measured before."""

    def __init__(self, layer: nn.Module, scales: LayerScales, output: OutputRange) -> None:
        super().__init__(layer, scales)
        self.ranges = (scales.input_scale, scales.input_zero_point), output

    def forward(self, x: Tensor) -> Tensor:
        """What `layer` gives for x."""
        before, after = self.ranges
        return _rounded(self.product(_rounded(x, *before)), *after)


class DynamicLayer(QuantisedLayer):
    """Input in its own range. XNNPACK takes that of each row; PyTorch computes with one of all rows."""

    def forward(self, x: Tensor) -> Tensor:
        """What `layer` gives for x."""
        scale, zero_point = _OPS.choose_qparams.tensor(x, LOW, HIGH, LEAST_RANGE, torch.int8)
        integers = _OPS.quantize_per_tensor.tensor(x, scale, zero_point, LOW, HIGH, torch.int8)
        return self.product(
            _OPS.dequantize_per_tensor.tensor(integers, scale, zero_point, LOW, HIGH, torch.int8)
        )


class DynamicRecurrent(nn.Module):
    """A GRU or LSTM, batch first and one direction, step by step: its products as `linear` makes them.

    The equations are those of https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html and LSTM.html.
    """

    def __init__(self, cells: nn.GRU | nn.LSTM, linear: Make) -> None:
        super().__init__()
        self.next = _next_lstm if isinstance(cells, nn.LSTM) else _next_gru
        layers = range(cells.num_layers)
        self.of_input = nn.ModuleList(linear(_gates(cells, f"ih_l{i}")) for i in layers)
        self.of_hidden = nn.ModuleList(linear(_gates(cells, f"hh_l{i}")) for i in layers)

    def forward(self, x: Tensor, carried: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        """x (B, T, D) and what is carried, (layers, B, H) each → (B, T, H) and the next carried."""
        given = carried if isinstance(carried, tuple) else (carried,)
        ends = []
        for i, (of_input, of_hidden) in enumerate(zip(self.of_input, self.of_hidden, strict=True)):
            rows, state = [], tuple(tensor[i] for tensor in given)
            for gates in of_input(x).unbind(1):
                state = self.next(gates, of_hidden(state[0]), *state)
                rows.append(state[0])
            x = torch.stack(rows, 1)
            ends.append(state)
        following = tuple(torch.stack(tensors) for tensors in zip(*ends, strict=True))
        return x, following if len(following) > 1 else following[0]


def _gates(cells: nn.GRU | nn.LSTM, name: str) -> nn.Linear:
    weight, bias = getattr(cells, f"weight_{name}"), getattr(cells, f"bias_{name}")
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = weight, bias
    return linear


def _next_gru(of_input: Tensor, of_hidden: Tensor, hidden: Tensor) -> tuple[Tensor]:
    reset, update, new = of_input.chunk(3, -1)
    reset_h, update_h, new_h = of_hidden.chunk(3, -1)
    kept = torch.sigmoid(update + update_h)
    candidate = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
    return (candidate + kept * (hidden - candidate),)


def _next_lstm(of_input: Tensor, of_hidden: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    into, forget, new, out = (of_input + of_hidden).chunk(4, -1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(into) * torch.tanh(new)
    return torch.sigmoid(out) * torch.tanh(cell), cell


def dynamic(layer: nn.Module) -> DynamicLayer:
    """A Linear with 8-bit weights by their largest, its input as it comes."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    scales = weight_scales(weight.detach().float().numpy())
    return DynamicLayer(layer, LayerScales(tuple(map(float, scales)), 1.0, 0))


def dynamic_layers(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], but: str = "", linear: Make = dynamic
) -> Layers:
    """What `with_layers` takes to make layers of these kinds dynamic, all but the one of that name."""
    recurrent = partial(DynamicRecurrent, linear=linear)
    return {
        name: recurrent if isinstance(layer, RECURRENT) else linear
        for name, layer in model.named_modules()
        if isinstance(layer, kinds) and name != but
    }


def _rounded(x: Tensor, scale: float, zero_point: int) -> Tensor:
    how = (scale, zero_point + LOW, LOW, HIGH, torch.int8)
    rounded: Tensor = _OPS.dequantize_per_tensor(_OPS.quantize_per_tensor(x, *how), *how)
    return rounded


def with_layers(model: nn.Module, made: Layers) -> nn.Module:
    """A copy of the model in which each named layer is what its function makes of it; weights are shared."""
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    changed = copy.deepcopy(model, shared)
    for name, make in made.items():
        changed.set_submodule(name, make(changed.get_submodule(name)))
    return changed
