"""Every bad input, through the real program: exit 2, one line on stderr, no traceback, nothing on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_speech.bundle import MANIFEST
from tiny import edit, speech_like, write_bundle, write_wav

INTS = (speech_like(0.3) * 32767).astype(np.int16)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle")
    write_wav(tmp_path / "good.wav", INTS)
    return tmp_path


# Commands run there without OpenVINO, as the tests of this process do: see conftest.py.
PLAIN = str(Path(__file__).parent / "without_openvino")


def run(folder: Path, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join([PLAIN, root, os.path.join(root, "tools")])
    command = [sys.executable, "-m", "edge_speech", *words]
    env = os.environ | {"PYTHONPATH": path}
    return subprocess.run(
        command, cwd=folder, input=stdin, capture_output=True, timeout=120, check=False, env=env
    )


def refused(folder: Path, match: str, *words: str, stdin: bytes = b"") -> None:
    done = run(folder, *words, stdin=stdin)
    message = done.stderr.decode()
    assert done.returncode == 2, message
    assert message.count("\n") == 1, message
    assert message.endswith("\n")
    assert "Traceback" not in message
    assert match in message
    assert done.stdout == b""


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


AUDIO: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: None, "No such file"),
    "directory": (lambda p: p.mkdir(), "a directory"),
    "empty": (lambda p: p.write_bytes(b""), "an empty file"),
    "no samples": (lambda p: write_wav(p, INTS[:0]), "no samples"),
    "not audio": (lambda p: p.write_bytes(b"GIF89a" * 100), "not readable audio"),
    "truncated": (lambda p: (write_wav(p, INTS), cut(p, 1000)), "cut off"),
    "truncated header": (lambda p: (write_wav(p, INTS), cut(p, 20)), "cut off"),
    "stereo": (lambda p: write_wav(p, INTS, channels=2), "2 channels; one is needed"),
    "NaN": (lambda p: soundfile.write(p, np.full(99, np.nan), 16000, subtype="FLOAT"), "NaN or infinite"),
    "infinite": (
        lambda p: soundfile.write(p, np.full(99, np.inf), 16000, subtype="FLOAT"),
        "NaN or infinite",
    ),
    "rate too low": (lambda p: write_wav(p, INTS, 3000), "4000 to 192000"),
    "rate too high": (lambda p: write_wav(p, INTS, 384000), "4000 to 192000"),
}


@pytest.mark.parametrize("kind", AUDIO)
def test_audio(work: Path, kind: str) -> None:
    make, match = AUDIO[kind]
    make(work / "odd.wav")
    refused(work, match, "transcribe", "bundle", "odd.wav")


@pytest.mark.parametrize("sample_rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_every_rate_from_8_to_96_khz_is_taken(work: Path, sample_rate: int) -> None:
    write_wav(work / "a.wav", (speech_like(1, sample_rate) * 32767).astype(np.int16), sample_rate)
    done = run(work, "transcribe", "bundle", "a.wav", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["audio_s"] == 1.0


def change_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


BUNDLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed model": (lambda b: change_byte(b / "model.onnx"), "SHA-256"),
    "changed tokens": (lambda b: change_byte(b / "tokens.txt"), "SHA-256"),
    "truncated model": (lambda b: cut(b / "model.onnx", 100), "100 bytes, but manifest.json says"),
    "missing model": (lambda b: (b / "model.onnx").unlink(), "missing"),
    "wrong version": (lambda b: edit(b, lambda d: d.update(version=99)), "'version' must be 1"),
    "wrong format": (lambda b: edit(b, lambda d: d.update(format="zip")), "'format' must be"),
    "absurd shape": (lambda b: edit(b, lambda d: d["encoder"].update(chunk_frames=10**12)), "chunk_frames"),
    "absurd state": (lambda b: edit(b, lambda d: d["encoder"]["state"][0].update(shape=[10**9])), "shape"),
    "absurd bytes": (lambda b: edit(b, lambda d: d["artifacts"][0].update(bytes=10**15)), "bytes"),
    "absurd manifest": (lambda b: os.truncate(b / MANIFEST, 1 << 40), "at most"),
    "outside path": (lambda b: edit(b, lambda d: d["artifacts"][0].update(path="../x")), "relative name"),
    "odd frontend": (lambda b: edit(b, lambda d: d["frontend"].update(type="ears")), "frontend type"),
    "frontend range": (lambda b: edit(b, lambda d: d["frontend"].update(num_mel_bins=0)), "num_mel_bins"),
    "other model's spec": (
        lambda b: edit(b, lambda d: d["encoder"].update(chunk_frames=16)),
        "manifest says",
    ),
    "no manifest": (lambda b: (b / MANIFEST).unlink(), "not a bundle"),
}


@pytest.mark.parametrize("kind", BUNDLES)
def test_bundle(work: Path, kind: str) -> None:
    make, match = BUNDLES[kind]
    make(work / "bundle")
    refused(work, match, "transcribe", "bundle", "good.wav")


USAGE = {
    "no command": ((), "required: COMMAND"),
    "unknown command": (("transcibe",), "invalid choice"),
    "no bundle": (("transcribe", "nowhere", "good.wav"), "no such bundle"),
    "a file that is no bundle": (("transcribe", "good.wav", "good.wav"), "not a packed bundle"),
    "no audio": (("transcribe", "bundle"), "give audio files"),
    "unknown option": (("transcribe", "bundle", "good.wav", "--loud"), "does not know --loud"),
    "too many words": (("inspect", "bundle", "bundle"), "does not know bundle"),
    "unknown backend": (("transcribe", "bundle", "good.wav", "--backend", "cuda"), "has onnxruntime"),
    "chunk": (("transcribe", "bundle", "good.wav", "--chunk-ms", "-5"), "--chunk-ms"),
    "chunk NaN": (("transcribe", "bundle", "good.wav", "--chunk-ms", "nan"), "--chunk-ms"),
    "beam": (("transcribe", "bundle", "good.wav", "--beam-size", "0"), "beam_size is 0"),
    "beam of eval": (("eval", "bundle", "nowhere.jsonl", "--beam-size", "x"), "--beam-size"),
    "hotwords": (("transcribe", "bundle", "good.wav", "--hotwords", "x"), "x: cannot be read"),
    "hotwords not text": (("transcribe", "bundle", "good.wav", "--hotwords", "good.wav"), "cannot be read"),
    "hotwords and greedy": (
        ("transcribe", "bundle", "good.wav", "--beam-size", "1", "--hotwords", "bundle/tokens.txt"),
        "beam_size is 1",
    ),
    "threads": (("transcribe", "bundle", "good.wav", "--threads", "0"), "num_threads"),
    "no manifest": (("eval", "bundle", "nowhere.jsonl"), "no such manifest"),
    "not a manifest": (("eval", "bundle", "good.wav"), "good.wav:1: not JSON"),
    "limit": (("eval", "bundle", "good.wav", "--limit", "0"), "--limit"),
    "bench audio": (("bench", "bundle", "--audio", "nowhere.wav"), "nowhere.wav: cannot be read"),
    "bench page": (("bench", "bundle", "--html", "nowhere/x.html"), "--html"),
    "pack over a file": (("pack", "bundle", "-o", "good.wav"), "--force"),
    "pack nowhere": (("pack", "bundle", "-o", "nowhere/x.esb"), "no such directory"),
}


@pytest.mark.parametrize("kind", USAGE)
def test_usage(work: Path, kind: str) -> None:
    words, match = USAGE[kind]
    refused(work, match, *words)


def test_odd_pipes(work: Path) -> None:
    wav = (work / "good.wav").read_bytes()
    refused(work, "cut off", "transcribe", "bundle", "-", "--quiet", stdin=wav[:-100])
    refused(work, "4000 to 192000", "transcribe", "bundle", "-", "--sample-rate", "10", stdin=b"\0\0" * 99)


def test_optimize_refuses_strangers(work: Path) -> None:
    (work / "odd.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    known = "optimize", "odd.pt", "--target", "linux-x86_64", "-o", "new"
    refused(work, "odd.pt", *known)
    refused(work, "--force", *known[:-1], "bundle")
    refused(work, "did you mean linux-arm64", "optimize", "odd.pt", "--target", "linux-arm46", "-o", "new")
    assert not (work / "new").exists()


def test_train_refuses_a_missing_recipe(work: Path) -> None:
    refused(work, "nowhere.toml", "train", "nowhere.toml", "-o", "run")


def test_a_disk_that_is_full(work: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "edge_speech", "inspect", str(work / "bundle")]
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=env, check=False)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"No space left" in done.stderr
