"""The same function in fewer and faster nodes: what onnxruntime does slowly in graphs of one short chunk.

A step multiplies a few rows by many small matrices, so that what stands around the products counts. Two
things cost most: a product of (1, T, D) is computed in two dimensions between two Reshapes, and a convolution
over (B, C, T) has no kernel of its own, while one over (B, C, H, W) has. Only standard operators are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_speech_tools.onnx_graph import drop_unread

# Operators that mean the same without the first of three dimensions, as none of them knows a batch: those of
# the last dimension, and those of each element.
_LAST = ("LayerNormalization", "MatMul", "Split", "Softmax", "LogSoftmax")
_EACH = ("Add", "Sub", "Mul", "Div", "Sigmoid", "Tanh", "Relu", "Erf", "Clip")


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, whose shapes are all static, rewritten; inputs, outputs and names of layers stay."""
    for rewrite in (_Flattener, _Widener):
        model = rewrite(model).run()
    onnx.checker.check_model(model)
    return model


class _Rewriter:
    """Copies a graph node by node; a subclass says what a node becomes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        graph = self.graph = self.model.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        values = [*graph.input, *graph.value_info, *graph.output]
        self._shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
        self.outputs = {value.name for value in graph.output}
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> onnx.ModelProto:
        """The model with every node rewritten."""
        for node in self.graph.node:
            self.rewrite(node)
        del self.graph.node[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        drop_unread(self.graph)
        return self.model

    def rewrite(self, node: onnx.NodeProto) -> None:
        """Append what takes the place of `node`."""
        raise NotImplementedError

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a value; () where it is not known."""
        return self._shapes.get(name, ())

    def constant(self, name: str, values: np.ndarray) -> str:  # type: ignore[type-arg]
        """A constant of this name, made once."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(values, name)
            self.graph.initializer.append(self.constants[name])
        return name

    def reshape(self, source: str, target: str, shape: Sequence[int]) -> str:
        """`source` under the name `target`, in another shape."""
        wanted = self.constant(f"shape_{'_'.join(map(str, shape))}", np.array(shape, np.int64))
        self.nodes.append(helper.make_node("Reshape", [source, wanted], [target], name=f"reshape_{target}"))
        return target

    def copy(self, node: onnx.NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.NodeProto:
        """Append `node` with other inputs and outputs."""
        new = onnx.NodeProto()
        new.CopyFrom(node)
        del new.input[:], new.output[:]
        new.input.extend(inputs)
        new.output.extend(outputs)
        self.nodes.append(new)
        return new


class _Flattener(_Rewriter):
    """Values of (1, T, D) lose their first dimension wherever all that reads them allows it.

    A value `x` exists as `x`, as `x_2d`, or both by a Reshape where the two kinds of nodes meet.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self._flat: set[str] = set()  # values that exist as x_2d
        self._whole = {v.name for v in self.graph.input} | set(self.constants)  # values that exist as x

    def rewrite(self, node: onnx.NodeProto) -> None:
        if self._is_flat(node):
            new = self.copy(node, [self._read_flat(x) for x in node.input], [f"{y}_2d" for y in node.output])
            for attribute in new.attribute:
                if attribute.name == "axis":
                    attribute.i = -1
            self._flat.update(node.output)
        elif node.op_type == "Reshape" and self._has_one_batch(node.output[0]):
            source = self._any(node.input[0])
            self.reshape(source, f"{node.output[0]}_2d", self.shape(node.output[0])[1:])
            self._flat.add(node.output[0])
        elif node.op_type == "Reshape" and 0 not in self._target(node):
            self.copy(node, [self._any(node.input[0]), node.input[1]], node.output)
            self._whole.update(node.output)
        else:
            self.copy(node, [self._read_whole(x) for x in node.input], node.output)
            self._whole.update(node.output)
        for name in self.outputs.intersection(node.output):
            self._read_whole(name)

    def _is_flat(self, node: onnx.NodeProto) -> bool:
        """Whether the node means the same in two dimensions, and lies among others that do."""
        read = [x for x in node.input if x and x not in self.constants]
        if not read or not all(self._has_one_batch(x) for x in [*read, *node.output]):
            return False
        if node.op_type == "MatMul":
            return node.input[1] in self.constants and len(self.constants[node.input[1]].dims) == 2
        if node.op_type in _LAST:
            return self._axis(node) in (-1, 2)
        return node.op_type in _EACH and any(x in self._flat for x in read)

    def _has_one_batch(self, name: str) -> bool:
        shape = self.shape(name)
        return len(shape) == 3 and shape[0] == 1

    def _axis(self, node: onnx.NodeProto) -> int:
        """Of an operator over one axis; what is over the last by default has none."""
        given = [int(a.i) for a in node.attribute if a.name == "axis"]
        return given[0] if given else (0 if node.op_type == "Split" else -1)

    def _target(self, node: onnx.NodeProto) -> list[int]:
        """The shape that a Reshape asks for; a 0 in it stands for the input's own, which must then stay."""
        wanted = self.constants.get(node.input[1])
        return [0] if wanted is None else list(numpy_helper.to_array(wanted))

    def _any(self, name: str) -> str:
        """`name` in the form that is there."""
        return name if name in self._whole else f"{name}_2d"

    def _read_flat(self, name: str) -> str:
        if name in self.constants and len(self.constants[name].dims) == 3:
            return self.constant(f"{name}_2d", numpy_helper.to_array(self.constants[name])[0])
        if not name or name in self.constants:
            return name
        if name not in self._flat:
            self.reshape(name, f"{name}_2d", self.shape(name)[1:])
            self._flat.add(name)
        return f"{name}_2d"

    def _read_whole(self, name: str) -> str:
        if name in self._flat and name not in self._whole:
            self.reshape(f"{name}_2d", name, self.shape(name))
            self._whole.add(name)
        return name


class _Widener(_Rewriter):
    """Convolutions over (B, C, T) as ones over (B, C, 1, T): onnxruntime has fast kernels for those alone."""

    def rewrite(self, node: onnx.NodeProto) -> None:
        weight = self.constants.get(node.input[1]) if node.op_type == "Conv" else None
        if weight is None or len(weight.dims) != 3 or not self._is_plain(node):
            self.copy(node, node.input, node.output)
            return
        x, y = node.input[0], node.output[0]
        wide = self.constant(f"{node.input[1]}_2d", numpy_helper.to_array(weight)[:, :, None])
        self.reshape(x, f"{y}/wide_input", [*self.shape(x)[:2], 1, self.shape(x)[2]])
        new = self.copy(node, [f"{y}/wide_input", wide, *node.input[2:]], [f"{y}/wide"])
        for attribute in new.attribute:
            if attribute.name in _WIDER:
                attribute.ints[:] = _WIDER[attribute.name](list(attribute.ints))
        self.reshape(f"{y}/wide", y, self.shape(y))

    def _is_plain(self, node: onnx.NodeProto) -> bool:
        """Without padding that depends on the shape."""
        return all(a.s in (b"NOTSET", b"VALID") for a in node.attribute if a.name == "auto_pad")


_WIDER: dict[str, Callable[[list[int]], list[int]]] = {
    "kernel_shape": lambda one: [1, *one],
    "strides": lambda one: [1, *one],
    "dilations": lambda one: [1, *one],
    "pads": lambda two: [0, two[0], 0, two[1]],
}
