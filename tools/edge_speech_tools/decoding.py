"""Recordings through the device's own line, with any engine in the encoder's place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edge_speech.ctc import CtcConfig, CtcGreedy, CtcPrefixBeam
from edge_speech.decoder import text_of
from edge_speech.encoder import Encoder, FloatArray
from edge_speech.features import FrontendConfig, features_of
from edge_speech.recognizer import Recognizer
from edge_speech_tools.recordings import Recording, at_rate
from edge_speech_tools.reference import TorchEncoder, rows


@dataclass(frozen=True)
class Line:
    """Front end, tokens and the bundle's decoder: everything of the device line but the encoder.

    A `decoder` of None is greedy.
    """

    frontend: FrontendConfig
    tokens: list[str]
    decoder: CtcConfig | None = None


@dataclass(frozen=True)
class Decoded:
    """What came out for one recording: the greedy text, and log_probs (T_out, V) when they were kept."""

    text: str
    log_probs: FloatArray | None


def decode(
    line: Line, encoder: Encoder, recordings: Iterable[Recording], keep_log_probs: bool = False
) -> Iterator[Decoded]:
    """Each recording through one greedy stream of the C++ core. Raises InputError on unreadable audio."""
    recognizer = Recognizer(encoder, line.frontend, line.tokens)
    for recording in recordings:
        samples, sample_rate = recording.read()
        stream = recognizer.create_stream(keep_log_probs=keep_log_probs, beam_size=1)
        stream.accept_waveform(samples, sample_rate)
        stream.input_finished()
        yield Decoded(stream.result.text, stream.log_probs() if keep_log_probs else None)


def decode_reference(
    line: Line, reference: TorchEncoder, recordings: Iterable[Recording]
) -> Iterator[Decoded]:
    """Each recording by PyTorch, many chunks at a time: what every artifact's stream must say."""
    greedy = CtcGreedy(line.tokens, 0)
    for recording in recordings:
        features = features_of(at_rate(recording, line.frontend.sample_rate), line.frontend)
        log_probs = rows(reference.model, reference.spec, features)
        yield Decoded(text_of(greedy, log_probs), log_probs)


def final_text(decoder: CtcGreedy | CtcPrefixBeam, decoded: Decoded) -> str:
    """The text by another decoder, from the log_probs that were kept: no encoder runs again."""
    assert decoded.log_probs is not None
    return text_of(decoder, decoded.log_probs)
