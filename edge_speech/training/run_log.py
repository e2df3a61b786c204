"""What a run leaves to read: `log.jsonl` and `environment.json`."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from edge_speech.training.trackers import Tracker

PACKAGES = ("edge-speech", "torch", "numpy", "onnxruntime", "sentencepiece", "tensorboard")


class RunLog:
    """One line per report in `log.jsonl`, which the trackers are told too.

    A run that goes on from `step` keeps the lines up to it and writes the later ones again.
    """

    def __init__(self, folder: Path, step: int, trackers: Sequence[Tracker] = ()) -> None:
        self.path, self.trackers = folder / "log.jsonl", trackers
        if self.path.exists():
            write_text(self.path, "".join(_lines_until(self.path.read_text(encoding="utf-8"), step)))

    def write(self, line: dict[str, Any]) -> None:
        """Append one report."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for tracker in self.trackers:
            tracker.write(line)


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def environment() -> dict[str, Any]:
    """What a run ran on: revision of the code (None outside a checkout), versions, host."""
    return {
        "git_revision": _revision(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "host": platform.node(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _lines_until(text: str, step: int) -> list[str]:
    """The whole lines of a log up to `step`; what a killed run wrote after its checkpoint is left out."""
    kept = []
    for line in text.splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step and line.endswith("\n"):
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    return kept


def _revision(folder: Path) -> str | None:
    """The commit of the checkout that tracks `folder`, "-dirty" where files were changed since."""
    git = ["git", "-C", str(folder)]
    try:
        tracked = subprocess.run([*git, "ls-files"], capture_output=True, text=True, check=True).stdout
        described = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        revision = subprocess.run(described, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision.strip() if tracked else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
