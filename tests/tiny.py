"""A hand-made streaming encoder with state, in numpy and as an ONNX graph, and a bundle around it."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_speech.bundle import (
    GOLDEN_FEATURES,
    GOLDEN_LOG_PROBS,
    GOLDEN_TEXT,
    GOLDEN_WAVEFORM,
    MANIFEST,
    FileEntry,
    Manifest,
    describe_artifact,
    describe_file,
    new_bundle,
    write_manifest,
    write_tokens,
)
from edge_speech.bundle_manifest import digest
from edge_speech.encoder import FloatArray, StreamingSpec, TensorSpec
from edge_speech.features import OnlineFbank, frontend_from_dict
from edge_speech.recognizer import Recognizer

TOKENS = ["<blk>", "▁one", "▁two", "▁th", "ree", "▁four"]
SPEC = StreamingSpec(
    chunk_frames=8,
    right_context_frames=3,
    subsampling_factor=4,
    num_features=20,
    vocab_size=len(TOKENS),
    padding_value=-15.9,
    state=(TensorSpec("carry", (1, len(TOKENS)), "float32"), TensorSpec("steps", (1,), "int64")),
)
FRONTEND = {"type": "fbank", "sample_rate": 16000, "num_mel_bins": SPEC.num_features}
# Columns that sum to zero make it deaf to loudness, so that it hears the tone wander.
WEIGHT = np.random.default_rng(7).normal(0, 0.5, (SPEC.num_features, SPEC.vocab_size)).astype(np.float32)
WEIGHT -= WEIGHT.mean(axis=0)


def log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))).astype(np.float32)


class TinyStream:
    """h = (mean of a row's frames + mean of the right context) W; logits = h + carry; carry = h[-1] / 2."""

    def __init__(self, features: FloatArray, log_probs: FloatArray) -> None:
        self.features, self.log_probs = features, log_probs
        self.reset()

    def reset(self) -> None:
        self.carry = np.zeros((1, SPEC.vocab_size), np.float32)
        self.steps = 0

    def step(self) -> None:
        rows = self.features[: SPEC.chunk_frames].reshape(SPEC.output_frames, SPEC.subsampling_factor, -1)
        context = self.features[SPEC.chunk_frames :].mean(axis=0)
        hidden = ((rows.mean(axis=1) + context) @ WEIGHT).astype(np.float32)
        self.log_probs[:] = log_softmax(hidden + self.carry)
        self.carry = hidden[-1:] * np.float32(0.5)
        self.steps += 1


@dataclass(frozen=True)
class TinyEncoder:
    spec: StreamingSpec = SPEC

    def open(self, features: FloatArray, log_probs: FloatArray) -> TinyStream:
        return TinyStream(features, log_probs)


def write_onnx(path: Path, **renamed: str) -> None:
    """The same encoder as an ONNX graph; `renamed` maps a tensor name to another, to make wrong models."""
    import onnx
    from onnx import TensorProto, helper

    spec, name = SPEC, lambda n: renamed.get(n, n)
    constant = lambda n, a: onnx.numpy_helper.from_array(np.asarray(a), n)  # noqa: E731
    nodes = [
        helper.make_node("Slice", [name("features"), "zero", "chunk", "one"], ["head"]),
        helper.make_node("Slice", [name("features"), "chunk", "window", "one"], ["tail"]),
        helper.make_node("Reshape", ["head", "grouped"], ["groups"]),
        helper.make_node("ReduceMean", ["groups", "two"], ["rows"], keepdims=0),
        helper.make_node("ReduceMean", ["tail", "one"], ["context"], keepdims=1),
        helper.make_node("Add", ["rows", "context"], ["sum"]),
        helper.make_node("MatMul", ["sum", "weight"], ["hidden"]),
        helper.make_node("Add", ["hidden", name("carry")], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], [name("log_probs")], axis=-1),
        helper.make_node("Slice", ["hidden", "last", "end", "one"], ["tail_row"]),
        helper.make_node("Squeeze", ["tail_row", "one"], ["flat"]),
        helper.make_node("Mul", ["flat", "half"], [name("next_carry")]),
        helper.make_node("Add", [name("steps"), "one"], [name("next_steps")]),
    ]
    values = {
        "zero": [0],
        "one": [1],
        "two": [2],
        "chunk": [spec.chunk_frames],
        "window": [spec.window_frames],
    }
    values |= {"grouped": [1, spec.output_frames, spec.subsampling_factor, spec.num_features]}
    values |= {"last": [spec.output_frames - 1], "end": [spec.output_frames]}
    initializers = [constant(n, np.array(v, np.int64)) for n, v in values.items()]
    initializers += [constant("weight", WEIGHT), constant("half", np.float32(0.5))]
    info = lambda n, shape, t=TensorProto.FLOAT: helper.make_tensor_value_info(name(n), t, shape)  # noqa: E731
    carry = [1, spec.vocab_size]
    inputs = [info("features", [1, spec.window_frames, spec.num_features]), info("carry", carry)]
    outputs = [info("log_probs", [1, spec.output_frames, spec.vocab_size]), info("next_carry", carry)]
    inputs.append(info("steps", [1], TensorProto.INT64))
    outputs.append(info("next_steps", [1], TensorProto.INT64))
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def write_bundle(output: Path, force: bool = False) -> Path:
    """A bundle of the ONNX graph with golden vectors of the numpy encoder."""
    with new_bundle(output, force) as folder:
        write_onnx(folder / "model.onnx")
        artifact = describe_artifact(folder, "model.onnx", backend="onnxruntime", precision="fp32")
        decoder = {"type": "greedy", "blank_id": 0}
        tokens, golden = write_tokens(folder, TOKENS), write_golden(folder)
        write_manifest(folder, Manifest("linux-x86_64", FRONTEND, SPEC, decoder, tokens, (artifact,), golden))
    return output


def write_golden(folder: Path) -> tuple[FileEntry, ...]:
    """Waveform, features, log_probs and text of two seconds."""
    waveform, fbank = speech_like(2), OnlineFbank(frontend_from_dict(FRONTEND))
    fbank.accept_waveform(waveform, 16000)
    fbank.input_finished()
    stream = Recognizer(TinyEncoder(), frontend_from_dict(FRONTEND), TOKENS).create_stream(
        keep_log_probs=True
    )
    stream.accept_waveform(waveform, 16000)
    stream.input_finished()
    (folder / "golden").mkdir()
    arrays = {GOLDEN_WAVEFORM: waveform, GOLDEN_FEATURES: fbank.read(), GOLDEN_LOG_PROBS: stream.log_probs()}
    for name, array in arrays.items():
        np.save(folder / name, array)
    (folder / GOLDEN_TEXT).write_text(stream.result.text, encoding="utf-8")
    return tuple(describe_file(folder, name) for name in [*arrays, GOLDEN_TEXT])


def speech_like(seconds: float, sample_rate: int = 16000, seed: int = 0) -> FloatArray:
    """Noise under a slow envelope and a wandering tone: enough to make the tiny encoder change its mind."""
    random, count = np.random.default_rng(seed), round(seconds * sample_rate)
    t = np.arange(count) / sample_rate
    tone = np.sin(2 * np.pi * (300 + 900 * np.abs(np.sin(1.7 * t))) * t)
    noise = random.normal(0, 1, count)
    envelope = np.abs(np.sin(2 * np.pi * 1.3 * t))
    return (0.3 * envelope * (0.6 * tone + 0.4 * noise)).clip(-1, 1).astype(np.float32)


def write_wav(
    path: Path, samples: npt.NDArray[np.int16], sample_rate: int = 16000, channels: int = 1
) -> Path:
    """16-bit PCM; `samples` interleaved when there is more than one channel."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def edit(bundle: Path, change: Callable[[dict], object]) -> None:
    """Change a bundle's manifest as its maker could have: with the hash that belongs to it."""
    document = json.loads((bundle / MANIFEST).read_text())
    change(document)
    write_sealed(bundle, document)


def write_sealed(bundle: Path, document: dict) -> None:
    """Write manifest.json with its own hash."""
    (bundle / MANIFEST).write_text(json.dumps({**document, "sha256": digest(document)}))
