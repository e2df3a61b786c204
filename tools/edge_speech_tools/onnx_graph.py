"""Which nodes of a graph are worth quantising, and silence for the tools that do it."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import onnx

_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Clip", "Cast", "LogSoftmax")
_SHAPING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Concat", "Slice")


def unsuited_nodes(path: Path, op_types: tuple[str, ...]) -> list[str]:
    """Names of the `op_types` nodes to leave in fp32.

    Products of two activations have no weights to shrink. The first layer reads features, a range of 30 nats
    that eight bits resolve badly, and the last one's error goes straight into log_probs; both are small.
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
    return sorted(loose | first | last)


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
