"""Word and character error rates of a recogniser over a data manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
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
class Heard:
    """One utterance after decoding, and the seconds of work it took without reading the file.

    Where it could not be read `decoded` is None and `unreadable` says why.
    """

    audio_filepath: str
    decoded: Decoded | None = None
    audio_s: float = 0.0
    working_s: float = 0.0
    unreadable: str = ""


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
    return scored(list(hear(recognizer, utterances, quiet, normalize=normalize, on_unreadable=on_unreadable)))


def hear(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    quiet: bool = False,
    *,
    normalize: Normalize | None = None,
    on_unreadable: OnUnreadable | None = None,
) -> Iterator[Heard]:
    """The first half of `evaluate`: decode. What is left out is in it too."""
    import_jiwer()  # before the long work
    stream = recognizer.create_stream()
    for utterance in track(utterances, "eval", quiet):
        path = str(utterance.audio_path)
        try:
            working_s = _hear(stream, utterance)
        except (InputError, OSError) as error:
            if on_unreadable is None:
                raise
            on_unreadable(utterance, str(error))
            yield Heard(path, unreadable=str(error))
            continue
        yield Heard(path, _decoded(utterance, stream, normalize or str), stream.audio_s, working_s)


def scored(heard: Sequence[Heard]) -> tuple[Scores, list[Decoded]]:
    """The second half of `evaluate`: score what was decoded. Raises InputError."""
    decoded = [one.decoded for one in heard if one.decoded is not None]
    if not decoded:
        raise InputError(f"none of the {len(heard)} recordings could be read; check their paths")
    said, hypotheses = [d.text for d in decoded], [d.hypothesis for d in decoded]
    wer, cer, words = error_rates(said, hypotheses)
    interval = wer_ci95(score(said, hypotheses))
    audio_s, working_s = sum(one.audio_s for one in heard), sum(one.working_s for one in heard)
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
