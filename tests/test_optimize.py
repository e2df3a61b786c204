"""model.pt → bundle, the whole way, and that a bundle which cannot be made leaves nothing behind."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from edge_speech import bundle
from edge_speech.audio import read_audio
from edge_speech.cli import build_parser
from edge_speech.engine_recipe import read_recipe
from edge_speech.errors import CheckFailed, InputError
from edge_speech.features import FbankConfig, frontend_to_dict
from edge_speech.manifest import read_manifest
from edge_speech.quality import Score
from edge_speech.recognizer import Recognizer
from edge_speech.training.checkpoint import LoadedModel, load_model, save_model
from edge_speech.training.models import conformer
from edge_speech_tools import job, pipeline, reference, stages
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.evaluation import PYTORCH, Quality
from edge_speech_tools.passes import PassResult, Source
from edge_speech_tools.plan import OptimizeConfig

WORDS = "zero one two three four five six seven eight nine".split()
TOKENS = ["<blk>", *(f"▁{word}" for word in WORDS)]


def write_model(path: Path) -> Path:
    """An untrained Conformer of 0.1 M parameters whose outputs are sharp enough to give words."""
    config = conformer.Config(vocab_size=len(TOKENS), d_model=32, num_layers=2, feed_forward_dim=64)
    torch.manual_seed(0)
    model = conformer.build(config).eval()
    with torch.no_grad():
        model.output.weight.mul_(8)
    loaded = LoadedModel(
        model, TOKENS, frontend_to_dict(FbankConfig()), "conformer", dataclasses.asdict(config)
    )
    save_model(path, loaded)
    return path


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with reference.single_thread():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.pt")


def config_of(model: Path, output: Path, target: str, **changes: Any) -> OptimizeConfig:
    return OptimizeConfig(model, target, output, **{"quiet": True, **changes})


@pytest.fixture(scope="module")
def linux(model: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The bundle and report of a full run; the wide budget lets the int8 forms of an untrained model in."""
    output = tmp_path_factory.mktemp("linux") / "bundle"
    config = config_of(
        model,
        output,
        "linux-x86_64",
        eval_manifest=digits / "clips.jsonl",
        calibration_manifest=digits / "calibration.jsonl",
        accuracy_budget=1000.0,
    )
    return output, pipeline.optimize(config).report


def test_the_bundle_verifies_and_is_complete(linux: tuple[Path, dict[str, Any]]) -> None:
    output, _ = linux
    manifest = bundle.verify_bundle(output).manifest
    named = {entry.path for entry in manifest.files} | {bundle.MANIFEST}
    there = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert there == named
    assert [(a.backend, a.status) for a in manifest.artifacts] == [("onnxruntime", "verified")]
    assert [p.name for p in output.parent.iterdir()] == [output.name]


def test_the_bundle_says_what_the_model_says(
    linux: tuple[Path, dict[str, Any]], model: Path, digits: Path
) -> None:
    output, report = linux
    loaded = load_model(model)
    in_torch = Recognizer(
        reference.TorchEncoder(loaded.model, loaded.model.spec),  # type: ignore[arg-type]
        FbankConfig(),
        loaded.tokens,
    )
    fp32 = next(a for a in report["artifacts"] if a["precision"] == "fp32")
    kept = next(a for a in report["artifacts"] if a["kept"])
    from_bundle = Recognizer.load(output)
    utterances = read_manifest(digits / "clips.jsonl")
    texts = [
        (in_torch.transcribe(u.audio_path).text, from_bundle.transcribe(u.audio_path).text)
        for u in utterances
    ]
    assert any(text for text, _ in texts)
    assert fp32["parity"]["text_identical"] == 1
    same = sum(want == got for want, got in texts) / len(texts)
    assert same == pytest.approx(kept["parity"]["text_identical"])


def test_golden_vectors_are_the_models(linux: tuple[Path, dict[str, Any]], model: Path, digits: Path) -> None:
    output, report = linux
    loaded = load_model(model)
    samples, rate = read_audio(read_manifest(digits / "clips.jsonl")[0].audio_path)
    waveform = np.load(output / bundle.GOLDEN_WAVEFORM)
    features = np.load(output / bundle.GOLDEN_FEATURES)
    if rate == 16000:
        np.testing.assert_array_equal(waveform, samples)
    with torch.inference_mode():
        parallel = loaded.model.parallel(torch.from_numpy(features)[None])[0].numpy()  # type: ignore[operator]
    log_probs = np.load(output / bundle.GOLDEN_LOG_PROBS)
    np.testing.assert_allclose(log_probs, parallel[: len(log_probs)], atol=1e-3)
    assert report["provenance"]["golden"].startswith("clips.jsonl: ")
    assert set((output / bundle.GOLDEN_TEXT).read_text(encoding="utf-8").split()) <= set(WORDS)


def test_report_has_its_keys_and_measured_figures(linux: tuple[Path, dict[str, Any]]) -> None:
    output, report = linux
    assert json.loads((output / "report.json").read_text(encoding="utf-8")) == json.loads(json.dumps(report))
    assert set(report) == {
        "model", "target", "plan", "findings", "decoder", "artifacts", "quality", "performance", "drift",
        "sensitivity", "prediction", "decision", "provenance",
    }  # fmt: skip
    by_precision = {a["precision"]: a for a in report["artifacts"]}
    assert set(by_precision) == {
        "fp32",
        "int8-dynamic",
        "int8-static",
        "int8-weight-only",
        "int4-weight-only",
    }
    assert 0 < by_precision["fp32"]["parity"]["max_abs"] < 1e-3
    assert by_precision["int8-static"]["parity"]["max_abs"] > by_precision["fp32"]["parity"]["max_abs"]
    assert by_precision["int8-dynamic"]["bytes"] < by_precision["fp32"]["bytes"]
    for result in report["performance"]["results"]:
        latency = result["chunk_latency_ms"]
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
        assert 0 < result["rtf"] < 1
    assert len(report["performance"]["results"]) == len(by_precision)
    quality = report["quality"]
    assert (quality["utterances"], quality["words"] > 0) == (5, True)
    for entry in quality["artifacts"]:
        assert entry["wer_ci95"][0] <= entry["wer"] <= entry["wer_ci95"][1]
    assert len(report["decision"]) == len(by_precision) + 1  # one for each, and the deadline


def test_the_kept_artifact_is_the_fastest_that_was_measured(linux: tuple[Path, dict[str, Any]]) -> None:
    _, report = linux
    p50 = {r["precision"]: r["chunk_latency_ms"]["p50"] for r in report["performance"]["results"]}
    kept = next(a["precision"] for a in report["artifacts"] if a["kept"])
    assert kept == "fp32" or p50[kept] < 0.95 * p50["fp32"]


def test_report_page_is_well_formed_and_self_contained(linux: tuple[Path, dict[str, Any]]) -> None:
    output, report = linux
    page = (output / "report.html").read_text(encoding="utf-8")
    root = ElementTree.fromstring(page.partition("\n")[2])
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    text = " ".join(root.itertext())
    for reason in report["decision"]:
        assert reason in text
    assert page.count("<svg") == 4


def test_android_prefers_the_small_file(model: Path, digits: Path, tmp_path: Path) -> None:
    config = config_of(
        model,
        tmp_path / "bundle",
        "android-arm64",
        backends=("torchscript_mobile",),
        eval_manifest=digits / "clips.jsonl",
        accuracy_budget=1000.0,
    )
    report = pipeline.optimize(config).report
    (kept,) = (a for a in report["artifacts"] if a["kept"])
    assert (kept["backend"], kept["precision"], kept["status"]) == (
        "torchscript_mobile", "int8-dynamic", "verified",
    )  # fmt: skip
    assert (
        not report["performance"]["host_is_target_arch"] or report["performance"]["host"]["arch"] == "aarch64"
    )
    assert Recognizer.load(config.output).artifact is not None


def test_jetson_is_planned_with_a_fallback(model: Path, tmp_path: Path) -> None:
    report = pipeline.optimize(config_of(model, tmp_path / "bundle", "jetson-orin")).report
    manifest = bundle.verify_bundle(tmp_path / "bundle").manifest
    planned, fallback = manifest.artifacts
    assert (planned.backend, planned.precision, planned.status) == ("tensorrt", "fp16", "planned")
    assert planned.command == "edge-speech build-engine BUNDLE --precision fp16"
    assert (fallback.backend, fallback.status) == ("onnxruntime", "verified")
    assert read_recipe(tmp_path / "bundle" / "encoder.fp16.engine.toml").onnx_sha256 == planned.sha256
    assert [r["backend"] for r in report["performance"]["results"]] == ["onnxruntime"]
    assert report["quality"] is None
    assert report["provenance"]["golden"].startswith("synthetic")


def test_an_existing_output_is_refused_before_any_work(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle").mkdir()
    monkeypatch.setattr(job, "load_any", lambda path: pytest.fail("work was begun"))
    with pytest.raises(InputError, match="--force"):
        pipeline.optimize(config_of(model, tmp_path / "bundle", "linux-x86_64"))


def export_another_model(source: Source) -> PassResult:
    torch.manual_seed(1)
    other = type(source.model)(source.model.config).eval()  # type: ignore[call-arg]
    return ORIGINAL_RUN(dataclasses.replace(source, model=other))


ORIGINAL_RUN = streaming_onnx.run


def test_parity_gate(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_onnx, "run", export_another_model)
    with pytest.raises(CheckFailed, match="onnxruntime/fp32 differs"):
        pipeline.optimize(config_of(model, tmp_path / "bundle", "linux-x86_64"))
    assert list(tmp_path.iterdir()) == []


def test_accuracy_gate(model: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_error_more(line: Any, encoders: Any, recordings: Any, progress: Any) -> dict[str, Quality]:
        words = np.full(5, 5)
        scores = {key: Score(np.array([int(key != PYTORCH), 0, 0, 0, 0]), words) for key in encoders}
        return {key: Quality(score, score) for key, score in scores.items()}

    monkeypatch.setattr(stages, "measure_quality", one_error_more)
    config = config_of(model, tmp_path / "bundle", "linux-x86_64", eval_manifest=digits / "clips.jsonl")
    with pytest.raises(CheckFailed, match=r"\+4\.00 points, over the accuracy budget of 0\.5"):
        pipeline.optimize(config)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(source: Path, destination: Path) -> None:
        destination.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", no_space)
    with pytest.raises(InputError, match="No space left"):
        pipeline.optimize(config_of(model, tmp_path / "bundle", "linux-x86_64"))
    assert list(tmp_path.iterdir()) == []


def damaged(model: Path, folder: Path) -> dict[str, Path]:
    """Checkpoints that must be refused, by what is wrong with them."""
    folder.mkdir()
    cut, other, hostile = folder / "cut.pt", folder / "other.pt", folder / "hostile.pt"
    cut.write_bytes(model.read_bytes()[:5000])
    torch.save({"state_dict": {}}, other)
    torch.save({"format": "edge-speech-model", "run": argparse.Namespace(code=print)}, hostile)
    return {"cut": cut, "other": other, "hostile": hostile, "missing": folder / "missing.pt"}


@pytest.mark.parametrize("kind", ["cut", "other", "hostile", "missing"])
def test_a_bad_checkpoint_is_one_line(kind: str, model: Path, tmp_path: Path) -> None:
    path = damaged(model, tmp_path / "models")[kind]
    with pytest.raises(InputError) as error:
        pipeline.optimize(config_of(path, tmp_path / "bundle", "linux-x86_64"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"eval_manifest": Path("missing.jsonl")}, "missing.jsonl"),
        ({"calibration_manifest": Path("missing.jsonl")}, "missing.jsonl"),
        ({"accuracy_budget": -1.0}, "accuracy budget"),
        ({"accuracy_budget": float("nan")}, "accuracy budget"),
        ({"precision": "int8-static"}, "--calibration"),
        ({"backends": ("coreml",)}, "coreml"),
        ({"target": "linux-x86-64"}, "linux-x86_64"),
    ],
)
def test_bad_arguments_are_one_line(changes: dict[str, Any], named: str, model: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(config_of(model, tmp_path / "bundle", "linux-x86_64"), **changes)
    with pytest.raises(InputError, match=named) as error:
        pipeline.optimize(config)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_texts_without_words_are_refused(model: Path, digits: Path, tmp_path: Path) -> None:
    clip = read_manifest(digits / "clips.jsonl")[0].audio_path
    manifest = tmp_path / "eval.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": str(clip), "text": " "}) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="no words"):
        pipeline.optimize(config_of(model, tmp_path / "bundle", "linux-x86_64", eval_manifest=manifest))


def test_a_manifest_that_names_missing_files_is_refused(model: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "eval.jsonl"
    manifest.write_text('{"audio_filepath": "gone.wav", "text": "one"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"gone\.wav.*1 of 1"):
        pipeline.optimize(config_of(model, tmp_path / "bundle", "linux-x86_64", eval_manifest=manifest))


def test_dry_run_prints_the_plan_and_reads_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["optimize", "missing.pt", "--target", "linux-x86_64", "-o", str(tmp_path / "bundle")]
    result = pipeline.run_command(build_parser().parse_args([*arguments, "--dry-run"]))
    assert "parity" in capsys.readouterr().out
    assert result["plan"]["steps"][0]["action"] == "load"
    assert list(tmp_path.iterdir()) == []
