"""How layers are quantised to integers: one set of scales, by the name of the layer, for every converter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_speech.encoder import FloatArray

# Steps between the least and the greatest uint8.
LEVELS = 255
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


def most_of(bits: int) -> int:
    """The largest integer of a symmetric weight of `bits` bits: 127 of 8."""
    return int(2 ** (bits - 1) - 1)


def weight_scales(weight: FloatArray, bits: int = 8) -> FloatArray:
    """Scales (C,) with which the largest weight of each output channel of (C, …) is the largest integer."""
    largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    scales: FloatArray = np.maximum(largest / most_of(bits), LEAST_SCALE).astype(np.float32)
    return scales


def quantise_weight(weight: FloatArray, scales: FloatArray, bits: int = 8) -> npt.NDArray[np.int8]:
    """weight (C, …) as integers, by scales (C,)."""
    shaped = scales.reshape(-1, *[1] * (weight.ndim - 1))
    integers = np.clip(np.rint(weight / shaped), -most_of(bits), most_of(bits))
    narrow: npt.NDArray[np.int8] = integers.astype(np.int8)
    return narrow


def input_scales(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of a uint8 input that spans `low` … `high`, widened so that zero is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / LEVELS, LEAST_SCALE)))
    return scale, int(np.clip(round(-low / scale), 0, LEVELS))
