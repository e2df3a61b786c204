"""Our quantisers: ranges measured on a stream, integers in the graph, for every architecture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.training import models
from edge_speech.training.scales import input_scales, quantise_weight, weight_scales
from edge_speech_tools import histogram, qdq
from edge_speech_tools.calibration import (
    METHODS,
    CalibrationConfig,
    CalibrationSet,
    calibrate,
    observe,
    running_order,
    spans,
    static_ranges,
    static_scales,
)
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.histogram import BINS, Histogram
from edge_speech_tools.onnx_graph import layer_of
from edge_speech_tools.passes import Source, load_passes
from edge_speech_tools.quantize import int4_weights, int8_static, int8_weights
from edge_speech_tools.recordings import from_manifest
from edge_speech_tools.streaming import windows
from test_convert import onnx_step, stream, torch_step

PASSES = load_passes()
QUANTISERS = ("int8_static", "int8_dynamic", "int8_weights", "int4_weights")
CELLS = [("crnn", {"cell": "lstm"})]
ARCHITECTURES = [*((name, {}) for name in models.available()), *CELLS]
WITH_RIGHT_CONTEXT = {
    "dnn": {"right_context_frames": 4},
    "crnn": {"right_context_frames": 4},
    "emformer": {"right_context_frames": 8},
}


def features(frames: int = 437, seed: int = 3) -> FloatArray:
    noise = np.random.default_rng(seed).normal(size=(frames, 40))
    return (np.cumsum(noise, axis=0) * 0.2 - 8).clip(-15.9, 10).astype(np.float32)


def tiny(name: str, settings: dict[str, object]) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"size": "small", "num_layers": 2, "num_features": 40, "vocab_size": 12}
    model = models.build(name, {**sizes, **settings}).eval()
    model.normalise([-8.0] * 40, [3.0] * 40)
    return model


@pytest.mark.parametrize("name", models.available())
def test_spans_measure_what_single_chunks_do(name: str) -> None:
    model = tiny(name, WITH_RIGHT_CONTEXT.get(name, {}))
    one, many = (observe(model, model.spec, [features(), features(90)], n) for n in (1, 8))
    assert one.keys() == many.keys()
    for layer in one:
        np.testing.assert_allclose(many[layer].least, one[layer].least, atol=1e-4)
        np.testing.assert_allclose(many[layer].greatest, one[layer].greatest, atol=1e-4)


def test_spans_cover_the_stream() -> None:
    spec = tiny("dnn", {"right_context_frames": 4}).spec
    each = [window[0] for window in windows(features(), spec)]
    joined = list(spans(features(), spec, 5))
    assert len(joined) == -(-len(each) // 5)
    assert joined[0].shape[1] == 5 * spec.chunk_frames + spec.right_context_frames
    np.testing.assert_array_equal(joined[1][0, : spec.window_frames], each[5])
    np.testing.assert_array_equal(joined[-1][0, -spec.window_frames :], each[-1])


def test_a_histogram_widens_and_forgets_nothing() -> None:
    rng, seen = np.random.default_rng(0), Histogram()
    parts = [rng.normal(0, scale, 5000).astype(np.float32) for scale in (0.01, 1, 0.1, 30)]
    for part in parts:
        seen.add(part)
    values = np.concatenate(parts)
    assert seen.counts.size == BINS
    assert seen.counts.sum() == len(values)
    assert (seen.least, seen.greatest) == (values.min(), values.max())
    low, high = histogram.percentile(seen, 99)
    np.testing.assert_allclose([low, high], np.percentile(values, [0.5, 99.5]), rtol=0.02)


def test_every_method_clips_a_lone_outlier_but_min_max() -> None:
    seen = Histogram()
    values = np.random.default_rng(0).normal(0, 1, 200_000).astype(np.float32)
    seen.add(np.append(values, np.float32(60)))
    assert histogram.min_max(seen)[1] == 60
    for low, high in (histogram.percentile(seen, 99.99), histogram.mse(seen), histogram.entropy(seen)):
        assert 2 < high < 50
        assert -8 < low < -2


def test_the_range_of_least_squared_error_is_that() -> None:
    values = np.random.default_rng(1).laplace(0, 1, 100_000).astype(np.float32)
    seen = Histogram()
    seen.add(values)

    def error(low: float, high: float) -> float:
        scale, zero = input_scales(low, high)
        integers = np.clip(np.rint(values / scale) + zero, 0, 255)
        return float(np.mean(((integers - zero) * scale - values) ** 2))

    found = error(*histogram.mse(seen))
    assert found < error(*histogram.min_max(seen))
    assert all(found < 1.05 * error(-end, end) for end in np.linspace(2, 12, 30))


@pytest.mark.parametrize("method", METHODS)
def test_scales_of_a_layer(method: str) -> None:
    model = tiny("tcn", {})
    scales = calibrate(model, model.spec, [features()], CalibrationConfig(method))
    layers = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv1d)}
    assert set(scales) == layers
    layer, weight = scales["layers.0.expand"], model.layers[0].expand.weight.detach().numpy()
    assert len(layer.weight) == len(weight)
    largest = np.abs(quantise_weight(weight, np.array(layer.weight), layer.weight_bits)).max(axis=1)
    assert set(largest) == {63}
    assert 0 <= layer.input_zero_point <= 255


def test_bad_calibration_is_one_line() -> None:
    with pytest.raises(InputError, match="min-max, percentile, entropy, mse"):
        CalibrationConfig("magic")
    model = tiny("dnn", {})
    with pytest.raises(InputError, match="--calibration"):
        calibrate(model, model.spec, [])
    with pytest.raises(InputError, match="not finite"):
        calibrate(model, model.spec, [np.full((40, 40), np.nan, np.float32)])


def test_a_calibration_set_computes_features_when_read(digits: Path) -> None:
    from edge_speech.features import FbankConfig

    manifest = from_manifest(digits / "calibration.jsonl", need_text=False)
    found = CalibrationSet(manifest.recordings, FbankConfig(sample_rate=8000, num_mel_bins=40))
    assert len(found) == 4
    assert [len(one) for one in found] == [len(one) for one in found]
    np.testing.assert_array_equal(found[1:][0], found[1])


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=lambda p: "-".join([p[0], *p[1].values()]))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    model = tiny(*request.param)
    made = Source(model, model.spec, tmp_path_factory.mktemp("q"), [features(seed=7)])
    streaming_onnx.run(made)
    return made


@pytest.mark.parametrize("name", QUANTISERS)
def test_every_architecture_is_quantised(name: str, source: Source) -> None:
    result = PASSES[name].run(source)
    got = stream(onnx_step(result.path), features(), source.spec)
    want = stream(torch_step(source.model), features(), source.spec)
    assert np.abs(got - want).mean() < (0.15 if name.startswith("int4") else 0.05)
    fp32 = source.directory / streaming_onnx.FILE_NAME
    assert result.path.stat().st_size < fp32.stat().st_size / 2.2


def graph_of(path: Path) -> onnx.GraphProto:
    return onnx.load(path).graph


def test_layers_carry_the_names_of_their_modules(source: Source) -> None:
    graph = graph_of(source.directory / streaming_onnx.LAYERS_NAME)
    named = {layer_of(node) for node in graph.node}
    assert set(streaming_onnx.layers(source.model)) <= named


def test_weights_that_are_left_are_small(source: Source) -> None:
    graph = graph_of(int8_weights.run(source).path)
    left = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and np.prod(t.dims) > 4096]
    assert left == []


def test_products_are_computed_in_integers(tmp_path: Path) -> None:
    model = tiny("conformer", {})
    source = Source(model, model.spec, tmp_path, [features()])
    streaming_onnx.run(source)
    kept = ("layers.0.feed_forward1.expand",)
    config = int8_static.Config(keep=kept)
    nodes = graph_of(int8_static.run(source, config).path).node
    by_name = {name: n for n in nodes if n.op_type.startswith("MatMul") for name in n.name.split("+")}
    linear = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    others = {"output", *kept}
    assert {by_name[name].op_type for name in linear if name not in others} == {"MatMulIntegerToFloat"}
    assert {by_name[name].op_type for name in others} == {"MatMul"}


def test_recurrent_layers_are_computed_in_integers(tmp_path: Path) -> None:
    model = tiny("crnn", {"cell": "lstm"})
    source = Source(model, model.spec, tmp_path, [features()])
    streaming_onnx.run(source)
    ops = [node.op_type for node in graph_of(int8_static.run(source).path).node]
    assert ops.count("DynamicQuantizeLSTM") == model.config.num_layers
    assert "LSTM" not in ops


def test_given_scales_take_the_place_of_calibration(tmp_path: Path) -> None:
    model = tiny("tcn", {})
    source = Source(model, model.spec, tmp_path)
    streaming_onnx.run(source)
    scales = calibrate(model, model.spec, [features()])
    given = {name: replace(s, input_scale=2 * s.input_scale) for name, s in list(scales.items())[1:-1]}
    assert set(scales) - set(given) == {running_order(model, model.spec)[i] for i in (0, -1)}
    by_name = {n.name: n for n in graph_of(int8_static.run(replace(source, scales=given)).path).node}
    assert by_name["layers.0.expand"].op_type == "MatMulIntegerToFloat"
    constants = {t.name: t for t in graph_of(tmp_path / int8_static.FILE_NAME).initializer}
    used = onnx.numpy_helper.to_array(constants["layers.0.expand/input_scale"])
    assert float(used) == np.float32(given["layers.0.expand"].input_scale)


def test_scales_that_lack_layers_need_recordings(tmp_path: Path) -> None:
    model = tiny("tcn", {})
    measured = calibrate(model, model.spec, [features()])
    given = {"layers.0.expand": replace(measured["layers.0.expand"], input_zero_point=3)}
    source = Source(model, model.spec, tmp_path, scales=given)
    with pytest.raises(InputError, match=r"none for \d+ layers, such as .*--calibration"):
        static_scales(source, CalibrationConfig())
    both = static_scales(replace(source, calibration=[features()]), CalibrationConfig())
    assert both == {**measured, **given}


def test_ranges_of_outputs_are_those_of_what_layers_give(tmp_path: Path) -> None:
    model = tiny("dnn", {})
    config = CalibrationConfig("min-max")
    _, outputs = static_ranges(Source(model, model.spec, tmp_path, [features()]), config)
    given: list[torch.Tensor] = []
    handle = model.output.register_forward_hook(lambda _, __, y: given.append(y))
    stream(torch_step(model), features(), model.spec)
    handle.remove()
    assert outputs["output"] == pytest.approx(
        input_scales(*map(float, torch.stack(given).aminmax())), rel=1e-4, abs=1
    )


def test_the_plain_form_is_explicit_q_dq(tmp_path: Path) -> None:
    """Engines other than onnxruntime read QuantizeLinear and DequantizeLinear around a MatMul."""
    model = tiny("tcn", {})
    source = Source(model, model.spec, tmp_path)
    fp32 = streaming_onnx.run(source).path
    editor = qdq.Editor(onnx.load(fp32))
    done = qdq.quantise(editor, calibrate(model, model.spec, [features()]))
    path = tmp_path / "qdq.onnx"
    onnx.save(editor.finish(), path)
    assert "output" in done
    assert {opset.domain for opset in onnx.load(path).opset_import} == {""}
    plain = stream(onnx_step(path), features(), model.spec)
    assert np.abs(plain - stream(torch_step(model), features(), model.spec)).mean() < 0.05


def test_scales_of_a_layer_of_zeros_stay(tmp_path: Path) -> None:
    model = tiny("tcn", {})
    torch.nn.init.zeros_(model.layers[0].expand.weight)
    fp32 = streaming_onnx.run(Source(model, model.spec, tmp_path)).path
    scales = calibrate(model, model.spec, [features()])
    found = qdq.in_graph(qdq.Editor(onnx.load(fp32)), scales, model)
    assert found["layers.0.expand"].weight == scales["layers.0.expand"].weight
    assert min(found["layers.0.expand"].weight) > 0


def test_scales_follow_a_factor_that_went_into_the_weights(tmp_path: Path) -> None:
    """A Conformer adds half of what its feed-forward layers give: so do the graph's weights."""
    model = tiny("conformer", {})
    fp32 = streaming_onnx.run(Source(model, model.spec, tmp_path)).path
    scales = calibrate(model, model.spec, [features()])
    found = qdq.in_graph(qdq.Editor(onnx.load(fp32)), scales, model)
    contract, expand = "layers.0.feed_forward1.contract", "layers.0.feed_forward1.expand"
    assert found[contract].weight == pytest.approx(np.array(scales[contract].weight) / 2, rel=1e-5)
    assert found[expand].weight == pytest.approx(scales[expand].weight, rel=1e-5)
    assert found[contract].input_scale == scales[contract].input_scale


def test_groups_of_four_bits() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 70)).astype(np.float32)
    weight[2] = 0
    integers, scales = int4_weights.grouped(weight, 32)
    assert integers.shape == (5, 3, 32)
    assert (integers.min(), integers.max()) == (-8, 7)
    back = (integers * scales[..., None]).reshape(5, -1)[:, :70]
    plain = quantise_weight(weight, weight_scales(weight, 4), 4) * weight_scales(weight, 4)[:, None]
    assert np.square(back - weight).sum() < 0.7 * np.square(plain - weight).sum()
    with pytest.raises(InputError, match="32, 64, 128"):
        int4_weights.Config(block_size=20)
