"""The law of the encoder contract, for every architecture in every size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from edge_speech.errors import InputError
from edge_speech.features import FbankConfig, frontend_to_dict
from edge_speech.training import models
from edge_speech.training.checkpoint import LoadedModel, load_model, save_model
from edge_speech.training.models import StreamingModel, conformer
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.passes import Source
from edge_speech_tools.streaming import windows

ARCHITECTURES = models.available()
SIZES = [(name, size) for name in ARCHITECTURES for size in models._module(name).SIZES]
LOOKING_AHEAD = [
    (name, {"right_context_frames": 4})
    for name in ARCHITECTURES
    if hasattr(models._module(name).Config, "right_context_frames")
]
# The small size of every architecture, and the settings that change what its graph is made of.
VARIANTS = [
    *((name, {}) for name in ARCHITECTURES),
    *LOOKING_AHEAD,
    ("crnn", {"cell": "lstm"}),
    ("emformer", {"memory_size": 3}),
    ("emformer", {"memory_size": 2, "right_context_frames": 20, "left_context_frames": 24}),
]
FEATURES, VOCABULARY = 40, 11


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small models are faster on one thread than on two that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(architecture: str, size: str, **settings: object) -> StreamingModel:
    torch.manual_seed(0)
    config = {"size": size, "num_features": FEATURES, "vocab_size": VOCABULARY, **settings}
    model = models.build(architecture, config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    model.normalise([8.0] * FEATURES, [3.0] * FEATURES)
    return model


def run_chunks(model: StreamingModel, features: Tensor) -> Tensor:
    spec = model.spec
    padding = -features.shape[1] % spec.chunk_frames + spec.right_context_frames
    padded = functional.pad(features, (0, 0, 0, padding), value=spec.padding_value)
    state, rows = model.initial_state(len(features)), []
    for start in range(0, padded.shape[1] - spec.right_context_frames, spec.chunk_frames):
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


@pytest.mark.parametrize(("architecture", "settings"), VARIANTS)
def test_one_call_takes_any_number_of_chunks(architecture: str, settings: dict[str, object]) -> None:
    model = make(architecture, "small", **settings)
    spec = model.spec
    features = torch.randn(2, spec.chunk_frames * 13 + spec.right_context_frames, FEATURES) * 3 + 8
    state, rows, start = model.initial_state(2), [], 0
    with torch.no_grad():
        whole, *last = model(features, *state)
        for chunks in (1, 3, 1, 2, 6):
            taken = features[:, start : start + chunks * spec.chunk_frames + spec.right_context_frames]
            log_probs, *state = model(taken, *state)
            rows.append(log_probs)
            start += chunks * spec.chunk_frames
    torch.testing.assert_close(torch.cat(rows, 1), whole, rtol=0, atol=1e-5)
    for got, want in zip(state, last, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("architecture", "settings"), LOOKING_AHEAD)
def test_right_context_is_seen_and_nothing_beyond_it(architecture: str, settings: dict[str, object]) -> None:
    model = make(architecture, "small", **settings)
    features = torch.randn(1, 160, FEATURES) * 3 + 8
    changed = features.clone()
    changed[:, 84:] += 1.0  # the last of row 19's frames is 79, and 83 the last of its right context
    with torch.no_grad():
        before, after, chunked = (
            model.parallel(features),
            model.parallel(changed),
            run_chunks(model, features),
        )
    torch.testing.assert_close(chunked, before, rtol=0, atol=1e-5)
    assert torch.equal(before[:, :20], after[:, :20])
    changed[:, 83] += 1.0
    with torch.no_grad():
        assert not torch.equal(before[:, 19], model.parallel(changed)[:, 19])


@pytest.mark.parametrize(("architecture", "settings"), VARIANTS)
def test_padded_batch_equals_single_utterances(architecture: str, settings: dict[str, object]) -> None:
    model = make(architecture, "small", **settings)
    utterances = [torch.randn(frames, FEATURES) * 3 + 8 for frames in (7, 96, 131)]
    batch = pad_sequence(utterances, batch_first=True, padding_value=model.spec.padding_value)
    with torch.no_grad():
        together = model.parallel(batch)
        for row, utterance in zip(together, utterances, strict=True):
            alone = model.parallel(utterance[None])[0]
            torch.testing.assert_close(row[: len(alone)], alone, rtol=0, atol=1e-5)


def check_recurrent_operators(model: StreamingModel, path: Path) -> None:
    """Recurrent layers are the engine's own operators, not loops or copies for every frame."""
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert not {"Loop", "Scan", "If"} & set(operators)
    for layer in model.modules():
        if isinstance(layer, nn.RNNBase):
            assert operators.count(layer.mode) == layer.num_layers


@pytest.mark.parametrize(("architecture", "settings"), VARIANTS)
def test_exported_graph_streams_like_the_model(
    architecture: str, settings: dict[str, object], tmp_path: Path
) -> None:
    model = make(architecture, "small", **settings)
    spec = model.spec
    path = streaming_onnx.run(Source(model, spec, tmp_path)).path
    check_recurrent_operators(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    features = torch.randn(1, spec.chunk_frames * 9 + 5, FEATURES) * 3 + 8
    state, rows = [np.zeros(s.shape, s.dtype) for s in spec.state], []
    for window in windows(features[0].numpy(), spec):
        feeds = [window, *state]
        log_probs, *state = session.run(
            None, {i.name: x for i, x in zip(session.get_inputs(), feeds, strict=True)}
        )
        rows.append(log_probs[0])
    with torch.no_grad():
        want = model.parallel(features)[0].numpy()
    np.testing.assert_allclose(np.concatenate(rows)[: len(want)], want, rtol=0, atol=1e-4)


def made_up_utterances(count: int) -> tuple[Tensor, Tensor]:
    """Features (B, T, F) of `count` strings of four tokens, twelve frames each, and the strings (B, 4)."""
    sounds = torch.randn(VOCABULARY, FEATURES) * 3 + 8
    strings = torch.stack([torch.randperm(VOCABULARY - 1)[:4] + 1 for _ in range(count)])
    features = sounds[strings].repeat_interleave(12, dim=1)
    return features + torch.randn_like(features), strings


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_small_model_learns_made_up_utterances_by_heart(architecture: str) -> None:
    model = make(architecture, "small", dropout=0.0).train()
    features, strings = made_up_utterances(3)
    lengths = [torch.full((3,), n) for n in (features.shape[1] // 4, strings.shape[1])]
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(40):
        log_probs = model.parallel(features)
        optimizer.zero_grad()
        functional.ctc_loss(log_probs.transpose(0, 1), strings, *lengths).backward()
        optimizer.step()
    with torch.no_grad():
        best = run_chunks(model.eval(), features).argmax(dim=-1)
    found = [[n for n in row.unique_consecutive().tolist() if n] for row in best]
    assert found == strings.tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_checkpoint_holds_all_of_the_model(architecture: str, tmp_path: Path) -> None:
    model = make(architecture, "small")
    tokens = ["<blk>", *map(str, range(1, VOCABULARY))]
    frontend = frontend_to_dict(FbankConfig(num_mel_bins=FEATURES))
    save_model(
        tmp_path / "model.pt", LoadedModel(model, tokens, frontend, architecture, models.config_of(model))
    )
    loaded = load_model(tmp_path / "model.pt").model
    features = torch.randn(1, 50, FEATURES) * 3 + 8
    with torch.no_grad():
        assert torch.equal(loaded.parallel(features), model.parallel(features))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hostile_config_is_refused(architecture: str) -> None:
    config = models._module(architecture).Config
    numbers = {field.name for field in fields(config) if field.type == "int"}
    assert set(config.LIMITS) == numbers, "a whole number without a limit"
    for name in numbers:
        least = config.LEAST.get(name, 1)
        for value in (least - 1, config.LIMITS[name] + 1, 10**18, 4.0, float("nan"), True, "64", None, [64]):
            with pytest.raises(
                InputError, match=f"{name} is .*; allowed are {least} to {config.LIMITS[name]}"
            ):
                models.build(architecture, {name: value})
    for value in (-0.1, 1.1, float("nan"), "much"):
        with pytest.raises(InputError, match=r"dropout is .*; allowed are 0 to 1"):
            models.build(architecture, {"dropout": value})


def test_sizes_span_half_a_million_to_four_million_parameters() -> None:
    counts = [sum(p.numel() for p in make("conformer", s).parameters()) for s in conformer.SIZES]
    assert counts == sorted(counts)
    assert 0.4e6 < counts[0] < 0.6e6
    assert 3.5e6 < counts[-1] < 4.5e6


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        ("transducer", {}, r"there are .*conformer"),
        ("conformer", {"size": "tiny"}, "it has small"),
        ("conformer", {"width": 3}, "has no setting 'width'"),
        ("conformer", {"d_model": 66}, "multiple of num_heads"),
        ("conformer", {"num_layers": 10**9}, "allowed are 1 to"),
        ("conformer", {"chunk_frames": 10}, "multiple of 4"),
        ("conformer", {"d_model": "wide"}, "cannot build"),
        ("transformer", {"left_context_frames": 66}, "multiple of 4"),
        ("crnn", {"cell": "rnn"}, "allowed are gru, lstm"),
        ("crnn", {"right_context_frames": 9}, "allowed are 0 to 8"),
        ("emformer", {"right_context_frames": 6}, "multiple of 4"),
        ("emformer", {"activation": "tanh"}, "allowed are relu, gelu, silu"),
    ],
)
def test_bad_settings_are_named(architecture: str, config: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.build(architecture, config)
