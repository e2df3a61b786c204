"""A layer that eight bits break is found, stays fp32, and the budget holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_speech.errors import CheckFailed, InputError
from edge_speech.features import frontend_from_dict
from edge_speech.training.checkpoint import load_model, save_model
from edge_speech_tools import fallback, pipeline, recordings
from edge_speech_tools.calibration import CalibrationSet, calibrate
from edge_speech_tools.plan import OptimizeConfig

BROKEN = "layers.4.convolution.expand"


@pytest.fixture
def broken(tmp_path: Path, digits: Path) -> Path:
    """The digits model with scales of its own, of which one is far too small for its layer's input."""
    loaded = load_model(digits / "model.pt")
    calibration = recordings.from_manifest(digits / "calibration.jsonl", need_text=False)
    features = CalibrationSet(calibration.recordings, frontend_from_dict(loaded.frontend))
    scales = dict(calibrate(loaded.model, loaded.model.spec, features))  # type: ignore[union-attr, arg-type]
    scales[BROKEN] = replace(scales[BROKEN], input_scale=scales[BROKEN].input_scale / 200)
    save_model(tmp_path / "broken.pt", replace(loaded, quantization=scales))
    return tmp_path / "broken.pt"


@pytest.fixture
def config(tmp_path: Path, digits: Path, broken: Path) -> OptimizeConfig:
    return OptimizeConfig(
        model=broken,
        target="linux-x86_64",
        output=tmp_path / "bundle",
        eval_manifest=digits / "clips.jsonl",
        calibration_manifest=digits / "calibration.jsonl",
        precision="int8-static",
        quiet=True,
        cache=tmp_path / "cache",
        force=True,
    )


def test_scales_in_the_checkpoint_need_no_recordings(config: OptimizeConfig) -> None:
    plain = replace(config, calibration_manifest=None, accuracy_budget=1000.0)
    report = pipeline.optimize(plain).report
    assert [a["precision"] for a in report["artifacts"] if a["kept"]] == ["int8-static"]


def test_scales_that_lack_layers_need_recordings(config: OptimizeConfig) -> None:
    loaded = load_model(config.model)
    few = dict(list(loaded.quantization.items())[:3])
    save_model(config.model, replace(loaded, quantization=few))
    with pytest.raises(InputError, match="--calibration"):
        pipeline.optimize(replace(config, calibration_manifest=None))


def test_the_broken_layer_alone_stays_fp32(config: OptimizeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    report = pipeline.optimize(config).report
    kept = [layer["layer"] for layer in report["sensitivity"] if layer["precision"] == "fp32"]
    assert kept == [BROKEN]
    (int8,) = (a for a in report["quality"]["artifacts"] if a["precision"] == "int8-static")
    assert int8["wer_added"] <= config.accuracy_budget
    assert any(BROKEN in reason for reason in report["decision"])
    page = (config.output / "report.html").read_text(encoding="utf-8")
    assert "Sensitivity by layer" in page

    monkeypatch.setattr(fallback, "layer_costs", None)  # a second run finds nothing anew
    assert pipeline.optimize(config).report["sensitivity"] == report["sensitivity"]


def test_within_the_budget_the_report_has_every_layer_too(
    config: OptimizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenient = replace(config, accuracy_budget=1000.0)
    layers = pipeline.optimize(lenient).report["sensitivity"]
    assert {one["precision"] for one in layers} == {"int8"}
    assert {one["layer"] for one in layers} == set(load_model(config.model).quantization)
    assert max(layers, key=lambda one: one["divergence"])["layer"] == BROKEN
    monkeypatch.setattr(fallback, "layer_costs", None)
    assert pipeline.optimize(lenient).report["sensitivity"] == layers


def test_where_nothing_helps_nothing_is_claimed(
    config: OptimizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def useless(*_: object) -> None:
        raise CheckFailed("all layers put back do not help")

    monkeypatch.setattr(fallback, "keep_within", useless)
    with pytest.raises(CheckFailed, match="no artifact passed"):
        pipeline.optimize(config)
    assert not config.output.exists()
