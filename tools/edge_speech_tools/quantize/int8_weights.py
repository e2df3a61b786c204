"""int8 weights alone: a quarter of the size; layers compute with the weights turned back to floats."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edge_speech_tools import qdq
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.convert.onnx import check_graph
from edge_speech_tools.passes import PassResult, Source

BACKEND = "onnxruntime"
PRECISION = "int8-weight-only"
NEEDS = ("onnx",)
NEEDS_CALIBRATION = False
FILE_NAME = "encoder.int8-weight-only.onnx"


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


def run(source: Source, config: Config = Config()) -> PassResult:
    """Quantise the weights of the fp32 graph in `source.directory`."""
    path = source.directory / FILE_NAME
    editor = qdq.Editor(onnx.load(source.directory / streaming_onnx.FILE_NAME))
    qdq.shrink_weights(editor)
    onnx.save(editor.finish(), path)
    check_graph(path, source.spec)
    return PassResult(path, BACKEND, PRECISION, "built", check_backend=BACKEND)
