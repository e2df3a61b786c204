"""XNNPACK's int8 in fixed ranges: weights, inputs and outputs of layers, by our scales."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from torch import nn

from edge_speech_tools.calibration import CalibrationConfig, running_order, static_ranges
from edge_speech_tools.convert.executorch import write_program
from edge_speech_tools.passes import PassResult, Source
from edge_speech_tools.torch_qdq import RECURRENT, Layers, StaticLayer, dynamic_layers, with_layers

BACKEND = "executorch"
REQUIRES = "executorch"
PRECISION = "int8-static"
NEEDS: tuple[str, ...] = ()
NEEDS_CALIBRATION = True
NEEDS_LAYERS = True
FILE_NAME = "encoder.int8-static.pte"


@dataclass(frozen=True)
class Config:
    """How ranges are measured. Scales of weights and inputs that the checkpoint has take their place;
    ranges of outputs, which XNNPACK's kernels round too, are always measured.

    Weights get all eight bits: XNNPACK's kernels add up in 32. The first and the last layer stay in fp32, and
    convolutions, which ExecuTorch 1.4 fails to lower when they are Conv1d; recurrent layers compute in
    integers whose ranges are those of the moment.
    """

    calibration: CalibrationConfig = field(default_factory=lambda: CalibrationConfig(weight_bits=8))


def run(source: Source, config: Config = Config()) -> PassResult:
    """Quantise, export, lower and write the model. Raises InputError without calibration recordings."""
    path = source.directory / FILE_NAME
    scales, outputs = static_ranges(source, config.calibration)
    inner = running_order(source.model, source.spec)[1:-1]
    linear = [name for name in inner if isinstance(source.model.get_submodule(name), nn.Linear)]
    fixed = {name: partial(StaticLayer, scales=scales[name], output=outputs[name]) for name in linear}
    made: Layers = {**fixed, **dynamic_layers(source.model, RECURRENT)}
    write_program(with_layers(source.model, made), source, path)
    return PassResult(path, BACKEND, PRECISION, "built", check_backend=BACKEND)
