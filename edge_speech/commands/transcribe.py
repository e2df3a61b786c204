"""edge-speech transcribe"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from edge_speech.audio import read_audio
from edge_speech.commands.decoding import add_decoding, load_recognizer
from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.live import read_microphone, read_pipe
from edge_speech.recognizer import FoundHotword, Recognizer, Stream
from edge_speech.token_log import Token

SUMMARY = "text of recordings, of a pipe, or of the microphone"
EXAMPLES = (
    "edge-speech transcribe bundle a.wav b.flac\n"
    "edge-speech transcribe bundle a.wav --chunk-ms 100 --json\n"
    "edge-speech transcribe bundle a.wav --beam-size 8\n"
    "edge-speech transcribe bundle a.wav --hotwords names.txt\n"
    "edge-speech transcribe bundle a.wav --lm lm.bin --lm-weight 0.5 --word-bonus 1\n"
    "arecord -f S16_LE -r 16000 -t raw | edge-speech transcribe bundle -\n"
    "edge-speech transcribe bundle --mic"
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
        "--backend", metavar="NAME", default="auto", help="engine (default: the bundle's best)"
    )
    parser.add_argument(
        "--threads", metavar="N", type=int, default=1, help="threads of the engine (default: 1)"
    )
    add_decoding(parser)


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One entry per input, printed as soon as it is there unless --json."""
    _check(args)
    recognizer = load_recognizer(args)
    document = []
    for name in ["microphone"] if args.mic else args.audio:
        entry = _transcribe(recognizer, name, args)
        document.append(entry)
        if not args.json:
            print(entry["text"] if len(args.audio) < 2 else f"{name}: {entry['text']}", flush=True)
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


def _transcribe(recognizer: Recognizer, name: str, args: argparse.Namespace) -> dict[str, Any]:
    stream = recognizer.create_stream()
    live = args.mic or name == "-"
    start = time.perf_counter()
    working_s = _feed(stream, _pieces(name, args), partials=live and not args.quiet)
    tokens = [_rounded(token) for token in stream.result.tokens]
    elapsed = working_s if live else time.perf_counter() - start
    rtf = elapsed / stream.audio_s if stream.audio_s else 0.0
    entry = {"audio_filepath": name, "text": stream.result.text, "tokens": tokens}
    if args.hotwords:
        entry["hotwords"] = [_rounded_hotword(hotword) for hotword in stream.result.hotwords]
    return entry | {"audio_s": round(stream.audio_s, 3), "rtf": round(rtf, 5)}


def _rounded(token: Token) -> dict[str, Any]:
    """As JSON: times to the millisecond."""
    return {
        "token": token.token,
        "start_s": round(token.start_s, 3),
        "end_s": round(token.end_s, 3),
        "confidence": round(token.confidence, 4),
    }


def _rounded_hotword(hotword: FoundHotword) -> dict[str, Any]:
    times = {"start_s": round(hotword.start_s, 3), "end_s": round(hotword.end_s, 3)}
    return {"hotword": hotword.text, **times}


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


def _feed(stream: Stream, pieces: _Pieces, partials: bool) -> float:
    """Run the stream over all pieces; seconds it worked. Changed texts go to stderr when `partials`."""
    working_s, shown = 0.0, ""
    for samples, sample_rate in pieces:
        start = time.perf_counter()
        stream.accept_waveform(samples, sample_rate)
        working_s += time.perf_counter() - start
        if partials and stream.result.text != shown:
            shown = stream.result.text
            print(f"... {shown}", file=sys.stderr, flush=True)
    start = time.perf_counter()
    stream.input_finished()
    return working_s + time.perf_counter() - start
