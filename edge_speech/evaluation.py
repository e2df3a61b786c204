"""Word and character error rates of a recogniser over a data manifest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_speech.errors import InputError
from edge_speech.manifest import Utterance
from edge_speech.progress import track
from edge_speech.recognizer import Recognizer


@dataclass(frozen=True)
class Decoded:
    """What was said and what was heard."""

    audio_filepath: str
    text: str
    hypothesis: str


@dataclass(frozen=True)
class Scores:
    """`wer` and `cer` in percent, by jiwer; `rtf` is decoding time, without reading files, over `audio_s`."""

    wer: float
    cer: float
    utterances: int
    words: int
    audio_s: float
    rtf: float


def evaluate(
    recognizer: Recognizer, utterances: Sequence[Utterance], quiet: bool = False
) -> tuple[Scores, list[Decoded]]:
    """Decode every utterance with the recognizer's decoder, score it against its text. Raises InputError."""
    import_jiwer()
    decoded, audio_s, working_s = [], 0.0, 0.0
    stream = recognizer.create_stream()
    for utterance in track(utterances, "eval", quiet):
        samples, sample_rate = utterance.read()
        start = time.perf_counter()
        stream.reset()
        stream.accept_waveform(samples, sample_rate)
        stream.input_finished()
        text = stream.result.text
        working_s += time.perf_counter() - start
        audio_s += stream.audio_s
        decoded.append(Decoded(str(utterance.audio_path), utterance.text, text))
    wer, cer, words = error_rates([d.text for d in decoded], [d.hypothesis for d in decoded])
    return Scores(wer, cer, len(decoded), words, audio_s, working_s / audio_s), decoded


def error_rates(truth: Sequence[str], heard: Sequence[str]) -> tuple[float, float, int]:
    """WER and CER in percent, by jiwer, and the words of `truth`. Raises InputError when it has none."""
    jiwer = import_jiwer()
    words = sum(len(text.split()) for text in truth)
    if not words:
        raise InputError("the manifest's texts hold no word, so there is no error rate; give texts")
    texts = list(truth), list(heard)
    return 100 * jiwer.process_words(*texts).wer, 100 * jiwer.process_characters(*texts).cer, words


def import_jiwer() -> Any:
    """jiwer. Raises InputError where it is not installed: call it before long work."""
    try:
        import jiwer
    except ImportError:
        raise InputError('scoring needs jiwer; install it with `pip install "edge-speech[tools]"`') from None
    return jiwer
