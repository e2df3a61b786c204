"""Recordings through the device's own line, with any engine in the encoder's place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edge_speech.encoder import Encoder, FloatArray
from edge_speech.features import FrontendConfig
from edge_speech.recognizer import Recognizer
from edge_speech_tools.recordings import Recording


@dataclass(frozen=True)
class Line:
    """Front end and tokens: everything of the device line but the encoder."""

    frontend: FrontendConfig
    tokens: list[str]


@dataclass(frozen=True)
class Decoded:
    """What came out for one recording: text, and log_probs (T_out, V) when they were kept."""

    text: str
    log_probs: FloatArray | None


def decode(
    line: Line, encoder: Encoder, recordings: Iterable[Recording], keep_log_probs: bool = False
) -> Iterator[Decoded]:
    """Each recording through one stream of the C++ core. Raises InputError on unreadable audio."""
    recognizer = Recognizer(encoder, line.frontend, line.tokens)
    for recording in recordings:
        samples, sample_rate = recording.read()
        stream = recognizer.create_stream(keep_log_probs=keep_log_probs)
        stream.accept_waveform(samples, sample_rate)
        stream.input_finished()
        yield Decoded(stream.result.text, stream.log_probs() if keep_log_probs else None)
