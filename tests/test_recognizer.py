"""Recognizer over bundles: engines against the numpy double, artifact choice, load errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_speech import backends
from edge_speech.bundle import read_bundle, sha256_of
from edge_speech.errors import InputError
from edge_speech.features import frontend_from_dict
from edge_speech.recognizer import Recognizer, choose_artifact
from tiny import FRONTEND, SPEC, TOKENS, TinyEncoder, edit, speech_like, write_bundle, write_onnx, write_wav


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("recognizer") / "bundle")


def log_probs(recognizer: Recognizer, waveform: np.ndarray, piece: int) -> np.ndarray:
    stream = recognizer.create_stream(keep_log_probs=True)
    for i in range(0, len(waveform), piece):
        stream.accept_waveform(waveform[i : i + piece], 16000)
    stream.input_finished()
    return stream.log_probs()


def test_onnxruntime_equals_the_double(bundle: Path) -> None:
    double = Recognizer(TinyEncoder(), frontend_from_dict(FRONTEND), TOKENS)
    recognizer, waveform = Recognizer.load(bundle), speech_like(5)
    expected = log_probs(double, waveform, len(waveform))
    whole = log_probs(recognizer, waveform, len(waveform))
    np.testing.assert_allclose(whole, expected, atol=2e-4)
    assert log_probs(recognizer, waveform, 320).tobytes() == whole.tobytes()


def test_streams_of_one_recognizer_do_not_mix(bundle: Path) -> None:
    recognizer, one, two = Recognizer.load(bundle), speech_like(2, seed=1), speech_like(2, seed=2)
    alone = [log_probs(recognizer, waveform, 800) for waveform in (one, two)]
    streams = [recognizer.create_stream(keep_log_probs=True) for _ in range(2)]
    for i in range(0, len(one), 800):
        streams[0].accept_waveform(one[i : i + 800], 16000)
        streams[1].accept_waveform(two[i : i + 800], 16000)
    for stream, expected in zip(streams, alone, strict=True):
        stream.input_finished()
        assert stream.log_probs().tobytes() == expected.tobytes()
    streams[0].reset()  # after an odd number of steps too, the state starts again from zero
    streams[0].accept_waveform(two, 16000)
    streams[0].input_finished()
    assert streams[0].log_probs().tobytes() == alone[1].tobytes()


def test_transcribe_is_a_stream_with_one_chunk(bundle: Path, tmp_path: Path) -> None:
    recognizer, waveform = Recognizer.load(bundle), (speech_like(3) * 32767).astype(np.int16)
    write_wav(tmp_path / "a.wav", waveform)
    stream = recognizer.create_stream()
    stream.accept_waveform(waveform, 16000)
    stream.input_finished()
    assert recognizer.transcribe(tmp_path / "a.wav") == stream.result
    assert stream.result.text


def test_states_stay_in_two_sets_of_buffers(bundle: Path) -> None:
    """onnxruntime writes the next state into the other set and log_probs into ours: nothing is copied."""
    features = np.ones((SPEC.window_frames, SPEC.num_features), np.float32)
    rows = np.zeros((SPEC.output_frames, SPEC.vocab_size), np.float32)
    stream = Recognizer.load(bundle).encoder.open(features, rows)
    (_, even), (_, odd) = stream._states
    counts = []
    for _ in range(4):
        stream.step()
        counts.append((int(even[0]), int(odd[0])))
    assert counts == [(0, 1), (2, 1), (2, 3), (4, 3)]
    np.testing.assert_allclose(np.exp(rows).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("renamed", "match"),
    [
        ({"carry": "carried"}, "inputs differ.*carried"),
        ({"next_steps": "steps_after"}, "outputs differ"),
        ({"log_probs": "logits_out"}, "outputs differ.*log_probs"),
    ],
)
def test_models_that_do_not_fit_the_manifest(tmp_path: Path, renamed: dict[str, str], match: str) -> None:
    write_onnx(tmp_path / "model.onnx", **renamed)
    with pytest.raises(InputError, match=match):
        backends.load_encoder("onnxruntime", tmp_path / "model.onnx", SPEC)


def test_wrong_shape_and_not_a_model(tmp_path: Path) -> None:
    from dataclasses import replace

    write_onnx(tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"features.*manifest says"):
        backends.load_encoder("onnxruntime", tmp_path / "model.onnx", replace(SPEC, right_context_frames=4))
    (tmp_path / "noise.onnx").write_bytes(b"\x08\x07 not a model")
    for backend in backends.available():
        with pytest.raises(InputError) as caught:
            backends.load_encoder(backend, tmp_path / "noise.onnx", SPEC)
        assert "\n" not in str(caught.value)


def edited(bundle: Path, **changes: object) -> Path:
    edit(bundle, lambda data: data["artifacts"][0].update(changes))
    return bundle


def test_choice_of_artifact(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b")
    assert choose_artifact(read_bundle(bundle)).backend == "onnxruntime"
    with pytest.raises(InputError, match=r"no artifact for backend 'torch'.*onnxruntime"):
        Recognizer.load(bundle, backend="torch")
    edited(bundle, status="planned", command="trtexec --onnx=model.onnx")
    for backend in ("auto", "onnxruntime"):
        with pytest.raises(InputError, match=r"planned.*`trtexec --onnx=model.onnx`"):
            Recognizer.load(bundle, backend)
    edited(bundle, status="verified", backend="abacus")
    with pytest.raises(InputError, match=r"unknown backend 'abacus'.*onnxruntime"):
        Recognizer.load(bundle)


def test_num_threads_and_changed_artifact(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b")
    with pytest.raises(InputError, match="num_threads"):
        Recognizer.load(bundle, num_threads=0)
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[-20] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    with pytest.raises(InputError, match="SHA-256"):
        Recognizer.load(bundle)
    (bundle / "model.onnx").write_bytes(b"garbage")
    edited(bundle, bytes=7, sha256=sha256_of(bundle / "model.onnx"))
    with pytest.raises(InputError, match="cannot load"):
        Recognizer.load(bundle)


def test_lite_interpreter_runs_the_same_stream(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from lite import save_lite

    save_lite(tmp_path / "model.ptl")
    encoder = backends.load_encoder("torchscript_mobile", tmp_path / "model.ptl", SPEC)
    recognizer, waveform = Recognizer(encoder, frontend_from_dict(FRONTEND), TOKENS), speech_like(3)
    double = Recognizer(TinyEncoder(), frontend_from_dict(FRONTEND), TOKENS)
    whole = log_probs(recognizer, waveform, len(waveform))
    np.testing.assert_allclose(whole, log_probs(double, waveform, len(waveform)), atol=2e-4)
    assert log_probs(recognizer, waveform, 160).tobytes() == whole.tobytes()
    assert torch.get_num_threads() == 1
