"""The law of the device line, for every architecture and every engine: waveform in pieces → C++ stream →
artifact gives the log_probs of the parallel forward that training uses, and every cutting the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edge_speech import backends
from edge_speech.encoder import FloatArray
from edge_speech.features import FbankConfig, OnlineFbank
from edge_speech.recognizer import Recognizer
from edge_speech.training import models
from edge_speech_tools.passes import Source, load_passes, on_request
from edge_speech_tools.reference import TorchEncoder
from tiny import speech_like

TOKENS = ["<blk>", *(f"▁{word}" for word in "zero one two three four five six seven eight nine".split())]
FRONTEND = FbankConfig(num_mel_bins=40)
# What another program loads has its own tests.
PASSES = {n: p for n, p in load_passes().items() if p.BACKEND not in on_request(load_passes())}
# What runs here an artifact whose engine is built on its device.
STANDS_FOR = {"tensorrt": "onnxruntime"}
# What loads the ONNX files beside onnxruntime; on a GPU, see test_backends_onnxruntime_gpu.py.
FURTHER = ["openvino"]
ON_A_GPU = {"onnxruntime_cuda", "onnxruntime_tensorrt"}
# Lowering to XNNPACK takes seconds for each layer: one layer, and one precision for each architecture; all of
# them are in benchmarks/parity.py.
SLOW = "executorch"
SLOW_PASSES = {
    "conformer": "executorch_int8_static",
    "crnn": "executorch_int8_dynamic",
    "tcn": "executorch_int8_static",
    "transformer": "executorch_int8_dynamic",
}
# Largest difference of log_probs over the recording: rounding, half precision, eight bits.
TOLERANCE = {
    "fp32": 1e-4,
    "fp16": 3e-2,
    "int8-dynamic": 0.5,
    "int8-weight-only": 0.5,
    "int4-weight-only": 1.0,
    "int8-static": 0.5,
}
# Ends inside a chunk, on one, and before the first.
LENGTHS = [16000 * 3 + 77, 2560 * 10, 900]


@pytest.fixture(scope="module", params=models.available())
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return source_of(request.param, tmp_path_factory.mktemp(request.param))


def source_of(architecture: str, folder: Path, **settings: object) -> Source:
    torch.manual_seed(1)
    config = {"size": "small", "num_features": FRONTEND.num_mel_bins, "vocab_size": len(TOKENS), **settings}
    model = models.build(architecture, config).eval()
    return Source(model, model.spec, folder, (features(speech_like(4, seed=5)),))


def features(waveform: FloatArray) -> FloatArray:
    fbank = OnlineFbank(FRONTEND)
    fbank.accept_waveform(waveform, 16000)
    fbank.input_finished()
    return fbank.read()


def stream_log_probs(recognizer: Recognizer, waveform: FloatArray, cuts: list[int]) -> FloatArray:
    stream = recognizer.create_stream(keep_log_probs=True)
    for piece in np.split(waveform, cuts):
        stream.accept_waveform(piece, 16000)
    stream.input_finished()
    return stream.log_probs()


def check(recognizer: Recognizer, source: Source, tolerance: float) -> None:
    for length in LENGTHS:
        waveform = speech_like(4, seed=3)[:length]
        with torch.inference_mode():
            expected = source.model.parallel(torch.from_numpy(features(waveform))[None])[0].numpy()
        whole = stream_log_probs(recognizer, waveform, [])
        np.testing.assert_allclose(whole, expected, rtol=0, atol=tolerance)
        for seed in range(3):
            cuts = np.sort(np.random.default_rng(seed).integers(0, length, 40))
            assert stream_log_probs(recognizer, waveform, list(cuts)).tobytes() == whole.tobytes()


def test_pytorch(source: Source) -> None:
    check(Recognizer(TorchEncoder(source.model, source.spec), FRONTEND, TOKENS), source, TOLERANCE["fp32"])


def make(name: str, source: Source) -> Path:
    """The file a pass makes, after the passes it needs; made once for all tests of an architecture."""
    path = source.directory / PASSES[name].FILE_NAME
    if path.exists():
        return path
    for needed in PASSES[name].NEEDS:
        make(needed, source)
    return PASSES[name].run(source).path


@pytest.mark.parametrize("architecture", models.available())
def test_slow_artifacts(architecture: str, tmp_path: Path) -> None:
    test_every_artifact(
        source_of(architecture, tmp_path, num_layers=1), SLOW_PASSES.get(architecture, "executorch")
    )


@pytest.mark.parametrize("name", [name for name, one in PASSES.items() if one.BACKEND != SLOW])
def test_every_artifact(source: Source, name: str) -> None:
    one = PASSES[name]
    backend = STANDS_FOR.get(one.BACKEND, one.BACKEND)
    encoder = backends.load_encoder(backend, make(name, source), source.spec)
    check(Recognizer(encoder, FRONTEND, TOKENS), source, TOLERANCE[one.PRECISION])


@pytest.mark.parametrize("engine", FURTHER)
def test_engines_that_load_the_files_of_others(source: Source, engine: str) -> None:
    encoder = backends.load_encoder(engine, make("onnx", source), source.spec)
    check(Recognizer(encoder, FRONTEND, TOKENS), source, TOLERANCE["fp32"])


@pytest.mark.parametrize("name", [name for name, one in PASSES.items() if one.BACKEND == "onnxruntime"])
@pytest.mark.parametrize("engine", FURTHER)
def test_they_read_every_precision(engine: str, name: str, tmp_path: Path) -> None:
    source = source_of("dnn", tmp_path)
    encoder = backends.load_encoder(engine, make(name, source), source.spec)
    check(Recognizer(encoder, FRONTEND, TOKENS), source, TOLERANCE[PASSES[name].PRECISION])


def test_every_engine_is_tried() -> None:
    assert {one.BACKEND for one in PASSES.values()} | set(FURTHER) | ON_A_GPU == set(backends.available())
