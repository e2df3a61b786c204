"""Which nodes of a graph are worth quantising, and silence for the tools that do it."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx

_PASS_THROUGH = (
    "Add",
    "Reshape",
    "Transpose",
    "Mul",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "LogSoftmax",
    "Cast",
)


def unsuited_nodes(path: Path, op_types: tuple[str, ...]) -> list[str]:
    """Names of `op_types` nodes to leave in fp32: products of two activations, and the output layer.

    Attention scores have no weights to shrink, and the output layer's error goes straight into log_probs.
    """
    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    candidates = [node for node in graph.node if node.op_type in op_types]
    loose = {node.name for node in candidates if not weights.intersection(node.input)}
    return sorted(loose | _output_layer(graph, op_types))


def _output_layer(graph: onnx.GraphProto, op_types: tuple[str, ...]) -> set[str]:
    """The nearest `op_types` node before log_probs, through element-wise and shape nodes only."""
    producer = {name: node for node in graph.node for name in node.output}
    pending, found = ["log_probs"], set()
    while pending:
        node = producer.get(pending.pop())
        if node is None:
            continue
        if node.op_type in op_types:
            found.add(node.name)
        elif node.op_type in _PASS_THROUGH:
            pending.extend(node.input)
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters and quantisers log advice about their own internals; a caller could act on none of it."""
    loggers = [logging.getLogger(name) for name in (None, "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
