"""Trackers: MLflow and Weights & Biases as installed, on local files; a run that resumes is one run there."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wandb
from mlflow.tracking import MlflowClient

from edge_speech.errors import InputError
from edge_speech.training.recipe import Compose, Data, Optimizer, Recipe, Run, Source
from edge_speech.training.trackers import available, flat
from edge_speech.training.train import Trainer, train

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture
def recipe(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    settings = {
        "MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return Recipe(
        data=Data(
            (Source("clips.jsonl", compose=Compose(max_count=1)),), root=str(digits), vocabulary=DIGITS
        ),
        architecture="dnn",
        model={"size": "small"},
        frontend={"type": "fbank", "sample_rate": 8000, "num_mel_bins": 23},
        optimizer=Optimizer(steps=4, batch_size=2, warmup_steps=1),
        run=Run(workers=0, log_every=1, checkpoint_every=2, tracking=("mlflow", "tensorboard", "wandb")),
    )


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What W&B was told, which its offline files hold in a form of their own; it is told all the same."""
    told: dict[str, list[Any]] = {"lines": [], "ids": [], "artifacts": [], "parameters": []}
    log, log_artifact = wandb.Run.log, wandb.Run.log_artifact

    def logged(self: Any, line: dict[str, Any]) -> None:
        told["lines"].append(line)
        told["ids"].append(self.id)
        told["parameters"].append(dict(self.config))
        log(self, line)

    def kept(self: Any, artifact: Any) -> Any:
        told["artifacts"].append(sorted(artifact.manifest.entries))
        return log_artifact(self, artifact)

    monkeypatch.setattr(wandb.Run, "log", logged)
    monkeypatch.setattr(wandb.Run, "log_artifact", kept)
    return told


def interrupted_and_resumed(recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after step 2, the end after the report of step 3, which the resumed run makes again."""
    update = Trainer._update

    def interrupted(self: Trainer, parts: Any) -> tuple[float, float]:
        if self.step == 3:
            raise KeyboardInterrupt
        return update(self, parts)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, folder, quiet=True)
    train(recipe, folder, quiet=True)


def test_a_resumed_run_is_one_run_in_every_tracker(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, list[Any]]
) -> None:
    folder = tmp_path / "digits"
    interrupted_and_resumed(recipe, folder, monkeypatch)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    in_mlflow(lines)
    assert [line["step"] for line in told["lines"]] == [1, 2, 3, 3, 4]
    assert [told["lines"][i] for i in (0, 1, 3, 4)] == lines
    assert set(told["ids"]) == {(folder / "wandb.run").read_text().strip()}
    assert told["parameters"][0]["optimizer.batch_size"] == 2
    assert told["artifacts"] == [["curve.png", "model.pt"]]
    assert len(list((folder / "wandb").glob(f"offline-run-*-{told['ids'][0]}"))) == 2
    assert list((folder / "tensorboard").iterdir())


def in_mlflow(lines: list[dict[str, Any]]) -> None:
    client = MlflowClient()
    experiment = client.get_experiment_by_name("edge-speech")
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "digits")
    assert run.data.params["optimizer.batch_size"] == "2"
    assert run.data.params["architecture"] == "dnn"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert Counter(metric.step for metric in history) == {1: 1, 2: 1, 3: 2, 4: 1}
    assert {metric.step: metric.value for metric in history} == {line["step"]: line["loss"] for line in lines}
    assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} == {"model.pt", "curve.png"}


def test_there_is_one_file_per_tracker() -> None:
    assert available() == ["mlflow", "tensorboard", "wandb"]
    assert flat({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {"a.b": 1, "a.c.d": 2, "e": [3]}


@pytest.mark.parametrize("name", ["mlflow", "tensorboard", "wandb"])
def test_one_that_is_not_installed_says_how_to(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module = {"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow.exceptions"}.get(name, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"has '{name}', which needs .*edge-speech\[train,tracking\]"):
        train(with_tracking(recipe, name), tmp_path / "run", quiet=True)


def test_one_that_does_not_start_says_why(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://x")
    with pytest.raises(InputError, match=r"mlflow: .*nonsense.*MLFLOW_TRACKING_URI"):
        train(with_tracking(recipe, "mlflow"), tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="has 'clearml'; there are mlflow, tensorboard, wandb"):
        train(with_tracking(recipe, "clearml"), tmp_path / "run", quiet=True)


def with_tracking(recipe: Recipe, *names: str) -> Recipe:
    return replace(recipe, run=replace(recipe.run, tracking=names))
