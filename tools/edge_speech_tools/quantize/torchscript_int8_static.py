"""The lite interpreter's int8 in fixed ranges: Linear layers on integers, by our scales."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.ao.nn import quantized

from edge_speech.training.scales import LayerScales, quantise_weight
from edge_speech_tools.calibration import CalibrationConfig, OutputRange, running_order, static_ranges
from edge_speech_tools.convert.torchscript_mobile import example_inputs, save_lite
from edge_speech_tools.onnx_graph import quiet
from edge_speech_tools.passes import PassResult, Source
from edge_speech_tools.quantize.torchscript_int8_dynamic import dynamic_linear, quantised_engine
from edge_speech_tools.torch_qdq import RECURRENT, Layers, dynamic_layers, with_layers

BACKEND = "torchscript_mobile"
PRECISION = "int8-static"
NEEDS: tuple[str, ...] = ()
NEEDS_CALIBRATION = True
NEEDS_LAYERS = True
FILE_NAME = "encoder.int8-static.ptl"


@dataclass(frozen=True)
class Config:
    """`engine` names PyTorch's kernels: qnnpack is the one that phones have, with 8-bit weights.

    Convolutions and the last layer stay in fp32; recurrent layers compute in ranges of the moment.
    """

    engine: str = "qnnpack"
    calibration: CalibrationConfig = field(default_factory=lambda: CalibrationConfig(weight_bits=8))


def run(source: Source, config: Config = Config()) -> PassResult:
    """Quantise, trace, freeze and save the model. Raises InputError without calibration recordings."""
    path, model = source.directory / FILE_NAME, source.model
    scales, outputs = static_ranges(source, config.calibration)
    inner = running_order(model, source.spec)[1:-1]
    linear = [name for name in inner if isinstance(model.get_submodule(name), nn.Linear)]
    fixed = {name: partial(StaticLinear, scales=scales[name], output=outputs[name]) for name in linear}
    with quantised_engine(config.engine), quiet():
        made: Layers = {**fixed, **dynamic_layers(model, RECURRENT, linear=dynamic_linear)}
        save_lite(with_layers(model, made), example_inputs(source), path)
    return PassResult(path, BACKEND, PRECISION, "built", check_backend=BACKEND)


class StaticLinear(nn.Module):
    """`layer` as PyTorch's integer product; its input and output are floats."""

    def __init__(self, layer: nn.Linear, scales: LayerScales, output: OutputRange) -> None:
        super().__init__()
        self.range = scales.input_scale, scales.input_zero_point
        of = torch.tensor(scales.weight, dtype=torch.float32)
        integers = quantise_weight(layer.weight.detach().float().numpy(), of.numpy(), scales.weight_bits)
        weight = torch._make_per_channel_quantized_tensor(
            torch.from_numpy(integers), of.double(), torch.zeros(len(of), dtype=torch.int64), 0
        )
        self.product = quantized.Linear(layer.in_features, layer.out_features)  # type: ignore[no-untyped-call]
        self.product.set_weight_bias(weight, None if layer.bias is None else layer.bias.detach())
        self.product.scale, self.product.zero_point = output

    def forward(self, x: Tensor) -> Tensor:
        """x (…, inputs) → (…, outputs)."""
        integers = torch.quantize_per_tensor(x, *self.range, torch.quint8)
        return self.product(integers).dequantize()  # type: ignore[no-any-return]
