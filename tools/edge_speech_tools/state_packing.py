"""A stream's whole state as one vector of float32: for engines that carry tensors of their own shapes.

float32 states are reshaped and laid end to end. A whole number, which float32 holds exactly up to 2^24 only,
takes two places, its multiple of 2^20 and the rest: a counter of rows stays exact for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_speech.encoder import TensorSpec
from edge_speech.errors import InputError

_SPLIT = 1 << 20


def packed_size(state: Sequence[TensorSpec]) -> int:
    """Places of the whole state. Raises InputError on a type that is not carried."""
    odd = [s for s in state if s.dtype not in ("float32", "int64")]
    if odd:
        raise InputError(
            f"state {odd[0].name} is {odd[0].dtype}; float32 and int64 can be carried as float32"
        )
    return sum(_places(s) for s in state)


def _places(state: TensorSpec) -> int:
    return prod(state.shape) * (2 if state.dtype == "int64" else 1)


class Packing:
    """Nodes and constants that unpack and pack a state; append them to a graph of opset 13 or later."""

    def __init__(self, state: Sequence[TensorSpec], prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._state, self._prefix = tuple(state), prefix
        packed_size(state)

    def unpack(self, cache: str, names: Sequence[str]) -> None:
        """`cache`, of any shape, → the tensors of the state under `names`; what is left over is not read."""
        sizes = [_places(s) for s in self._state]
        parts = [self._name(f"{s.name}_part") for s in self._state]
        flat = self._node("Reshape", [cache, self.constant("flat", [-1])], "flat_cache")
        used = self._node(
            "Slice", [flat, self.constant("start", [0]), self.constant("end", [sum(sizes)])], "used_cache"
        )
        split = helper.make_node("Split", [used, self.constant("sizes", sizes)], parts, axis=0)
        self.nodes.append(split)
        for state, part, name in zip(self._state, parts, names, strict=True):
            self._restore(state, part, name)

    def _restore(self, state: TensorSpec, part: str, name: str) -> None:
        shape = self.constant(f"{state.name}_shape", state.shape)
        if state.dtype == "float32":
            self.nodes.append(helper.make_node("Reshape", [part, shape], [name]))
            return
        whole = self._node("Cast", [part], f"{state.name}_whole", to=TensorProto.INT64)
        half = [prod(state.shape)] * 2
        high, low = self._name(f"{state.name}_high"), self._name(f"{state.name}_low")
        halves = self.constant(f"{state.name}_halves", half)
        self.nodes.append(helper.make_node("Split", [whole, halves], [high, low], axis=0))
        scaled = self._node("Mul", [high, self.constant("split", [_SPLIT])], f"{state.name}_scaled")
        total = self._node("Add", [scaled, low], f"{state.name}_sum")
        self.nodes.append(helper.make_node("Reshape", [total, shape], [name]))

    def pack(self, names: Sequence[str], cache: str, shape: Sequence[int]) -> None:
        """The tensors of the state under `names` → `cache` of `shape`, what is left over are zeros."""
        parts = [part for s, name in zip(self._state, names, strict=True) for part in self._laid_out(s, name)]
        spare = prod(shape) - packed_size(self._state)
        if spare:
            self.constants.append(numpy_helper.from_array(np.zeros(spare, np.float32), self._name("spare")))
            parts.append(self._name("spare"))
        joined = self._node("Concat", parts, "joined", axis=0)
        self.nodes.append(helper.make_node("Reshape", [joined, self.constant("cache_shape", shape)], [cache]))

    def _laid_out(self, state: TensorSpec, name: str) -> list[str]:
        flat = self._node("Reshape", [name, self.constant("flat", [-1])], f"{state.name}_next")
        if state.dtype == "float32":
            return [flat]
        high = self._node("Div", [flat, self.constant("split", [_SPLIT])], f"{state.name}_next_high")
        scaled = self._node("Mul", [high, self.constant("split", [_SPLIT])], f"{state.name}_next_scaled")
        low = self._node("Sub", [flat, scaled], f"{state.name}_next_low")
        return [
            self._node("Cast", [part], f"{part}_float", to=TensorProto.FLOAT, own=False)
            for part in (high, low)
        ]

    def constant(self, name: str, values: Sequence[int]) -> str:
        """An int64 constant (N,); asking twice for one name gives the first."""
        full = self._name(name)
        if all(tensor.name != full for tensor in self.constants):
            self.constants.append(numpy_helper.from_array(np.array(values, np.int64), full))
        return full

    def _node(self, op: str, inputs: list[str], output: str, own: bool = True, **attributes: Any) -> str:
        name = self._name(output) if own else output
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def _name(self, name: str) -> str:
        return f"{self._prefix}_{name}"
