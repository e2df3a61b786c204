"""Word and character error rates of a recogniser over a data manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_speech.alignment import import_jiwer
from edge_speech.errors import InputError
from edge_speech.manifest import Utterance
from edge_speech.progress import track
from edge_speech.quality import score, wer_ci95
from edge_speech.recognizer import Recognizer, Stream

Normalize = Callable[[str], str]
OnUnreadable = Callable[[Utterance, str], None]


@dataclass(frozen=True)
class Decoded:
    """What was said and what was heard. `confidence` is the mean of the heard words', None without any."""

    audio_filepath: str
    text: str
    hypothesis: str
    speaker: str | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Scores:
    """`wer` and `cer` in percent, by jiwer; `rtf` is decoding time, without reading files, over `audio_s`.

    `wer_ci95` is the 95 % bootstrap interval of the WER over utterances.
    """

    wer: float
    wer_ci95: tuple[float, float]
    cer: float
    utterances: int
    words: int
    audio_s: float
    rtf: float


def evaluate(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    quiet: bool = False,
    *,
    normalize: Normalize | None = None,
    on_unreadable: OnUnreadable | None = None,
) -> tuple[Scores, list[Decoded]]:
    """Decode every utterance with the recognizer's decoder, score it against its text. Raises InputError.

    `normalize` is applied to both texts. A file that cannot be read is told to `on_unreadable`, with the
    reason, and left out; where that is None it ends the work.
    """
    import_jiwer()
    decoded, audio_s, working_s = [], 0.0, 0.0
    stream = recognizer.create_stream()
    for utterance in track(utterances, "eval", quiet):
        try:
            working_s += _hear(stream, utterance)
        except (InputError, OSError) as error:
            if on_unreadable is None:
                raise
            on_unreadable(utterance, str(error))
            continue
        audio_s += stream.audio_s
        decoded.append(_decoded(utterance, stream, normalize or str))
    if not decoded:
        raise InputError(f"none of the {len(utterances)} recordings could be read; check their paths")
    said, heard = [d.text for d in decoded], [d.hypothesis for d in decoded]
    wer, cer, words = error_rates(said, heard)
    interval = wer_ci95(score(said, heard))
    return Scores(wer, interval, cer, len(decoded), words, audio_s, working_s / audio_s), decoded


def _hear(stream: Stream, utterance: Utterance) -> float:
    """Seconds of work, without reading the file."""
    samples, sample_rate = utterance.read()
    start = time.perf_counter()
    stream.reset()
    stream.accept_waveform(samples, sample_rate)
    stream.input_finished()
    _ = stream.result.text
    return time.perf_counter() - start


def _decoded(utterance: Utterance, stream: Stream, normalize: Normalize) -> Decoded:
    result, speaker = stream.result, utterance.extra.get("speaker")
    confidences = [word.confidence for word in result.words]
    return Decoded(
        str(utterance.audio_path),
        normalize(utterance.text),
        normalize(result.text),
        None if speaker is None else str(speaker),
        round(float(np.mean(confidences)), 4) if confidences else None,
    )


def error_rates(truth: Sequence[str], heard: Sequence[str]) -> tuple[float, float, int]:
    """WER and CER in percent, by jiwer, and the words of `truth`. Raises InputError when it has none."""
    jiwer = import_jiwer()
    words = sum(len(text.split()) for text in truth)
    if not words:
        raise InputError("the manifest's texts hold no word, so there is no error rate; give texts")
    texts = list(truth), list(heard)
    return 100 * jiwer.process_words(*texts).wer, 100 * jiwer.process_characters(*texts).cer, words
