"""The law of the encoder contract, for every architecture in every size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edge_speech.errors import InputError
from edge_speech.training import models
from edge_speech.training.models import StreamingModel, conformer

SIZES = [(name, size) for name in models.available() for size in models._module(name).SIZES]
FEATURES, VOCABULARY = 40, 11


def make(architecture: str, size: str) -> StreamingModel:
    torch.manual_seed(0)
    config = {"size": size, "num_features": FEATURES, "vocab_size": VOCABULARY}
    model = models.build(architecture, config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    model.normalise([8.0] * FEATURES, [3.0] * FEATURES)
    return model


def run_chunks(model: StreamingModel, features: Tensor) -> Tensor:
    spec = model.spec
    padded = functional.pad(
        features, (0, 0, 0, -features.shape[1] % spec.chunk_frames), value=spec.padding_value
    )
    state, rows = model.initial_state(len(features)), []
    for start in range(0, padded.shape[1], spec.chunk_frames):
        log_probs, *state = model(padded[:, start : start + spec.window_frames], *state)
        rows.append(log_probs)
    return torch.cat(rows, 1)[:, : -(-features.shape[1] // spec.subsampling_factor)]


@pytest.mark.parametrize(("architecture", "size"), SIZES)
@pytest.mark.parametrize("frames", [1, 16, 203])
def test_chunked_run_equals_parallel_forward(architecture: str, size: str, frames: int) -> None:
    model = make(architecture, size)
    features = torch.randn(2, frames, FEATURES) * 3 + 8
    with torch.no_grad():
        parallel = model.parallel(features)
        chunked = run_chunks(model, features)
    assert parallel.shape == (2, -(-frames // 4), VOCABULARY)
    assert parallel.std() > 0.1
    torch.testing.assert_close(chunked, parallel, rtol=0, atol=1e-5)
    torch.testing.assert_close(parallel.exp().sum(-1), torch.ones(parallel.shape[:2]))


@pytest.mark.parametrize(("architecture", "size"), SIZES)
def test_later_chunks_change_nothing_before_and_something_after(architecture: str, size: str) -> None:
    model = make(architecture, size)
    features = torch.randn(1, 160, FEATURES) * 3 + 8
    changed = features.clone()
    changed[:, 80:] += 1.0
    with torch.no_grad():
        before, after = model.parallel(features), model.parallel(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20:], after[:, 20:])


@pytest.mark.parametrize(("architecture", "size"), SIZES)
def test_spec_describes_state_and_step(architecture: str, size: str) -> None:
    model = make(architecture, size)
    spec = model.spec
    features = torch.zeros(1, spec.window_frames, FEATURES)
    log_probs, *state = model(features, *model.initial_state(1))
    assert log_probs.shape == (1, spec.output_frames, VOCABULARY)
    assert [tuple(s.shape) for s in state] == [s.shape for s in spec.state]
    assert [str(s.dtype) for s in state] == [f"torch.{s.dtype}" for s in spec.state]
    assert all(0 not in s.shape for s in spec.state)


def test_sizes_span_half_a_million_to_four_million_parameters() -> None:
    counts = [sum(p.numel() for p in make("conformer", s).parameters()) for s in conformer.SIZES]
    assert counts == sorted(counts)
    assert 0.4e6 < counts[0] < 0.6e6
    assert 3.5e6 < counts[-1] < 4.5e6


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        ("transducer", {}, "there are conformer"),
        ("conformer", {"size": "tiny"}, "it has small"),
        ("conformer", {"width": 3}, "has no setting 'width'"),
        ("conformer", {"d_model": 66}, "multiple of num_heads"),
        ("conformer", {"num_layers": 10**9}, "allowed are 1 to"),
        ("conformer", {"chunk_frames": 10}, "multiple of 4"),
        ("conformer", {"d_model": "wide"}, "cannot build"),
    ],
)
def test_bad_settings_are_named(architecture: str, config: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.build(architecture, config)
