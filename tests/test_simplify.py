"""A simplified graph computes what it did, in fewer nodes of the kinds that cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edge_speech.training import models
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.onnx_graph import drop_unread
from edge_speech_tools.passes import Source
from edge_speech_tools.simplify import simplified

SMALL = {"vocab_size": 9, "dropout": 0.0, "num_layers": 2}
T, D = 4, 6


def outputs_of(model: onnx.ModelProto, optimised: bool = True) -> list[Any]:
    """What the graph gives for seeded noise."""
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    random, feeds = np.random.default_rng(2), {}
    for value in session.get_inputs():
        noise = random.normal(size=value.shape)
        feeds[value.name] = (
            noise.astype(np.float32) if value.type == "tensor(float)" else (noise * 0).astype(int)
        )
    return list(session.run(None, feeds))


def graph_of(nodes: Sequence[onnx.NodeProto], **constants: Any) -> onnx.ModelProto:
    """x (1, T, D) → y, whatever its shape is."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, T, D])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    opset = [helper.make_opsetid("", 18)]
    graph = helper.make_graph(nodes, "small", [x], [y], tensors)
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opset, ir_version=9))
    return model


def counts(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def as_onnxruntime_runs_it(path: Path) -> onnx.ModelProto:
    """A file's graph after onnxruntime's own rewriting."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


@pytest.mark.parametrize("architecture", models.available())
def test_every_architecture_computes_the_same(architecture: str, tmp_path: Any) -> None:
    torch.manual_seed(4)
    model = models.build(architecture, SMALL).eval()
    path = tmp_path / "plain.onnx"
    streaming_onnx.export(Source(model, model.spec, tmp_path), path, streaming_onnx.Config())
    streaming_onnx.strip_notes(path, streaming_onnx.layers(model))
    plain = onnx.load(path)
    simple = simplified(onnx.load(path))
    for want, got in zip(outputs_of(plain, optimised=False), outputs_of(simple), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5, rtol=1e-4)
    names = {node.name for node in plain.graph.node if node.op_type in ("MatMul", "Conv", "Gemm")}
    assert names <= {node.name for node in simple.graph.node}
    assert [v.name for v in simple.graph.output] == [v.name for v in plain.graph.output]
    ranks = [len(v.type.tensor_type.shape.dim) for v in _weights_of(simple, "Conv")]
    assert 3 not in ranks


def _weights_of(model: onnx.ModelProto, op_type: str) -> list[Any]:
    inferred = {t.name: helper.make_tensor_value_info(t.name, 1, t.dims) for t in model.graph.initializer}
    return [inferred[n.input[1]] for n in model.graph.node if n.op_type == op_type and n.input[1] in inferred]


def test_products_of_a_conformer_have_two_dimensions(tmp_path: Any) -> None:
    model = models.build("conformer", SMALL).eval()
    made = streaming_onnx.run(Source(model, model.spec, tmp_path))
    inferred = onnx.shape_inference.infer_shapes(onnx.load(made.path))
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in inferred.graph.value_info}
    constants = {tensor.name for tensor in inferred.graph.initializer}
    products = [n for n in inferred.graph.node if n.op_type == "MatMul" and n.input[1] in constants]
    assert len(products) > 15
    assert {ranks[n.output[0]] for n in products} == {2}


W = np.random.default_rng(0).normal(size=(D, D)).astype(np.float32)
BIAS = np.random.default_rng(1).normal(size=(1, T, D)).astype(np.float32)
node = helper.make_node
GRAPHS = {
    "a constant of three dimensions": (
        [node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "b"], ["y"])],
        {"w": W, "b": BIAS},
    ),
    "softmax over frames": (
        [node("MatMul", ["x", "w"], ["a"]), node("Softmax", ["a"], ["y"], axis=1)],
        {"w": W},
    ),
    "softmax over the last": ([node("MatMul", ["x", "w"], ["a"]), node("Softmax", ["a"], ["y"])], {"w": W}),
    "norm of two dimensions": (
        [node("MatMul", ["x", "w"], ["a"]), node("LayerNormalization", ["a", "s"], ["y"], axis=1)],
        {"w": W, "s": np.ones((T, D), np.float32)},
    ),
    "split of frames": (
        [
            node("MatMul", ["x", "w"], ["a"]),
            node("Split", ["a"], ["c", "d"], axis=1, num_outputs=2),
            node("Add", ["c", "d"], ["y"]),
        ],
        {"w": W},
    ),
    "a reshape that keeps the batch": (
        [node("MatMul", ["x", "w"], ["a"]), node("Reshape", ["a", "s"], ["y"])],
        {"w": W, "s": np.array([0, 0, 2, -1])},
    ),
    "a reshape that does not": (
        [
            node("MatMul", ["x", "w"], ["a"]),
            node("Reshape", ["a", "s"], ["c"]),
            node("Softmax", ["c"], ["y"]),
        ],
        {"w": W, "s": np.array([2, 2, D])},
    ),
    "a value with two kinds of readers": (
        [
            node("MatMul", ["x", "w"], ["a"]),
            node("Transpose", ["a"], ["t"], perm=[0, 2, 1]),
            node("Sigmoid", ["a"], ["g"]),
            node("MatMul", ["t", "g"], ["y"]),
        ],
        {"w": W},
    ),
    "a convolution with all its settings": (
        [
            node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
            node(
                "Conv", ["t", "k"], ["y"], pads=[2, 1], strides=[2], dilations=[2], kernel_shape=[2], group=2
            ),
        ],
        {"k": np.random.default_rng(3).normal(size=(4, D // 2, 2)).astype(np.float32)},
    ),
    "a convolution between rows": (
        [
            node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
            node("Conv", ["t", "k", "c"], ["z"], strides=[2], dilations=[2], kernel_shape=[2]),
            node("Transpose", ["z"], ["y"], perm=[0, 2, 1]),
        ],
        {
            "k": np.random.default_rng(3).normal(size=(4, D, 2)).astype(np.float32),
            "c": np.arange(4, dtype=np.float32),
        },
    ),
    "a padded convolution between rows": (
        [
            node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
            node("Conv", ["t", "k"], ["z"], pads=[1, 1], kernel_shape=[3]),
            node("Transpose", ["z"], ["y"], perm=[0, 2, 1]),
        ],
        {"k": np.random.default_rng(3).normal(size=(4, D, 3)).astype(np.float32)},
    ),
    "a depthwise convolution whose result is read twice": (
        [
            node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
            node("Conv", ["t", "k"], ["z"], group=D, kernel_shape=[2]),
            node("Transpose", ["z"], ["r"], perm=[0, 2, 1]),
            node("MatMul", ["r", "z"], ["y"]),
        ],
        {"k": np.random.default_rng(3).normal(size=(D, 1, 2)).astype(np.float32)},
    ),
    "heads": (
        [
            node("MatMul", ["x", "w"], ["a"]),
            node("Reshape", ["a", "s"], ["h"]),
            node("Transpose", ["h"], ["q"], perm=[0, 2, 1, 3]),
            node("Transpose", ["h"], ["k"], perm=[0, 2, 3, 1]),
            node("MatMul", ["q", "k"], ["z"]),
            node("Add", ["z", "b"], ["y"]),
        ],
        {"w": W, "s": np.array([1, T, 2, 3]), "b": np.ones((2, T, T), np.float32)},
    ),
    "factors": (
        [
            node("MatMul", ["x", "w"], ["a"]),
            node("Add", ["a", "c"], ["l"]),
            node("Mul", ["l", "half"], ["m"]),
            node("MatMul", ["m", "w"], ["b"]),
            node("Add", ["c", "b"], ["n"]),
            node("Mul", ["half", "n"], ["o"]),
            node("Add", ["n", "o"], ["y"]),
        ],
        {"w": W, "c": np.arange(D, dtype=np.float32), "half": np.float32(0.5)},
    ),
    "constants added to one value": (
        [
            node("ReduceMean", ["x", "axes"], ["m"], keepdims=1),
            node("Add", ["m", "b"], ["c"]),
            node("Add", ["m", "d"], ["e"]),
            node("Mul", ["c", "e"], ["y"]),
        ],
        {"axes": np.array([1]), "b": BIAS[0], "d": 2 * BIAS[0]},
    ),
    "vectors added to one value": (
        [node("Add", ["x", "b"], ["c"]), node("Add", ["x", "d"], ["e"]), node("Mul", ["c", "e"], ["y"])],
        {"b": BIAS[0, 0], "d": 2 * BIAS[0, 0]},
    ),
    "rows behind rows": (
        [
            node("MatMul", ["x", "w"], ["a"]),
            node("Concat", ["r", "a", "a"], ["c"], axis=1),
            node("Slice", ["c", "from", "to", "rows"], ["d"]),
            node("Gather", ["d", "i"], ["e"], axis=1),
            node("Reshape", ["e", "s"], ["y"]),
        ],
        {
            "w": W,
            "r": BIAS,
            "from": np.array([-7]),
            "to": np.array([10**6]),
            "rows": np.array([-2]),
            "i": np.array([[0, 2], [1, 6]]),
            "s": np.array([2, 2 * D]),
        },
    ),
    "a slice of two axes, the batch among them": (
        [node("MatMul", ["x", "w"], ["a"]), node("Slice", ["a", "from", "to"], ["y"])],
        {"w": W, "from": np.array([0, 1]), "to": np.array([1, 3])},
    ),
    "turns of dimensions of one": (
        [
            node("MatMul", ["x", "w"], ["a"]),
            node("Transpose", ["a"], ["b"], perm=[1, 0, 2]),
            node("Transpose", ["b"], ["c"]),
            node("Reshape", ["c", "s"], ["y"]),
        ],
        {"w": W, "s": np.array([-1])},
    ),
    "a convolution padded to the same length": (
        [
            node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
            node("Conv", ["t", "k"], ["y"], auto_pad="SAME_UPPER"),
        ],
        {"k": np.random.default_rng(3).normal(size=(4, D, 3)).astype(np.float32)},
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_small_graphs_compute_the_same(name: str) -> None:
    nodes, constants = GRAPHS[name]
    for number, each in enumerate(nodes):
        each.name = f"node{number}"
    model = graph_of(nodes, **constants)
    simple = simplified(onnx.ModelProto.FromString(model.SerializeToString()))
    for want, got in zip(outputs_of(model), outputs_of(simple), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("factors", {"MatMul": 2, "Mul": 1, "Add": 3}),  # the other sum has a second reader
        ("constants added to one value", {"ReduceMean": 1, "Add": 1, "Split": 1, "Mul": 1}),
        ("vectors added to one value", {"Add": 2, "Mul": 1}),
        ("a convolution between rows", {"Gather": 1, "MatMul": 1, "Add": 1}),
        ("a padded convolution between rows", {"Transpose": 2, "Conv": 1}),
        ("heads", {"MatMul": 2, "Transpose": 2, "Add": 1}),
        ("turns of dimensions of one", {"MatMul": 1, "Transpose": 1}),
    ],
)
def test_nodes_that_are_left(name: str, left: dict[str, int]) -> None:
    nodes, constants = GRAPHS[name]
    found = counts(simplified(graph_of(nodes, **constants)))
    del found["Reshape"]
    assert found == left


def test_an_output_may_be_read_on() -> None:
    """By what reads it as it is, and by what reads it without its batch; and it may be a state as it came."""
    nodes = [
        node("MatMul", ["x", "w"], ["y"], name="layer"),
        node("ReduceMean", ["y", "rows"], ["mean"], keepdims=1),
        node("Mul", ["y", "mean"], ["z"]),
        node("Reshape", ["x", "flat"], ["same"]),
    ]
    model = graph_of(nodes, w=W, rows=np.array([1]), flat=np.array([T, D]))
    for name in ("z", "same"):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    model = onnx.shape_inference.infer_shapes(model)
    for want, got in zip(outputs_of(model), outputs_of(simplified(model)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_what_a_branch_reads_is_read() -> None:
    """Of a value from outside, a constant, and what nobody reads only the last goes."""
    branches = [
        helper.make_graph(
            [node("Add", [read, "c"], ["z"])],
            read,
            [],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, T, D])],
        )
        for read in ("a", "b")
    ]
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Tanh", ["x"], ["b"]),
        node("Sigmoid", ["x"], ["nobody"]),
        node("If", ["which"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    model = graph_of(nodes, c=np.float32(1), which=np.array(True), unread=np.float32(2))
    drop_unread(model.graph)
    assert counts(model) == {"Relu": 1, "Tanh": 1, "If": 1}
    assert {tensor.name for tensor in model.graph.initializer} == {"c", "which"}
    outputs_of(model)


def test_a_step_of_a_conformer_reshapes_little(tmp_path: Any) -> None:
    """States go in and come out as they lie; left are the ends, heads, and convolutions."""
    model = models.build("conformer", {**SMALL, "num_layers": 3}).eval()
    graph = onnx.load(streaming_onnx.run(Source(model, model.spec, tmp_path)).path).graph
    states = {state.name for state in model.spec.state if state.dtype == "float32"}
    into_shape = [n for n in graph.node if n.op_type == "Reshape"]
    assert not states.intersection(n.input[0] for n in into_shape)
    assert {n.output[0] for n in into_shape}.isdisjoint(model.spec.next_name(name) for name in states)
    assert len(into_shape) == 6 + 4 * 3


def test_onnxruntime_turns_heads_and_rows_in_its_own_nodes(tmp_path: Any) -> None:
    """What is left of a Conformer's Transposes: one a layer, of what its heads give."""
    model = models.build("conformer", {**SMALL, "num_layers": 3}).eval()
    found = counts(as_onnxruntime_runs_it(streaming_onnx.run(Source(model, model.spec, tmp_path)).path))
    assert found["Transpose"] == 3
    assert found["FusedMatMul"] == 6
