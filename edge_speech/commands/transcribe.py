"""edge-speech transcribe"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from edge_speech.audio import read_audio
from edge_speech.commands.decoding import add_decoding, load_recognizer
from edge_speech.encoder import FloatArray
from edge_speech.endpoint import EndpointConfig
from edge_speech.errors import InputError
from edge_speech.live import read_microphone, read_pipe
from edge_speech.recognizer import FoundHotword, Recognizer, Result, Stream
from edge_speech.timed_log import Token, Word
from edge_speech.vad import EnergyVad, OnnxVad, Vad, VadConfig

SUMMARY = "text of recordings, of a pipe, or of the microphone"
EXAMPLES = (
    "edge-speech transcribe bundle a.wav b.flac\n"
    "edge-speech transcribe bundle a.wav --chunk-ms 100 --json\n"
    "edge-speech transcribe bundle a.wav --beam-size 8\n"
    "edge-speech transcribe bundle a.wav --hotwords names.txt\n"
    "edge-speech transcribe bundle a.wav --lm lm.bin --lm-weight 0.5 --word-bonus 1\n"
    "arecord -f S16_LE -r 16000 -t raw | edge-speech transcribe bundle -\n"
    "edge-speech transcribe bundle --mic --endpoint\n"
    "edge-speech transcribe bundle meeting.wav --endpoint-silence-ms 500 --endpoint-vad energy"
)
_MIC_PIECE_MS = 100.0
_Pieces = Iterable[tuple[FloatArray, int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The bundle, the audio, and how it is fed."""
    parser.add_argument("bundle", metavar="BUNDLE", help="folder or packed file")
    parser.add_argument(
        "audio", metavar="AUDIO", nargs="*", help="audio files; - is a pipe of WAV or s16le mono"
    )
    parser.add_argument(
        "--mic", action="store_true", help="listen to the microphone; Ctrl-C ends the recording"
    )
    parser.add_argument(
        "--chunk-ms", metavar="N", type=float, help="feed files in pieces of N ms (same text)"
    )
    parser.add_argument(
        "--sample-rate", metavar="HZ", type=int, default=16000, help="of raw PCM on - (16000)"
    )
    parser.add_argument(
        "--backend", metavar="NAME", default="auto", help="engine (default: the fastest here)"
    )
    parser.add_argument(
        "--threads", metavar="N", type=int, default=1, help="threads of the engine (default: 1)"
    )
    add_decoding(parser)
    _add_endpoint_arguments(parser)


def _add_endpoint_arguments(parser: argparse.ArgumentParser) -> None:
    rules = EndpointConfig()
    parser.add_argument(
        "--endpoint",
        action="store_true",
        help="a line per utterance, with its seconds: one ends after a silence, or, after "
        f"{rules.max_utterance_ms / 1000:g} s, where no token is said",
    )
    parser.add_argument(
        "--endpoint-silence-ms",
        metavar="N",
        type=float,
        help=f"the silence that ends an utterance (default: {rules.min_trailing_silence_ms:g}); less answers "
        "sooner, but cuts where a speaker stops to think; implies --endpoint",
    )
    parser.add_argument(
        "--endpoint-vad",
        metavar="NAME",
        help="count only what this hears as no speech: energy (by loudness) or a silero-vad ONNX file; helps "
        "when long words are cut; implies --endpoint",
    )


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One entry per input, printed as soon as it is there unless --json."""
    _check(args)
    recognizer = load_recognizer(args)
    document = []
    for name in ["microphone"] if args.mic else args.audio:
        say = _nothing if args.json else _printer(f"{name}: " if len(args.audio) > 1 else "")
        entry = _transcribe(recognizer, name, args, say)
        document.append(entry)
        if not _has_endpoints(args):
            say(entry["text"])
    return document


def show(document: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Nothing more: `run` has printed every text."""


def _check(args: argparse.Namespace) -> None:
    if args.mic == bool(args.audio):
        raise InputError("give audio files, or - for a pipe, or --mic: one of the three")
    if args.audio.count("-") > 1:
        raise InputError("- is there twice, but there is one stdin")
    if args.chunk_ms is not None and not 0.1 <= args.chunk_ms <= 1e9:
        raise InputError(f"--chunk-ms is {args.chunk_ms:g}; allowed: 0.1 or more, for example 100")
    if args.endpoint_silence_ms is not None and not args.endpoint_silence_ms > 0:
        raise InputError(f"--endpoint-silence-ms is {args.endpoint_silence_ms:g}; allowed: above 0")


def _printer(prefix: str) -> Callable[[str], None]:
    return lambda line: print(f"{prefix}{line}", flush=True)


def _nothing(_: str) -> None: ...


def _has_endpoints(args: argparse.Namespace) -> bool:
    return args.endpoint or args.endpoint_silence_ms is not None or args.endpoint_vad is not None


def _open(recognizer: Recognizer, args: argparse.Namespace) -> Stream:
    if not _has_endpoints(args):
        return recognizer.create_stream()
    rules = EndpointConfig()
    if args.endpoint_silence_ms is not None:
        rules = replace(rules, min_trailing_silence_ms=args.endpoint_silence_ms)
    vad = _vad(args.endpoint_vad, recognizer.frontend.sample_rate)
    return recognizer.create_stream(endpoint=rules, vad=vad)


def _vad(name: str | None, sample_rate: int) -> Vad | None:
    if name is None:
        return None
    return EnergyVad(VadConfig(sample_rate)) if name == "energy" else OnnxVad(name, sample_rate)


def _transcribe(
    recognizer: Recognizer, name: str, args: argparse.Namespace, say: Callable[[str], None]
) -> dict[str, Any]:
    stream = _open(recognizer, args)
    live = args.mic or name == "-"
    start = time.perf_counter()
    segments: list[Result] = []
    hear = _listener(stream, segments, say) if _has_endpoints(args) else None
    working_s = _feed(stream, _pieces(name, args), live and not args.quiet, hear)
    elapsed = working_s if live else time.perf_counter() - start
    rtf = elapsed / stream.audio_s if stream.audio_s else 0.0
    entry = {"audio_filepath": name} | _entry(segments if hear else [stream.result])
    if not args.hotwords:
        del entry["hotwords"]
    if hear:
        entry["segments"] = [_rounded_segment(segment) for segment in segments]
    return entry | {"audio_s": round(stream.audio_s, 3), "rtf": round(rtf, 5)}


def _listener(stream: Stream, segments: list[Result], say: Callable[[str], None]) -> Callable[[], None]:
    """What takes the utterances that have ended, but for empty ones, and says each."""

    def hear() -> None:
        for segment in stream.read_segments():
            if segment.text:
                segments.append(segment)
                say(f"{segment.start_s:8.2f} {segment.end_s:8.2f}  {segment.text}")

    return hear


def _entry(results: Sequence[Result]) -> dict[str, Any]:
    """Text, tokens, words and hotwords of all `results`, as JSON."""
    return {
        "text": " ".join(result.text for result in results),
        "tokens": [{"token": t.token} | _rounded(t) for result in results for t in result.tokens],
        "words": [{"word": w.text} | _rounded(w) for result in results for w in result.words],
        "hotwords": [{"hotword": h.text} | _times(h) for result in results for h in result.hotwords],
    }


def _rounded(part: Token | Word) -> dict[str, float]:
    return _times(part) | {"confidence": round(part.confidence, 4)}


def _times(part: Token | Word | FoundHotword | Result) -> dict[str, float]:
    """To the millisecond."""
    return {"start_s": round(part.start_s, 3), "end_s": round(part.end_s, 3)}


def _rounded_segment(segment: Result) -> dict[str, Any]:
    return {"text": segment.text} | _times(segment) | {"endpoint": segment.endpoint}


def _pieces(name: str, args: argparse.Namespace) -> _Pieces:
    if args.mic:
        return _until_interrupt(read_microphone(16000, args.chunk_ms or _MIC_PIECE_MS))
    if name == "-":
        return read_pipe(_stdin(), args.sample_rate)
    return _cut(*read_audio(name), args.chunk_ms)


def _stdin() -> BinaryIO:
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("- reads audio from a pipe, but stdin is a terminal or closed; pipe audio into it")
    return sys.stdin.buffer


def _cut(samples: FloatArray, sample_rate: int, chunk_ms: float | None) -> Iterator[tuple[FloatArray, int]]:
    size = len(samples) if chunk_ms is None else max(1, round(chunk_ms * sample_rate / 1000))
    for i in range(0, len(samples), size):
        yield samples[i : i + size], sample_rate


def _until_interrupt(pieces: _Pieces) -> Iterator[tuple[FloatArray, int]]:
    print("listening; Ctrl-C ends the recording", file=sys.stderr, flush=True)
    try:
        yield from pieces
    except KeyboardInterrupt:
        return


def _feed(stream: Stream, pieces: _Pieces, partials: bool, hear: Callable[[], None] | None) -> float:
    """Run the stream over all pieces, with `hear` after each; seconds it worked.

    Changed texts go to stderr when `partials`.
    """
    working_s, shown = 0.0, ""
    for samples, sample_rate in pieces:
        start = time.perf_counter()
        stream.accept_waveform(samples, sample_rate)
        working_s += time.perf_counter() - start
        if hear:
            hear()
        if partials and stream.result.text != shown:
            shown = stream.result.text
            if shown:
                print(f"... {shown}", file=sys.stderr, flush=True)
    start = time.perf_counter()
    stream.input_finished()
    working_s += time.perf_counter() - start
    if hear:
        hear()
    return working_s
