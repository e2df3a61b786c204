"""Products cut to what onnxruntime has nodes for: those of one value joined, those behind a gate parted.

Layers keep their names only as long as their products stand alone, so this is the last change to a graph.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from edge_speech_tools.onnx_graph import IndexedGraph, drop_unread


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


class _Graph(IndexedGraph):
    """With nodes to put in the place of others, by the first output of the node that was there."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        super().__init__(graph)
        self.put: dict[str, list[onnx.NodeProto]] = {}

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
            add = self.only_reader(product.output[0]) if weight else None
            bias = [x for x in add.input if x in self.constants] if add and add.op_type == "Add" else []
            if add and bias and len(self.constants[bias[0]].dims) == 1:
                found.append(_Linear(product, add, weight, bias[0]))
        return found

    def _weight(self, name: str) -> tuple[str, ...]:
        """The constants that it is made of, the outputs last; () where there are none."""
        maker = self.makers.get(name)
        parts = maker.input if maker is not None and maker.op_type == "DequantizeLinear" else [name]
        known = all(part in self.constants and self.constants[part].dims for part in parts)
        return tuple(parts) if known else ()

    def linear(self, name: str, x: str, weight: str, bias: str, result: str) -> list[onnx.NodeProto]:
        """The two nodes of a linear layer."""
        return [
            helper.make_node("MatMul", [x, weight], [f"{result}/product"], name=name),
            helper.make_node("Add", [f"{result}/product", bias], [result], name=f"{result}/sum"),
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
        reshape = graph.only_reader(linear.add.output[0])
        if reshape and reshape.op_type == "Reshape" and reshape.input[1] in graph.constants:
            shape = tuple(graph.value(reshape.input[1]).tolist())
            if len(shape) == 3 and shape[1] * shape[2] == len(graph.value(linear.bias)):
                key = linear.product.input[0], len(linear.weight), shape[0], shape[2]
                groups[key].append(_Heads(linear, reshape.output[0], shape))
    for group in groups.values():
        if len(group) > 1:
            graph.put |= {heads.result: [] for heads in group}
            graph.put[group[0].linear.product.output[0]] = _joined(graph, group)


def _joined(graph: _Graph, group: list[_Heads]) -> list[onnx.NodeProto]:
    linears, results = [heads.linear for heads in group], [heads.result for heads in group]
    name, value = "+".join(linear.product.name for linear in linears), "+".join(results)
    weight, *scales = [
        graph.constant(f"{value}/weight{i}", np.concatenate([graph.value(part) for part in parts], axis=-1))
        for i, parts in enumerate(zip(*(linear.weight for linear in linears), strict=True))
    ]
    bias = graph.constant(f"{value}/bias", np.concatenate([graph.value(linear.bias) for linear in linears]))
    counts, (rows, _, width) = [heads.shape[1] for heads in group], group[0].shape
    shape = graph.constant(f"{value}/shape", np.array([rows, sum(counts), width]))
    each = graph.constant(f"{value}/counts", np.array(counts))
    nodes = []
    if scales:
        whole = f"{value}/weight"
        nodes.append(helper.make_node("DequantizeLinear", [weight, *scales], [whole], name=whole, axis=1))
        weight = whole
    return [
        *nodes,
        *graph.linear(name, linears[0].product.input[0], weight, bias, f"{value}/rows"),
        helper.make_node("Reshape", [f"{value}/rows", shape], [f"{value}/heads"], name=f"{value}/heads"),
        helper.make_node("Split", [f"{value}/heads", each], results, name=f"{value}/split", axis=1),
    ]


def _part(graph: _Graph) -> None:
    """A float layer split in two, one half through Sigmoid, becomes two: a product has a Sigmoid in it."""
    for linear in graph.linears():
        split = graph.only_reader(linear.add.output[0])
        if split is None or len(linear.weight) != 1 or not _is_gated(graph, split):
            continue
        weight, bias = (np.split(graph.value(x), 2, axis=-1) for x in (linear.weight[0], linear.bias))
        graph.put[split.output[0]] = []
        for i, half in enumerate(split.output):
            own = graph.constant(f"{half}/weight", weight[i]), graph.constant(f"{half}/bias", bias[i])
            name = f"{linear.product.name}/{i}"
            graph.put[split.output[0]] += graph.linear(name, linear.product.input[0], *own, half)


def _is_gated(graph: _Graph, split: onnx.NodeProto) -> bool:
    """Whether a node splits the last axis in halves, one of which only a Sigmoid reads."""
    is_last = any(a.name == "axis" and a.i == -1 for a in split.attribute)
    if split.op_type != "Split" or len(split.output) != 2 or not is_last:
        return False
    sizes = [graph.value(x).tolist() for x in split.input[1:] if x in graph.constants]
    halves = all(first == second for first, second in sizes) and len(sizes) == len(split.input) - 1
    readers = [graph.only_reader(half) for half in split.output]
    return halves and any(reader and reader.op_type == "Sigmoid" for reader in readers)
