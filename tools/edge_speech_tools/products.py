"""Products cut to what onnxruntime has nodes for: those of one value joined, those behind a gate parted.

Layers keep their names only as long as their products stand alone, so this is the last change to a graph.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_speech_tools.onnx_graph import drop_unread


def regroup_products(model: onnx.ModelProto) -> None:
    """In place: one product for queries, keys and values; one each for the halves of a gated linear unit."""
    for change in (_join, _part):
        graph = _Graph(model.graph)
        change(graph)
        graph.finish()


@dataclass(frozen=True)
class _Linear:
    """MatMul → Add of a bias (N,); the weight is a constant, or made from int8, scales and zero points."""

    product: onnx.NodeProto
    add: onnx.NodeProto
    weight: tuple[str, ...]
    bias: str


class _Graph:
    """Who makes and who reads what; nodes to put in the place of others."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self._outputs = {value.name for value in graph.output}
        self.put: dict[str, list[onnx.NodeProto]] = {}  # by the first output of the node that was there

    def finish(self) -> None:
        """Write the nodes back."""
        nodes = [new for node in self.graph.node for new in self.put.get(node.output[0], [node])]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        drop_unread(self.graph)

    def linears(self) -> list[_Linear]:
        """All there are."""
        found = []
        for product in self.graph.node:
            weight = self._weight(product.input[1]) if product.op_type == "MatMul" else ()
            add = self.only_reader(product.output[0], "Add") if weight else None
            bias = [name for name in add.input if name in self.constants] if add else []
            if add and bias and len(self.constants[bias[0]].dims) == 1:
                found.append(_Linear(product, add, weight, bias[0]))
        return found

    def _weight(self, name: str) -> tuple[str, ...]:
        """The constants that it is made of, the outputs last; () where there are none."""
        maker = self._makers.get(name)
        parts = maker.input if maker is not None and maker.op_type == "DequantizeLinear" else [name]
        return (
            tuple(parts)
            if all(part in self.constants and self.constants[part].dims for part in parts)
            else ()
        )

    def only_reader(self, name: str, op_type: str) -> onnx.NodeProto | None:
        """The node of this kind that reads a value and no other does."""
        readers = self._readers[name]
        alone = len(readers) == 1 and name not in self._outputs and readers[0].op_type == op_type
        return readers[0] if alone else None

    def value(self, name: str) -> np.ndarray:  # type: ignore[type-arg]
        """Of a constant."""
        return numpy_helper.to_array(self.constants[name])

    def constant(self, name: str, values: np.ndarray) -> str:  # type: ignore[type-arg]
        """A new constant."""
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def linear(self, name: str, x: str, weight: str, bias: str, result: str) -> list[onnx.NodeProto]:
        """The two nodes of a linear layer."""
        return [
            helper.make_node("MatMul", [x, weight], [f"{name}/product"], name=name),
            helper.make_node("Add", [f"{name}/product", bias], [result], name=f"{name}/sum"),
        ]


@dataclass(frozen=True)
class _Heads:
    """A linear layer whose rows are cut into N heads, (T, N, d)."""

    linear: _Linear
    result: str
    shape: tuple[int, ...]


def _join(graph: _Graph) -> None:
    """Layers of one value that give heads of one width become one layer, whose heads are dealt out."""
    groups = defaultdict(list)
    for linear in graph.linears():
        reshape = graph.only_reader(linear.add.output[0], "Reshape")
        if reshape and reshape.input[1] in graph.constants:
            shape = tuple(graph.value(reshape.input[1]).tolist())
            if len(shape) == 3 and shape[1] * shape[2] == len(graph.value(linear.bias)):
                key = linear.product.input[0], len(linear.weight), shape[0], shape[2]
                groups[key].append(_Heads(linear, reshape.output[0], shape))
    for group in groups.values():
        if len(group) > 1:
            graph.put |= {heads.result: [] for heads in group}
            graph.put[group[0].linear.product.output[0]] = _joined(graph, group)


def _joined(graph: _Graph, group: list[_Heads]) -> list[onnx.NodeProto]:
    linears = [heads.linear for heads in group]
    name = "+".join(linear.product.name for linear in linears)
    weight, *scales = [
        graph.constant(f"{name}/weight{i}", np.concatenate([graph.value(part) for part in parts], axis=-1))
        for i, parts in enumerate(zip(*(linear.weight for linear in linears), strict=True))
    ]
    bias = graph.constant(f"{name}/bias", np.concatenate([graph.value(linear.bias) for linear in linears]))
    counts, (rows, _, width) = [heads.shape[1] for heads in group], group[0].shape
    shape = graph.constant(f"{name}/shape", np.array([rows, sum(counts), width]))
    each = graph.constant(f"{name}/counts", np.array(counts))
    nodes = []
    if scales:
        whole = f"{name}/weight"
        nodes.append(helper.make_node("DequantizeLinear", [weight, *scales], [whole], name=whole, axis=1))
        weight = whole
    results = [heads.result for heads in group]
    return [
        *nodes,
        *graph.linear(name, linears[0].product.input[0], weight, bias, f"{name}/rows"),
        helper.make_node("Reshape", [f"{name}/rows", shape], [f"{name}/heads"], name=f"{name}/heads"),
        helper.make_node("Split", [f"{name}/heads", each], results, name=f"{name}/split", axis=1),
    ]


def _part(graph: _Graph) -> None:
    """A float layer split in two, one half through Sigmoid, becomes two: a product has a Sigmoid in it."""
    for linear in graph.linears():
        split = graph.only_reader(linear.add.output[0], "Split")
        if split is None or len(linear.weight) != 1 or not _is_gated(graph, split):
            continue
        weight, bias = (np.split(graph.value(x), 2, axis=-1) for x in (linear.weight[0], linear.bias))
        graph.put[split.output[0]] = []
        for i, half in enumerate(split.output):
            name = f"{linear.product.name}/{i}"
            own = graph.constant(f"{name}/weight", weight[i]), graph.constant(f"{name}/bias", bias[i])
            graph.put[split.output[0]] += graph.linear(name, linear.product.input[0], *own, half)


def _is_gated(graph: _Graph, split: onnx.NodeProto) -> bool:
    is_last = any(a.name == "axis" and a.i == -1 for a in split.attribute)
    sizes = graph.value(split.input[1]).tolist() if len(split.input) > 1 else [1] * len(split.output)
    halved = is_last and len(sizes) == 2 and sizes[0] == sizes[1]
    return halved and any(graph.only_reader(half, "Sigmoid") for half in split.output)
