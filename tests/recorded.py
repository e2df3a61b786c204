"""An encoder whose rows are known."""

from __future__ import annotations

from dataclasses import dataclass

from edge_speech.encoder import FloatArray, StreamingSpec


@dataclass(frozen=True)
class Recorded:
    """An encoder that says the rows of another once more, so that the model runs once for all decoders."""

    spec: StreamingSpec
    rows: FloatArray

    def open(self, features: FloatArray, log_probs: FloatArray) -> RecordedStream:
        return RecordedStream(self.rows, log_probs)


class RecordedStream:
    def __init__(self, rows: FloatArray, log_probs: FloatArray) -> None:
        self.rows, self.log_probs = rows, log_probs
        self.reset()

    def reset(self) -> None:
        self.row = 0

    def step(self) -> None:
        rows = self.rows[self.row : self.row + len(self.log_probs)]
        self.log_probs[: len(rows)] = rows
        self.row += len(self.log_probs)
