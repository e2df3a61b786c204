"""Writes quantised layers into a streaming ONNX graph: int8 weights with their scales, Q/DQ pairs on inputs.

A layer is a node with a constant weight; it has the name of its module (`onnx_graph.name_layers`). An engine
that sees QuantizeLinear → DequantizeLinear on the input and DequantizeLinear on the weight computes in
integers: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper, numpy_helper

from edge_speech.encoder import FloatArray
from edge_speech.training.scales import (
    INPUT_LEVELS,
    LayerScales,
    Scales,
    highest_level,
    quantise_weight,
    weight_scales,
)
from edge_speech_tools.onnx_graph import drop_unread, layer_of

# Position of the weights among a node's inputs.
WEIGHTS = {"MatMul": (1,), "Gemm": (1,), "Conv": (1,), "LSTM": (1, 2), "GRU": (1, 2)}
# Vectors (biases, norms) are not worth a scale: they are few, and products add them up in full precision.
LEAST_ELEMENTS = 512
_FLOAT = onnx.TensorProto.FLOAT
# The domain of onnxruntime's own operators.
CONTRIB = "com.microsoft"


@dataclass(frozen=True)
class Weight:
    """A constant weight of a layer; `axis` is that of its output channels."""

    name: str
    values: FloatArray
    axis: int

    @property
    def channels(self) -> FloatArray:
        """The weight with output channels first (C, …)."""
        return np.moveaxis(self.values, self.axis, 0)


class Editor:
    """Changes to one graph. Nothing is written before `finish`, which also drops weights nobody reads."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self._constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self._before: dict[str, list[onnx.NodeProto]] = {}
        self._made: dict[tuple[str, float, int], str] = {}
        self._added: set[str] = set()

    def layers(self) -> list[onnx.NodeProto]:
        """Nodes with a constant float weight, in the graph's order."""
        return [node for node in self.graph.node if node.op_type in WEIGHTS and self.weights(node)]

    def weights(self, node: onnx.NodeProto) -> list[Weight]:
        """The constant float weights of a layer, large enough to shrink; none of a product of activations."""
        names = [node.input[i] for i in WEIGHTS[node.op_type] if i < len(node.input)]
        tensors = [self._constants[name] for name in names if name in self._constants]
        found = [
            Weight(t.name, numpy_helper.to_array(t), _channel_axis(node)) for t in tensors if _is_float(t)
        ]
        return [weight for weight in found if weight.values.size >= LEAST_ELEMENTS]

    def constant(self, name: str, values: npt.NDArray[np.generic] | onnx.TensorProto) -> str:
        """A new constant of this name, once."""
        if name not in self._added:
            tensor = values if isinstance(values, onnx.TensorProto) else numpy_helper.from_array(values, name)
            self._added.add(name)
            self.graph.initializer.append(tensor)
        return name

    def put_before(self, node: onnx.NodeProto, position: int, *chain: onnx.NodeProto) -> None:
        """`chain` feeds the node's input at `position` from now on."""
        self._before.setdefault(node.output[0], []).extend(chain)
        node.input[position] = chain[-1].output[0]

    def replace_weight(self, node: onnx.NodeProto, weight: Weight, scales: FloatArray, bits: int) -> None:
        """The weight as int8 with `scales` (C,) of its output channels, dequantised where it is read.

        onnxruntime keeps a DequantizeLinear for products in integers (MatMulNBits, MatMulIntegerToFloat), and
        where it has none it runs it at every step. Cast and Mul it computes once, when it loads the model.
        """
        integers = np.moveaxis(quantise_weight(weight.channels, scales, bits), 0, weight.axis)
        stored = self.constant(f"{weight.name}_int8", np.ascontiguousarray(integers))
        position, name = list(node.input).index(weight.name), f"{node.name}/{weight.name}"
        if node.op_type in ("MatMul", "Gemm"):
            scale = self.constant(f"{weight.name}_scale", scales)
            inputs = [stored, scale, self.constant(f"zeros_{len(scales)}", np.zeros(len(scales), np.int8))]
            chain = [helper.make_node("DequantizeLinear", inputs, [name], name=name, axis=weight.axis)]
        else:
            shape = [-1 if axis == weight.axis else 1 for axis in range(weight.values.ndim)]
            scale = self.constant(f"{weight.name}_scale", scales.reshape(shape))
            chain = self.cast_and_scale(stored, scale, name)
        self.put_before(node, position, *chain)

    def round_weight(self, node: onnx.NodeProto, weight: Weight, scales: FloatArray) -> None:
        """The weight in floats, through int8 and back where it is read, by `scales` (C,) of its channels."""
        scale = self.constant(f"{weight.name}_scale", scales)
        zeros = self.constant(f"zeros_{len(scales)}", np.zeros(len(scales), np.int8))
        position, name = list(node.input).index(weight.name), f"{node.name}/{weight.name}"
        names = f"{name}_quantised", name
        chain = [
            helper.make_node(op, [read, scale, zeros], [made], name=made, axis=weight.axis)
            for op, read, made in zip(
                ("QuantizeLinear", "DequantizeLinear"), (weight.name, names[0]), names, strict=True
            )
        ]
        self.put_before(node, position, *chain)

    def cast_and_scale(self, stored: str, scale: str, name: str) -> list[onnx.NodeProto]:
        """Integers times their scale, in operators that onnxruntime folds."""
        cast = helper.make_node("Cast", [stored], [f"{name}/cast"], name=f"{name}/cast", to=_FLOAT)
        return [cast, helper.make_node("Mul", [f"{name}/cast", scale], [name], name=name)]

    def quantise_input(
        self, node: onnx.NodeProto, scale: float, zero_point: int, dtype: type[np.integer[Any]] = np.uint8
    ) -> None:
        """Input 0 through uint8 (or int8) and back; readers of one tensor with equal scales share a pair."""
        key = (node.input[0], scale, zero_point)
        if key in self._made:
            node.input[0] = self._made[key]
            return
        parameters = [
            self.constant(f"{node.name}/input_scale", np.array(scale, np.float32)),
            self.constant(f"{node.name}/input_zero_point", np.array(zero_point, dtype)),
        ]
        names = [f"{node.name}/input_{step}" for step in ("quantised", "dequantised")]
        chain = [
            helper.make_node("QuantizeLinear", [node.input[0], *parameters], names[:1], name=names[0]),
            helper.make_node("DequantizeLinear", [names[0], *parameters], names[1:], name=names[1]),
        ]
        self.put_before(node, 0, *chain)
        self._made[key] = names[1]

    def needs(self, domain: str, version: int) -> None:
        """The model needs at least this version of a domain's operators."""
        for opset in self.model.opset_import:
            if opset.domain == domain:
                opset.version = max(opset.version, version)
                return
        self.model.opset_import.append(helper.make_opsetid(domain, version))

    def finish(self) -> onnx.ModelProto:
        """The model with all changes in place."""
        nodes = [one for node in self.graph.node for one in [*self._before.get(node.output[0], []), node]]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        drop_unread(self.graph)
        return self.model


def in_graph(editor: Editor, scales: Scales, model: torch.nn.Module) -> Scales:
    """`scales`, measured on the layers of `model`, for the weights of the graph, into which a factor may have
    gone (`simplify`)."""
    found = dict(scales)
    for node in editor.layers():
        name = layer_of(node)
        if name in scales and node.op_type == "MatMul":
            (weight,), given = editor.weights(node), model.get_parameter(f"{name}.weight").detach()
            largest = float(given.abs().max())
            factor = float(np.abs(weight.values).max()) / largest if largest else 1.0
            found[name] = replace(scales[name], weight=tuple(s * factor for s in scales[name].weight))
    return found


def quantise(editor: Editor, scales: Scales, op_types: Container[str] = ("MatMul",)) -> list[str]:
    """Inputs and weights of the layers named in `scales`; returns the names of those that the graph has.

    Convolutions and recurrent layers are left out: onnxruntime's integer convolution is slower than its fp32
    one on chunks this short, and it has no integer GRU.
    """
    done = []
    for node in editor.layers():
        layer = scales.get(layer_of(node))
        if layer is None or node.op_type not in op_types:
            continue
        (weight,) = editor.weights(node)
        editor.replace_weight(node, weight, np.asarray(layer.weight, np.float32), layer.weight_bits)
        editor.quantise_input(node, layer.input_scale, layer.input_zero_point)
        done.append(layer_of(node))
    return done


def quantise_symmetric(
    editor: Editor, scales: Scales, float_weights: bool, op_types: Container[str] = ("MatMul", "Gemm")
) -> list[str]:
    """Int8 inputs and weights without zero points, as TensorRT has them, of the layers named in `scales`.

    With `float_weights` the weights stay floats that go through int8 and back, which older parsers ask for:
    https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html
    """
    done = []
    for node in editor.layers():
        layer = scales.get(layer_of(node))
        if layer is None or node.op_type not in op_types:
            continue
        (weight,) = editor.weights(node)
        of_weight = halves(np.asarray(layer.weight))
        if float_weights:
            editor.round_weight(node, weight, of_weight)
        else:
            editor.replace_weight(node, weight, of_weight, layer.weight_bits)
        editor.quantise_input(node, float(halves(np.array([symmetric_scale(layer)]))[0]), 0, np.int8)
        done.append(layer_of(node))
    return done


def symmetric_scale(layer: LayerScales) -> float:
    """The scale with which ±127 spans what the layer's uint8 input spans."""
    furthest = max(layer.input_zero_point, INPUT_LEVELS - layer.input_zero_point)
    return furthest * layer.input_scale / highest_level(8)


def halves(scales: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """Scales as float16 has them without loss, none of them zero."""
    limits = np.finfo(np.float16)
    rounded: FloatArray = np.clip(scales, limits.tiny, limits.max).astype(np.float16).astype(np.float32)
    return rounded


def shrink_weights(editor: Editor, bits: int = 8, keep: Container[str] = ()) -> list[str]:
    """Every float weight left, but of the layers in `keep`, as int8 with a scale for each output channel."""
    done = []
    for node in editor.layers():
        if layer_of(node) in keep:
            continue
        for weight in editor.weights(node):
            editor.replace_weight(node, weight, weight_scales(weight.channels, bits), bits)
        done.append(layer_of(node))
    return done


def quantise_lstms(editor: Editor, bits: int = 8, keep: Container[str] = ()) -> list[str]:
    """LSTM → onnxruntime's DynamicQuantizeLSTM: int8 weights, uint8 activations with ranges of the moment.

    Its weights are (directions, inputs, gates), their scales (directions, gates):
    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.DynamicQuantizeLSTM
    """
    done = []
    for node in editor.layers():
        weights = editor.weights(node)
        if node.op_type != "LSTM" or layer_of(node) in keep or len(weights) != 2:
            continue
        inputs, scales = [*node.input, *[""] * (8 - len(node.input))], []
        for position, weight in zip((1, 2), weights, strict=True):
            stored, *parameters = _recurrent_weight(editor, weight, bits)
            inputs[position] = stored
            scales += parameters
        new = helper.make_node(
            "DynamicQuantizeLSTM", [*inputs, *scales], list(node.output), name=node.name, domain=CONTRIB
        )
        new.attribute.extend(a for a in node.attribute if a.name != "layout")
        node.CopyFrom(new)
        editor.needs(CONTRIB, 1)
        done.append(layer_of(node))
    return done


def _recurrent_weight(editor: Editor, weight: Weight, bits: int) -> list[str]:
    """Names of the int8 weight (directions, inputs, gates), scales (directions, gates) and zero points."""
    scales = np.stack([weight_scales(one, bits) for one in weight.values])
    integers = [quantise_weight(w, s, bits).T for w, s in zip(weight.values, scales, strict=True)]
    return [
        editor.constant(f"{weight.name}_int8", np.ascontiguousarray(np.stack(integers))),
        editor.constant(f"{weight.name}_scale", scales),
        editor.constant(f"{weight.name}_zero_point", np.zeros(scales.shape, np.int8)),
    ]


def fuse_products(model: onnx.ModelProto) -> int:
    """Q/DQ → MatMul → Add of a bias as the one node that onnxruntime has for it; returns how many.

    onnxruntime would find this pattern itself, had it not joined MatMul and Add to a Gemm before, which it
    then computes in fp32. The node is MatMulIntegerToFloat of
    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
    """
    graph, writers = model.graph, {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    products = {n.output[0]: n for n in graph.node if n.op_type == "MatMul" and _is_quantised(n, writers)}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    fused: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        product = next((products[name] for name in node.input if name in products), None)
        bias = [name for name in node.input if name in constants]
        if node.op_type == "Add" and product and bias and readers[product.output[0]] == 1:
            fused[node.output[0]] = _fused(product, writers, node.output[0], bias)
            del products[product.output[0]]
            fused[product.output[0]] = fused[node.output[0]]
    fused |= {name: _fused(node, writers, name, []) for name, node in products.items()}
    _replace(graph, fused)
    Editor(model).needs(CONTRIB, 1)
    return len(fused)


def _is_quantised(node: onnx.NodeProto, writers: Mapping[str, onnx.NodeProto]) -> bool:
    both = [writers.get(name) for name in node.input]
    return (
        all(one is not None and one.op_type == "DequantizeLinear" for one in both)
        and "/input_" in node.input[0]
    )


def _fused(
    product: onnx.NodeProto, writers: Mapping[str, onnx.NodeProto], output: str, bias: list[str]
) -> onnx.NodeProto:
    x, weight = (writers[name].input for name in product.input)
    inputs = [x[0], weight[0], x[1], weight[1], x[2], weight[2], *bias]
    return helper.make_node("MatMulIntegerToFloat", inputs, [output], name=product.name, domain=CONTRIB)


def _replace(graph: onnx.GraphProto, fused: Mapping[str, onnx.NodeProto]) -> None:
    """Put each fused node where the node of its output was; drop what nobody reads any more."""
    nodes = []
    for node in graph.node:
        put = fused.get(node.output[0], node)
        if put is node or put.output[0] == node.output[0]:
            nodes.append(put)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unread(graph)


def _channel_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "MatMul":
        return 1
    if node.op_type == "Gemm":
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return 0 if transposed else 1
    return 0 if node.op_type == "Conv" else 1


def _is_float(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_type == _FLOAT)
