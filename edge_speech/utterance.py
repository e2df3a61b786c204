"""One utterance of a data set: where its audio is, and what is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edge_speech.audio import read_audio
from edge_speech.encoder import FloatArray


class Stored(Protocol):
    """Audio inside a file of another kind."""

    @property
    def name(self) -> str:
        """Where in the file it is."""

    def read(self) -> tuple[FloatArray, int]:
        """Samples (N,) in [-1, 1] and their rate in Hz. Raises InputError."""


@dataclass(frozen=True)
class Utterance:
    """Where the audio is, what is said, how long it is, and the other fields of its line.

    With `offset_s` the utterance is the part of the file from there, `duration_s` long or to the end; without
    it is the whole file, whatever `duration_s` says.
    """

    audio_path: Path
    text: str
    duration_s: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    offset_s: float | None = None
    stored: Stored | None = None

    @property
    def name(self) -> str:
        """The file, and where the utterance is when it is a part of it."""
        if self.stored is not None:
            return f"{self.audio_path} {self.stored.name}"
        return str(self.audio_path) + ("" if self.offset_s is None else f" at {self.offset_s:.2f} s")

    def read(self) -> tuple[FloatArray, int]:
        """Samples (N,) in [-1, 1] and their rate in Hz. Raises InputError as `read_audio` does."""
        if self.stored is not None:
            return self.stored.read()
        if self.offset_s is None:
            return read_audio(self.audio_path)
        return read_audio(self.audio_path, self.offset_s, self.duration_s)
