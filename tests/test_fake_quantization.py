"""Training with rounded layers: what they compute, what they learn, and that a run keeps it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from edge_speech.errors import InputError
from edge_speech.training.checkpoint import load_model, save_model
from edge_speech.training.fake_quantization import (
    FakeQuantized,
    Quantization,
    fake_quantize,
    fake_quantized,
    freeze_statistics,
    min_max_scales,
    scales_of,
    take_out,
)
from edge_speech.training.recipe import Recipe, read_recipe
from edge_speech.training.scales import LayerScales
from edge_speech.training.train import Trainer, train
from tiny_recipe import DIGITS, tiny_recipe


def features_like_speech(batch: int = 2, frames: int = 96, bins: int = 23) -> torch.Tensor:
    noise = torch.randn(batch, frames, bins, generator=torch.Generator().manual_seed(3))
    return 2 * noise - 5


def run_graph(nodes: list[Any], constants: dict[str, Any], x: np.ndarray, optimised: bool) -> np.ndarray:
    """One input, one output, as onnxruntime computes it."""
    value = helper.make_tensor_value_info
    initializers = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    graph = helper.make_graph(
        nodes, "layer", [value("x", 1, x.shape)], [value("y", 1, ["batch", "rows", "columns"])], initializers
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


def pairs(scales: LayerScales, weight: torch.Tensor, transposed: bool) -> tuple[list[Any], dict[str, Any]]:
    """Q/DQ nodes of input and weight, written from what LayerScales says and not from our own code."""
    high = 2 ** (scales.weight_bits - 1) - 1
    per_channel = np.array(scales.weight, np.float32)
    whole = np.rint(weight.numpy() / per_channel.reshape(-1, *[1] * (weight.ndim - 1)))
    integers = np.clip(whole, -high, high).astype(np.int8)
    constants = {
        "x_scale": np.float32(scales.input_scale),
        "x_zero": np.uint8(scales.input_zero_point),
        "w_scale": per_channel,
        "w_zero": np.zeros(len(per_channel), np.int8),
        "w_integers": integers.T if transposed else integers,
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["xd"]),
        helper.make_node(
            "DequantizeLinear", ["w_integers", "w_scale", "w_zero"], ["wd"], axis=int(transposed)
        ),
    ]
    return nodes, constants


def ties_and_clips(shape: tuple[int, ...], scale: float) -> torch.Tensor:
    """Half steps, which go to even, and values far outside."""
    steps = torch.randint(-300, 301, shape, generator=torch.Generator().manual_seed(5))
    return steps * (scale / 2)


@pytest.mark.parametrize("bits", [8, 7, 4])
@pytest.mark.parametrize("optimised", [False, True])
def test_linear_is_the_graph_that_onnxruntime_runs(bits: int, optimised: bool) -> None:
    torch.manual_seed(1)
    layer = nn.Linear(24, 10)
    with torch.no_grad():
        layer.weight.copy_(ties_and_clips((10, 24), 2**-6))
    scales = LayerScales(tuple(2.0**-6 if c % 2 else 0.013 for c in range(10)), 2.0**-4, 91, bits)
    x = ties_and_clips((1, 7, 24), 2.0**-4)
    nodes, constants = pairs(scales, layer.weight.detach(), transposed=True)
    nodes += [helper.make_node("MatMul", ["xd", "wd"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    want = run_graph(nodes, {**constants, "b": layer.bias.detach().numpy()}, x.numpy(), optimised)
    got = FakeQuantized(layer, scales)(x).detach().numpy()
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_convolution_is_the_graph_that_onnxruntime_runs() -> None:
    torch.manual_seed(2)
    layer = nn.Conv1d(6, 12, 5, stride=2, groups=3)
    scales = LayerScales(tuple(np.linspace(0.001, 0.004, 12).tolist()), 2.0**-5, 128)
    x = ties_and_clips((1, 6, 40), 2.0**-5)
    nodes, constants = pairs(scales, layer.weight.detach(), transposed=False)
    nodes += [helper.make_node("Conv", ["xd", "wd", "b"], ["y"], strides=[2], group=3)]
    want = run_graph(nodes, {**constants, "b": layer.bias.detach().numpy()}, x.numpy(), optimised=False)
    got = FakeQuantized(layer, scales)(x).detach().numpy()
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_gradients_are_those_of_lsq() -> None:
    layer = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.26, -0.9, 0.1]]))
    fake = FakeQuantized(layer, LayerScales((0.1,), 0.5, 10, 4))
    x = torch.tensor([[1.2, -9.0, 200.0]], requires_grad=True)
    fake(x).sum().backward()
    rounded_x = torch.tensor([1.0, -5.0, 122.5])  # 245 levels above zero, 10 below
    assert torch.allclose(layer.weight.grad, torch.tensor([[1.0, 0.0, 122.5]]))  # -0.9 lies beyond -0.7
    assert torch.allclose(x.grad, torch.tensor([[0.3, 0.0, 0.0]]))
    of_scale = 1.0 * (3 - 2.6) + rounded_x[1] * -7 + 0.0
    want = 0.1 * of_scale / math.sqrt(3 * 7)
    assert fake.weight_scale.log_factor.grad.item() == pytest.approx(want.item(), rel=1e-4)
    assert fake.input_scale.log_factor.grad.abs() > 0


def test_rounding_in_bf16_is_that_of_float32(digits: Path) -> None:
    layer = nn.Linear(16, 16)
    fake = FakeQuantized(layer, LayerScales((0.003,) * 16, 0.02, 128))
    seen = []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(2, 5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert fake(x).dtype == torch.bfloat16
    fake(x)
    assert seen[0].dtype == torch.float32
    assert torch.equal(seen[0], seen[1])


def test_a_model_rounds_and_is_itself_again(digits: Path) -> None:
    loaded = load_model(digits / "model.pt")
    model, features = loaded.model, features_like_speech(bins=loaded.model.config.num_features)
    scales = min_max_scales(model, [features])
    assert "output" not in scales
    assert "subsampling.conv1" not in scales
    names, before = list(model.state_dict()), model.parallel(features)
    with fake_quantized(model, scales):
        assert scales_of(model) == {n: rounded32(s) for n, s in scales.items()}
        rounded = model.parallel(features)
        chunk = model(features[:1, : model.spec.window_frames], *model.initial_state(1))[0]
        assert torch.allclose(chunk, rounded[:1, : chunk.shape[1]], atol=1e-2)
    assert 1e-4 < (rounded - before).abs().mean() < 0.1
    assert torch.equal(model.parallel(features), before)
    assert list(model.state_dict()) == names


def rounded32(scales: LayerScales) -> LayerScales:
    weight = tuple(np.float32(scales.weight).tolist())
    return replace(scales, weight=weight, input_scale=float(np.float32(scales.input_scale)))


def test_folding_a_batch_norm_scales_the_scales() -> None:
    """What an exporter that folds makes of the weight, with scales s |f|, is the folded fake weight."""
    torch.manual_seed(3)
    convolution, norm = nn.Conv1d(4, 4, 3, groups=4), nn.BatchNorm1d(4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, -0.4, 0.02, 30.0]))
        norm.running_var.uniform_(0.1, 3)
    factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    scales = LayerScales((0.004, 0.003, 0.005, 0.002), 0.1, 0)
    unfolded = FakeQuantized(convolution, scales).rounded_weight().detach()
    folded = nn.Conv1d(4, 4, 3, groups=4)
    folded.weight = nn.Parameter(convolution.weight * factor.reshape(-1, 1, 1))
    weight = tuple((torch.tensor(scales.weight) * factor.abs()).tolist())
    found = FakeQuantized(folded, replace(scales, weight=weight)).rounded_weight().detach()
    assert torch.allclose(found, unfolded * factor.reshape(-1, 1, 1), rtol=1e-5)


def test_statistics_stand_still() -> None:
    model = nn.Sequential(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2)).train()
    freeze_statistics(model)
    before = model[1].running_mean.clone()
    model(torch.randn(3, 2, 9) + 5).sum().backward()
    assert torch.equal(model[1].running_mean, before)
    assert model[1].weight.grad is not None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weight": [0.1]}, "1 weight scales for 64"),
        ({"weight": [0.1] * 63 + [float("nan")]}, "finite float32"),
        ({"weight": [0.1] * 63 + [1]}, "finite float32"),
        ({"weight": "a"}, "weight as a list"),
        ({"input_scale": 0.0}, "finite float32"),
        ({"input_scale": -1.0}, "finite float32"),
        ({"input_scale": 1e-60}, "finite float32"),
        ({"input_scale": 10**400}, "finite float32"),
        ({"input_zero_point": 256}, "zero point 256"),
        ({"input_zero_point": True}, "zero point True"),
        ({"weight_bits": 9}, "9 bits"),
        ({"extra": 1}, "need input_scale"),
    ],
)
def test_hostile_scales_are_refused(
    digits: Path, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    name = "layers.0.feed_forward1.contract"
    good = {"weight": [0.1] * 64, "input_scale": 0.1, "input_zero_point": 3, "weight_bits": 8}
    data = torch.load(digits / "model.pt", weights_only=True)
    torch.save({**data, "quantization": {name: good}}, tmp_path / "good.pt")
    assert load_model(tmp_path / "good.pt").quantization[name].input_zero_point == 3
    torch.save({**data, "quantization": {name: {**good, **change}}}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=reason):
        load_model(tmp_path / "bad.pt")


@pytest.mark.parametrize("quantization", [[1], {"layers.0.norm": 3}, {"nothing": {}}, "a"])
def test_quantization_that_is_no_table_is_refused(digits: Path, tmp_path: Path, quantization: object) -> None:
    data = torch.load(digits / "model.pt", weights_only=True)
    torch.save({**data, "quantization": quantization}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="is inconsistent"):
        load_model(tmp_path / "bad.pt")


@pytest.fixture
def trained(digits: Path, tmp_path: Path) -> Path:
    return train(tiny_recipe(digits, steps=2), tmp_path / "trained", quiet=True)


def quantized(digits: Path, weights: Path, steps: int = 6, **how: Any) -> Recipe:
    recipe = tiny_recipe(digits, steps=steps, dropout=0.1)
    return replace(
        recipe,
        model={**recipe.model, "weights": str(weights)},
        quantization=Quantization(calibration_batches=2, **how),
    )


def test_a_run_learns_weights_and_scales(digits: Path, trained: Path, tmp_path: Path) -> None:
    given = load_model(trained)
    scales = min_max_scales(given.model, [features_like_speech()], weight_bits=7)
    start = tmp_path / "scaled.pt"
    save_model(start, replace(given, quantization=scales))
    recipe = quantized(digits, start, freeze_statistics_from=0.0)
    found = load_model(train(recipe, tmp_path / "run", quiet=True))
    assert list(found.model.state_dict()) == list(given.model.state_dict())
    assert list(found.quantization) == list(scales)
    moved = [s for n, s in found.quantization.items() if s.input_scale != rounded32(scales[n]).input_scale]
    assert len(moved) > len(scales) / 2
    for name, learnt in found.quantization.items():
        assert (learnt.input_zero_point, learnt.weight_bits) == (scales[name].input_zero_point, 7)
        assert learnt.input_scale == pytest.approx(scales[name].input_scale, rel=0.05)
    frozen = [n for n in given.model.state_dict() if "running_" in n or n.startswith("feature_")]
    assert all(torch.equal(found.model.state_dict()[n], given.model.state_dict()[n]) for n in frozen)


def test_batch_norm_gathers_until_it_stands_still(digits: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    trainer = Trainer(quantized(digits, trained, steps=4, freeze_statistics_from=0.5), tmp_path / "run")
    seen = [trainer.model.state_dict()["layers.0.convolution.batch_norm.running_mean"].clone()]
    for step in range(4):
        trainer._update(trainer.training_set.parts(step))
        seen.append(trainer.model.state_dict()["layers.0.convolution.batch_norm.running_mean"].clone())
    assert [torch.equal(a, b) for a, b in pairwise(seen)] == [False, False, True, True]


def test_a_run_measures_the_scales_it_is_not_given(digits: Path, trained: Path, tmp_path: Path) -> None:
    recipe = quantized(digits, trained, steps=1, learn_scales=False, weight_bits=4)
    (tmp_path / "run").mkdir()
    trainer = Trainer(recipe, tmp_path / "run")
    started = scales_of(trainer.model)
    assert len(started) == 12
    assert {s.weight_bits for s in started.values()} == {4}
    found = load_model(train(recipe, tmp_path / "again", quiet=True))
    assert found.quantization == started
    weights = load_model(trained).model.state_dict()
    assert not torch.equal(found.model.state_dict()["output.weight"], weights["output.weight"])


def test_a_run_that_was_cut_goes_on_exactly(digits: Path, trained: Path, tmp_path: Path) -> None:
    recipe = quantized(digits, trained)
    whole = load_model(train(recipe, tmp_path / "whole", quiet=True))
    (tmp_path / "cut").mkdir()
    trainer = Trainer(recipe, tmp_path / "cut")
    for step in range(3):
        trainer._update(trainer.training_set.parts(step))
    trainer.save()
    trained.unlink()
    cut = load_model(train(recipe, tmp_path / "cut", quiet=True))
    other = cut.model.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in whole.model.state_dict().items())
    assert whole.quantization == cut.quantization


def test_other_tokens_leave_the_scales_of_the_output(digits: Path, trained: Path, tmp_path: Path) -> None:
    given = load_model(trained)
    output = LayerScales((0.01,) * len(given.tokens), 0.1, 3)
    scales = {**min_max_scales(given.model, [features_like_speech()]), "output": output}
    save_model(tmp_path / "scaled.pt", replace(given, quantization=scales))
    recipe = quantized(digits, tmp_path / "scaled.pt")
    other = replace(recipe, data=replace(recipe.data, vocabulary=DIGITS[::-1]))
    for run, has in ((recipe, True), (other, False)):
        (tmp_path / str(has)).mkdir()
        assert ("output" in scales_of(Trainer(run, tmp_path / str(has)).model)) is has


def test_recipes_that_cannot_be(digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[[data.train]]\nmanifest = "clips.jsonl"\n')
    with pytest.raises(InputError, match=r"model\.weights=model\.pt"):
        read_recipe(path, ["quantization.enabled=true"])
    with pytest.raises(InputError, match="calibration_batches is 0"):
        read_recipe(path, ["quantization.calibration_batches=0", "model.weights=model.pt"])
    with pytest.raises(InputError, match="from 0 to 1"):
        read_recipe(path, ["quantization.freeze_statistics_from=1.5", "model.weights=model.pt"])
    with pytest.raises(InputError, match="one of 4, 5, 6, 7, 8, got 16"):
        read_recipe(path, ["quantization.weight_bits=16", "model.weights=model.pt"])
    assert not read_recipe(path, ["quantization.enabled=false"]).quantized
    model = load_model(digits / "model.pt").model
    with pytest.raises(InputError, match="nothing"):
        fake_quantize(model, {"nothing": LayerScales((0.1,), 0.1, 0)})
    assert take_out(model) == {}
