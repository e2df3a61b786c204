"""Where a run's numbers go beside `log.jsonl`. One file per tracker: its `start(run)` gives a `Tracker`.

A file NAME.py imports its package inside `start`, so that only those need it who ask for it.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_speech.errors import InputError
from edge_speech.training.recipe import Recipe

PROJECT = "edge-speech"
DEFAULT = "tensorboard"


class Tracker(ABC):
    """One run in one tracker."""

    @abstractmethod
    def write(self, line: dict[str, Any]) -> None:
        """A line of `log.jsonl`: its numbers, and the `step` they are of."""

    @abstractmethod
    def keep(self, files: Sequence[Path]) -> None:
        """The model and the curve of a run that is done."""

    @abstractmethod
    def close(self, done: bool) -> None:
        """The last call. Not `done`: the run was interrupted or failed."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run at its start, and again when it goes on from `step`."""

    folder: Path
    step: int
    parameters: dict[str, Any]
    quiet: bool

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.folder.resolve().name

    def identity(self, tracker: str) -> Path:
        """The file for what the tracker calls this run, so that it goes on with it after a resumption."""
        return self.folder / f"{tracker}.run"

    def known_as(self, tracker: str) -> str | None:
        """What the tracker calls this run; None when it does not know it yet."""
        path = self.identity(tracker)
        return path.read_text(encoding="utf-8").strip() if path.exists() else None


def available() -> list[str]:
    """Names of the trackers there is a file for."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")


@contextmanager
def tracked(recipe: Recipe, folder: Path, step: int, quiet: bool) -> Iterator[list[Tracker]]:
    """The trackers that the recipe names, for as long as the run lasts. Raises InputError."""
    run = TrackedRun(folder, step, flat(asdict(recipe)), quiet)
    trackers: list[Tracker] = []
    done = False
    try:
        for name in _asked_for(recipe):
            trackers.append(_start(name, run))
        yield trackers
        done = True
    finally:
        for tracker in trackers:
            tracker.close(done)


def flat(table: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Nested tables as one: {"a": {"b": 1}} → {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{where}{key}.") if isinstance(value, dict) else {where + key: value}
    return found


def _asked_for(recipe: Recipe) -> tuple[str, ...]:
    if recipe.run.tracking is not None:
        return recipe.run.tracking
    return (DEFAULT,) if importlib.util.find_spec(DEFAULT) is not None else ()


def _start(name: str, run: TrackedRun) -> Tracker:
    if name not in available():
        raise InputError(f"recipe: run.tracking has {name!r}; there are {', '.join(available())}")
    module = importlib.import_module(f"{__name__}.{name}")
    try:
        tracker: Tracker = module.start(run)
    except ModuleNotFoundError as error:
        raise InputError(
            f"recipe: run.tracking has {name!r}, which needs {error.name}; "
            'pip install "edge-speech[train,tracking]"'
        ) from error
    return tracker
