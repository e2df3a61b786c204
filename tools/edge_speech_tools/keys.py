"""What each step of `optimize` depends on, as one key."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import edge_speech
from edge_speech.bundle import sha256_of
from edge_speech.ctc import CtcConfig
from edge_speech_tools import provenance
from edge_speech_tools.cache import key_of
from edge_speech_tools.passes import Pass
from edge_speech_tools.recordings import RecordingSet

# Sources that only show what was measured.
_SHOWING = (
    "prediction.py",
    "report.py",
    "report_html.py",
    "report_parts.py",
    "svg.py",
    "pipeline.py",
    "plan.py",
    "progress.py",
)
_SHOWING_FOLDERS = ("commands",)


@dataclass(frozen=True)
class Keys:
    """Keys of a job's steps. `checkpoint` is the file's SHA-256; `recipe` the target's."""

    checkpoint: str
    recipe: Mapping[str, Any]
    passes: Mapping[str, Pass]
    calibration: RecordingSet | None
    compared: RecordingSet
    evaluation: RecordingSet | None
    decoder: CtcConfig | None
    decoder_files: tuple[str | None, ...]

    def build(self, name: str) -> str:
        """Of a pass: the checkpoint, its settings, what it needs, the tools."""
        made = self.passes[name]
        config = made.Config() if hasattr(made, "Config") else None
        settings = asdict(config) if is_dataclass(config) and not isinstance(config, type) else None
        needs = [self.build(needed) for needed in made.NEEDS]
        calibration = recordings_print(self.calibration) if made.NEEDS_CALIBRATION else None
        return key_of(
            "build", name, settings, needs, self.checkpoint, dict(self.recipe), calibration, tools_print()
        )

    def parity(self, artifact: str) -> str:
        """Of one artifact (its SHA-256) against the checkpoint, or of the reference itself."""
        return key_of("parity", artifact, self.checkpoint, recordings_print(self.compared), tools_print())

    def quality(self, artifact: str) -> str:
        """Of the word errors of one artifact."""
        return key_of(
            "quality",
            artifact,
            self.checkpoint,
            recordings_print(self.evaluation),
            self._decoder(),
            tools_print(),
        )

    def latency(self, artifacts: Sequence[str]) -> str:
        """Of artifacts timed together on this host."""
        where = [provenance.host(), os.cpu_count()]
        compared = recordings_print(self.compared)
        return key_of(
            "latency", list(artifacts), where, self.checkpoint, compared, self._decoder(), tools_print()
        )

    def search(self, space: Any) -> str:
        """Of trials: what they are taken from, what they are judged on, and where."""
        given = [recordings_print(self.calibration), recordings_print(self.evaluation), self._decoder()]
        where = [provenance.host(), os.cpu_count()]
        return key_of("search", space, self.checkpoint, dict(self.recipe), given, where, tools_print())

    def drift(self, artifact: str) -> str:
        """Of one artifact's divergence over a long stream."""
        streamed = recordings_print(self.evaluation or self.calibration)
        return key_of("drift", artifact, self.checkpoint, streamed, tools_print())

    def lint(self, tiles: Mapping[str, int]) -> str:
        """Of the checks of the model itself, for these tiles by precision."""
        return key_of("lint", self.checkpoint, dict(tiles), tools_print())

    def _decoder(self) -> Any:
        if self.decoder is None:
            return None
        return [asdict(replace(self.decoder, lm=None)), *map(_file_print, self.decoder_files)]


def recordings_print(found: RecordingSet | None) -> Any:
    """Plain data that changes with the recordings: names, texts, and each file's size and time of change."""
    if found is None:
        return None
    return [found.name, [[r.name, r.text, r.part, *_stat(r.path)] for r in found.recordings]]


def _stat(path: Path | None) -> list[Any]:
    if path is None:
        return []
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def _file_print(path: str | None) -> str | None:
    return None if path is None else sha256_of(Path(path))


@cache
def tools_print() -> str:
    """Versions of the packages, and the content of our own code: another may make something else."""
    folders = [Path(edge_speech.__file__).parent, Path(__file__).parent]
    files = sorted(path for folder in folders for path in _sources(folder))
    return key_of(provenance.describe_tools(), [[path.name, sha256_of(path)] for path in files])


def _sources(folder: Path) -> list[Path]:
    found = [p for kind in ("*.py", "*.so", "*.toml") for p in folder.rglob(kind)]
    return [p for p in found if p.name not in _SHOWING and not set(_SHOWING_FOLDERS) & set(p.parts)]
