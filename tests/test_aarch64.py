"""64-bit Arm without a board: what is cross-compiled runs under qemu, and gives there what it gives here."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_speech.manifest import read_manifest
from edge_speech.recognizer import Recognizer

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "aarch64"
IS_ARM = platform.machine() in ("aarch64", "arm64")
EMULATOR = () if IS_ARM else ("qemu-aarch64-static", "-cpu", "cortex-a76", "-L", str(BUILD / "emulator_root"))
TOOLS = ["make", "apt-get", "aarch64-linux-gnu-g++", *EMULATOR[:1]]
SECONDS = 1.6  # of real speech: emulated floating point is slow


def run(*command: str | Path, code: int = 0) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, (
        f"{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done.stdout if code != 2 else done.stderr


def on_arm(program: str, *arguments: str | Path, code: int = 0) -> str:
    return run(*EMULATOR, BUILD / program, *arguments, code=code)


def optimize(digits: Path, clip: Path, bundle: Path, precision: str) -> Path:
    model, options = digits / "model.pt", ("--target", "linux-arm64", "--precision", precision, "--quiet")
    run(sys.executable, "-m", "edge_speech", "optimize", model, *options, "--eval", clip, "-o", bundle)
    return bundle


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found: apt-get install g++-aarch64-linux-gnu qemu-user-static")
    run("make", "aarch64-build", f"BIN={Path(sys.executable).parent}")


@pytest.fixture(scope="module")
def speech(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The beginning of a shipped clip as WAV, with a manifest beside it."""
    utterance = read_manifest(digits / "clips.jsonl")[0]
    samples, sample_rate = soundfile.read(utterance.audio_path, dtype="int16")
    wav = tmp_path_factory.mktemp("speech") / "speech.wav"
    soundfile.write(wav, samples[: int(SECONDS * sample_rate)], sample_rate)
    entry = {"audio_filepath": wav.name, "duration": SECONDS, "text": " ".join(utterance.text.split()[:2])}
    wav.with_suffix(".jsonl").write_text(json.dumps(entry) + "\n", encoding="utf-8")
    return wav


@pytest.fixture(scope="module")
def bundle(digits: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arm")
    return optimize(digits, speech.with_suffix(".jsonl"), folder / "fp32", "fp32")


def test_all_cpp_tests_pass() -> None:
    sources = [*ROOT.glob("cpp_runtime/tests/*_test.cc"), *ROOT.glob("cpp_runtime/fuzz/*_fuzz.cc")]
    ctest = Path(sys.executable).parent / "ctest"
    output = run(ctest, "--test-dir", BUILD, "--output-on-failure", "--parallel", str(os.cpu_count()))
    assert re.search(rf"100% tests passed\b.* out of {len(sources)}\b", output)


def test_onnx_gives_the_golden_vectors(bundle: Path) -> None:
    lines = on_arm("bundle_check", bundle).splitlines()
    assert [tuple(line.split()[:2]) for line in lines] == [
        ("ok", stage) for stage in ("features", "decoder", "encoder", "line", "line")
    ]
    text = (bundle / "golden" / "text.txt").read_text(encoding="utf-8")
    assert text
    assert lines[-1].endswith(f"heard: {text}")


def test_int8_gives_the_golden_best_symbols(digits: Path, speech: Path, tmp_path: Path) -> None:
    bundle = optimize(digits, speech.with_suffix(".jsonl"), tmp_path / "int8", "int8-dynamic")
    assert "int8-dynamic" in on_arm("bundle_check", bundle)


def spoil_rows(path: Path) -> None:
    rows = np.load(path)
    rows[len(rows) // 2] -= 0.01
    np.save(path, rows)


@pytest.mark.parametrize(
    ("name", "stage"), [("features.npy", "features"), ("text.txt", "decoder"), ("log_probs.npy", "encoder")]
)
def test_another_golden_vector_is_a_failure(bundle: Path, tmp_path: Path, name: str, stage: str) -> None:
    shutil.copytree(bundle, tmp_path / "spoilt")
    path = tmp_path / "spoilt" / "golden" / name
    if path.suffix == ".npy":
        spoil_rows(path)
    else:
        path.write_text("nothing of the kind", encoding="utf-8")
    last = on_arm("bundle_check", tmp_path / "spoilt", code=1).splitlines()[-1]
    assert re.match(rf"FAIL {stage} ", last)


def test_the_example_hears_what_python_hears(bundle: Path, speech: Path) -> None:
    heard = on_arm("examples/cpp/transcribe", bundle, speech).splitlines()
    assert heard[-1] == Recognizer.load(bundle).transcribe(speech).text != ""
    assert len(heard) > 1  # words as they came


def test_bad_input_is_one_line(bundle: Path, tmp_path: Path) -> None:
    cases = [("bundle_check", [tmp_path]), ("examples/cpp/transcribe", [bundle, bundle / "manifest.json"])]
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    manifest = other / "manifest.json"
    manifest.write_text(re.sub(r'"vocab_size": \d+', '"vocab_size": 9', manifest.read_text("utf-8")), "utf-8")
    for program, arguments in [*cases, ("bundle_check", [other])]:
        assert len(on_arm(program, *arguments, code=2).splitlines()) == 1
