"""The lite interpreter's int8: weights of Linear layers quantised, activations as they come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

from edge_speech_tools.convert.torchscript_mobile import example_inputs, save_lite
from edge_speech_tools.onnx_graph import quiet
from edge_speech_tools.passes import PassResult, Source

BACKEND = "torchscript_mobile"
PRECISION = "int8-dynamic"
NEEDS: tuple[str, ...] = ()
NEEDS_CALIBRATION = False
NEEDS_LAYERS = True
FILE_NAME = "encoder.int8-dynamic.ptl"


@dataclass(frozen=True)
class Config:
    """`engine` names PyTorch's kernels: qnnpack is the one that phones have."""

    engine: str = "qnnpack"


def run(source: Source, config: Config = Config()) -> PassResult:
    """Quantise, trace, freeze and save the model."""
    path = source.directory / FILE_NAME
    with quantised_engine(config.engine):
        with quiet():
            quantized = quantize_dynamic(source.model, layer_configs(source))  # type: ignore[no-untyped-call]
        _use_full_range(quantized)
        save_lite(quantized, example_inputs(source), path)
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


def _use_full_range(model: torch.nn.Module) -> None:
    """Linear layers of version 4 ask for a reduced range, which qnnpack warns about and does not have."""
    for layer in model.modules():
        if isinstance(layer, torch.ao.nn.quantized.dynamic.Linear):
            layer.version = 3


def layer_configs(source: Source) -> dict[str, Any]:
    """Every Linear by name but the output layer, whose error would go straight into log_probs."""
    return {
        name: per_channel_dynamic_qconfig
        for name, layer in source.model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer.out_features != source.spec.vocab_size
    }
