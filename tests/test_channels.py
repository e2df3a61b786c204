"""What architectures declare of their channels: that it is right, and that it is all."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from edge_speech.training import models
from edge_speech.training.channels import Group
from edge_speech.training.models import StreamingModel

SMALL: dict[str, dict[str, Any]] = {
    "conformer": {"d_model": 24, "num_layers": 2, "num_heads": 3, "feed_forward_dim": 40, "conv_kernel": 5},
    "transformer": {"d_model": 24, "num_layers": 2, "num_heads": 3, "feed_forward_dim": 40},
    "emformer": {
        "d_model": 24,
        "num_layers": 2,
        "num_heads": 3,
        "feed_forward_dim": 40,
        "right_context_frames": 4,
        "memory_size": 2,
    },
    "tcn": {"d_model": 16, "num_layers": 3, "dilation_cycle": 2},
    "crnn": {"channels": 6, "hidden_dim": 20, "num_layers": 3},
    "dnn": {"hidden_dim": 24, "num_layers": 3},
}
VARIANTS = [*SMALL, "crnn lstm"]


def settings(variant: str) -> dict[str, Any]:
    name, _, cell = variant.partition(" ")
    return {"num_features": 12, "vocab_size": 7, **SMALL[name], **({"cell": cell} if cell else {})}


def build(variant: str, **changes: Any) -> StreamingModel:
    """Random in everything, so that no two channels are alike."""
    torch.manual_seed(1)
    config = {**settings(variant), **changes}
    model = models.build(variant.split(maxsplit=1)[0], config).eval()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.rand_like(tensor) - 0.4 if tensor.ndim > 1 else torch.rand_like(tensor) + 0.5
                )
    assert isinstance(model, StreamingModel)
    return model


def fields(variant: str) -> list[str]:
    return list(build(variant).channels())


CASES = [(variant, field) for variant in VARIANTS for field in fields(variant)]


def explicit(model: StreamingModel) -> dict[str, Any]:
    return {**models.config_of(model), **model.config.derived()}


def streamed(model: StreamingModel, features: Tensor) -> Tensor:
    """log_probs of a stream of chunks, features (B, T, F)."""
    spec, state, rows = model.spec, model.initial_state(1), []
    for start in range(0, features.shape[1] - spec.window_frames + 1, spec.chunk_frames):
        log_probs, *following = model(features[:, start : start + spec.window_frames], *state)
        state = tuple(following)
        rows.append(log_probs)
    return torch.cat(rows, dim=1)


def shuffle(model: StreamingModel, group: Group, count: int) -> None:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(2)).roll(1)
    state = model.state_dict()
    for axis in group.axes:
        tensor, places = state[axis.parameter], axis.places(count)
        index = torch.arange(tensor.shape[axis.axis])
        index[places.flatten()] = places[order].flatten()
        tensor.copy_(tensor.index_select(axis.axis, index))


def test_every_architecture_is_here() -> None:
    assert set(SMALL) == set(models.available())


@torch.no_grad()
@pytest.mark.parametrize(("variant", "field"), CASES)
def test_channels_can_change_places(variant: str, field: str) -> None:
    """Every group of the field by itself, in parallel and streaming."""
    features = torch.randn(1, 52, 12, generator=torch.Generator().manual_seed(3))
    for number, group in enumerate(build(variant).channels()[field]):
        model, plain = build(variant), build(variant)
        shuffle(model, group, explicit(model)[field])
        changed = [n for n, t in model.state_dict().items() if not torch.equal(t, plain.state_dict()[n])]
        assert set(changed) == {axis.parameter for axis in group.axes}, f"group {number}"
        torch.testing.assert_close(model.parallel(features), plain.parallel(features), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(streamed(model, features), streamed(plain, features), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("variant", "field"), CASES)
def test_all_axes_that_follow_a_setting_are_declared(variant: str, field: str) -> None:
    """Against the shapes of a model built with one channel less."""
    model = build(variant)
    count = explicit(model)[field]
    other = build(variant, **{**explicit(model), field: count - 1}).state_dict()
    lost = Counter(
        {
            (name, axis): was - other[name].shape[axis]
            for name, tensor in model.state_dict().items()
            for axis, was in enumerate(tensor.shape)
            if was != other[name].shape[axis]
        }
    )
    said: Counter[tuple[str, int]] = Counter()
    for group in model.channels()[field]:
        for axis in group.axes:
            assert axis.places(count).unique().numel() == count * axis.blocks * axis.run
            said[axis.parameter, axis.axis] += axis.blocks * axis.run
    assert said == lost


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_group_is_not_right_by_chance(variant: str) -> None:
    """Without any one of its axes a group's channels cannot change places: the test above can fail."""
    features = torch.randn(1, 24, 12, generator=torch.Generator().manual_seed(3))
    want = build(variant).parallel(features)
    for field, groups in build(variant).channels().items():
        group = groups[-1]
        model = build(variant)
        shuffle(model, Group(group.axes[:-1]), explicit(model)[field])
        assert not torch.allclose(model.parallel(features), want, atol=1e-3), field
