"""onnxruntime's CUDA and TensorRT. No GPU is here: the streams are held against a session of the CPU whose
bindings copy as a GPU's do, and what onnxruntime is asked for against what it takes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edge_speech import backends
from edge_speech.backends import onnxruntime_tensorrt
from edge_speech.backends.onnxruntime import load, open_session
from edge_speech.bundle import read_bundle
from edge_speech.encoder import step_buffers
from edge_speech.errors import InputError
from edge_speech.features import frontend_from_dict
from edge_speech.onnx_device import DeviceEncoder
from edge_speech.recognizer import Recognizer, runnable_artifacts
from tiny import FRONTEND, SPEC, TOKENS, speech_like, write_bundle

pytestmark = pytest.mark.usefixtures("every_engine")

PROVIDERS = {
    "onnxruntime_cuda": "CUDAExecutionProvider",
    "onnxruntime_tensorrt": "TensorrtExecutionProvider",
}
CPU = [("CPUExecutionProvider", {})]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("gpu") / "bundle")


@pytest.fixture
def on_a_board(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime that was built with both."""
    known = [*PROVIDERS.values(), "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: known)


class CopyingBinding:
    """A binding that takes an input's value when it is bound, as for a graph that wants it elsewhere."""

    def __init__(self, binding: Any) -> None:
        self.binding, self.copied = binding, 0
        self.bind_output, self.bind_ortvalue_output = binding.bind_output, binding.bind_ortvalue_output
        self.synchronize_inputs = binding.synchronize_inputs
        self.synchronize_outputs = binding.synchronize_outputs

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        self.binding.bind_cpu_input(name, array.copy())
        self.copied += 1

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self.bind_cpu_input(name, value.numpy())


class CopyingSession:
    def __init__(self, session: Any) -> None:
        self.session, self.bindings = session, []

    def io_binding(self) -> CopyingBinding:
        self.bindings.append(CopyingBinding(self.session.io_binding()))
        return self.bindings[-1]

    def run_with_iobinding(self, binding: CopyingBinding) -> None:
        self.session.run_with_iobinding(binding.binding)


def log_probs(encoder: Any, piece: int) -> np.ndarray:
    recognizer, waveform = Recognizer(encoder, frontend_from_dict(FRONTEND), TOKENS), speech_like(4)
    stream = recognizer.create_stream(keep_log_probs=True)
    for start in range(0, len(waveform), piece):
        stream.accept_waveform(waveform[start : start + piece], 16000)
    stream.input_finished()
    return stream.log_probs()


@pytest.mark.parametrize("around", [lambda session: session, CopyingSession])
def test_a_stream_gives_the_bits_of_the_cpus(bundle: Path, around: Any) -> None:
    path = bundle / "model.onnx"
    encoder = DeviceEncoder(around(open_session(path, SPEC, 1, CPU)), SPEC, "cpu")
    expected = log_probs(load(path, SPEC, 1), 160).tobytes()
    assert log_probs(encoder, 160).tobytes() == expected
    assert log_probs(encoder, 100_000).tobytes() == expected
    if isinstance(encoder.session, CopyingSession):
        assert all(binding.copied for binding in encoder.session.bindings[:2])


def test_the_state_swaps_and_starts_again(bundle: Path) -> None:
    encoder = DeviceEncoder(open_session(bundle / "model.onnx", SPEC, 1, CPU), SPEC, "cpu")
    features, rows = step_buffers(encoder)
    features[:] = 1
    one, two = encoder.open(features, rows), encoder.open(*step_buffers(encoder))
    (_, even), (_, odd) = one._states
    counts = []
    for _ in range(4):
        one.step()
        two.step()
        counts.append((int(even.numpy()[0]), int(odd.numpy()[0])))
    assert counts == [(0, 1), (2, 1), (2, 3), (4, 3)]
    last = rows.copy()
    one.step()
    one.reset()
    for _ in range(4):
        one.step()
    assert rows.tobytes() == last.tobytes()


@pytest.mark.parametrize(("backend", "provider"), PROVIDERS.items())
def test_an_onnxruntime_without_it(bundle: Path, backend: str, provider: str) -> None:
    with pytest.raises(InputError, match=f"'{backend}' needs an onnxruntime with {provider}.*-gpu"):
        Recognizer.load(bundle, backend=backend)


@pytest.mark.usefixtures("on_a_board")
@pytest.mark.parametrize("backend", PROVIDERS)
def test_only_who_asks_gets_it(bundle: Path, backend: str) -> None:
    assert backends.missing(backend) is None
    assert backend not in {one.backend for one in runnable_artifacts(read_bundle(bundle))}
    (chosen,) = runnable_artifacts(read_bundle(bundle), backend)
    assert (chosen.backend, chosen.path) == (backend, "model.onnx")


@pytest.mark.usefixtures("on_a_board")
@pytest.mark.parametrize(("backend", "provider"), PROVIDERS.items())
def test_a_gpu_that_does_not_start_is_not_a_cpu(bundle: Path, backend: str, provider: str) -> None:
    """onnxruntime itself would go on with the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this build's, that it does not know the provider
        with pytest.raises(InputError, match=f"{provider} does not start here"):
            Recognizer.load(bundle, backend=backend)


@pytest.mark.usefixtures("on_a_board")
@pytest.mark.parametrize("backend", PROVIDERS)
def test_what_onnxruntime_is_asked_for(bundle: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    real = onnxruntime.InferenceSession

    def session(path: str, options: Any, names: list[str], settings: list[dict[str, str]]) -> Any:
        asked.update(zip(names, settings, strict=True))
        opened = real(path, options, ["CPUExecutionProvider"])
        opened.get_providers = lambda: [*names, "CPUExecutionProvider"]
        return opened

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    encoder = Recognizer.load(bundle, backend=backend).encoder
    assert isinstance(encoder, DeviceEncoder)
    assert encoder.device == "cuda"
    cuda = ["CUDAExecutionProvider"]
    assert list(asked) == (cuda if backend == "onnxruntime_cuda" else ["TensorrtExecutionProvider", *cuda])
    assert asked["CUDAExecutionProvider"] == {"use_tf32": "0"}


def test_each_file_has_engines_of_its_own(tmp_path: Path) -> None:
    folders = set()
    for content in (b"one", b"other"):
        (tmp_path / "model.onnx").write_bytes(content)
        options = onnxruntime_tensorrt._options(tmp_path / "model.onnx")
        folders.add(options["trt_engine_cache_path"])
        assert Path(options["trt_engine_cache_path"]).parent == tmp_path / "engines"
    assert len(folders) == 2
