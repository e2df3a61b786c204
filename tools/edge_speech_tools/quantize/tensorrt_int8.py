"""Typed int8 ONNX for TensorRT: symmetric Q/DQ, weights by channel, the rest fp16; built on the board.

TensorRT quantises symmetrically and takes precision from Q/DQ pairs alone:
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx

from edge_speech.engine_recipe import version_of
from edge_speech_tools import qdq
from edge_speech_tools.calibration import CalibrationConfig, static_scales
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.convert import tensorrt
from edge_speech_tools.convert.onnx import check_graph
from edge_speech_tools.onnx_fp16 import to_fp16
from edge_speech_tools.onnx_graph import unsuited_nodes
from edge_speech_tools.passes import PassResult, Source

BACKEND = "tensorrt"
PRECISION = "int8-static"
NEEDS = ("onnx",)
NEEDS_CALIBRATION = True
SCALES_SUFFICE = True
FILE_NAME = "encoder.int8-static.tensorrt.onnx"
# The first whose Q/DQ have float16 scales.
_OPSET = 19


@dataclass(frozen=True)
class Config:
    """How ranges are measured, unless quantisation-aware training left scales in the checkpoint.

    The first and the last layer, convolutions and recurrent layers compute in fp16.
    """

    calibration: CalibrationConfig = field(default_factory=lambda: CalibrationConfig(weight_bits=8))
    fp16: tensorrt.Config = field(default_factory=tensorrt.Config)


def run(source: Source, config: Config = Config()) -> PassResult:
    """Quantise the fp32 graph in `source.directory`. Raises InputError without scales or recordings."""
    scales = static_scales(source, config.calibration)
    fp32, path = source.directory / streaming_onnx.LAYERS_NAME, source.directory / FILE_NAME
    ends = {name.partition("/")[0] for name in unsuited_nodes(fp32, ("MatMul", "Gemm", "Conv"))}
    version = tensorrt.tensorrt_minimum(source)
    typed = version_of(version) >= tensorrt.TYPED
    editor = qdq.Editor(onnx.load(fp32))
    scales = qdq.in_graph(editor, scales, source.model)
    kept = {name: layer for name, layer in scales.items() if name not in ends}
    qdq.quantise_symmetric(editor, kept, float_weights=not typed)
    if typed:
        editor.needs("", _OPSET)
    model = editor.finish()
    if typed:
        model = to_fp16(model, config.fp16.fp32_op_types)
    onnx.save(tensorrt.for_version(model, version), path)
    check_graph(path, source.spec)
    return tensorrt.planned(source, path, PRECISION, typed)
