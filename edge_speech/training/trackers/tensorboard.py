"""TensorBoard: event files in the run's folder, for `tensorboard --logdir DIR`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_speech.training.trackers import TrackedRun, Tracker


class TensorBoard(Tracker):
    """`writer` is a SummaryWriter of torch. It keeps no files: model and curve lie beside the events."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def write(self, line: dict[str, Any]) -> None:
        for name, value in line.items():
            if name != "step":
                self.writer.add_scalar(name, value, line["step"])

    def keep(self, files: Sequence[Path]) -> None:
        pass

    def close(self, done: bool) -> None:
        self.writer.close()


def start(run: TrackedRun) -> Tracker:
    """Go on after `run.step`; what was written of later steps is purged."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1)  # type: ignore[no-untyped-call]
    if not run.step:
        rows = [f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in run.parameters.items()]
        writer.add_text("recipe", "\n".join(rows), 0)  # type: ignore[no-untyped-call]
    return TensorBoard(writer)
