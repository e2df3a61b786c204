"""int8 weights, activations quantised as they come: no calibration needed."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from edge_speech_tools import qdq
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.convert.onnx import check_graph
from edge_speech_tools.onnx_graph import quiet, unsuited_nodes
from edge_speech_tools.passes import PassResult, Source

BACKEND = "onnxruntime"
PRECISION = "int8-dynamic"
NEEDS = ("onnx",)
NEEDS_CALIBRATION = False
FILE_NAME = "encoder.int8-dynamic.onnx"


@dataclass(frozen=True)
class Config:
    """Convolutions, GRUs, the first and the last layer compute in fp32 with int8 weights: onnxruntime's
    dynamic ConvInteger is slower and less exact.

    Seven-bit weights (`reduce_range`) cannot overflow the 16-bit sums of x86 processors without VNNI.
    """

    op_types: tuple[str, ...] = ("MatMul", "Gemm")
    per_channel: bool = True
    reduce_range: bool = True


def run(source: Source, config: Config = Config()) -> PassResult:
    """Quantise the fp32 graph in `source.directory`. Raises CheckFailed when its signature changed."""
    fp32 = source.directory / streaming_onnx.FILE_NAME
    path = source.directory / FILE_NAME
    with quiet():
        quantize_dynamic(
            fp32,
            path,
            op_types_to_quantize=list(config.op_types),
            nodes_to_exclude=unsuited_nodes(fp32, config.op_types),
            per_channel=config.per_channel,
            reduce_range=config.reduce_range,
            weight_type=QuantType.QInt8,
        )
    editor = qdq.Editor(onnx.load(path))
    qdq.quantise_lstms(editor, bits=7 if config.reduce_range else 8)
    qdq.shrink_weights(editor)
    onnx.save(editor.finish(), path)
    check_graph(path, source.spec)
    return PassResult(path, BACKEND, PRECISION, "built", check_backend=BACKEND)
