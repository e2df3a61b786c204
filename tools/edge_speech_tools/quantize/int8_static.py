"""int8 weights and activations, with ranges measured on a calibration set."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx

from edge_speech_tools import qdq
from edge_speech_tools.calibration import CalibrationConfig, static_scales
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.convert.onnx import check_graph
from edge_speech_tools.onnx_graph import unsuited_nodes
from edge_speech_tools.passes import PassResult, Source
from edge_speech_tools.products import regroup_products

BACKEND = "onnxruntime"
PRECISION = "int8-static"
NEEDS = ("onnx",)
NEEDS_CALIBRATION = True
SCALES_SUFFICE = True
NEEDS_LAYERS = True
FILE_NAME = "encoder.int8-static.onnx"


@dataclass(frozen=True)
class Config:
    """How ranges are measured, unless quantisation-aware training left scales in the checkpoint.

    Convolutions, GRUs, the first and the last layer compute in fp32 with int8 weights.
    LSTMs compute in integers whose ranges are those of the moment. Layers in `keep` stay as they are.
    """

    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    keep: tuple[str, ...] = ()


def run(source: Source, config: Config = Config()) -> PassResult:
    """Quantise the fp32 graph in `source.directory`. Raises InputError without scales or recordings."""
    scales = static_scales(source, config.calibration)
    fp32, path = source.directory / streaming_onnx.LAYERS_NAME, source.directory / FILE_NAME
    ends = {name.partition("/")[0] for name in unsuited_nodes(fp32, ("MatMul", "Gemm", "Conv"))}
    unsuited = {*ends, *config.keep}
    editor = qdq.Editor(onnx.load(fp32))
    scales = qdq.in_graph(editor, scales, source.model)
    qdq.quantise(editor, {name: layer for name, layer in scales.items() if name not in unsuited})
    qdq.quantise_lstms(editor, config.calibration.weight_bits, config.keep)
    qdq.shrink_weights(editor, keep=config.keep)
    model = editor.finish()
    regroup_products(model)
    qdq.fuse_products(model)
    onnx.save(model, path)
    check_graph(path, source.spec)
    return PassResult(path, BACKEND, PRECISION, "built", check_backend=BACKEND)
