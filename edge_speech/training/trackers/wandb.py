"""Weights & Biases, https://docs.wandb.ai; WANDB_MODE=offline keeps everything in the run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from edge_speech.errors import InputError
from edge_speech.training.run_log import write_text
from edge_speech.training.trackers import PROJECT, TrackedRun, Tracker


class Wandb(Tracker):
    """`run` is what wandb.init gave."""

    def __init__(self, wandb: Any, run: Any) -> None:
        self.wandb, self.run = wandb, run

    def write(self, line: dict[str, Any]) -> None:
        self.run.log(line)  # without step=, which must not fall back when a run resumes from its checkpoint

    def keep(self, files: Sequence[Path]) -> None:
        artifact = self.wandb.Artifact(f"run-{self.run.id}", type="model")
        for path in files:
            artifact.add_file(str(path))
        self.run.log_artifact(artifact)

    def close(self, done: bool) -> None:
        self.run.finish(exit_code=0 if done else 1)


def start(run: TrackedRun) -> Tracker:
    """Start the run, or go on with it. Raises InputError."""
    import wandb

    name = run.known_as("wandb") or uuid4().hex[:8]
    try:
        started = wandb.init(
            project=PROJECT,
            name=run.name,
            id=name,
            resume="allow",
            dir=str(run.folder),
            config=run.parameters,
            allow_val_change=True,  # how a run is carried out may change when it resumes
            settings=wandb.Settings(silent=run.quiet),
        )
    except (wandb.Error, OSError) as error:
        raise InputError(f"wandb does not start: {error}; wandb login, or WANDB_MODE=offline") from error
    started.define_metric("step")
    started.define_metric("*", step_metric="step")
    write_text(run.identity("wandb"), name + "\n")
    return Wandb(wandb, started)
