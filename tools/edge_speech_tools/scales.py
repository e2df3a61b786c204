"""How layers are quantised to integers: one set of scales, by the name of the layer, for every converter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LayerScales:
    """Scales of one layer (Linear, Conv1d, Conv2d).

    A weight of output channel c is `round(w / weight[c])`, symmetric, within ±(2^(weight_bits - 1) - 1). The input,
    uint8, is `round(x / input_scale) + input_zero_point`, clamped to 0…255, so that zero is exact.
    """

    weight: tuple[float, ...]
    input_scale: float
    input_zero_point: int
    weight_bits: int = 8


Scales = Mapping[str, LayerScales]
