"""int4 weights alone, in groups with a scale each: an eighth of the size of most layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.training.scales import LEAST_SCALE
from edge_speech_tools import qdq
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.convert.onnx import check_graph
from edge_speech_tools.onnx_graph import layer_of, unsuited_nodes
from edge_speech_tools.passes import PassResult, Source

BACKEND = "onnxruntime"
PRECISION = "int4-weight-only"
NEEDS = ("onnx",)
NEEDS_CALIBRATION = False
FILE_NAME = "encoder.int4-weight-only.onnx"

# Four bits, stored as 0 … 15, mean -8 … 7.
OFFSET = 8
# Scales tried for each group, as fractions of the one that reaches its largest weight.
FRACTIONS = tuple(np.linspace(1.0, 0.6, 17))
# The first opset with int4 constants.
OPSET = 21


@dataclass(frozen=True)
class Config:
    """`block_size` weights of an output channel share a scale: 32, 64 or 128 (onnxruntime's kernels).

    The first and the last layer and convolutions, few weights and much error, get int8. Raises InputError.
    """

    block_size: int = 32

    def __post_init__(self) -> None:
        if self.block_size not in (32, 64, 128):
            raise InputError(f"int4 block size is {self.block_size}; allowed are 32, 64, 128")


def run(source: Source, config: Config = Config()) -> PassResult:
    """Quantise the weights of the fp32 graph in `source.directory`."""
    fp32, path = source.directory / streaming_onnx.FILE_NAME, source.directory / FILE_NAME
    editor = qdq.Editor(onnx.load(fp32))
    ends = {name.partition("/")[0] for name in unsuited_nodes(fp32, ("MatMul", "Gemm", "Conv"))}
    for node in editor.layers():
        if layer_of(node) not in ends:
            _pack(editor, node, config.block_size)
    qdq.shrink_weights(editor)
    onnx.save(editor.finish(), path)
    check_graph(path, source.spec)
    return PassResult(path, BACKEND, PRECISION, "built", check_backend=BACKEND)


def _pack(editor: qdq.Editor, node: onnx.NodeProto, block_size: int) -> None:
    if node.op_type == "MatMul":
        _pack_product(editor, node, block_size)
    elif node.op_type in ("LSTM", "GRU"):
        for weight in editor.weights(node):
            _pack_recurrent(editor, node, weight, block_size)


def _pack_product(editor: qdq.Editor, node: onnx.NodeProto, block_size: int) -> None:
    """MatMul → onnxruntime's MatMulNBits, whose weight is (N, blocks, block_size / 2) bytes, low half first.

    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits
    """
    (weight,) = editor.weights(node)
    integers, scales = grouped(weight.channels, block_size)
    stored = (integers + OFFSET).astype(np.uint8)
    packed = stored[..., 0::2] | (stored[..., 1::2] << 4)
    inputs = [
        node.input[0],
        editor.constant(f"{weight.name}_int4", packed),
        editor.constant(f"{weight.name}_scale", scales.reshape(-1)),
    ]
    attributes = {
        "N": weight.channels.shape[0],
        "K": weight.channels.shape[1],
        "bits": 4,
        "block_size": block_size,
        "accuracy_level": 4,
    }
    new = helper.make_node(
        "MatMulNBits", inputs, list(node.output), name=node.name, domain=qdq.CONTRIB, **attributes
    )
    node.CopyFrom(new)
    editor.needs(qdq.CONTRIB, 1)


def _pack_recurrent(editor: qdq.Editor, node: onnx.NodeProto, weight: qdq.Weight, block_size: int) -> None:
    """W (directions, gates, inputs) of a recurrent layer as int4 constant × scale, computed at loading."""
    name = f"{node.name}/{weight.name}"
    integers, scales = grouped(weight.values.reshape(-1, weight.values.shape[-1]), block_size)
    tensor = helper.make_tensor(
        f"{weight.name}_int4", onnx.TensorProto.INT4, integers.shape, integers.flatten().tolist()
    )
    stored = editor.constant(tensor.name, tensor)
    scale = editor.constant(f"{weight.name}_scale", scales[..., None])
    directions, gates, inputs = weight.values.shape
    shape = editor.constant(f"{weight.name}_shape", np.array([directions, gates, -1], np.int64))
    bounds = [
        editor.constant(f"{weight.name}_{key}", np.array([value], np.int64))
        for key, value in (("start", 0), ("end", inputs), ("axis", 2))
    ]
    chain = [
        *editor.cast_and_scale(stored, scale, f"{name}/grouped"),
        helper.make_node("Reshape", [f"{name}/grouped", shape], [f"{name}/padded"], name=f"{name}/padded"),
        helper.make_node("Slice", [f"{name}/padded", *bounds], [name], name=name),
    ]
    editor.put_before(node, list(node.input).index(weight.name), *chain)
    editor.needs("", OPSET)


def grouped(weight: FloatArray, block_size: int) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """weight (N, K) → integers -8 … 7 (N, blocks, block_size), the last block padded with zeros, and scales
    (N, blocks), of each group the one with the least squared error."""
    rows, columns = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -columns % block_size)))
    blocks = padded.reshape(rows, -1, block_size)
    # The largest weight, whatever its sign, becomes -8, so that all sixteen integers are in use.
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2)[..., None], axis=2)[..., 0]
    full = np.where(np.abs(extreme) < LEAST_SCALE, LEAST_SCALE, -extreme / OFFSET).astype(np.float32)
    best, least = full, np.full(full.shape, np.inf)
    for fraction in FRACTIONS:
        scales = (full * fraction).astype(np.float32)
        error = ((_integers(blocks, scales) * scales[..., None] - blocks) ** 2).sum(axis=2)
        best = np.where(error < least, scales, best).astype(np.float32)
        least = np.minimum(error, least)
    return _integers(blocks, best), best


def _integers(blocks: FloatArray, scales: FloatArray) -> npt.NDArray[np.int8]:
    narrow: npt.NDArray[np.int8] = np.clip(np.rint(blocks / scales[..., None]), -OFFSET, OFFSET - 1).astype(
        np.int8
    )
    return narrow
