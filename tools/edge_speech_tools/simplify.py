"""The same function in fewer and faster nodes: what onnxruntime does slowly in graphs of one short chunk.

A step multiplies a few rows by many small matrices, so that what stands around the products counts. Three
things cost most: a product of (1, T, D) is computed in two dimensions between two Reshapes; heads are turned
before they are multiplied, which a product in three dimensions does as it reads; and a convolution over
(B, C, T) has no kernel of its own, while one over (B, C, H, W) has. Only standard operators are used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_speech_tools.onnx_graph import IndexedGraph, drop_unread, rename

# Operators that mean the same without a first dimension of one: those over another axis, those of each
# element, those that lay out rows, and those that only give the same elements another shape.
_OVER_AXIS = {"LayerNormalization": -1, "Softmax": -1, "LogSoftmax": -1, "Split": 0}  # their default axis
_ROWS = {"Concat": 0, "Gather": 0, "Slice": 0}
_EACH = ("Add", "Sub", "Mul", "Div", "Sigmoid", "Tanh", "Relu", "Erf", "Clip")
_SHAPING = ("Reshape", "Squeeze", "Unsqueeze")
_SWAP = [0, 2, 1]  # (B, C, T) to (B, T, C) and back


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, whose shapes are all static, rewritten; inputs, outputs and names of layers stay."""
    for rewrite in (_Scaler, _Joiner, _Convolver, _Flattener):
        model = rewrite(model).run()
    onnx.checker.check_model(model)
    return model


class _Rewriter(IndexedGraph):
    """Copies a graph node by node; a subclass says what a node becomes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        graph = self.model.graph
        super().__init__(graph)
        values = [*graph.input, *graph.value_info, *graph.output]
        self._shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
        self._shapes |= {name: tuple(tensor.dims) for name, tensor in self.constants.items()}
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

    def parts(self, node: onnx.NodeProto | None, op_type: str) -> tuple[str, str]:
        """The one variable and the one constant that a node of this kind reads; "" and "" of any other."""
        if node is None or node.op_type != op_type:
            return "", ""
        variables = [x for x in node.input if x not in self.constants]
        constants = [x for x in node.input if x in self.constants]
        return (variables[0], constants[0]) if len(variables) == len(constants) == 1 else ("", "")

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


class _Scaler(_Rewriter):
    """A factor behind a Linear goes into its weights and bias."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self._copies: dict[str, onnx.NodeProto] = {}

    def rewrite(self, node: onnx.NodeProto) -> None:
        scaled, factor = self.parts(node, "Mul")
        add = self._made_for_one(scaled)
        added, bias = self.parts(add, "Add")
        product = self._made_for_one(added)
        _, weight = self.parts(product, "MatMul")
        if not add or not product or not weight or self.constants[factor].dims:
            self._copies[node.output[0]] = self.copy(node, node.input, node.output)
            return
        for one, name in ((product, weight), (add, bias)):
            values = self.value(name) * self.value(factor)
            one.input[list(one.input).index(name)] = self.constant(f"{node.output[0]}/{name}", values)
        add.output[0] = node.output[0]

    def _made_for_one(self, name: str) -> onnx.NodeProto | None:
        """The copy of the node that makes a value, where a single node reads it."""
        return self._copies.get(name) if self.only_reader(name) else None


class _Joiner(_Rewriter):
    """Constants of one shape that are added to one value, each by a node of its own, are added at once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self._alike: dict[tuple[str, tuple[int, ...]], list[onnx.NodeProto]] = defaultdict(list)
        for node in self.graph.node:
            if key := self._key(node):
                self._alike[key].append(node)

    def rewrite(self, node: onnx.NodeProto) -> None:
        key = self._key(node)
        alike = self._alike[key] if key else []
        if key is None or len(alike) == 1:
            self.copy(node, node.input, node.output)
        elif node is alike[0]:
            (value, shape), outputs = key, [one.output[0] for one in alike]
            joined = np.concatenate([self.value(self.parts(one, "Add")[1]) for one in alike])
            sizes = np.full(len(alike), shape[0])
            axis, name = len(self.shape(outputs[0])) - len(shape), f"{outputs[0]}/joined"
            self.nodes += [
                helper.make_node("Add", [value, self.constant(f"{name}_constants", joined)], [name]),
                helper.make_node("Split", [name, self.constant(f"{name}_sizes", sizes)], outputs, axis=axis),
            ]

    def _key(self, node: onnx.NodeProto) -> tuple[str, tuple[int, ...]] | None:
        """The value and the shape of the constant, where the value has one element along its first axis."""
        value, constant = self.parts(node, "Add")
        shape = tuple(self.constants[constant].dims) if constant else ()
        whole, of_value = self.shape(node.output[0]), self.shape(value)
        along = (len(whole) - len(of_value)) * (1,) + of_value
        return (value, shape) if shape and of_value and along[len(whole) - len(shape)] == 1 else None


class _Convolver(_Rewriter):
    """Convolutions over (B, C, T): those across channels as a product, others over (B, C, 1, T).

    onnxruntime has fast kernels for convolutions over two dimensions alone, and a product is faster still
    where it makes a few rows. Where (B, T, C) was turned for a convolution, its rows are read as they lie,
    and the turn that remains is next to the wide convolution, which then takes and gives (B, 1, T, C).
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self._done: set[str] = set()  # outputs of Transposes that a convolution has brought

    def rewrite(self, node: onnx.NodeProto) -> None:
        weight = self.constants.get(node.input[1]) if node.op_type == "Conv" else None
        if weight is None or len(weight.dims) != 3 or not self._is_plain(node):
            if node.output[0] not in self._done:
                self.copy(node, node.input, node.output)
            return
        rows, turned = self._rows(node.input[0]), self._turned(node.output[0])
        if rows and turned and _ints(node, "group", [1]) == [1] and not any(_ints(node, "pads", [0])):
            self._multiply(node, rows, turned)
        else:
            self._widen(node, rows, turned)
        self._done.add(turned)

    def _rows(self, x: str) -> str:
        """The (B, T, C) that x (B, C, T) was turned from; "" where it was not."""
        maker = self.makers.get(x)
        return maker.input[0] if maker is not None and _swaps(maker) else ""

    def _turned(self, y: str) -> str:
        """The (B, T, C) that y (B, C, T) is turned to, and no more; "" where it is not."""
        reader = self.only_reader(y)
        return reader.output[0] if reader is not None and _swaps(reader) else ""

    def _multiply(self, node: onnx.NodeProto, rows: str, turned: str) -> None:
        """The windows of each output row, (B, U, K C), times the weight (K C, O)."""
        weight = self.value(node.input[1])
        out, channels, kernel = weight.shape
        batch, count = self.shape(turned)[:2]
        (stride,), (dilation,) = _ints(node, "strides", [1]), _ints(node, "dilations", [1])
        window = np.arange(count)[:, None] * stride + np.arange(kernel) * dilation
        indices = self.constant(f"{turned}/window", window)
        self.nodes.append(helper.make_node("Gather", [rows, indices], [f"{turned}/gathered"], axis=1))
        windows = self.reshape(f"{turned}/gathered", f"{turned}/windows", [batch, count, kernel * channels])
        flat = weight.transpose(2, 1, 0).reshape(kernel * channels, out)
        product = f"{turned}/product" if len(node.input) > 2 else turned
        inputs = [windows, self.constant(f"{node.input[1]}_flat", flat)]
        self.nodes.append(helper.make_node("MatMul", inputs, [product], name=node.name))
        if len(node.input) > 2:
            self.nodes.append(helper.make_node("Add", [product, node.input[2]], [turned]))

    def _widen(self, node: onnx.NodeProto, rows: str, turned: str) -> None:
        y = node.output[0]
        batch, channels, frames = self.shape(node.input[0])
        x, result = f"{y}/wide_input", f"{y}/wide"
        if rows:
            wide = self.reshape(rows, f"{y}/wide_rows", [batch, 1, frames, channels])
            self.nodes.append(helper.make_node("Transpose", [wide], [x], perm=[0, 3, 1, 2]))
        else:
            self.reshape(node.input[0], x, [batch, channels, 1, frames])
        weight = self.constant(f"{node.input[1]}_2d", self.value(node.input[1])[:, :, None])
        new = self.copy(node, [x, weight, *node.input[2:]], [result])
        for attribute in new.attribute:
            if attribute.name in _WIDER:
                attribute.ints[:] = _WIDER[attribute.name](list(attribute.ints))
        if turned:
            self.nodes.append(
                helper.make_node("Transpose", [result], [f"{y}/wide_output"], perm=[0, 2, 3, 1])
            )
            self.reshape(f"{y}/wide_output", turned, self.shape(turned))
        else:
            self.reshape(result, y, self.shape(y))

    def _is_plain(self, node: onnx.NodeProto) -> bool:
        """Without padding that depends on the shape."""
        return all(a.s in (b"NOTSET", b"VALID") for a in node.attribute if a.name == "auto_pad")


def _swaps(node: onnx.NodeProto) -> bool:
    return node.op_type == "Transpose" and _ints(node, "perm", []) == _SWAP


def _ints(node: onnx.NodeProto, name: str, default: list[int]) -> list[int]:
    """An attribute of one or several integers."""
    return next((list(a.ints) or [a.i] for a in node.attribute if a.name == name), default)


_WIDER: dict[str, Callable[[list[int]], list[int]]] = {
    "kernel_shape": lambda one: [1, *one],
    "strides": lambda one: [1, *one],
    "dilations": lambda one: [1, *one],
    "pads": lambda two: [0, two[0], 0, two[1]],
}


class _Flattener(_Rewriter):
    """Values of (1, T, D) and (1, H, T, d) lose their first dimension wherever what reads them allows it.

    A value `x` exists as `x`, as `x_flat`, or both. What only has another shape than an earlier value is made
    from that one when something reads it, and is that one where the shape is the same after all.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self._inputs = {value.name for value in self.graph.input}
        self._made = {name: self.shape(name) for name in (*self._inputs, *self.constants)}
        self._source: dict[str, str] = {name: name for name in self._made}  # what has the elements of a value

    def run(self) -> onnx.ModelProto:
        """The model with every node rewritten; an output that is an earlier value has its name."""
        model, names = super().run(), dict[str, str]()
        for node in list(model.graph.node):
            if node.op_type == "Reshape" and node.output[0] in self.outputs:
                made, y = node.input[0], node.output[0]
                free = made not in self._inputs | self.outputs | names.keys()
                if free and self.shape(y) and self._made[made] == self.shape(y):
                    names[made] = y
                    model.graph.node.remove(node)
        rename(model.graph, names)
        return model

    def rewrite(self, node: onnx.NodeProto) -> None:
        if self._only_shapes(node):
            self._source[node.output[0]] = self._source[node.input[0]]
        elif self._is_flat(node):
            outputs = [f"{y}_flat" for y in node.output]
            new = self.copy(node, [self._read_flat(x, node) for x in node.input], outputs)
            for attribute in new.attribute:
                if attribute.name == "axis":
                    attribute.i = self._axis(node) - len(self.shape(node.input[0]))
                elif attribute.name == "perm":
                    attribute.ints[:] = [axis - 1 for axis in _ints(node, "perm", [])[1:]]
            if node.op_type == "Slice":
                axis = self._axis(node) - 1
                new.input[3] = self.constant(f"axis_{axis}", np.array([axis]))
            self._add(node.output, outputs, [self.shape(y)[1:] for y in node.output])
        else:
            self.copy(node, [self._read(x, x, self.shape(x)) for x in node.input], node.output)
            self._add(node.output, node.output, [self.shape(y) for y in node.output])
        for name in self.outputs.intersection(node.output):
            if name not in self._made:
                self._made[name] = self.shape(name)
                self.reshape(self._source[name], name, self.shape(name))

    def _add(self, values: Sequence[str], made: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> None:
        self._made.update(zip(made, shapes, strict=True))
        self._source.update(zip(values, made, strict=True))

    def _only_shapes(self, node: onnx.NodeProto) -> bool:
        """Whether the elements stay in their order, as they do where dimensions of one are turned."""
        if node.op_type == "Transpose":
            shape, perm = self.shape(node.input[0]), _ints(node, "perm", [])
            turned = [axis for axis in perm if shape[axis : axis + 1] != (1,)]
            return bool(shape and perm) and turned == sorted(turned)
        return node.op_type in _SHAPING and bool(self.shape(node.output[0]))

    def _is_flat(self, node: onnx.NodeProto) -> bool:
        """Whether the node means the same without the first dimension, and lies among others that do."""
        read = [x for x in node.input if x and x not in self.constants]
        if not read or not all(self._has_one_batch(x) for x in [*read, *node.output]):
            return False
        if node.op_type in _OVER_AXIS:
            return self._axis(node) > 0
        if node.op_type in _ROWS:
            of_rows = node.op_type != "Gather" or read == node.input[:1]
            return of_rows and self._axis(node) > 0 and self._lies_flat(read)
        if node.op_type == "MatMul" and len(read) == 1:
            return node.input[1] in self.constants and len(self.constants[node.input[1]].dims) == 2
        if node.op_type == "Transpose":
            to_conv = any(reader.op_type == "Conv" for reader in self.readers[node.output[0]])
            suits = _ints(node, "perm", [])[:1] == [0] and not to_conv
        else:
            same_rank = len({len(self.shape(x)) for x in read}) == 1
            suits = node.op_type in _EACH or (node.op_type == "MatMul" and same_rank)
        return suits and any(self._source[x] != x for x in read)

    def _lies_flat(self, read: Sequence[str]) -> bool:
        """Whether most of these values do; a state counts twice, as the next one has its shape."""
        balance = 0
        for x in read:
            source, shape = self._source[x], self.shape(x)
            weight = 2 if source in self._inputs else 1
            balance += weight * ((self._made[source] == shape[1:]) - (self._made[source] == shape))
        return balance > 0

    def _has_one_batch(self, name: str) -> bool:
        shape = self.shape(name)
        return len(shape) in (3, 4) and shape[0] == 1

    def _axis(self, node: onnx.NodeProto) -> int:
        """Of an operator over an axis, counted from the front; 0 where a Slice is over several."""
        rank = len(self.shape(node.input[0]))
        if node.op_type == "Slice":
            known = len(node.input) > 3 and node.input[3] in self.constants
            axes = (self.value(node.input[3]) % rank).tolist() if known else []
            return int(axes[0]) if len(axes) == 1 else 0
        (axis,) = _ints(node, "axis", [(_OVER_AXIS | _ROWS)[node.op_type]])
        return axis % rank

    def _read_flat(self, name: str, node: onnx.NodeProto) -> str:
        """The input `name` of `node` without its first dimension."""
        if name in self.constants:
            values = self.constants[name]
            if node.op_type in (*_EACH, "Concat") and len(values.dims) == len(self.shape(node.output[0])):
                return self.constant(f"{name}_flat", numpy_helper.to_array(values)[0])
            return name
        return self._read(name, f"{name}_flat", self.shape(name)[1:]) if name else name

    def _read(self, name: str, form: str, shape: Sequence[int]) -> str:
        """The value `name` as `form`, which has this shape."""
        if not name or form in self._made:
            return form
        source = self._source[name]
        if self._made[source] == tuple(shape):
            return source
        self._made[form] = tuple(shape)
        self.reshape(source, form, shape)
        return form
