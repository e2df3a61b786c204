"""A foreign graph under our names: features and states in, log_probs and the next states out, batch 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_speech.encoder import StreamingSpec, Tensors, TensorSpec
from edge_speech.errors import InputError
from edge_speech_tools.onnx_graph import rename, values_of

Array = npt.NDArray[Any]
_PREFIX = "model_"


@dataclass(frozen=True)
class BoundState:
    """A state, and the graph's input and output that carry it; both empty where extra nodes do."""

    spec: TensorSpec
    input: str
    output: str


@dataclass(frozen=True)
class Binding:
    """How a graph's tensors become ours.

    `features` is a window (1, frames, bins), `transposed` (1, bins, frames); with `scale` it holds our
    features less the first number, at least the second. `constants` are inputs that never change. `extra`
    nodes compute other inputs from states, `first` in the first step. `logits` says that the output is not
    normalised.
    """

    features: str
    window: tuple[int, int]
    log_probs: str
    states: tuple[BoundState, ...]
    transposed: bool = False
    scale: tuple[float, float] | None = None
    constants: Mapping[str, Array] = field(default_factory=dict)
    extra: Sequence[onnx.NodeProto] = ()
    extra_constants: Mapping[str, Array] = field(default_factory=dict)
    first: Mapping[str, Array] = field(default_factory=dict)
    logits: bool = False


def inner(name: str) -> str:
    """The graph's own tensors get a prefix, so that none has a name of ours."""
    return f"{_PREFIX}{name}"


def signature(values: Sequence[onnx.ValueInfoProto]) -> dict[str, tuple[list[int | None], str]]:
    """Name → shape, None where it is dynamic, and numpy dtype."""
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        found[str(value.name)] = (shape, str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    return found


def inputs_of(model: onnx.ModelProto) -> dict[str, tuple[list[int | None], str]]:
    """The graph's inputs, without constants that old exporters list there too."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return signature([v for v in model.graph.input if v.name not in constants])


def bind(
    model: onnx.ModelProto, binding: Binding, spec: StreamingSpec, order: Sequence[int] | None
) -> onnx.ModelProto:
    """A copy of the graph with the inputs and outputs of `spec`; `order` of the V columns of log_probs."""
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    graph = bound.graph
    names = {name: inner(name) for name in values_of(graph)}
    for state in binding.states:
        if state.input:
            names[state.input] = state.spec.name
            names[state.output] = spec.next_name(state.spec.name)
    rename(graph, names)
    _constants(graph, {inner(n): a for n, a in binding.constants.items()} | dict(binding.extra_constants))
    head = _head(graph, binding)
    tail = _tail(graph, binding, order)
    nodes = [*head, *binding.extra, *graph.node, *tail]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:], bound.metadata_props[:]
    graph.node.extend(nodes)
    graph.input.extend(_values(spec.inputs()))
    graph.output.extend(_values(spec.outputs()))
    return bound


def _constants(graph: onnx.GraphProto, arrays: Mapping[str, Array]) -> None:
    graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items())


def _head(graph: onnx.GraphProto, binding: Binding) -> list[onnx.NodeProto]:
    """From our features to the graph's."""
    value, nodes = "features", []
    if binding.scale is not None:
        less, least = binding.scale
        _constants(graph, {"feature_offset": np.float32(less), "feature_floor": np.float32(least)})
        nodes.append(helper.make_node("Sub", [value, "feature_offset"], ["shifted_features"]))
        nodes.append(helper.make_node("Max", ["shifted_features", "feature_floor"], ["scaled_features"]))
        value = "scaled_features"
    if binding.transposed:
        nodes.append(helper.make_node("Transpose", [value], [inner(binding.features)], perm=[0, 2, 1]))
    else:
        nodes.append(_node("Identity", value, inner(binding.features)))
    return nodes


def _tail(graph: onnx.GraphProto, binding: Binding, order: Sequence[int] | None) -> list[onnx.NodeProto]:
    """Normalise where that is left to the caller, the blank first, under our name."""
    value, nodes = inner(binding.log_probs), []
    if binding.logits:
        nodes.append(helper.make_node("LogSoftmax", [value], ["normalised"], axis=-1))
        value = "normalised"
    if order is not None and list(order) != sorted(order):
        _constants(graph, {"token_order": np.array(order, np.int64)})
        nodes.append(helper.make_node("Gather", [value, "token_order"], ["log_probs"], axis=-1))
    else:
        nodes.append(_node("Identity", value, "log_probs"))
    return nodes


def _node(op: str, given: str, result: str) -> onnx.NodeProto:
    return helper.make_node(op, [given], [result])


def _values(tensors: Tensors) -> list[onnx.ValueInfoProto]:
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    return [helper.make_tensor_value_info(n, kinds[dtype], shape) for n, (dtype, shape) in tensors.items()]


def state_name(name: str, taken: Sequence[str]) -> str:
    """`name` as an identifier that is not taken and is none of ours."""
    plain = "".join(c if c.isalnum() or c == "_" else "_" for c in name)
    plain = plain if plain.isidentifier() and plain not in ("features", "log_probs") else f"state_{plain}"
    while plain in taken:
        plain = f"{plain}_"
    return plain


def static_shape(name: str, shape: Sequence[int | None], known: Sequence[int] = ()) -> tuple[int, ...]:
    """A state's shape with the batch bound to 1: `known` where given, else one dynamic dimension at most.

    Raises InputError.
    """
    if known:
        fits = len(known) == len(shape) and all(a in (None, b) for a, b in zip(shape, known, strict=True))
        if shape and not fits:
            raise InputError(f"state {name} is {list(shape)} in the graph; {list(known)} does not fit")
        return tuple(known)
    if sum(n is None for n in shape) > 1:
        raise InputError(
            f"state {name} has more than one unknown dimension, {list(shape)}; give its shape in --spec"
        )
    return tuple(1 if n is None else n for n in shape)
