"""int8 weights and activations, as Q/DQ pairs with ranges measured on a calibration set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.errors import InputError
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.convert.onnx import check_graph
from edge_speech_tools.onnx_graph import quiet, unsuited_nodes
from edge_speech_tools.passes import PassResult, Source
from edge_speech_tools.streaming import windows

BACKEND = "onnxruntime"
PRECISION = "int8-static"
NEEDS = ("onnx",)
NEEDS_CALIBRATION = True
FILE_NAME = "encoder.int8-static.onnx"


@dataclass(frozen=True)
class Config:
    """Ranges are minimum and maximum over at most `max_steps` encoder steps of the calibration recordings.

    Seven-bit weights (`reduce_range`) cannot overflow the 16-bit sums of x86 processors without VNNI.
    """

    op_types: tuple[str, ...] = ("MatMul", "Gemm", "Conv")
    per_channel: bool = True
    reduce_range: bool = True
    max_steps: int = 1000


def run(source: Source, config: Config = Config()) -> PassResult:
    """Quantise the fp32 graph in `source.directory`. Raises InputError without calibration recordings."""
    if not source.calibration:
        raise InputError("int8-static needs recordings to measure its ranges on; give --calibration MANIFEST")
    fp32 = source.directory / streaming_onnx.FILE_NAME
    path = source.directory / FILE_NAME
    with quiet():
        quantize_static(
            fp32,
            path,
            StreamingCalibration(fp32, source.spec, source.calibration, config.max_steps),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(config.op_types),
            nodes_to_exclude=unsuited_nodes(fp32, config.op_types),
            per_channel=config.per_channel,
            reduce_range=config.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    check_graph(path, source.spec)
    return PassResult(path, BACKEND, PRECISION, "built", check_backend=BACKEND)


Feed = dict[str, npt.NDArray[Any]]


class StreamingCalibration(CalibrationDataReader):  # type: ignore[misc]
    """Every step's features and state of whole recordings, the state carried by the fp32 model itself.

    A calibrator that feeds zeros for the state never sees the ranges of a running stream.
    """

    def __init__(
        self, model: Path, spec: StreamingSpec, recordings: tuple[FloatArray, ...], max_steps: int
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._spec, self._recordings, self._max_steps = spec, recordings, max_steps
        self._feeds = self._run()

    def get_next(self) -> Feed | None:
        """The next step's inputs, None at the end."""
        return next(self._feeds, None)

    def rewind(self) -> None:
        """Start over."""
        self._feeds = self._run()

    def _run(self) -> Iterator[Feed]:
        steps = 0
        for features in self._recordings:
            state = {s.name: np.zeros(s.shape, s.dtype) for s in self._spec.state}
            for window in windows(features, self._spec):
                if steps == self._max_steps:
                    return
                steps += 1
                feed = {"features": window, **state}
                yield feed
                _, *following = self._session.run(None, feed)
                state = dict(zip(state, following, strict=True))
