"""A float32 graph retyped to float16: weights and activations half, casts only where the types meet."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_speech.errors import CheckFailed

_LARGEST = float(np.finfo(np.float16).max)


def to_fp16(model: onnx.ModelProto, fp32_op_types: tuple[str, ...]) -> onnx.ModelProto:
    """Retype `model`; nodes of `fp32_op_types`, graph inputs and graph outputs stay float32.

    Raises CheckFailed for a graph with subgraphs (loops, branches).
    """
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    retyper = _Retyper(typed.graph, fp32_op_types)
    for node in typed.graph.node:
        retyper.add(node)
    for output in typed.graph.output:
        retyper.finish(output.name)
    graph = helper.make_graph(
        retyper.nodes, typed.graph.name, typed.graph.input, typed.graph.output, retyper.weights
    )
    result = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return onnx.shape_inference.infer_shapes(result, strict_mode=True, data_prop=True)


class _Retyper:
    """Rewrites nodes in order. A float value `x` exists as `x` (float32), `x_fp16`, or both by a cast."""

    def __init__(self, graph: onnx.GraphProto, fp32_op_types: tuple[str, ...]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._fp32_op_types = fp32_op_types
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        values = [*graph.input, *graph.value_info, *graph.output]
        self._floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._floats |= {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
        self._made = {value.name for value in graph.input}

    def add(self, node: onnx.NodeProto) -> None:
        """Append `node` in the precision its type asks for."""
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            raise CheckFailed(
                f"node {node.name} ({node.op_type}) holds a subgraph; fp16 conversion needs a flat graph"
            )
        half = node.op_type not in self._fp32_op_types
        new = onnx.NodeProto()
        new.CopyFrom(node)
        if half and node.op_type in ("Cast", "Constant", "ConstantOfShape"):
            _retype_attributes(new)
        keeps_input = node.op_type == "Cast"
        wanted = [self._read(name, half and not (keeps_input and name in self._made)) for name in node.input]
        del new.input[:], new.output[:]
        new.input.extend(wanted)
        new.output.extend(self._write(name, half) for name in node.output)
        self.nodes.append(new)

    def finish(self, name: str) -> None:
        """Make the graph output `name` exist under its own name, in float32."""
        self._read(name, half=False)

    def _write(self, name: str, half: bool) -> str:
        actual = f"{name}_fp16" if half and name in self._floats else name
        self._made.add(actual)
        return actual

    def _read(self, name: str, half: bool) -> str:
        wanted = f"{name}_fp16" if half and name in self._floats else name
        if not name or wanted in self._made:
            return wanted
        self._made.add(wanted)
        if name in self._initializers:
            self.weights.append(_weight(self._initializers[name], wanted, half))
        else:
            source = name if half else f"{name}_fp16"
            to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            self.nodes.append(helper.make_node("Cast", [source], [wanted], f"cast_{wanted}", to=to))
        return wanted


def _weight(tensor: onnx.TensorProto, name: str, half: bool) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    if half and tensor.data_type == TensorProto.FLOAT:
        values = np.clip(values, -_LARGEST, _LARGEST).astype(np.float16)
    return numpy_helper.from_array(values, name)


def _retype_attributes(node: onnx.NodeProto) -> None:
    """float32 targets and values of Cast and Constant become float16."""
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(_weight(attribute.t, attribute.t.name, half=True))
