"""Memory and latency of one stream that runs for an hour, as JSON and a picture.

    python benchmarks/stream_hour.py BUNDLE [AUDIO ...] [--hours N] [-o FILE]

The recordings (the bundle's own when none are given) are fed again and again in pieces of 100 ms; after each
piece the text is read, as a program with a screen does. Three runs, each in a process of its own: greedy
decoding, a beam of 8, and a beam of 8 that is reset after every pass over the recordings, as a program does
that knows where utterances end.

Per minute of audio: resident memory and the part of it that maps files (code and the model, read on first
use), bytes in use of the C allocator (numpy's and C++'s together; null without glibc) and the number of
Python's memory blocks. `growth_mib` is the most that resident memory was above its value after the first
minute; `rss_trimmed_mib` the last value after glibc has given back its free pages by malloc_trim: where it is
much lower, memory was fragmented, not used. onnxruntime 1.32 takes 0.7 MiB more about ten seconds after it
was loaded, in a process that does nothing else too. So the first minute is fed at the pace of speech, and
what follows as fast as it is decoded.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import itertools
import json
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from edge_speech.audio import read_audio
from edge_speech.bench import percentiles, read_golden
from edge_speech.bundle import GOLDEN_WAVEFORM, read_bundle
from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.recognizer import Recognizer, Stream
from edge_speech_tools.provenance import host

PIECE_MS = 100
PIECES_A_MINUTE = 60_000 // PIECE_MS
MIB = 1 << 20


@dataclass(frozen=True)
class Request:
    """What one process measures."""

    name: str
    bundle: Path
    audio: tuple[Path, ...]
    minutes: int
    beam_size: int
    reset: bool = False


class Mallinfo2(ctypes.Structure):
    """struct mallinfo2 of glibc 2.33: https://man7.org/linux/man-pages/man3/mallinfo.3.html"""

    NAMES = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")
    _fields_ = tuple((name, ctypes.c_size_t) for name in (*NAMES, "uordblks", "fordblks", "keepcost"))


@functools.cache
def glibc() -> ctypes.CDLL | None:
    """The C library where it is glibc 2.33 or later; opened once, as each CDLL leaves cycles to collect."""
    if platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return None
    library.mallinfo2.restype = Mallinfo2
    return library


def malloc_in_use_mib() -> float | None:
    """What the C allocator has given out, its mapped blocks included."""
    library = glibc()
    if library is None:
        return None
    info = library.mallinfo2()
    return round((info.uordblks + info.hblkhd) / MIB, 3)


def resident_mib(of: str = "VmRSS") -> float:
    """Resident memory of this process, of all of it or the part that `of` names. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(int(next(line for line in lines if line.startswith(of)).split()[1]) / 1024, 3)


def trimmed_rss_mib() -> float | None:
    """Resident memory once free pages were given back."""
    library = glibc()
    if library is None:
        return None
    library.malloc_trim(0)
    return resident_mib()


def read_pieces(request: Request) -> tuple[list[FloatArray], int]:
    """The recordings cut into pieces, and their rate. Raises InputError on recordings of different rates."""
    heard = [read_audio(path) for path in request.audio]
    if not heard:
        bundle = read_bundle(request.bundle)
        golden = read_golden(bundle, GOLDEN_WAVEFORM)
        if golden is None:
            raise InputError(f"{request.bundle}: has no golden waveform; name recordings")
        heard = [(golden, int(bundle.manifest.frontend["sample_rate"]))]
    rates = {rate for _, rate in heard}
    if len(rates) > 1:
        raise InputError(f"the recordings have rates {sorted(rates)}; give recordings of one rate")
    waveform, rate = np.concatenate([samples for samples, _ in heard]), heard[0][1]
    size = rate * PIECE_MS // 1000
    return [waveform[i : i + size] for i in range(0, len(waveform), size)], rate


def run(request: Request) -> dict[str, Any]:
    """Measure in this process, which should be fresh."""
    pieces, rate = read_pieces(request)
    stream = Recognizer.load(request.bundle).create_stream(beam_size=request.beam_size)
    total = request.minutes * PIECES_A_MINUTE
    accept_ms, read_ms = np.full((2, total), np.nan)  # written now, so that their pages do not come later
    samples: list[dict[str, Any]] = []
    start = time.perf_counter()
    for i, piece in enumerate(itertools.islice(itertools.cycle(pieces), total)):
        if request.reset and i % len(pieces) == 0:
            stream.reset()
        if i < PIECES_A_MINUTE:
            time.sleep(max(0.0, start + i * PIECE_MS / 1000 - time.perf_counter()))
        accept_ms[i], read_ms[i] = feed(stream, piece, rate)
        if (i + 1) % PIECES_A_MINUTE == 0:
            samples.append(sample(stream))
    working_s = sum(accept_ms) / 1000
    return report(request, samples, accept_ms, read_ms) | {"rtf": round(working_s / request.minutes / 60, 5)}


def feed(stream: Stream, piece: FloatArray, rate: int) -> tuple[float, float]:
    """Milliseconds to accept a piece and to read the text."""
    start = time.perf_counter()
    stream.accept_waveform(piece, rate)
    accepted = time.perf_counter()
    _ = stream.result.text
    return 1000 * (accepted - start), 1000 * (time.perf_counter() - accepted)


def sample(stream: Stream) -> dict[str, Any]:
    return {
        "rss_mib": resident_mib(),
        "rss_file_mib": resident_mib("RssFile"),
        "malloc_in_use_mib": malloc_in_use_mib(),
        "python_blocks": sys.getallocatedblocks(),
        "tokens": len(stream.result.tokens),
    }


def report(
    request: Request, samples: list[dict[str, Any]], accept_ms: FloatArray, read_ms: FloatArray
) -> dict[str, Any]:
    rss = [s["rss_mib"] for s in samples]
    first, last = slice(0, PIECES_A_MINUTE), slice(-PIECES_A_MINUTE, None)
    return {
        "name": request.name,
        "minutes": request.minutes,
        "growth_mib": round(max(rss) - rss[0], 3),
        "rss_trimmed_mib": trimmed_rss_mib(),
        "accept_waveform_ms": percentiles(tuple(accept_ms)),
        "accept_waveform_ms_last_minute": percentiles(tuple(accept_ms[last])),
        "result_ms_first_minute": percentiles(tuple(read_ms[first])),
        "result_ms_last_minute": percentiles(tuple(read_ms[last])),
        "per_minute": {name: [s[name] for s in samples] for name in samples[0]},
    }


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Resident memory above that of the first minute, and below it the tokens that the stream keeps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    memory, tokens = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    for result in results:
        rss, minutes = result["per_minute"]["rss_mib"], range(1, result["minutes"] + 1)
        memory.plot(minutes, [value - rss[0] for value in rss], label=result["name"])
        tokens.plot(minutes, result["per_minute"]["tokens"])
    memory.set_ylabel("MiB resident, above minute 1")
    memory.legend()
    tokens.set(xlabel="minutes of audio through one stream", ylabel="tokens kept")
    FigureCanvasAgg(figure).print_png(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("audio", type=Path, nargs="*")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("-o", "--output", type=Path, help="write the JSON here as well, and a picture")
    args = parser.parse_args()
    common = (args.bundle, tuple(args.audio), round(60 * args.hours))
    requests = [
        Request("greedy", *common, beam_size=1),
        Request("beam 8", *common, beam_size=8),
        Request("beam 8, reset after each pass", *common, beam_size=8, reset=True),
    ]
    results = []
    for request in requests:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            results.append(pool.submit(run, request).result())
    text = json.dumps({"results": results, "piece_ms": PIECE_MS, "host": host()}, indent=1)
    print(text)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n", encoding="utf-8")
        draw(results, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
