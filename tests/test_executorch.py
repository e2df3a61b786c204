"""ExecuTorch programs: our scales in them, XNNPACK's share of the operators, one clear line on a bad file."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edge_speech.backends import load_encoder
from edge_speech.errors import InputError
from edge_speech.training.fake_quantization import fake_quantized
from edge_speech.training.scales import LayerScales
from edge_speech_tools.convert import executorch, executorch_coreml
from edge_speech_tools.passes import Source
from edge_speech_tools.torch_qdq import RECURRENT, DynamicRecurrent, StaticLayer, dynamic, with_layers
from streaming_double import streaming_double
from test_quantize import tiny

SCALES = LayerScales((0.01, 0.02, 0.015), 0.04, 100, 7)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(5, 3), torch.randn(2, 4, 5)),
        (nn.Conv1d(5, 3, 3), torch.randn(2, 5, 9)),
        (nn.Conv2d(5, 3, (3, 2), padding=(0, 1)), torch.randn(2, 5, 9, 4)),
    ],
    ids=["linear", "conv1d", "conv2d"],
)
@torch.no_grad()
def test_a_static_layer_is_the_fake_quantised_one_rounded(layer: nn.Module, x: torch.Tensor) -> None:
    """Training's rounding is the oracle: the integers of both come from the same scales."""
    model = nn.Sequential(layer)
    with fake_quantized(model, {"0": SCALES}):
        want = model(x)
    scale, zero_point = 0.03, 120
    got = StaticLayer(layer, SCALES, (scale, zero_point))(x)
    levels = (want / scale).round().clamp(-zero_point, 255 - zero_point)
    assert (got / scale - levels).abs().max() <= 1.001
    assert (got - levels * scale).abs().mean() < 0.02 * scale


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@torch.no_grad()
def test_recurrent_layers_step_by_step(cell: str) -> None:
    cells = tiny("crnn", {"cell": cell}).recurrent
    assert isinstance(cells, RECURRENT)
    unrolled = DynamicRecurrent(cells, dynamic)
    hidden = 0.5 * torch.randn(2, 1, cells.hidden_size)
    carried = (hidden, hidden.flip(0)) if cell == "lstm" else hidden
    x = torch.randn(1, 6, cells.input_size)
    got, want = (torch.utils._pytree.tree_leaves(f(x, carried)) for f in (unrolled, cells))
    for one, other in zip(got, want, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < 0.03


def test_layers_are_replaced_in_a_copy() -> None:
    model = streaming_double()
    name = next(name for name, layer in model.named_modules() if isinstance(layer, nn.Linear))
    changed = with_layers(model, {name: partial(dynamic)})
    assert isinstance(model.get_submodule(name), nn.Linear)
    assert not isinstance(changed.get_submodule(name), nn.Linear)
    shared = {id(p) for p in model.parameters()} & {id(p) for p in changed.parameters()}
    assert len(shared) >= len(list(changed.parameters()))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    model = streaming_double()
    path = executorch.run(Source(model, model.spec, tmp_path_factory.mktemp("pte"))).path
    return path.read_bytes()


@pytest.mark.parametrize("content", [b"", b"garbage", "half", "no end", "other version"])
def test_a_bad_file_is_one_line(content: bytes | str, program: bytes, tmp_path: Path) -> None:
    cut = {
        "half": program[: len(program) // 2],
        "no end": program[:-4096],
        "other version": program[:4] + b"ET99" + program[8:],
    }
    path = tmp_path / "model.pte"
    path.write_bytes(content if isinstance(content, bytes) else cut[content])
    with pytest.raises(InputError, match="make the bundle again") as error:
        load_encoder("executorch", path, streaming_double().spec)
    assert "\n" not in str(error.value)


def test_a_program_of_another_encoder_is_refused(program: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(program)
    with pytest.raises(InputError, match="inputs are"):
        load_encoder("executorch", path, tiny("tcn", {}).spec)


def test_two_streams_do_not_disturb_each_other(program: bytes, tmp_path: Path) -> None:
    path, spec = tmp_path / "model.pte", streaming_double().spec
    path.write_bytes(program)
    encoder = load_encoder("executorch", path, spec)
    random = np.random.default_rng(0)
    inputs = random.normal(-8, 3, (3, spec.window_frames, spec.num_features)).astype(np.float32)

    def opened() -> tuple[np.ndarray, np.ndarray, object]:
        features = np.zeros((spec.window_frames, spec.num_features), np.float32)
        log_probs = np.zeros((spec.output_frames, spec.vocab_size), np.float32)
        return features, log_probs, encoder.open(features, log_probs)

    (features, log_probs, stream), (noise, _, other) = opened(), opened()
    rows: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for disturbed in (False, True):
        stream.reset()
        for one in inputs:
            features[:], noise[:] = one, one[::-1]
            stream.step()
            rows[disturbed].append(log_probs.copy())
            if disturbed:
                other.step()
    np.testing.assert_array_equal(rows[True], rows[False])
    assert np.abs(rows[True][0] - rows[True][1]).max() > 0


def test_core_ml_takes_the_whole_step(tmp_path: Path) -> None:
    """Nothing here can run it; the program says what it holds."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    model = streaming_double()
    made = executorch_coreml.run(Source(model, model.spec, tmp_path))
    assert (made.key, made.status, made.check_backend) == ("executorch-coreml/fp16", "built", None)
    (plan,) = deserialize_pte_binary(made.path.read_bytes()).program.execution_plan
    assert [delegate.id for delegate in plan.delegates] == ["CoreMLBackend"]
    assert len(plan.inputs) == len(plan.outputs) == 1 + len(model.spec.state)
    assert not plan.operators


def test_a_build_without_core_ml_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    model = streaming_double()
    with pytest.raises(InputError, match="writes no Core ML programs"):
        executorch_coreml.run(Source(model, model.spec, tmp_path))
    assert not list(tmp_path.iterdir())
