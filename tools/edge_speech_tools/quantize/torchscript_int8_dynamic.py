"""The lite interpreter's int8: Linear and recurrent layers quantised, activations as they come."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.ao.nn.quantized import dynamic as quantized
from torch.ao.quantization import per_channel_dynamic_qconfig

from edge_speech_tools.calibration import running_order
from edge_speech_tools.convert.torchscript_mobile import example_inputs, save_lite
from edge_speech_tools.onnx_graph import quiet
from edge_speech_tools.passes import PassResult, Source
from edge_speech_tools.torch_qdq import RECURRENT, dynamic_layers, with_layers

BACKEND = "torchscript_mobile"
PRECISION = "int8-dynamic"
NEEDS: tuple[str, ...] = ()
NEEDS_CALIBRATION = False
NEEDS_LAYERS = True
FILE_NAME = "encoder.int8-dynamic.ptl"


@dataclass(frozen=True)
class Config:
    """`engine` names PyTorch's kernels: qnnpack is the one that phones have.

    The last layer, whose error would go straight into log_probs, and convolutions stay in fp32.
    """

    engine: str = "qnnpack"


def run(source: Source, config: Config = Config()) -> PassResult:
    """Quantise, trace, freeze and save the model."""
    path, model = source.directory / FILE_NAME, source.model
    last = running_order(model, source.spec)[-1]
    with quantised_engine(config.engine), quiet():
        made = dynamic_layers(model, (torch.nn.Linear, *RECURRENT), but=last, linear=dynamic_linear)
        save_lite(with_layers(model, made), example_inputs(source), path)
    return PassResult(path, BACKEND, PRECISION, "built", check_backend=BACKEND)


@contextmanager
def quantised_engine(name: str) -> Iterator[None]:
    """PyTorch's integer kernels of this name for as long as this lasts: weights are packed for them."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def dynamic_linear(layer: torch.nn.Linear) -> torch.nn.Module:
    """`layer` as PyTorch's product of int8 weights and inputs in their own range."""
    given = copy.copy(layer)
    given.qconfig = per_channel_dynamic_qconfig  # type: ignore[assignment]
    made: torch.nn.Module = quantized.Linear.from_float(given)  # type: ignore[no-untyped-call]
    # One of version 4 asks for a reduced range, which qnnpack warns about and does not have.
    made.version = 3  # type: ignore[assignment]
    return made
