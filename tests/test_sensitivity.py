"""Which layer breaks when it is quantised, and that the search puts back that one and no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import torch

from edge_speech.encoder import FloatArray
from edge_speech.errors import CheckFailed, InputError
from edge_speech.manifest import read_manifest
from edge_speech.training.checkpoint import LoadedModel, load_model
from edge_speech.training.fake_quantization import fake_quantized, min_max_scales
from edge_speech.training.frontends import features_of, frontend_for
from edge_speech.training.objectives.ctc import best_path
from edge_speech.training.scales import LayerScales
from edge_speech.training.tokens import spell
from edge_speech_tools.sensitivity import (
    Fallback,
    LayerCost,
    by_value,
    divergence,
    keep_within,
    layer_costs,
    layer_operations,
    log_probs_of,
)


@pytest.fixture
def loaded(digits: Path) -> LoadedModel:
    return load_model(digits / "model.pt")


@pytest.fixture(scope="module")
def clips(request: pytest.FixtureRequest) -> tuple[list[FloatArray], list[str]]:
    """Features and texts of the shipped clips."""
    folder: Path = request.getfixturevalue("digits")
    front = frontend_for("conformer", load_model(folder / "model.pt").frontend)
    utterances = [*read_manifest(folder / "clips.jsonl"), *read_manifest(folder / "calibration.jsonl")]
    features = [features_of(utterance.read()[0], front) for utterance in utterances]
    return features, [utterance.text for utterance in utterances]


def scales_on(model: Any, features: list[FloatArray]) -> dict[str, LayerScales]:
    return min_max_scales(model, (torch.from_numpy(each)[None] for each in features))


def wer(loaded: LoadedModel, rows: list[torch.Tensor], texts: list[str]) -> float:
    return 100 * jiwer.wer(texts, [spell(loaded.tokens, best_path(each)) for each in rows])


def test_layer_with_weights_scaled_is_found(
    loaded: LoadedModel, clips: tuple[list[FloatArray], list[str]]
) -> None:
    """The same function in floating point, but a layer's weights are ×50 for a few of its inputs."""
    features, broken = clips[0][:4], "layers.2.convolution.expand"
    model: Any = loaded.model
    want = log_probs_of(model, model.spec, features)
    norm, few = model.get_submodule("layers.2.convolution.norm"), [3, 20, 41]
    with torch.no_grad():
        norm.weight[few] /= 50
        norm.bias[few] /= 50
        model.get_submodule(broken).weight[:, few] *= 50
    assert divergence(want, log_probs_of(model, model.spec, features)).mean_abs < 1e-4
    scales = scales_on(model, features)
    costs = layer_costs(model, model.spec, scales, features)
    assert costs[0].name == broken
    assert costs[0].divergence > 5 * costs[1].divergence
    assert by_value(costs)[0] == broken

    def diverging(put_back: Sequence[str]) -> float:
        with fake_quantized(model, {n: s for n, s in scales.items() if n not in put_back}):
            return divergence(want, log_probs_of(model, model.spec, features)).mean_kl

    healthy = sum(cost.divergence for cost in costs[1:])
    assert keep_within(2 * healthy, by_value(costs), diverging).names == (broken,)


@pytest.mark.parametrize(
    ("broken", "factor"), [("subsampling.conv2", 50), ("layers.4.convolution.expand", 1 / 50)]
)
def test_layer_with_a_ruined_range_is_found_by_its_words(
    loaded: LoadedModel, clips: tuple[list[FloatArray], list[str]], broken: str, factor: float
) -> None:
    features, texts = clips
    model: Any = loaded.model
    scales = scales_on(model, features[:3])
    scales[broken] = replace(scales[broken], input_scale=factor * scales[broken].input_scale)
    costs = layer_costs(model, model.spec, scales, features[:3])
    assert costs[0].name == broken
    fp32 = wer(loaded, log_probs_of(model, model.spec, features), texts)

    def wer_added(put_back: Sequence[str]) -> float:
        with fake_quantized(model, {n: s for n, s in scales.items() if n not in put_back}):
            return wer(loaded, log_probs_of(model, model.spec, features), texts) - fp32

    found = keep_within(2.0, by_value(costs), wer_added)
    assert found.names == (broken,)
    assert found.measured[0] > 10
    assert found.wer_added <= 2.0
    assert len(found.measured) == 2


def test_costs_of_a_model_without_parallel_are_the_same(
    loaded: LoadedModel, clips: tuple[list[FloatArray], list[str]]
) -> None:
    model: Any = loaded.model

    class Streaming(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.initial_state = model, model.initial_state

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.inner(*inputs)

    features = clips[0][:1]
    scales = dict(list(scales_on(model, features).items())[:3])
    want = layer_costs(model, model.spec, scales, features)
    inner = {f"inner.{name}": of for name, of in scales.items()}
    for cost, other in zip(layer_costs(Streaming(), model.spec, inner, features), want, strict=True):
        assert cost.name == f"inner.{other.name}"
        assert cost.divergence == pytest.approx(other.divergence, rel=0.05)
        assert cost.operations == other.operations


def test_recordings_beside_each_other_are_as_alone(
    loaded: LoadedModel, clips: tuple[list[FloatArray], list[str]]
) -> None:
    model: Any = loaded.model
    features = [*clips[0], clips[0][0][:0]]
    with torch.inference_mode():
        alone = [model.parallel(torch.from_numpy(each)[None])[0] for each in clips[0]]
    for found, want in zip(log_probs_of(model, model.spec, features), alone, strict=True):
        assert torch.allclose(found, want, atol=1e-4)


def test_what_a_layer_is(loaded: LoadedModel) -> None:
    model: Any = loaded.model
    operations = layer_operations(model, model.spec)
    rows, d, wide = model.spec.output_frames, model.config.d_model, model.config.feed_forward_dim
    assert operations["layers.0.feed_forward1.expand"] == rows * d * wide
    assert operations["layers.0.convolution.depthwise"] == rows * d * model.config.conv_kernel
    assert operations["subsampling.conv2"] == rows * d * d * 5


def test_values_that_are_no_numbers_cost_most() -> None:
    good = torch.randn(4, 5).log_softmax(1)
    assert divergence([good], [good]).mean_kl == 0
    assert divergence([good], [good * float("nan")]).mean_kl == float("inf")
    other = torch.randn(4, 5).log_softmax(1)
    want = torch.nn.functional.kl_div(other, good, reduction="batchmean", log_target=True)
    assert divergence([good], [other]).mean_kl == pytest.approx(want.item(), rel=1e-5)


def cost(name: str, divergence: float, operations: int) -> LayerCost:
    return LayerCost(name, divergence, 0.0, 10, operations)


def test_layers_go_back_by_what_their_time_buys() -> None:
    costs = [cost("a", 4.0, 100), cost("b", 3.0, 10), cost("c", 0.5, 1), cost("d", 0.0, 0)]
    assert by_value(costs) == ["c", "b", "a", "d"]
    assert by_value(costs, {"a": 0.1, "b": 1.0, "c": 1.0, "d": -0.2}) == ["a", "b", "c", "d"]
    with pytest.raises(InputError, match="no time for b"):
        by_value(costs, {"a": 1.0})


@pytest.mark.parametrize("needed", range(41))
def test_the_search_finds_the_fewest_with_few_measurements(needed: int) -> None:
    order = [str(i) for i in range(40)]
    asked: list[int] = []

    def wer_added(put_back: Sequence[str]) -> float:
        asked.append(len(put_back))
        return 0.4 if len(put_back) >= needed else 0.6

    found = keep_within(0.5, order, wer_added)
    assert found == Fallback(tuple(order[:needed]), 0.4, found.measured)
    assert sorted(asked) == sorted(found.measured)  # each measured once
    assert len(asked) <= 12


def test_a_budget_that_nothing_holds_fails() -> None:
    with pytest.raises(CheckFailed, match=r"0\.90 points over fp32 with all 3"):
        keep_within(0.5, ["a", "b", "c"], lambda _: 0.9)
    with pytest.raises(CheckFailed):
        keep_within(0.5, [], lambda _: float("nan"))


def test_nothing_to_measure_on_is_refused(loaded: LoadedModel) -> None:
    model: Any = loaded.model
    with pytest.raises(InputError, match="at least one"):
        layer_costs(model, model.spec, {}, [np.zeros((0, 23), np.float32)])
