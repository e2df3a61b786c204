"""How layers are quantised to integers: one set of scales, by the name of the layer, for every converter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError

# Layers that have scales; all others compute in floating point.
QUANTISABLE = (nn.Linear, nn.Conv1d, nn.Conv2d)
# The uint8 of a quantised input.
INPUT_LEVELS = 255
WEIGHT_BITS = range(2, 9)
# Of a layer that is all zeros.
LEAST_SCALE = 1e-8


@dataclass(frozen=True)
class LayerScales:
    """Scales of one layer (Linear, Conv1d, Conv2d).

    A weight of output channel c is `round(w / weight[c])`, symmetric, within ±(2^(weight_bits - 1) - 1). The
    input, uint8, is `round(x / input_scale) + input_zero_point`, clamped to 0…255, so that zero is exact.
    """

    weight: tuple[float, ...]
    input_scale: float
    input_zero_point: int
    weight_bits: int = 8


Scales = Mapping[str, LayerScales]


def highest_level(weight_bits: int) -> int:
    """The largest integer of a weight; the smallest is its negative."""
    return (1 << (weight_bits - 1)) - 1


def scales_to_plain(scales: Scales) -> dict[str, dict[str, Any]]:
    """Plain data, as model.pt holds it."""
    return {name: {**asdict(s), "weight": list(s.weight)} for name, s in scales.items()}


def scales_from_plain(plain: object) -> dict[str, LayerScales]:
    """What `scales_to_plain` gave. Raises InputError: a stranger may have written it."""
    if not isinstance(plain, dict):
        raise InputError(f"quantization is {type(plain).__name__}, not a table of layers")
    return {str(name): _layer(str(name), layer) for name, layer in plain.items()}


def _layer(name: str, plain: object) -> LayerScales:
    keys = set(LayerScales.__dataclass_fields__)
    if not isinstance(plain, dict) or set(plain) != keys or not isinstance(plain["weight"], list):
        raise InputError(f"the scales of {name[:60]!r} need {', '.join(sorted(keys))}, weight as a list")
    return LayerScales(**{**plain, "weight": tuple(plain["weight"])})


def check_scales(model: nn.Module, scales: Scales) -> None:
    """Raises InputError where `scales` are not of layers of `model`, or no numbers that can be scales."""
    layers = dict(model.named_modules())
    for name, of in scales.items():
        layer = layers.get(name)
        if not isinstance(layer, QUANTISABLE):
            raise InputError(f"scales of {name[:60]!r}, which is no Linear, Conv1d or Conv2d of the model")
        if len(of.weight) != layer.weight.shape[0]:
            raise InputError(
                f"{name} has {len(of.weight)} weight scales for {layer.weight.shape[0]} output channels"
            )
        if not all(map(_is_scale, (of.input_scale, *of.weight))):
            raise InputError(f"{name} has a scale that is not a finite float32 above 0")
        if not (_is_whole(of.input_zero_point) and 0 <= of.input_zero_point <= INPUT_LEVELS):
            raise InputError(
                f"{name} has the zero point {of.input_zero_point!r}; allowed: 0 to {INPUT_LEVELS}"
            )
        if not (_is_whole(of.weight_bits) and of.weight_bits in WEIGHT_BITS):
            raise InputError(f"{name} has weights of {of.weight_bits!r} bits; allowed: 2 to 8")


def _is_scale(value: object) -> bool:
    """Engines hold scales in float32, and divide by them."""
    limits = np.finfo(np.float32)
    return isinstance(value, float) and math.isfinite(value) and limits.tiny <= value <= limits.max


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def weight_scales(weight: FloatArray, bits: int = 8) -> FloatArray:
    """Scales (C,) with which the largest weight of each output channel of (C, …) is the largest integer."""
    largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    scales: FloatArray = np.maximum(largest / highest_level(bits), LEAST_SCALE).astype(np.float32)
    return scales


def quantise_weight(weight: FloatArray, scales: FloatArray, bits: int = 8) -> npt.NDArray[np.int8]:
    """weight (C, …) as integers, by scales (C,)."""
    shaped = scales.reshape(-1, *[1] * (weight.ndim - 1))
    integers = np.clip(np.rint(weight / shaped), -highest_level(bits), highest_level(bits))
    narrow: npt.NDArray[np.int8] = integers.astype(np.int8)
    return narrow


def input_scales(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of a uint8 input that spans `low` … `high`, widened so that zero is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / INPUT_LEVELS, LEAST_SCALE)))
    return scale, int(np.clip(round(-low / scale), 0, INPUT_LEVELS))
