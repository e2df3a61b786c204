"""Integers in training: layers that round their weights and inputs as the engine will, in floating point.

`fake_quantize` puts them in place of a model's layers, `take_out` puts the layers back and gives the scales
that were learnt. What a layer computes is ONNX's DequantizeLinear(QuantizeLinear(x)) on input and weight.

Gradients are those of LSQ (Esser et al. 2020, https://arxiv.org/abs/1902.08153): straight through the
rounding, none to what is clipped, and to the scale what the rounding did. Learnt is the logarithm of the
scale, since an optimiser that takes steps of one size would throw scales of 0.001 about (Jain et al. 2020,
https://arxiv.org/abs/1903.08066). Zero points stay.

A batch norm after a convolution needs no folding here. An exporter that folds it multiplies output channel c
of the weight by some f, and round(w f / (s |f|)) is ±round(w / s): the folded weight with the scales s |f| is
the folded fake-quantised weight. Only its statistics have to stand still: `freeze_statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from edge_speech.errors import InputError
from edge_speech.training.scales import (
    INPUT_LEVELS,
    QUANTISABLE,
    LayerScales,
    Scales,
    check_scales,
    highest_level,
)


@dataclass(frozen=True)
class Quantization:
    """A recipe's [quantization]: learn with the layers rounded as int8 engines will round them.

    The scales begin as those in `model.weights`; where it has none, at the smallest and largest values in
    `calibration_batches` batches of training, with weights of `weight_bits`. `learn_scales = false` keeps
    them. Batch norm goes by its batches until a share `freeze_statistics_from` of the steps is done, then by
    what it has gathered, as the engine will (Krishnamoorthi 2018, https://arxiv.org/abs/1806.08342):
    0 from the first step, 1 never.
    """

    enabled: bool = True
    learn_scales: bool = True
    weight_bits: Literal[4, 5, 6, 7, 8] = 8
    calibration_batches: int = 16
    freeze_statistics_from: float = 0.75

    def __post_init__(self) -> None:
        if self.calibration_batches < 1:
            raise InputError(
                f"recipe: quantization.calibration_batches is {self.calibration_batches}; "
                "it must be at least 1"
            )
        if not 0 <= self.freeze_statistics_from <= 1:
            raise InputError(
                f"recipe: quantization.freeze_statistics_from is {self.freeze_statistics_from}; allowed: a "
                "share of the steps, from 0 to 1"
            )


class _Rounded(torch.autograd.Function):
    """x → scale * clamp(round(x / scale), low, high), halves to even; `scale` broadcasts over x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        ratio = x / scale
        level = ratio.round()
        inside = (level >= low) & (level <= high)
        level = level.clamp(low, high)
        if ctx.needs_input_grad[1]:
            ctx.save_for_backward(inside, torch.where(inside, level - ratio, level))
        else:
            ctx.save_for_backward(inside, None)
        ctx.shape, ctx.high = scale.shape, max(high, -low)
        return level * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        inside, of_scale = ctx.saved_tensors
        if of_scale is None:
            return gradient * inside, None, None, None
        summed = (gradient * of_scale).sum_to_size(ctx.shape)
        sharing = of_scale.numel() / max(1, summed.numel())
        return gradient * inside, summed / math.sqrt(max(1, sharing) * ctx.high), None, None


def _rounded(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    rounded: Tensor = _Rounded.apply(x, scale, low, high)  # type: ignore[no-untyped-call]
    return rounded


class Scale(nn.Module):
    """A scale that is learnt: its start, and the logarithm of what it is multiplied by."""

    start: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.log_factor = nn.Parameter(torch.zeros_like(start))

    def forward(self) -> Tensor:
        """The scale, of the shape of its start."""
        return self.start * self.log_factor.exp()


class FakeQuantized(nn.Module):
    """`layer`, a Linear, Conv1d or Conv2d, on weights and inputs of integers.

    The rounding is in float32 within autocast too; what is rounded is multiplied in autocast's type.
    """

    def __init__(self, layer: nn.Module, scales: LayerScales) -> None:
        super().__init__()
        self.layer, self.bits, self.zero_point = layer, scales.weight_bits, scales.input_zero_point
        like: Tensor = layer.weight  # type: ignore[assignment]
        self.weight_scale = Scale(torch.tensor(scales.weight, dtype=torch.float32, device=like.device))
        self.input_scale = Scale(torch.tensor(scales.input_scale, dtype=torch.float32, device=like.device))

    def forward(self, x: Tensor) -> Tensor:
        """What `layer` gives for x."""
        low, high = -self.zero_point, INPUT_LEVELS - self.zero_point
        rounded = _rounded(x.float(), self.input_scale(), low, high)
        return functional_call(self.layer, {"weight": self.rounded_weight()}, (rounded,))  # type: ignore[no-any-return]

    def rounded_weight(self) -> Tensor:
        """The weight as it will be multiplied."""
        weight: Tensor = self.layer.weight  # type: ignore[assignment]
        high = highest_level(self.bits)
        scale = self.weight_scale().reshape(-1, *[1] * (weight.ndim - 1))
        return _rounded(weight, scale, -high, high)

    @torch.no_grad()
    def scales(self) -> LayerScales:
        """As they are now."""
        weight: list[float] = self.weight_scale().tolist()
        return LayerScales(tuple(weight), self.input_scale().item(), self.zero_point, self.bits)


def fake_quantize(model: nn.Module, scales: Scales) -> None:
    """Round in the named layers from now on. Raises InputError where the scales do not fit."""
    check_scales(model, scales)
    for name, of in scales.items():
        model.set_submodule(name, FakeQuantized(model.get_submodule(name), of))


def scales_of(model: nn.Module) -> dict[str, LayerScales]:
    """The scales as they are now, of the layers that round."""
    return {name: m.scales() for name, m in model.named_modules() if isinstance(m, FakeQuantized)}


def take_out(model: nn.Module) -> dict[str, LayerScales]:
    """Undo `fake_quantize`: the layers with the weights that were learnt, and their scales."""
    scales = scales_of(model)
    for name in scales:
        model.set_submodule(name, model.get_submodule(name).layer)  # type: ignore[arg-type]
    return scales


@contextmanager
def fake_quantized(model: nn.Module, scales: Scales) -> Iterator[None]:
    """`fake_quantize` for as long as this lasts."""
    fake_quantize(model, scales)
    try:
        yield
    finally:
        take_out(model)


def freeze_scales(model: nn.Module) -> None:
    """Learn weights alone."""
    for module in model.modules():
        if isinstance(module, Scale):
            module.log_factor.requires_grad_(False)


def freeze_statistics(model: nn.Module) -> None:
    """Batch norm as in inference, until the next `train()`; what it multiplies and adds is still learnt."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


@torch.no_grad()
def min_max_scales(model: Any, batches: Iterable[Tensor], weight_bits: int = 8) -> dict[str, LayerScales]:
    """Scales of every layer by the smallest and largest of what it gets for features (B, T, F).

    Left out are the first layer to run, which reads the features, and the last, whose error goes straight
    into log_probs. Raises InputError on a model or batches with nothing to measure.
    """
    ranges = _ranges(model, batches)
    layers = dict(model.named_modules())
    found = {name: _min_max(layers[name].weight, *ranges[name], weight_bits) for name in list(ranges)[1:-1]}
    if not found:
        raise InputError("there is no layer to quantise between the first and the last, or no features")
    return found


def _ranges(model: Any, batches: Iterable[Tensor]) -> dict[str, tuple[float, float]]:
    """Smallest and largest input of each layer, zero included, in the order in which they run."""
    ranges: dict[str, tuple[float, float]] = {}

    def hook(name: str) -> Any:
        def measure(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(low, inputs[0].min().item()), max(high, inputs[0].max().item())

        return measure

    named = [(name, m) for name, m in model.named_modules() if isinstance(m, QUANTISABLE)]
    hooks = [m.register_forward_pre_hook(hook(name)) for name, m in named]
    try:
        for features in batches:
            model.parallel(features)
    finally:
        for handle in hooks:
            handle.remove()
    return ranges


def _min_max(weight: Tensor, low: float, high: float, bits: int) -> LayerScales:
    largest = weight.detach().float().abs().flatten(1).amax(1).double()
    largest = torch.where(largest > 0, largest, 1.0).clamp(min=1e-30)
    scale = max(high - low, 1e-30) / INPUT_LEVELS
    return LayerScales(tuple((largest / highest_level(bits)).tolist()), scale, round(-low / scale), bits)
