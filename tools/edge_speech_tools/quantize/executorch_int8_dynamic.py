"""XNNPACK's int8 in ranges of the moment: Linear layers quantised, each row of inputs as it comes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from edge_speech_tools.calibration import running_order
from edge_speech_tools.convert.executorch import write_program
from edge_speech_tools.passes import PassResult, Source
from edge_speech_tools.torch_qdq import RECURRENT, dynamic_layers, with_layers

BACKEND = "executorch"
REQUIRES = "executorch"
PRECISION = "int8-dynamic"
NEEDS: tuple[str, ...] = ()
NEEDS_CALIBRATION = False
NEEDS_LAYERS = True
FILE_NAME = "encoder.int8-dynamic.pte"


@dataclass(frozen=True)
class Config:
    """Nothing to choose. The last layer, whose error would go straight into log_probs, and convolutions stay
    in fp32."""


def run(source: Source, config: Config = Config()) -> PassResult:
    """Quantise, export, lower and write the model."""
    path, model = source.directory / FILE_NAME, source.model
    last = running_order(model, source.spec)[-1]
    made = dynamic_layers(model, (nn.Linear, *RECURRENT), but=last)
    write_program(with_layers(model, made), source, path)
    return PassResult(path, BACKEND, PRECISION, "built", check_backend=BACKEND)
