"""An encoder that hears loudness: blanks in silence, so that utterances have ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.features import frontend_from_dict
from edge_speech.recognizer import Recognizer
from tiny import FRONTEND, SPEC, TOKENS

RATE = 16000


class LoudStream:
    """A loud row says the token that its pitch stands for, a quiet one the blank."""

    def __init__(self, features: FloatArray, log_probs: FloatArray) -> None:
        self.features, self.log_probs = features, log_probs

    def reset(self) -> None: ...

    def step(self) -> None:
        frames = self.features[: SPEC.chunk_frames]
        for row, group in zip(self.log_probs, np.split(frames, SPEC.output_frames), strict=True):
            mean = group.mean(axis=0)
            token = 1 + int(mean.argmax()) * 5 // SPEC.num_features if mean.max() > 20 else 0
            row[:] = -9.0
            row[token] = -0.001


@dataclass(frozen=True)
class LoudEncoder:
    spec: StreamingSpec = SPEC

    def open(self, features: FloatArray, log_probs: FloatArray) -> LoudStream:
        return LoudStream(features, log_probs)


def loud_recognizer() -> Recognizer:
    return Recognizer(LoudEncoder(), frontend_from_dict(FRONTEND), TOKENS)


def beeps(times: list[tuple[float, float]], seconds: float, hz: float = 700.0) -> FloatArray:
    """Silence with tones from and to the given seconds, at RATE."""
    t = np.arange(round(seconds * RATE)) / RATE
    heard = np.zeros(len(t), bool)
    for start_s, end_s in times:
        heard |= (t >= start_s) & (t < end_s)
    return (0.3 * np.sin(2 * np.pi * hz * t) * heard).astype(np.float32)
