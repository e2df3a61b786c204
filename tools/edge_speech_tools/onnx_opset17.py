"""A graph of opset 18 as one of opset 17, which is the newest that TensorRT 8.5 and 8.6 document."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_speech.errors import CheckFailed

_OPSET = 17


def to_opset17(model: onnx.ModelProto, layer_normalization: bool) -> onnx.ModelProto:
    """The same graph; without `layer_normalization` that operator in its parts, as 8.5 wants it.

    Raises CheckFailed where an operator means something else in opset 17.
    """
    nodes: list[onnx.NodeProto] = []
    constants = list(model.graph.initializer)
    for node in model.graph.node:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        if node.op_type == "Split":  # in parts that are equal unless a second input says otherwise
            del new.attribute[:]
            new.attribute.extend(a for a in node.attribute if a.name != "num_outputs")
        elif _has_changed(node):
            raise CheckFailed(
                f"{node.op_type} has changed since opset 17; TensorRT 8 cannot be given this graph"
            )
        if node.op_type == "LayerNormalization" and not layer_normalization:
            nodes += _in_parts(node, constants)
        else:
            nodes.append(new)
    graph = helper.make_graph(nodes, model.graph.name, model.graph.input, model.graph.output, constants)
    opset = [helper.make_opsetid("", _OPSET)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=min(8, model.ir_version))
    return onnx.shape_inference.infer_shapes(made, strict_mode=True, data_prop=True)


def _has_changed(node: onnx.NodeProto) -> bool:
    """Whether 17 knows the node otherwise; of Pad, only its fourth input is new."""
    if node.op_type == "Pad" and len(node.input) < 4:
        return False
    return int(onnx.defs.get_schema(node.op_type, 18, node.domain).since_version) > _OPSET


def _in_parts(node: onnx.NodeProto, constants: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    """https://onnx.ai/onnx/operators/onnx__LayerNormalization.html over the last axis, in float32."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if attributes.get("axis", -1) != -1:
        raise CheckFailed(
            f"{node.name} normalises more than the last axis; TensorRT 8.5 cannot be given this graph"
        )
    x, output, names = node.input[0], node.output[0], iter(range(9))
    epsilon = f"{output}/epsilon"
    constants.append(numpy_helper.from_array(np.float32(attributes.get("epsilon", 1e-5)), epsilon))
    nodes: list[onnx.NodeProto] = []

    def add(op_type: str, *inputs: str, **settings: Any) -> str:
        name = f"{output}/{next(names)}"
        nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, **settings))
        return name

    centred = add("Sub", x, add("ReduceMean", x, axes=[-1]))
    variance = add("ReduceMean", add("Mul", centred, centred), axes=[-1])
    scaled = add("Mul", add("Div", centred, add("Sqrt", add("Add", variance, epsilon))), node.input[1])
    if len(node.input) > 2:
        add("Add", scaled, node.input[2])
    nodes[-1].output[0] = output
    return nodes
