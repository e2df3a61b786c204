"""optimize --pruning-ratio: the bundle is of the smaller model, words are counted against the given one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_speech.cli import main
from edge_speech.errors import CheckFailed, InputError
from edge_speech.training.checkpoint import load_model
from edge_speech.training.recipe import read_recipe
from edge_speech.training.train import train
from edge_speech_tools import pipeline
from edge_speech_tools.plan import OptimizeConfig
from edge_speech_tools.prune import fine_tune, ratio
from edge_speech_tools.prune.ratio import parameters_of
from test_prune import RECIPE

DIGITS = Path(__file__).parent.parent / "examples" / "digits"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> OptimizeConfig:
    folder = tmp_path_factory.mktemp("pruned")
    return OptimizeConfig(
        DIGITS / "model.pt",
        "linux-x86_64",
        folder / "bundle",
        eval_manifest=DIGITS / "clips.jsonl",
        calibration_manifest=DIGITS / "calibration.jsonl",
        accuracy_budget=1000.0,
        precision="fp32",
        backends=("onnxruntime",),
        quiet=True,
        cache=folder / "cache",
        pruning_ratio=0.3,
    )


@pytest.fixture(scope="module")
def report(job: OptimizeConfig) -> dict[str, Any]:
    return pipeline.optimize(job).report


@pytest.fixture(scope="module")
def dense(job: OptimizeConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same without pruning."""
    output = tmp_path_factory.mktemp("dense") / "bundle"
    return pipeline.optimize(replace(job, output=output, pruning_ratio=None, cache=None)).report


def test_the_bundle_is_of_the_smaller_model(job: OptimizeConfig, report: dict[str, Any]) -> None:
    pruning, given = report["pruning"], load_model(job.model)
    assert pruning["dense_parameters"] == parameters_of(given)
    assert report["model"]["parameters"] == pruning["parameters"] <= 0.7 * parameters_of(given)
    assert pruning["ratio"] == pytest.approx(
        1 - pruning["parameters"] / pruning["dense_parameters"], abs=1e-4
    )
    encoder = json.loads((job.output / "manifest.json").read_text(encoding="utf-8"))["encoder"]
    assert len(encoder["state"]) == 3 + 3 * pruning["changes"]["num_layers"][1]
    gone = {w["weight"].split(".")[1] for w in pruning["weights"] if w["after"] is None}
    assert len(gone) == given.config["num_layers"] - pruning["changes"]["num_layers"][1]
    page = (job.output / "report.html").read_text(encoding="utf-8")
    assert "<h2>Pruning</h2>" in page
    assert pruning["weights"][0]["weight"] in page


def test_words_are_counted_against_the_given_model(report: dict[str, Any], dense: dict[str, Any]) -> None:
    assert report["quality"]["wer_pytorch"] == dense["quality"]["wer_pytorch"]
    (artifact,) = report["quality"]["artifacts"]
    assert artifact["wer_added"] == pytest.approx(artifact["wer"] - dense["quality"]["wer_pytorch"], abs=2e-3)
    assert artifact["wer"] > dense["quality"]["artifacts"][0]["wer"]


def test_untrained_pruning_does_not_pass_the_gate(job: OptimizeConfig, report: dict[str, Any]) -> None:
    with pytest.raises(CheckFailed, match="over the accuracy budget"):
        pipeline.optimize(replace(job, accuracy_budget=0.5, output=job.output.with_name("none")))
    assert not job.output.with_name("none").exists()


def test_a_second_run_prunes_nothing(
    job: OptimizeConfig, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ratio, "prune_to", lambda *_, **__: pytest.fail("pruned twice"))
    again = pipeline.optimize(replace(job, force=True)).report
    for key in ("pruning", "quality", "artifacts"):
        assert again[key] == report[key]


def test_the_plan_says_so_and_prunes_nothing(
    job: OptimizeConfig, report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "optimize",
        str(job.model),
        "--target",
        job.target,
        "-o",
        str(job.output),
        "--dry-run",
        "--json",
    ]
    arguments += ["--calibration", str(job.calibration_manifest), "--precision", "fp32"]
    assert main([*arguments, "--cache", str(job.cache), "--pruning-ratio", "0.31"]) == 0
    steps = json.loads(capsys.readouterr().out)["plan"]["steps"]
    assert "31% of the parameters" in [s["subject"] for s in steps if s["action"] == "prune"]
    assert not any(s["cached"] for s in steps)
    assert main([*arguments, "--cache", str(job.cache), "--pruning-ratio", "0.3"]) == 0
    steps = json.loads(capsys.readouterr().out)["plan"]["steps"]
    assert next(s["cached"] for s in steps if s["action"] == "build") == "cached"


def test_what_is_left_is_trained_once(
    tmp_path: Path, job: OptimizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the recipe, in the cache; a run that stopped after the training goes on behind it."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("num_layers = 1", "num_layers = 2").replace("dim = 32", "dim = 64"))
    root = f"data.root={DIGITS}"
    given = train(read_recipe(recipe, [root]), tmp_path / "dense", quiet=True)
    own = replace(
        job,
        model=given,
        output=tmp_path / "bundle",
        cache=tmp_path / "cache",
        pruning_ratio=0.2,
        fine_tune=recipe,
        recipe_changes=(root,),
        eval_manifest=None,
    )

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pipeline.optimize(own)
    monkeypatch.setattr(fine_tune, "train", lambda *_, **__: pytest.fail("trained twice"))
    pruning = pipeline.optimize(own).report["pruning"]
    assert pruning["fine_tune"] == "recipe.toml"
    assert pruning["ratio"] >= 0.2
    assert not list((tmp_path / "cache").glob("prune-training.*"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"calibration_manifest": None}, "--calibration"),
        ({"pruning_ratio": None, "fine_tune": Path("recipe.toml")}, "--pruning-ratio"),
        ({"recipe_changes": ("optimizer.steps=3",)}, "--fine-tune"),
        ({"pruning_ratio": 1.5}, "between 0 and 1"),
    ],
)
def test_what_does_not_fit_is_refused(job: OptimizeConfig, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        pipeline.optimize(replace(job, output=job.output.with_name("refused"), **changes))
