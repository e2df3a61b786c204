"""OpenVINO runs the files of onnxruntime: the same log_probs, state in two sets of arrays, under its name."""

from __future__ import annotations

import ctypes
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_speech import backends, selection, verification
from edge_speech.backends import openvino
from edge_speech.bundle import Artifact
from edge_speech.cli import main
from edge_speech.encoder import StreamingSpec, step_buffers
from edge_speech.errors import CheckFailed, FellBack, InputError
from edge_speech.features import frontend_from_dict
from edge_speech.recognizer import Recognizer, choose_artifact, read_bundle, runnable_artifacts
from tiny import FRONTEND, SPEC, TOKENS, TinyEncoder, edit, speech_like, write_bundle, write_wav

pytestmark = pytest.mark.usefixtures("every_engine")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("openvino") / "bundle")


@pytest.fixture(scope="module")
def encoder(bundle: Path) -> object:
    return backends.load_encoder("openvino", bundle / "model.onnx", SPEC)


@pytest.fixture(scope="module")
def compiled(bundle: Path) -> bytes:
    return openvino._compiled_apart(bundle / "model.onnx", 1)


def log_probs(recognizer: Recognizer, waveform: np.ndarray) -> np.ndarray:
    stream = recognizer.create_stream(keep_log_probs=True)
    stream.accept_waveform(waveform, 16000)
    stream.input_finished()
    return stream.log_probs()


@pytest.mark.skipif(sys.platform != "linux", reason="signal stacks as Linux has them")
def test_loading_leaves_signal_handlers_their_stack(bundle: Path) -> None:
    """OpenVINO's own is so small that with AMX in use the next signal ends the process."""
    libc, room = ctypes.CDLL(None), ctypes.create_string_buffer(1 << 16)
    before, own = openvino._Stack(), openvino._Stack(ctypes.addressof(room), 0, len(room))
    libc.sigaltstack(ctypes.byref(own), ctypes.byref(before))
    try:
        backends.load_encoder("openvino", bundle / "model.onnx", SPEC)
    finally:
        after = openvino._Stack()
        libc.sigaltstack(ctypes.byref(before), ctypes.byref(after))
    assert (after.start, after.size) == (own.start, own.size)


def test_the_bundles_file_by_name(bundle: Path) -> None:
    recognizer, waveform = Recognizer.load(bundle, backend="openvino"), speech_like(3)
    double = Recognizer(TinyEncoder(), frontend_from_dict(FRONTEND), TOKENS)
    np.testing.assert_allclose(log_probs(recognizer, waveform), log_probs(double, waveform), atol=2e-4)
    assert recognizer.artifact is not None
    assert (recognizer.artifact.backend, recognizer.artifact.path) == ("openvino", "model.onnx")


def test_states_stay_in_two_sets_of_arrays(encoder) -> None:  # type: ignore[no-untyped-def]
    """The next state is written into the other set and log_probs into ours: nothing is copied."""
    features, rows = step_buffers(encoder)
    features[:] = 1
    one, two = encoder.open(features, rows), encoder.open(*step_buffers(encoder))
    (_, even), (_, odd) = one._states
    counts = []
    for _ in range(4):
        one.step()
        two.step()
        counts.append((int(even[0]), int(odd[0])))
    assert counts == [(0, 1), (2, 1), (2, 3), (4, 3)]
    np.testing.assert_allclose(np.exp(rows).sum(axis=1), 1, atol=1e-5)
    last = rows.copy()
    one.step()
    one.reset()
    for _ in range(4):
        one.step()
    assert rows.tobytes() == last.tobytes()


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (
            replace(SPEC, right_context_frames=4),
            r"features.*f32 \[1,11,20\].*says float32 \[1, 12, 20\]",
        ),
        (replace(SPEC, state=SPEC.state[:1]), "inputs differ.*steps"),
        (replace(SPEC, state=(SPEC.state[0], replace(SPEC.state[1], name="count"))), "inputs differ.*count"),
        (replace(SPEC, state=(SPEC.state[0], replace(SPEC.state[1], dtype="int32"))), "steps.*i64.*int32"),
    ],
)
def test_models_that_do_not_fit_the_manifest(
    bundle: Path, compiled: bytes, spec: StreamingSpec, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_speech.backends.openvino._compiled_apart", lambda *_: compiled)
    with pytest.raises(InputError, match=match):
        backends.load_encoder("openvino", bundle / "model.onnx", spec)


@pytest.mark.parametrize("cut", ["half", "bits", "nothing"])
def test_damaged_files_are_one_line(bundle: Path, tmp_path: Path, cut: str) -> None:
    content = bytearray((bundle / "model.onnx").read_bytes())
    for place in np.random.default_rng(3).integers(0, len(content), 40) if cut == "bits" else ():
        content[place] ^= 1 << int(place) % 8
    content = {"half": content[: len(content) // 2], "bits": content, "nothing": b""}[cut]
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(InputError, match="OpenVINO cannot load it") as caught:
        backends.load_encoder("openvino", tmp_path / "model.onnx", SPEC)
    assert "\n" not in str(caught.value)


def test_a_compiler_that_ends_its_process(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(InputError, match=r"model.onnx: OpenVINO cannot load it \(it crashes\)"):
        Recognizer.load(bundle, backend="openvino")


def test_nothing_is_reported_to_its_maker(encoder: object) -> None:
    assert encoder is not None
    assert not any(name.startswith("openvino_telemetry") for name in sys.modules)


def test_auto_takes_it_where_it_is_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_bundle(tmp_path / "b")
    assert {one.backend for one in runnable_artifacts(read_bundle(bundle))} == {"onnxruntime", "openvino"}
    measured: dict[Artifact, float] = {}

    def times(found: dict[Artifact, Recognizer], _: object) -> dict[Artifact, float]:
        measured.update({one: 1.0 if one.backend == "openvino" else 2.0 for one in found})
        return measured

    monkeypatch.setattr(selection, "_times", times)
    for is_new in (True, False):
        recognizer = Recognizer.load(bundle)
        assert recognizer.artifact is not None
        assert recognizer.artifact.backend == "openvino"
        assert recognizer.selection is not None
        assert recognizer.selection.is_new == is_new
        assert "openvino/fp32 runs, with 1.00" in recognizer.selection.in_words()
        assert "(onnxruntime/fp32 2.00)" in recognizer.selection.in_words()
    assert len(measured) == 2


def test_auto_stays_where_it_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def refuses(*_: object) -> None:
        raise InputError("OpenVINO cannot load it")

    monkeypatch.setattr("edge_speech.backends.openvino.load", refuses)
    bundle = write_bundle(tmp_path / "b")
    recognizer = Recognizer.load(bundle)
    assert recognizer.artifact is not None
    assert recognizer.artifact.backend == "onnxruntime"
    assert not [one for one in recwarn if one.category is FellBack]
    with pytest.warns(FellBack, match="cannot load it; not compared"):
        checks = verification.verify(bundle).artifacts
    assert [(c.backend, c.max_abs_difference is None) for c in checks] == [
        ("onnxruntime", False),
        ("openvino", True),
    ]


def test_without_it_the_line_says_what_to_install(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"'openvino' needs openvino; install.*edge-speech\[openvino\]"):
        Recognizer.load(bundle, backend="openvino")
    assert choose_artifact(read_bundle(bundle)).backend == "onnxruntime"
    assert len(runnable_artifacts(read_bundle(bundle))) == 1


def test_a_bundle_of_other_files(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b")
    edit(bundle, lambda data: data["artifacts"][0].update(backend="tensorrt"))
    with pytest.raises(InputError, match="no artifact for backend 'openvino'; the bundle has tensorrt"):
        Recognizer.load(bundle, backend="openvino")


def test_verify_holds_it_against_the_golden_vectors(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, further = verification.verify(bundle).artifacts
    assert (own.backend, further.backend, further.path) == ("onnxruntime", "openvino", own.path)
    assert further.max_abs_difference is not None
    assert further.max_abs_difference < 2e-3

    monkeypatch.setattr("edge_speech.backends.openvino.load", lambda *_: Louder())
    with pytest.raises(CheckFailed, match=r"model.onnx in openvino does not give the golden log_probs"):
        verification.verify(bundle)


class Louder(TinyEncoder):
    """An engine that gives something else."""

    def open(self, features: np.ndarray, log_probs: np.ndarray) -> object:
        stream = super().open(features, log_probs)
        step = stream.step

        def wrong() -> None:
            step()
            log_probs[:] = log_probs[:, ::-1]

        stream.step = wrong  # type: ignore[method-assign]
        return stream


def test_commands_say_which_engine_ran(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wav(tmp_path / "a.wav", (speech_like(1) * 32767).astype(np.int16))
    (tmp_path / "a.jsonl").write_text('{"audio_filepath": "a.wav", "duration": 1.0, "text": "one"}\n')
    assert main(["bench", str(bundle), "--backend", "all", "--json", "--quiet"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [one["backend"] for one in results] == ["onnxruntime", "openvino"]
    assert main(["eval", str(bundle), str(tmp_path / "a.jsonl"), "--backend", "openvino", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backend"] == "openvino"


def test_bench_leaves_out_what_it_does_not_read(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_speech.commands import bench

    def measure(request: bench.Request) -> bench.Measurement:
        if request.backend == "openvino":
            raise InputError("OpenVINO cannot load it")
        return real(request)

    real = bench.measure
    monkeypatch.setattr(bench, "measure", measure)
    assert main(["bench", str(bundle), "--backend", "all", "--json", "--quiet"]) == 0
    said = capsys.readouterr()
    assert [one["backend"] for one in json.loads(said.out)["results"]] == ["onnxruntime"]
    assert said.err == "edge-speech: OpenVINO cannot load it; left out\n"
