"""Which nodes of a graph are worth quantising, and silence for the tools that do it."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Clip", "Cast", "LogSoftmax")
_SHAPING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Concat", "Slice", "Gather")


LAYERS = ("MatMul", "Gemm", "Conv", "LSTM", "GRU")
_REORDERING = ("Slice", "Concat", "Unsqueeze", "Squeeze", "Transpose", "Reshape", "Split")
_SCOPES = "pkg.torch.onnx.name_scopes"


def name_layers(model: onnx.ModelProto, modules: Iterable[str]) -> None:
    """Give the nodes of LAYERS the names of their modules, while the exporter's notes are still there.

    A module with several nodes (a recurrent one, or one called twice) gives `name`, `name/1`, …
    """
    known = set(modules) - {""}
    counts: dict[str, int] = {}
    for node in model.graph.node:
        name = _module_of(node, known) if node.op_type in LAYERS else None
        if name is not None:
            counts[name] = counts.get(name, -1) + 1
            node.name = f"{name}/{counts[name]}" if counts[name] else name


def _module_of(node: onnx.NodeProto, known: set[str]) -> str | None:
    """By the name of its weight; of a Linear, whose weight the exporter turned, by the call that it notes."""
    for name in node.input:
        layer = str(name).removesuffix(".weight")
        if layer != name and layer in known:
            return layer
    notes = {note.key: note.value for note in node.metadata_props}
    scopes = re.findall(r"'([^']*)'", notes.get(_SCOPES, ""))
    return scopes[-2] if len(scopes) > 1 and scopes[-2] in known else None


def fold_weights(model: onnx.ModelProto) -> None:
    """Compute what the exporter left to the engine: weights of recurrent layers in ONNX's order of gates."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type not in _REORDERING or not all(name in constants for name in node.input if name):
            kept.append(node)
            continue
        values = {name: numpy_helper.to_array(constants[name]) for name in node.input if name}
        results = ReferenceEvaluator(node).run(None, values)
        for name, result in zip(node.output, results, strict=True):
            constants[name] = numpy_helper.from_array(result, name)
            graph.initializer.append(constants[name])
    del graph.node[:]
    graph.node.extend(kept)
    drop_unread(graph)


class IndexedGraph:
    """A graph with its constants by name, and who makes and who reads each value."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)

    def value(self, name: str) -> np.ndarray:  # type: ignore[type-arg]
        """Of a constant."""
        return numpy_helper.to_array(self.constants[name])

    def constant(self, name: str, values: np.ndarray) -> str:  # type: ignore[type-arg]
        """A constant of this name, made once."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
            self.graph.initializer.append(self.constants[name])
        return name

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads a value, None where others do or it is an output."""
        readers = self.readers[name]
        return readers[0] if len(readers) == 1 and name not in self.outputs else None


def values_of(graph: onnx.GraphProto) -> set[str]:
    """The name of every tensor."""
    values = {str(name) for node in graph.node for name in [*node.input, *node.output] if name}
    return values | {str(v.name) for v in [*graph.input, *graph.output, *graph.initializer]}


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Other names for the tensors of nodes and constants, also of graphs within: inputs and outputs of the
    graph itself are the caller's."""
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                rename(inner, names)
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def drop_unread(graph: onnx.GraphProto) -> None:
    """Drop nodes and constants whose values nobody reads."""
    read, nodes = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if read.intersection(node.output):
            nodes.append(node)
            read |= _read_by(node)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(kept)


def _read_by(node: onnx.NodeProto) -> set[str]:
    """What a node reads, also in the graphs within it."""
    within = [graph for a in node.attribute for graph in (*a.graphs, *([a.g] if a.HasField("g") else []))]
    inner = {value.name for graph in within for value in graph.output}  # may be a value from outside
    return inner.union(node.input, *(_read_by(one) for graph in within for one in graph.node))


def layer_of(node: onnx.NodeProto) -> str:
    """The name of the module that `name_layers` gave a node."""
    return str(node.name.partition("/")[0])


def unsuited_nodes(path: Path, op_types: tuple[str, ...]) -> list[str]:
    """Names of the `op_types` nodes to leave in fp32.

    Products of two activations have no weights to shrink. The first layer reads features, a range of 30 nats
    that eight bits resolve badly, and the last one's error goes straight into log_probs; both are small. A
    convolution that `simplify` made a product is a convolution still: all layers hear its error.
    """
    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    loose = {n.name for n in graph.node if n.op_type in op_types and not weights.intersection(n.input)}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    writers = {name: [node] for node in graph.node for name in node.output}
    first = _nearest("features", readers, op_types, lambda node: node.output)
    last = _nearest("log_probs", writers, op_types, lambda node: node.input)
    return sorted(loose | first | last | _convolutions(graph))


def _convolutions(graph: onnx.GraphProto) -> set[str]:
    """Names of the products that read gathered windows."""
    gathered = {name for node in graph.node if node.op_type == "Gather" for name in node.output}
    windows = {n.output[0] for n in graph.node if n.op_type == "Reshape" and n.input[0] in gathered}
    return {n.name for n in graph.node if n.op_type == "MatMul" and n.input[0] in windows}


def _nearest(
    value: str,
    neighbours: Mapping[str, list[onnx.NodeProto]],
    op_types: tuple[str, ...],
    onwards: Callable[[onnx.NodeProto], Iterable[str]],
) -> set[str]:
    """The `op_types` nodes reached from `value` through element-wise and shape nodes only."""
    pending, seen, found = [value], {value}, set()
    while pending:
        for node in neighbours.get(pending.pop(), []):
            if node.op_type in op_types:
                found.add(node.name)
            elif node.op_type in _ELEMENTWISE + _SHAPING:
                fresh = set(onwards(node)) - seen
                seen |= fresh
                pending.extend(fresh)
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters and quantisers log and print their internals; a failure still raises, that says enough."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
