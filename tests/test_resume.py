"""A training run that is killed at any moment goes on to the weights and the log of one that was not."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_speech.errors import InputError
from edge_speech.training import train as training
from edge_speech.training.checkpoint import load_model
from edge_speech.training.data import Batch
from edge_speech.training.recipe import Compose, Data, Optimizer, Recipe, Run, Source
from edge_speech.training.run_log import RunLog
from edge_speech.training.train import Trainer, train

STEPS = 16
# Imported once for all processes; the last two are what the first step and the log import.
PRELOADED = ["edge_speech.training.train", "pytest", "torch._dynamo", "torch.utils.tensorboard"]


@pytest.fixture
def recipe(digits: Path) -> Recipe:
    """Everything that has state: dropout, plateau, accumulation, best weights, float16's scaler."""
    source = Source("clips.jsonl", compose=Compose(max_count=1))
    how = Optimizer(
        steps=STEPS,
        batch_s=8.0,
        accumulate=2,
        learning_rate=1e-2,
        warmup_steps=3,
        schedule="plateau",
        plateau_patience=1,
        early_stopping=50,
    )
    return Recipe(
        architecture="transformer",  # a depthwise convolution in float16 takes minutes on some processors
        data=Data((source,), root=str(digits), dev=(Source("clips.jsonl"),), units="bpe", vocabulary_size=30),
        model={"d_model": 16, "num_layers": 1, "num_heads": 2, "feed_forward_dim": 32, "dropout": 0.1},
        frontend={"type": "fbank", "sample_rate": 8000, "num_mel_bins": 23},
        optimizer=how,
        run=Run(workers=0, log_every=2, evaluate_every=3, checkpoint_every=5, precision="fp16"),
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_step(step: int) -> None:
    """Between the gradient and the step of the optimiser."""
    schedule = training.Schedule.stepped

    def stepped(self: training.Schedule) -> None:
        if self._of_steps.last_epoch == step:
            die()
        schedule(self)

    training.Schedule.stepped = stepped  # type: ignore[method-assign]


def die_after_line(step: int) -> None:
    """The log is ahead of the checkpoint."""
    write = RunLog.write

    def dying(self: RunLog, line: dict[str, Any]) -> None:
        write(self, line)
        if line["step"] >= step:
            die()

    RunLog.write = dying  # type: ignore[method-assign]


def die_in_line(step: int) -> None:
    """Half a line is in the log."""
    write = RunLog.write

    def dying(self: RunLog, line: dict[str, Any]) -> None:
        if line["step"] < step:
            return write(self, line)
        with self.path.open("a") as file:
            file.write(json.dumps(line)[:20])
        return die()

    RunLog.write = dying  # type: ignore[method-assign]


def die_in_checkpoint(step: int) -> None:
    """Half of the file is written."""
    save = torch.save

    def dying(state: dict[str, Any], path: Path) -> None:
        save(state, path)
        if state["step"] >= step:
            os.truncate(path, path.stat().st_size // 2)
            die()

    torch.save = dying  # type: ignore[assignment]


def killed(die_at: Callable[[], None], recipe: Recipe, folder: Path) -> None:
    die_at()
    train(recipe, folder, quiet=True)


def log_without_times(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "elapsed_s"} for line in lines]


def assert_same_runs(straight: Path, resumed: Path) -> None:
    one, other = load_model(straight / "model.pt"), load_model(resumed / "model.pt")
    weights = one.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in other.model.state_dict().items())
    assert one.metrics == other.metrics
    assert log_without_times(straight) == log_without_times(resumed)
    assert not list(resumed.glob(".*"))


def test_run_killed_at_any_moment_goes_on_exactly(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path / "straight", quiet=True)
    assert len(log_without_times(tmp_path / "straight")) == STEPS // 2
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    moments = [
        partial(die_in_line, 4),  # before the first checkpoint
        partial(die_in_checkpoint, 5),
        partial(die_in_step, 7),
        partial(die_after_line, 14),
        partial(die_in_checkpoint, STEPS),
    ]
    for moment in moments:
        process = context.Process(target=killed, args=(moment, recipe, tmp_path / "resumed"))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    train(recipe, tmp_path / "resumed", quiet=True)
    assert_same_runs(tmp_path / "straight", tmp_path / "resumed")


def test_interrupt_ends_the_step_at_hand(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe, tmp_path / "straight", quiet=True)
    average = Trainer._update_average

    def interrupted(self: Trainer) -> None:
        if self.step == 7:
            os.kill(os.getpid(), signal.SIGINT)
        average(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update_average", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "resumed", quiet=True)
    saved = torch.load(tmp_path / "resumed" / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 7
    train(recipe, tmp_path / "resumed", quiet=True)
    assert_same_runs(tmp_path / "straight", tmp_path / "resumed")


def test_onecycle_in_bf16_goes_on_exactly(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = replace(recipe.optimizer, schedule="onecycle", steps=8, early_stopping=0)
    recipe = replace(recipe, optimizer=how, run=replace(recipe.run, precision="bf16"))
    train(recipe, tmp_path / "straight", quiet=True)
    update = Trainer._update

    def failing(self: Trainer, batch: Batch) -> tuple[float, float]:
        if self.step == 6:
            raise OSError("no such device")
        return update(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", failing)
        with pytest.raises(OSError, match="no such device"):
            train(recipe, tmp_path / "resumed", quiet=True)
    train(recipe, tmp_path / "resumed", quiet=True)
    assert_same_runs(tmp_path / "straight", tmp_path / "resumed")


def test_other_texts_do_not_resume(recipe: Recipe, digits: Path, tmp_path: Path) -> None:
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, steps=1))
    train(recipe, tmp_path / "run", quiet=True)
    lines = (
        (digits / "clips.jsonl").read_text().replace("clips/", f"{digits}/clips/").replace("zero", "nought")
    )
    (tmp_path / "clips.jsonl").write_text(lines)
    with pytest.raises(InputError, match="another recipe"):
        train(replace(recipe, data=replace(recipe.data, root=str(tmp_path))), tmp_path / "run", quiet=True)
