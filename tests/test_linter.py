"""Each check of the linter: it finds what it is for, and keeps quiet about a sound model."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from edge_speech.errors import CheckFailed
from edge_speech.target import load_target
from edge_speech.training import models
from edge_speech.training.checkpoint import load_model
from edge_speech_tools import linter, pipeline
from edge_speech_tools.device_bench import DeviceResult
from edge_speech_tools.passes import PassResult
from edge_speech_tools.recordings import Recording, RecordingSet, from_manifest
from test_optimize import config_of, write_model

SMALL = {"vocab_size": 11}


@pytest.mark.parametrize("name", sorted(set(models.available()) - {"wav2vec2"}))
def test_our_models_read_and_renew_their_state(name: str) -> None:
    torch.manual_seed(0)
    model = models.build(name, SMALL).eval()
    assert linter.lint_state(model, model.spec) == []  # type: ignore[arg-type]


def tampered(change: Any) -> torch.nn.Module:
    """A small Conformer whose forward is `change(forward)`."""
    torch.manual_seed(0)
    model = models.build("conformer", {**SMALL, "d_model": 32, "num_layers": 1}).eval()
    model.forward = change(model.forward)  # type: ignore[method-assign]
    return model


def unread(forward: Any) -> Any:
    """The first state is replaced by zeros before it is used."""

    def run(features: Tensor, first: Tensor, *state: Tensor) -> Any:
        return forward(features, torch.zeros_like(first), *state)

    return run


def unrenewed(forward: Any) -> Any:
    """The first state comes back as zeros."""

    def run(features: Tensor, *state: Tensor) -> Any:
        log_probs, first, *others = forward(features, *state)
        return (log_probs, torch.zeros_like(first), *others)

    return run


@pytest.mark.parametrize(("change", "said"), [(unread, "not read"), (unrenewed, "not renewed")])
def test_baked_state_is_an_error_that_names_it(change: Any, said: str) -> None:
    model = tampered(change)
    (found,) = linter.lint_state(model, model.spec)  # type: ignore[arg-type]
    assert (found.check, found.severity) == ("baked-state", linter.ERROR)
    assert said in found.message
    assert model.spec.state[0].name in found.message  # type: ignore[union-attr, index]
    assert found.remedy


def test_widths_off_the_tile() -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.Linear(32, 5))
    assert linter.lint_tiles(layers, {"fp16": 8}) == []
    (found,) = linter.lint_tiles(layers, {"fp16": 8, "int8": 16})
    assert "0 (24)" in found.message
    assert "16" in found.remedy
    assert linter.lint_tiles(torch.nn.Linear(3, 3), {}) == []


LINUX = load_target("linux-x86_64")
ON_DEVICE = DeviceResult(latency_ms=1, latency_p99_ms=2, rtf=0.01, peak_rss_mib=80, bytes=3 << 20)


@pytest.mark.parametrize(
    ("limits", "on_device", "checks"),
    [
        ({}, {}, []),
        ({"artifact_limit_mib": 2.5}, {}, ["artifact-size"]),
        ({"memory_limit_mib": 2.5}, {}, ["memory"]),
        ({"artifact_limit_mib": 2.5, "memory_limit_mib": 2.5}, {}, ["artifact-size", "memory"]),
        ({"memory_limit_mib": 79}, {"onnxruntime/fp32": ON_DEVICE}, ["memory"]),
        ({"memory_limit_mib": 81}, {"onnxruntime/fp32": ON_DEVICE}, []),
        ({}, {"onnxruntime/fp32": replace(ON_DEVICE, bytes=5)}, ["device-bench"]),
        ({}, {"onnxruntime/int8-static": replace(ON_DEVICE, bytes=5)}, []),
    ],
)
def test_limits_of_the_target(
    tmp_path: Path, limits: dict[str, float], on_device: dict[str, DeviceResult], checks: list[str]
) -> None:
    (tmp_path / "a.onnx").write_bytes(bytes(3 << 20))
    made = [PassResult(tmp_path / "a.onnx", "onnxruntime", "fp32", "built", "onnxruntime")]
    found = linter.lint_limits(made, replace(LINUX, **limits), on_device)
    assert [one.check for one in found] == checks
    assert all(one.severity == linter.WARNING and one.remedy for one in found)
    assert all("onnxruntime/fp32" in one.message for one in found)


def graph(path: Path, op_type: str, length: int | str, opset: int = 13) -> Path:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, length]) for n in ("x", "y")]
    made = helper.make_graph([helper.make_node(op_type, ["x"], ["y"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)]), path)
    return path


def test_a_graph_with_an_operator_that_tensorrt_lacks(tmp_path: Path) -> None:
    bad = graph(tmp_path / "bad.onnx", "Det", 4)
    (found,) = linter.lint_graph(bad, "tensorrt", "8.6.2")
    assert (found.check, found.severity) == ("operator", linter.ERROR)
    assert "tensorrt 8.6 lacks Det" in found.message
    assert linter.lint_graph(bad, "onnxruntime") == []
    assert linter.lint_graph(graph(tmp_path / "good.onnx", "Relu", 4), "tensorrt", "8.2.1") == []


@pytest.mark.parametrize(
    ("version", "said"),
    [("8.5.2", "tensorrt 8.5 does not document LayerNormalization"), ("8.6", None), (None, None)],
)
def test_what_a_newer_tensorrt_has_is_left_to_the_board(
    version: str, said: str | None, tmp_path: Path
) -> None:
    found = linter.lint_graph(graph(tmp_path / "norm.onnx", "LayerNormalization", 4), "tensorrt", version)
    assert [one.severity for one in found] == ([linter.WARNING] if said else [])
    assert said is None or said in found[0].message


def test_an_opset_that_a_version_does_not_document(tmp_path: Path) -> None:
    path = graph(tmp_path / "new.onnx", "Relu", 4, opset=18)
    (found,) = linter.lint_graph(path, "tensorrt", "8.6.2")
    assert (found.severity, "opset 18" in found.message) == (linter.WARNING, True)
    assert linter.lint_graph(path, "tensorrt", "10.3.0") == []


@pytest.mark.parametrize(
    ("version", "table"),
    [
        ("8.2.1", "8.4"),
        ("8.5.2", "8.5"),
        ("8.6.2", "8.6"),
        ("10.3.0", "10.0"),
        ("10.16", "10.15"),
        ("12.0", "11.0"),
    ],
)
def test_the_table_of_a_version(version: str, table: str) -> None:
    assert linter.table_of(linter.operators_lacking()["tensorrt"], version)["version"] == table


def test_a_graph_of_unknown_shape(tmp_path: Path) -> None:
    (found,) = linter.lint_graph(graph(tmp_path / "a.onnx", "Relu", "T"), "onnxruntime")
    assert (found.check, found.severity) == ("dynamic-shape", linter.WARNING)


def test_the_table_names_operators_that_exist() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    for table in [table for tables in linter.operators_lacking().values() for table in tables]:
        assert set(table) - {"unconfirmed"} == {"version", "opset", "source", "lacks"}
        assert table["source"].startswith("https://")
        odd = {"SequenceLength", "NegativeLogLikelihoodLoss", "OptionalGetElement", "OptionalHasElement"}
        assert set(table["lacks"]) - known <= odd


def told(name: str, words: int, seconds: float) -> RecordingSet:
    """One recording that says `words` words."""
    text = " ".join(["a"] * words)
    return RecordingSet(
        name, (Recording("r", text, lambda: (np.zeros(int(1000 * seconds), np.float32), 1000)),)
    )


def test_small_sets_are_named_with_what_would_do() -> None:
    assert linter.lint_recordings(told("c", 0, 120), told("e", 4000, 1), 0.5) == []
    calibration, evaluation = linter.lint_recordings(told("c", 0, 30), told("e", 1555, 1), 0.5)
    assert "30 s" in calibration.message
    assert "±0.7 points" in evaluation.message
    assert "3074 words" in evaluation.remedy
    assert linter.lint_recordings(None, told("e", 1555, 1), 1.0) == []
    assert "budget above 0" in linter.lint_recordings(None, told("e", 1555, 1), 0.0)[0].remedy


def test_overlap_by_file_and_by_content(digits: Path, tmp_path: Path) -> None:
    clips = from_manifest(digits / "clips.jsonl").recordings
    assert linter.same_audio(from_manifest(digits / "calibration.jsonl").recordings, clips) == set()
    assert linter.same_audio(clips[:2], clips) == {r.name for r in clips[:2]}
    path = clips[0].path
    assert path is not None
    copy = replace(clips[0], path=Path(shutil.copyfile(path, tmp_path / "copy.wav")))
    assert linter.same_audio([copy], clips) == {clips[0].name}
    shared = linter.lint_recordings(RecordingSet("c", (copy,)), RecordingSet("e", clips), 1000.0)
    assert [one.check for one in shared] == ["calibration-size", "overlap"]


def test_an_error_ends_the_job_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_speech_tools import stages

    bad = linter.Finding("baked-state", linter.ERROR, "state x is not read", "read it")
    monkeypatch.setattr(stages, "lint_model", lambda *_: [bad])
    monkeypatch.setattr(pipeline, "build", lambda *_: pytest.fail("work was begun"))
    model = write_model(tmp_path / "model.pt")
    with pytest.raises(CheckFailed, match="state x is not read; read it"):
        pipeline.optimize(config_of(model, tmp_path / "bundle", "linux-x86_64"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_dry_run_marks_what_is_cached_and_lints(tmp_path: Path, digits: Path, capsys: Any) -> None:
    evaluation, model = digits / "clips.jsonl", write_model(tmp_path / "model.pt")
    config = config_of(
        model,
        tmp_path / "b",
        "linux-x86_64",
        cache=tmp_path / "c",
        precision="fp32",
        eval_manifest=evaluation,
    )
    target = load_target("linux-x86_64")
    before = pipeline.dry_run(config, target, show=False)
    assert not any(step["cached"] for step in before["plan"]["steps"])
    assert [one["check"] for one in before["findings"]] == ["evaluation-size"]
    assert not (tmp_path / "c").exists()
    pipeline.optimize(config)
    after = pipeline.dry_run(config, target, show=True)
    marked = {step["action"]: step["cached"] for step in after["plan"]["steps"]}
    assert {a for a, mark in marked.items() if mark == "cached"} == {"build", "parity", "quality", "drift"}
    assert "warning: clips.jsonl has" in capsys.readouterr().out
    assert load_model(model).tokens
