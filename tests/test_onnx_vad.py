"""OnnxVad over a small graph with silero-vad's interface, against the same network in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_speech.errors import InputError
from edge_speech.features import FloatArray
from edge_speech.recognizer import EndpointConfig
from edge_speech.vad import OnnxVad
from loud import RATE, beeps, loud_recognizer

GAIN, OFFSET = 40.0, 3.0


def write_graph(path: Path, size: int | None = None, with_rate: bool = True, **renamed: str) -> Path:
    """level = mean |input|; stateN = state / 2 + level; output = sigmoid(40 mean stateN - 3); sr is added
    times zero. `size` fixes the samples of the input."""
    import onnx
    from onnx import TensorProto, helper

    name = lambda n: renamed.get(n, n)  # noqa: E731
    nodes = [
        helper.make_node("Abs", [name("input")], ["magnitude"]),
        helper.make_node("ReduceMean", ["magnitude"], ["level"], keepdims=0),
        helper.make_node("Mul", ["state", "half"], ["kept"]),
        helper.make_node("Add", ["kept", "level"], ["next"]),
        helper.make_node("ReduceMean", ["next"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "gain"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "offset"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
        helper.make_node("Reshape", ["probability", "one_by_one"], ["output"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name("input"), TensorProto.FLOAT, [1, size]),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, [2, None, 128]),
    ]
    if with_rate:
        inputs.append(helper.make_tensor_value_info("sr", TensorProto.INT64, []))
        nodes.append(helper.make_node("Cast", ["sr"], ["rate"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", ["rate", "zero"], ["nothing"]))
        nodes.append(helper.make_node("Add", ["next", "nothing"], ["stateN"]))
    else:
        nodes.append(helper.make_node("Identity", ["next"], ["stateN"]))
    values = {"half": 0.5, "gain": GAIN, "offset": OFFSET, "zero": 0.0}
    constants = [onnx.numpy_helper.from_array(np.float32(v), n) for n, v in values.items()]
    constants.append(onnx.numpy_helper.from_array(np.array([1, 1], np.int64), "one_by_one"))
    outputs = [
        helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, 1]),
        helper.make_tensor_value_info("stateN", TensorProto.FLOAT, [None, None, None]),
    ]
    graph = helper.make_graph(nodes, "vad", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def by_definition(samples: FloatArray, window: int, context: int, threshold: float = 0.5) -> list[bool]:
    padded = np.concatenate([np.zeros(context, np.float32), samples])
    state, speech, decisions = 0.0, False, []
    for start in range(0, len(samples) - window + 1, window):
        state = state / 2 + np.abs(padded[start : start + context + window]).mean()
        probability = 1 / (1 + np.exp(OFFSET - GAIN * state))
        speech = probability >= threshold - (0.15 if speech else 0.0)
        decisions.append(bool(speech))
    return decisions


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph(tmp_path_factory.mktemp("vad") / "vad.onnx")


def speech() -> FloatArray:
    """Noise that swells and fades, so that the threshold is crossed at many levels."""
    t = np.arange(4 * RATE) / RATE
    noise = np.random.default_rng(0).normal(0, 0.1, len(t))
    return (noise * np.sin(2 * np.pi * 0.7 * t) ** 2).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "with_rate", "context"), [(None, True, 64), (576, False, 64), (512, True, 0)]
)
def test_is_the_network_with_its_context_and_state(
    tmp_path: Path, size: int | None, with_rate: bool, context: int
) -> None:
    vad = OnnxVad(write_graph(tmp_path / "vad.onnx", size, with_rate), threshold=0.6)
    vad.accept_waveform(speech(), RATE)
    found = vad.read()
    assert found.tolist() == by_definition(speech(), 512, context, 0.6)
    assert 0.2 < found.mean() < 0.8
    assert np.abs(np.diff(found.astype(int))).sum() >= 6
    assert vad.frame_ms == 32.0


def test_at_8_khz(graph: Path) -> None:
    vad = OnnxVad(graph, sample_rate=8000)
    vad.accept_waveform(speech(), 8000)
    assert vad.read().tolist() == by_definition(speech(), 256, 32)
    assert vad.frame_ms == 32.0


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 30000), cuts=st.lists(st.integers(0, 30000), max_size=12))
def test_any_cutting_is_the_same(graph: Path, n: int, cuts: list[int]) -> None:
    vad, decisions = OnnxVad(graph), []
    for piece in np.split(speech()[:n], sorted(cuts)):
        vad.accept_waveform(piece, RATE)
        decisions += vad.read().tolist()
    assert decisions == by_definition(speech()[:n], 512, 64)


def test_reset_forgets(graph: Path) -> None:
    vad, runs = OnnxVad(graph), []
    for _ in range(2):
        vad.accept_waveform(speech()[:-100], RATE)
        runs.append(vad.read().tolist())
        vad.reset()
    assert runs[0] == runs[1]


def test_ends_utterances_of_a_stream(graph: Path) -> None:
    waveform, ends = beeps([(0.3, 0.5), (2.0, 2.2)], 4.0), []
    for pieces in (1, 333):
        stream = loud_recognizer().create_stream(endpoint=EndpointConfig(400), vad=OnnxVad(graph))
        for piece in np.array_split(waveform, pieces):
            stream.accept_waveform(piece, RATE)
        ends.append(stream.read_segments())
    assert len(ends[0]) == 2
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sample_rate": 44100}, "allowed: 8000 or 16000"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"threshold": "high"}, "threshold is 'high'"),
    ],
)
def test_odd_options(graph: Path, options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        OnnxVad(graph, **options)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match="silero-vad ONNX file"):
        OnnxVad(tmp_path / "text.onnx")
    with pytest.raises(InputError, match="has inputs sr, state, x and outputs"):
        OnnxVad(write_graph(tmp_path / "renamed.onnx", input="x"))
    with pytest.raises(InputError, match="takes 256 samples; allowed: 512 or more"):
        OnnxVad(write_graph(tmp_path / "short.onnx", 256))


def test_odd_samples_consume_nothing(graph: Path) -> None:
    vad = OnnxVad(graph)
    for samples, rate, match in [
        (np.array([np.nan], np.float32), RATE, "NaN"),
        (np.zeros((2, 2), np.float32), RATE, r"shape \(2, 2\)"),
        (np.zeros(600, np.float32), 8000, "sample_rate is 8000; allowed: 16000"),
    ]:
        with pytest.raises(InputError, match=match):
            vad.accept_waveform(samples, rate)
    vad.accept_waveform(np.zeros(511, np.float32), RATE)
    assert vad.read().shape == (0,)
