"""Every pass of convert/ and quantize/, found by file, makes an artifact that streams like the model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch

from edge_speech.backends import load_encoder
from edge_speech.bundle import sha256_of
from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.engine_recipe import read_recipe
from edge_speech.errors import CheckFailed, InputError
from edge_speech_tools.contract import check_contract
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.convert import torchscript_mobile
from edge_speech_tools.drift import stream_rows
from edge_speech_tools.linter import lint_graph
from edge_speech_tools.onnx_graph import unsuited_nodes
from edge_speech_tools.onnx_opset17 import to_opset17
from edge_speech_tools.passes import PassResult, Source, load_passes, on_request
from edge_speech_tools.reference import TorchEncoder
from edge_speech_tools.streaming import windows
from streaming_double import StreamingDouble, streaming_double

# What another program loads has its own tests.
PASSES = {n: p for n, p in load_passes().items() if p.BACKEND not in on_request(load_passes())}
# Largest difference of log_probs after a whole recording: rounding alone, half precision, eight bits.
TOLERANCE = {
    "fp32": 1e-4,
    "fp16": 3e-2,
    "int8-dynamic": 0.3,
    "int8-weight-only": 0.3,
    "int4-weight-only": 1.0,
    "int8-static": 0.5,
}
Step = Any


@pytest.fixture(scope="module")
def features() -> FloatArray:
    """Log-mel-like features (T, F) of 437 frames, a length that no chunk divides."""
    noise = np.random.default_rng(3).normal(size=(437, 80))
    return (np.cumsum(noise, axis=0) * 0.2 - 8).clip(-15.9, 10).astype(np.float32)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, features: FloatArray) -> dict[str, PassResult]:
    model = streaming_double()
    source = Source(model, model.spec, tmp_path_factory.mktemp("built"), calibration=(features,))
    order = sorted(PASSES, key=lambda name: len(PASSES[name].NEEDS))
    return {name: PASSES[name].run(source) for name in order}


@pytest.fixture
def folder(built: dict[str, PassResult], tmp_path: Path) -> Path:
    """Where the two fp32 graphs are and nothing else."""
    for name in (streaming_onnx.FILE_NAME, streaming_onnx.LAYERS_NAME):
        shutil.copy(built["onnx"].path.with_name(name), tmp_path)
    return tmp_path


def onnx_step(path: Path) -> Step:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def torch_step(module: Any) -> Step:
    def step(*inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        with torch.inference_mode():
            return [t.numpy() for t in module(*map(torch.from_numpy, inputs))]

    return step


def stream(step: Step, features: FloatArray, spec: StreamingSpec) -> FloatArray:
    """log_probs (T_out, V) of a whole recording, the state carried from step to step."""
    state = [np.zeros(s.shape, s.dtype) for s in spec.state]
    rows = []
    for window in windows(features, spec):
        log_probs, *state = step(window, *state)
        rows.append(np.array(log_probs[0]))
    return np.concatenate(rows)


def test_the_double_keeps_the_contract() -> None:
    model = streaming_double()
    assert check_contract(model, model.vocab, 80) == model.spec


@pytest.mark.parametrize("name", sorted(PASSES))
def test_artifact_streams_like_the_model(
    name: str, built: dict[str, PassResult], features: FloatArray
) -> None:
    result = built[name]
    assert (result.backend, result.precision) == (PASSES[name].BACKEND, PASSES[name].PRECISION)
    model = streaming_double()
    assert result.check_backend is not None
    got = stream_rows(load_encoder(result.check_backend, result.path, model.spec), features, model.spec)
    want = stream_rows(TorchEncoder(model, model.spec), features, model.spec)
    assert got.shape == want.shape
    assert np.abs(got - want).max() < TOLERANCE[result.precision]
    assert (got.argmax(axis=1) == want.argmax(axis=1)).mean() > 0.95


@pytest.mark.parametrize("name", sorted(PASSES))
def test_lower_precision_is_smaller(name: str, built: dict[str, PassResult]) -> None:
    result = built[name]
    fp32 = {r.check_backend: r for r in built.values() if r.precision == "fp32"}[result.check_backend]
    if result.precision != "fp32":
        assert result.path.stat().st_size < 0.9 * fp32.path.stat().st_size


@pytest.mark.parametrize("name", sorted(PASSES))
def test_artifact_names_no_path_of_the_machine_that_made_it(name: str, built: dict[str, PassResult]) -> None:
    content = built[name].path.read_bytes()
    for path in (Path(__file__).parent.parent, Path(torch.__file__).parent, built[name].path.parent):
        assert str(path).encode() not in content


def test_int8_graphs_compute_in_int8(built: dict[str, PassResult]) -> None:
    dynamic = {node.op_type for node in onnx.load(built["int8_dynamic"].path).graph.node}
    static = {node.op_type for node in onnx.load(built["int8_static"].path).graph.node}
    assert "MatMulInteger" in dynamic
    assert {"QuantizeLinear", "DequantizeLinear"} <= static


def test_fp16_graph_is_typed_and_keeps_log_softmax_in_fp32(built: dict[str, PassResult]) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(built["tensorrt"].path)).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.input, *graph.output]}
    by_op = {node.op_type: [types[name] for name in node.output] for node in graph.node}
    assert by_op["MatMul"] == by_op["Conv"] == by_op["Softmax"] == [onnx.TensorProto.FLOAT16]
    assert by_op["LogSoftmax"] == by_op["LayerNormalization"] == [onnx.TensorProto.FLOAT]
    weights = [t.data_type for t in graph.initializer if np.prod(t.dims) > 64]
    assert set(weights) == {onnx.TensorProto.FLOAT16}


def test_tensorrt_is_only_planned(built: dict[str, PassResult]) -> None:
    for name, precision in (("tensorrt", "fp16"), ("tensorrt_int8", "int8-static")):
        result = built[name]
        assert result.status == "planned"
        assert result.command == f"edge-speech build-engine BUNDLE --precision {precision}"
        (companion,) = result.companions
        recipe = read_recipe(companion)
        assert (recipe.precision, recipe.onnx) == (precision, result.path.name)
        assert recipe.onnx_sha256 == sha256_of(result.path)


def test_engine_shapes_are_those_of_the_graph(built: dict[str, PassResult]) -> None:
    graph = onnx.load(built["tensorrt"].path).graph
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in graph.input}
    profiles = read_recipe(built["tensorrt"].companions[0]).profiles
    assert {p.name: p.opt for p in profiles} == shapes
    assert all(p.min == p.opt == p.max for p in profiles)


@pytest.mark.parametrize("minimum", ["10.3", "8.6"])
def test_int8_for_tensorrt_is_symmetric_and_typed(minimum: str, folder: Path, features: FloatArray) -> None:
    """Int8 without zero points on both sides of every product, float16 from TensorRT 10 on."""
    model = streaming_double()
    source = Source(model, model.spec, folder, (features,), {"tensorrt": minimum})
    result = PASSES["tensorrt_int8"].run(source)
    graph = onnx.load(result.path).graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {constants[n.input[2]].dtype for n in pairs} == {np.dtype("int8")}
    assert not any(constants[n.input[2]].any() for n in pairs)
    expected = np.dtype("float16" if minimum == "10.3" else "float32")
    assert {constants[n.input[1]].dtype for n in pairs} == {expected}
    writers = {name: node for node in graph.node for name in node.output}
    sides = [[writers.get(name) for name in n.input] for n in graph.node if n.op_type == "MatMul"]
    quantised = [all(side and side.op_type == "DequantizeLinear" for side in both) for both in sides]
    assert quantised.count(True) == 4
    assert (
        np.abs(
            stream(onnx_step(result.path), features, model.spec)
            - stream(torch_step(model), features, model.spec)
        ).max()
        < TOLERANCE["int8-static"]
    )


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_int8"])
@pytest.mark.parametrize("version", ["8.5.2", "8.6.2"])
def test_graphs_for_tensorrt_8_are_of_its_opset(
    name: str, version: str, folder: Path, features: FloatArray
) -> None:
    """Opset 17, from 8.6 on with LayerNormalization; the linter has nothing to say, and the numbers hold."""
    model = streaming_double()
    result = PASSES[name].run(Source(model, model.spec, folder, (features,), {"tensorrt": version}))
    graph = onnx.load(result.path)
    assert [opset.version for opset in graph.opset_import] == [17]
    normalised = any(node.op_type == "LayerNormalization" for node in graph.graph.node)
    assert normalised is (version == "8.6.2")
    assert lint_graph(result.path, "tensorrt", version) == []
    got = stream(onnx_step(result.path), features, model.spec)
    want = stream(torch_step(model), features, model.spec)
    assert np.abs(got - want).max() < TOLERANCE[result.precision]


def test_an_operator_that_opset_17_knows_otherwise_is_refused() -> None:
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 4]) for n in ("x", "y")]
    node = onnx.helper.make_node("ReduceMean", ["x", "axes"], ["y"])
    axes = onnx.numpy_helper.from_array(np.array([1]), "axes")
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:], [axes])
    with pytest.raises(CheckFailed, match="ReduceMean has changed"):
        to_opset17(onnx.helper.make_model(graph), layer_normalization=True)


@pytest.mark.parametrize(
    "recipe",
    [{"tensorrt": 10}, {"tensorrt": "new"}, {"workspace_mib": "all"}, {"dla_core": 99}],
)
def test_an_odd_recipe_of_a_target_is_one_line(recipe: dict[str, Any], folder: Path) -> None:
    model = streaming_double()
    with pytest.raises(InputError, match=next(iter(recipe))) as error:
        PASSES["tensorrt"].run(Source(model, model.spec, folder, (), recipe))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in sorted(PASSES) if PASSES[name].NEEDS_CALIBRATION])
def test_static_quantisation_without_recordings_is_refused(name: str, tmp_path: Path) -> None:
    model = streaming_double()
    with pytest.raises(InputError, match="--calibration"):
        PASSES[name].run(Source(model, model.spec, tmp_path))


class ForgetsState(StreamingDouble):
    """Gives its keys back as zeros: an exporter folds them to a constant."""

    def forward(self, features: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        log_probs, conv_cache, keys, values, frames_seen = super().forward(features, *state)
        return log_probs, conv_cache, torch.zeros_like(keys), values, frames_seen


class IgnoresState(StreamingDouble):
    """Never reads its convolution cache."""

    def forward(self, features: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return super().forward(features, torch.zeros_like(state[0]), *state[1:])


@pytest.mark.parametrize(
    ("model_class", "named"), [(ForgetsState, "next_keys"), (IgnoresState, "conv_cache")]
)
def test_a_dropped_state_is_caught(model_class: type[StreamingDouble], named: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = model_class().eval()
    with pytest.raises(CheckFailed, match=named):
        streaming_onnx.run(Source(model, model.spec, tmp_path))


class Branches(StreamingDouble):
    """Decides by the values of its input, which no static graph can do."""

    def forward(self, features: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return super().forward(features if features.sum() > 0 else -features, *state)


def test_a_model_that_cannot_be_exported_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Branches().eval()
    with pytest.raises(InputError, match="cannot be exported") as error:
        streaming_onnx.run(Source(model, model.spec, tmp_path))
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_lite_interpreter_difference_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "other.ptl"
    other, model = streaming_double(seed=1), streaming_double(seed=2)
    torchscript_mobile.save_lite(
        other, torchscript_mobile.example_inputs(Source(other, other.spec, tmp_path)), path
    )
    assert torchscript_mobile.compare_steps(other, path, other.spec) < 1e-4
    assert torchscript_mobile.compare_steps(model, path, model.spec) > 1e-2


def test_torch_with_xnnpack_optimises_for_mobile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = streaming_double(), []
    monkeypatch.setattr(torchscript_mobile, "has_xnnpack", lambda: True)
    monkeypatch.setattr(torchscript_mobile, "optimize_for_mobile", lambda m: seen.append(m) or m)
    result = torchscript_mobile.run(Source(model, model.spec, tmp_path))
    assert len(seen) == 1
    assert result.path.exists()
    assert torchscript_mobile.remark() == "optimised for mobile"


def wrong_models() -> dict[str, tuple[torch.nn.Module, str]]:
    import dataclasses

    class Wrong(StreamingDouble):
        def __init__(self, **changes: Any) -> None:
            super().__init__()
            self.changes = changes

        @property
        def spec(self) -> StreamingSpec:
            changes = getattr(self, "changes", {})
            return dataclasses.replace(StreamingDouble.spec.fget(self), **changes)  # type: ignore[attr-defined]

    class NoLogSoftmax(StreamingDouble):
        def forward(self, features: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
            log_probs, *following = super().forward(features, *state)
            return log_probs * 2, *following

    class NonZeroStart(StreamingDouble):
        def initial_state(self, batch_size: int) -> tuple[torch.Tensor, ...]:
            return tuple(tensor + 1 for tensor in super().initial_state(batch_size))

    good = StreamingDouble().spec.state
    renamed = (dataclasses.replace(good[0], name="keys"), *good[1:])
    reshaped = (dataclasses.replace(good[0], shape=(1, 2, 3)), *good[1:])
    retyped = (dataclasses.replace(good[0], dtype="int64"), *good[1:])
    return {
        "plain module": (torch.nn.Linear(2, 2), "initial_state"),
        "uneven chunk": (Wrong(chunk_frames=15), "chunk_frames 15"),
        "two states of one name": (Wrong(state=renamed), "keys"),
        "wrong shape": (Wrong(state=reshaped), "spec"),
        "wrong type": (Wrong(state=retyped), "spec"),
        "one state too few": (Wrong(state=good[1:]), "3"),
        "no log-probabilities": (NoLogSoftmax(), "log_softmax"),
        "state starts at one": (NonZeroStart(), "zeros"),
    }


@pytest.mark.parametrize("case", sorted(wrong_models()))
def test_contract_violations_are_one_line(case: str) -> None:
    model, named = wrong_models()[case]
    with pytest.raises(InputError, match=named) as error:
        check_contract(model.eval(), 12, 80)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("tokens", "bins", "named"), [(13, 80, "13 tokens"), (12, 40, "80 features")])
def test_checkpoint_and_model_must_agree(tokens: int, bins: int, named: str) -> None:
    with pytest.raises(InputError, match=named):
        check_contract(streaming_double(), tokens, bins)


def test_first_and_last_layer_and_attention_products_stay_fp32(built: dict[str, PassResult]) -> None:
    graph = onnx.load(built["onnx"].path).graph
    products = [node.name for node in graph.node if node.op_type == "MatMul"]
    left = unsuited_nodes(built["onnx"].path, ("MatMul", "Gemm", "Conv"))
    layers = {name: layer_of(graph, name) for name in products}
    assert sorted(map(str, layers.values())) == [
        "None",
        "None",
        "embed",
        "inner",
        "inner",
        "inner",
        "inner",
        "output",
    ]
    assert set(left) == {name for name, layer in layers.items() if layer in ("embed", "output", None)}


def layer_of(graph: onnx.GraphProto, name: str) -> str | None:
    """Which Linear of the double a MatMul belongs to, by the shape of its weight; None without one."""
    node = next(n for n in graph.node if n.name == name)
    shapes = [tuple(t.dims) for t in graph.initializer if t.name in node.input]
    ends = {(640, 32): "embed", (32, 12): "output"}
    return ends.get(shapes[0], "inner") if shapes else None
