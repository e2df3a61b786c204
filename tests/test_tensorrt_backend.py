"""The TensorRT backend and what becomes of engines that are not for here, on a GPU of our own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fake_pycuda
from board import Device, both, failed, run
from edge_speech import backends
from edge_speech.audio import read_audio
from edge_speech.backends import tensorrt
from edge_speech.bundle import read_bundle, sha256_of
from edge_speech.encoder import step_buffers
from edge_speech.engine_cache import read_note
from edge_speech.errors import EngineRefused, FellBack, InputError
from edge_speech.recognizer import Recognizer

pytest_plugins = ["board"]


@both
@pytest.mark.parametrize("kind", [(True, False), (False, False), (False, True)])
def test_a_stream_gives_what_the_same_graph_gives_on_the_cpu(
    kind: tuple[bool, bool], bundle: Path, device: Device, digits: Path, capsys: Any
) -> None:
    integrated, refuses_capture = kind
    device.become("10.3.0", integrated=integrated, refuses_capture=refuses_capture)
    assert run(capsys, "build-engine", bundle)[1]["cuda_graph"] is not refuses_capture
    opened = read_bundle(bundle)
    artifact = opened.manifest.artifacts[0]
    on_cpu = backends.load_encoder("onnxruntime", bundle / artifact.path, opened.manifest.encoder)
    samples, rate = read_audio(sorted(digits.rglob("*.flac"))[0])
    recognizers = (
        Recognizer.from_artifact(opened, artifact),
        Recognizer.with_encoder(opened, artifact, on_cpu),
    )
    rows = []
    device.gpu.copies = device.gpu.launches = 0
    for recognizer in recognizers:
        stream = recognizer.create_stream(keep_log_probs=True, beam_size=1)
        for _ in range(2):  # the state of the first time must be gone
            stream.accept_waveform(samples, rate)
            stream.input_finished()
            rows.append(stream.log_probs())
            steps = stream.steps
            stream.reset()
    assert rows[0].tobytes() == rows[1].tobytes() == rows[2].tobytes()
    assert steps > 3
    assert device.gpu.launches == (0 if refuses_capture else 2 * steps)
    assert (device.gpu.copies == 0) is integrated


def test_streams_of_one_engine_do_not_share_state(bundle: Path, device: Device, capsys: Any) -> None:
    run(capsys, "build-engine", bundle)
    opened = read_bundle(bundle)
    encoder = backends.load_artifact(opened, opened.manifest.artifacts[0])
    features = np.random.default_rng(0).normal(size=(4, *step_buffers(encoder)[0].shape)).astype(np.float32)

    def rows(interleaved: bool) -> list[bytes]:
        buffers = [step_buffers(encoder) for _ in range(2)]
        streams = [encoder.open(*pair) for pair in buffers]
        order = [0, 1] * 4 if interleaved else [0] * 4 + [1] * 4
        out: list[list[bytes]] = [[], []]
        for which in order:
            buffers[which][0][:] = features[len(out[which])] * (1 + which)
            streams[which].step()
            out[which].append(buffers[which][1].tobytes())
        return out[0] + out[1]

    assert rows(interleaved=True) == rows(interleaved=False)


def test_buffers_of_someone_else_are_copied(bundle: Path, device: Device, capsys: Any) -> None:
    run(capsys, "build-engine", bundle)
    opened = read_bundle(bundle)
    encoder = backends.load_artifact(opened, opened.manifest.artifacts[0])
    locked, plain = step_buffers(encoder), tuple(np.zeros_like(array) for array in step_buffers(encoder))
    for features, log_probs in (locked, plain):
        features[:] = np.linspace(-10, 5, features.size).reshape(features.shape)
        encoder.open(features, log_probs).step()
    assert locked[1].tobytes() == plain[1].tobytes()
    assert np.isfinite(plain[1]).all()


def test_another_board_is_passed_over_with_one_line(bundle: Path, device: Device, capsys: Any) -> None:
    run(capsys, "build-engine", bundle)
    device.become("10.7.0", name="Thor")
    with pytest.warns(
        FellBack, match=r"built for TensorRT 10.3.0 on Orin .*this is TensorRT 10.7.0 on Thor"
    ) as told:
        recognizer = Recognizer.load(bundle)
    assert "edge-speech build-engine" in str(told[0].message)
    assert "\n" not in str(told[0].message)
    assert recognizer.artifact is not None
    assert recognizer.artifact.backend == "onnxruntime"
    with pytest.raises(EngineRefused, match="Thor"):
        Recognizer.load(bundle, backend="tensorrt")


def test_the_command_line_says_so_in_one_line(
    bundle: Path, device: Device, capsys: Any, digits: Path
) -> None:
    run(capsys, "build-engine", bundle)
    device.become("10.7.0")
    audio = sorted(digits.rglob("*.flac"))[0]
    code, _, said = run(capsys, "transcribe", bundle, audio)
    assert code == 0
    assert said.startswith("edge-speech: ")
    assert said.count("\n") == 1


def damage(engine: Path) -> None:
    engine.write_bytes(engine.read_bytes()[:-9] + b"x" * 9)


def remove_note(engine: Path) -> None:
    engine.with_suffix(".json").unlink()


def odd_note(engine: Path) -> None:
    engine.with_suffix(".json").write_text('{"key": 3}')


@pytest.mark.parametrize("change", [damage, remove_note, odd_note])
def test_a_damaged_engine_is_refused_and_built_again(
    change: Any, bundle: Path, device: Device, capsys: Any
) -> None:
    engine = Path(run(capsys, "build-engine", bundle)[1]["engine"])
    change(engine)
    with pytest.warns(FellBack, match="build the engine again"):
        assert Recognizer.load(bundle).artifact is not None
    assert run(capsys, "build-engine", bundle)[1]["built"]
    assert read_note(engine).key.gpu_name == "Orin"


def test_an_engine_that_tensorrt_refuses(bundle: Path, device: Device, capsys: Any) -> None:
    """Its note says that it is for here, and yet it is not."""
    engine = Path(run(capsys, "build-engine", bundle)[1]["engine"])
    content = engine.read_bytes().replace(b'"Orin"', b'"Nano"')
    engine.write_bytes(content)
    note = json.loads(engine.with_suffix(".json").read_text())
    note["sha256"] = sha256_of(engine)
    engine.with_suffix(".json").write_text(json.dumps(note))
    with pytest.raises(EngineRefused, match=r"refuses it .*not compatible with this version"):
        Recognizer.load(bundle, backend="tensorrt")


def test_a_machine_without_tensorrt(bundle: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "comes with JetPack" in failed(capsys, 2, bundle)
    assert Recognizer.load(bundle).artifact.backend == "onnxruntime"  # type: ignore[union-attr]
    with pytest.raises(InputError, match="build-engine BUNDLE"):
        Recognizer.load(bundle, backend="tensorrt")


def test_a_host_tensor_cannot_be_state(bundle: Path, device: Device, capsys: Any) -> None:
    run(capsys, "build-engine", bundle)
    device.trt.ICudaEngine.get_tensor_location = lambda self, name: device.trt.TensorLocation.HOST
    with pytest.raises(EngineRefused, match="a shape on the CPU"):
        Recognizer.load(bundle, backend="tensorrt")
    assert tensorrt.REQUIRES == "tensorrt pycuda"


def test_a_board_whose_gpu_does_not_answer(bundle: Path, device: Device, capsys: Any) -> None:
    run(capsys, "build-engine", bundle)

    def fails() -> None:
        raise fake_pycuda.Error("cuInit failed")

    device.monkeypatch.setattr(sys.modules["pycuda.driver"], "init", fails)
    with pytest.warns(FellBack, match=r"no CUDA GPU answers here \(cuInit failed\)"):
        assert Recognizer.load(bundle).artifact.backend == "onnxruntime"  # type: ignore[union-attr]
    assert "no CUDA GPU answers here" in failed(capsys, 2, bundle)
