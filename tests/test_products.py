"""Products that are joined or parted compute what they did, in fewer nodes; what only looks alike stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edge_speech.training import models
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.passes import Source
from edge_speech_tools.products import regroup_products
from test_simplify import SMALL, as_onnxruntime_runs_it, counts, graph_of, outputs_of

T, D = 4, 6
SHAPES = (T, D), (T, 2, 3), (T, 1, 3), (2, 4, 3), (T, 3, 2)
RANDOM = np.random.default_rng(0)
node = helper.make_node


def linear(name: str, result: str, weight: str = "") -> list[onnx.NodeProto]:
    """Two nodes of x (T, D), whose weight is the constant `w` of this layer unless told."""
    return [
        node("MatMul", ["rows", weight or f"{name}.w"], [f"{name}.product"], name=name),
        node("Add", [f"{name}.product", f"{name}.b"], [result], name=f"{name}.add"),
    ]


def weights(name: str, size: int, kind: type[np.generic] = np.float32) -> dict[str, Any]:
    values = RANDOM.normal(size=(D, size)) * (50 if kind is np.int8 else 1)
    return {f"{name}.w": values.astype(kind), f"{name}.b": RANDOM.normal(size=size).astype(np.float32)}


def heads(name: str, shape: Sequence[int], weight: str = "") -> list[onnx.NodeProto]:
    return [
        *linear(name, f"{name}.rows", weight),
        node("Reshape", [f"{name}.rows", f"shape{'_'.join(map(str, shape))}"], [name]),
    ]


def checked(nodes: Sequence[onnx.NodeProto], constants: dict[str, Any]) -> onnx.ModelProto:
    """The regrouped graph, which gives what the other gave."""
    shapes = {f"shape{'_'.join(map(str, s))}": np.array(s) for s in SHAPES}
    first = node("Reshape", ["x", "shape4_6"], ["rows"])
    model = graph_of([first, *nodes], **shapes, **constants)
    want = outputs_of(model, optimised=False)
    regroup_products(model)
    onnx.checker.check_model(model, full_check=True)
    for one, other in zip(want, outputs_of(model, optimised=False), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)
    return model


def test_heads_of_one_value_come_from_one_product() -> None:
    """Their number may differ, as of keys that several queries share."""
    nodes = [*heads("q", (T, 2, 3)), *heads("k", (T, 1, 3)), node("Add", ["q", "k"], ["y"])]
    model = checked(nodes, weights("q", 6) | weights("k", 3))
    assert counts(model) == {"Reshape": 2, "MatMul": 1, "Add": 2, "Split": 1}
    assert [n.name for n in model.graph.node if n.op_type == "MatMul"] == ["q+k"]


def test_int8_weights_are_joined_with_their_scales() -> None:
    nodes, constants = [], {}
    for name, size in (("q", 6), ("k", 3)):
        inputs = [f"{name}.w", f"{name}.scale", f"{name}.zero"]
        nodes.append(node("DequantizeLinear", inputs, [f"{name}.float"], axis=1))
        nodes += heads(name, (T, size // 3, 3), f"{name}.float")
        constants |= weights(name, size, np.int8)
        constants[f"{name}.scale"] = RANDOM.uniform(0.01, 0.1, size).astype(np.float32)
        constants[f"{name}.zero"] = np.zeros(size, np.int8)
    model = checked([*nodes, node("Mul", ["q", "k"], ["y"])], constants)
    assert counts(model) == {"Reshape": 2, "DequantizeLinear": 1, "MatMul": 1, "Add": 1, "Split": 1, "Mul": 1}


LIKE_HEADS = {
    "rows that are mixed": [*heads("k", (2, 4, 3)), node("Reshape", ["k", "shape4_2_3"], ["m"])],
    "heads of another width": [*heads("k", (T, 3, 2)), node("Reshape", ["k", "shape4_2_3"], ["m"])],
    "rows that are read once more": [
        *heads("k", (T, 2, 3)),
        node("Reshape", ["k.rows", "shape4_2_3"], ["again"]),
        node("Sub", ["k", "again"], ["m"]),
    ],
}


@pytest.mark.parametrize("name", LIKE_HEADS)
def test_what_does_not_give_such_heads_stays(name: str) -> None:
    nodes = [*heads("q", (T, 2, 3)), *LIKE_HEADS[name], node("Add", ["q", "m"], ["y"])]
    assert counts(checked(nodes, weights("q", 6) | weights("k", 6)))["MatMul"] == 2


def gate(axis: int = -1, **split: Any) -> list[onnx.NodeProto]:
    inputs = ["both", "sizes"] if "sizes" in split else ["both"]
    numbers = {} if "sizes" in split else {"num_outputs": 2}
    return [
        *linear("expand", "both"),
        node("Split", inputs, ["a", "b"], axis=axis, **numbers),
        node("Sigmoid", ["b"], ["g"]),
    ]


def test_a_gate_has_a_product_of_its_own() -> None:
    model = checked([*gate(), node("Mul", ["a", "g"], ["y"])], weights("expand", 8))
    assert counts(model) == {"Reshape": 1, "MatMul": 2, "Add": 2, "Sigmoid": 1, "Mul": 1}


def test_a_gate_of_halves_that_differ_stays() -> None:
    nodes = [*gate(sizes=True), node("Concat", ["a", "g"], ["y"], axis=-1)]
    model = checked(nodes, weights("expand", 8) | {"sizes": np.array([3, 5])})
    assert counts(model)["Split"] == 1


def test_a_gate_between_rows_stays() -> None:
    model = checked([*gate(axis=0), node("Mul", ["a", "g"], ["y"])], weights("expand", 8))
    assert counts(model)["Split"] == 1


def test_what_onnxruntime_runs_of_a_conformer(tmp_path: Path) -> None:
    """The Sigmoids of gates are in products, and attention has one product before it and one after it."""
    layers = 2
    model = models.build("conformer", {**SMALL, "num_layers": layers}).eval()
    found = counts(as_onnxruntime_runs_it(streaming_onnx.run(Source(model, model.spec, tmp_path)).path))
    assert found["FusedGemm"] == layers
    assert "Sigmoid" not in found
    # Of a layer: four of feed-forward, one and the output of attention, one beside the gate, one after it.
    assert found["Gemm"] == 8 * layers + 3
    named = onnx.load(tmp_path / streaming_onnx.LAYERS_NAME)
    assert set(streaming_onnx.layers(model)) <= {n.name for n in named.graph.node}
