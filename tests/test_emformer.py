"""Our Emformer against torchaudio's own, in the same weights."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from edge_speech.errors import InputError
from edge_speech.training import models
from edge_speech.training.models.emformer import Emformer
from edge_speech.training.torchaudio_import import import_torchaudio

D, SEGMENTS = 24, 7
SETTINGS = [
    {},
    {"right_context_frames": 8},
    {"memory_size": 3},
    {"memory_size": 2, "right_context_frames": 4, "left_context_frames": 12},
    {"memory_size": 1, "right_context_frames": 24, "left_context_frames": 4, "activation": "relu"},
]


def make(settings: dict[str, object]) -> tuple[Any, Any, Tensor]:
    """Ours, torchaudio's with the same weights, and rows for both."""
    torch.manual_seed(0)
    shape = {"d_model": D, "num_layers": 3, "num_heads": 2, "feed_forward_dim": 40, "left_context_frames": 32}
    model = models.build("emformer", {**shape, "num_features": 20, "vocab_size": 5, **settings}).eval()
    assert isinstance(model, Emformer)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    segment = model.segment
    theirs = (
        import_torchaudio("torchaudio.models")
        .Emformer(
            D,
            2,
            40,
            3,
            segment.rows,
            activation=model.config.activation,
            left_context_length=segment.left,
            right_context_length=segment.right,
            max_memory_size=segment.memory,
            tanh_on_mem=True,
        )
        .eval()
    )
    theirs.load_state_dict(model.encoder.state_dict())
    return model, theirs, torch.randn(2, SEGMENTS * segment.rows + segment.right, D)


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def states_of_two(model: Emformer) -> list[Tensor]:
    """Of two streams, without those of the subsampling, as `encode` reads them: (B, …)."""
    return [tensor.unflatten(0, (2, -1)) for tensor in model.initial_state(2)[2:]]


@pytest.mark.parametrize("settings", SETTINGS)
@torch.no_grad()
def test_every_segment_and_its_state_are_torchaudios(settings: dict[str, object]) -> None:
    model, theirs, x = make(settings)
    segment, states = model.segment, None
    state = states_of_two(model)
    for start in range(0, SEGMENTS * segment.rows, segment.rows):
        window = x[:, start : start + segment.rows + segment.right]
        lengths = torch.full((2,), window.shape[1])
        want, _, states = theirs.infer(window, lengths, states)
        got, *state = model.encode(window, *state)
        close(got, want)
        for i, (memory, keys, values, _) in enumerate(states):
            ours = state[1 + i * segment.caches : 1 + (i + 1) * segment.caches]
            wanted = (keys, values, memory)[: segment.caches]
            for one, other in zip(ours, wanted, strict=True):
                close(one, other.transpose(0, 1))


@pytest.mark.parametrize("settings", SETTINGS)
@torch.no_grad()
def test_all_segments_at_once_are_torchaudios_training_forward(settings: dict[str, object]) -> None:
    model, theirs, x = make(settings)
    want, _ = theirs(x, torch.full((2,), SEGMENTS * model.segment.rows))
    got = model.encode(x, *states_of_two(model))[0]
    assert got.std() > 0.1
    close(got, want)


def test_no_other_architecture_imports_torchaudio() -> None:
    code = """
import sys
from edge_speech.training import models
for name in models.available():
    if name != "emformer":
        models.build(name, {"size": "small"})
assert not [name for name in sys.modules if name.startswith("torchaudio")]
models.build("emformer", {"size": "small"})
assert "torchaudio.models" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("error", ["OSError", "RuntimeError"])
def test_torchaudio_is_imported_without_its_library(error: str) -> None:
    """What it raises beside a CPU build of torch, and beside one of another CUDA."""
    code = f"""
import importlib
from edge_speech.training.torchaudio_import import import_torchaudio
real, seen = importlib.import_module, []
def fail_once(name):
    seen.append(name)
    if len(seen) == 1:
        raise {error}("library")
    return real(name)
importlib.import_module = fail_once
assert import_torchaudio("torchaudio.models").Emformer
assert seen == ["torchaudio.models"] * 2
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_missing_torchaudio_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    monkeypatch.setitem(sys.modules, "torchaudio.models", None)
    with pytest.raises(InputError, match=r'needs torchaudio.*pip install "edge-speech\[train\]"'):
        models.build("emformer", {})
