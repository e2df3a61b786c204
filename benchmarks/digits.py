#!/usr/bin/env python3
"""What digits bundles do on this machine: error rates, text in pieces, start-up, latency. Prints JSON.

    python benchmarks/digits.py build/demo build/int8 --eval strings.jsonl --eval dev.jsonl [-o FILE]

Manifests are scored on their utterances that hold digit words only. `same_text` counts the utterances whose
text in pieces of 20, 100 and 160 ms equals that of the whole file. `startup_s` is a fresh process that
imports edge_speech and loads the bundle, the median of several.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from edge_speech import bench
from edge_speech.bundle import Bundle, read_bundle
from edge_speech.evaluation import evaluate
from edge_speech.manifest import Utterance, read_manifest
from edge_speech.recognizer import Recognizer
from edge_speech_tools.provenance import host

PIECES_MS = (20, 100, 160)
STARTUP = """
import time
start = time.perf_counter()
import edge_speech
edge_speech.Recognizer.load({bundle!r})
print(time.perf_counter() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", metavar="BUNDLE", type=Path, nargs="+")
    parser.add_argument("--eval", metavar="MANIFEST", type=Path, action="append", default=[])
    parser.add_argument("-o", "--output", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    results = [measure(bundle, args.eval) for bundle in args.bundles]
    text = json.dumps({"host": host(), "bundles": results}, indent=1)
    print(text)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n", encoding="utf-8")


def measure(path: Path, manifests: list[Path]) -> dict[str, Any]:
    """The whole report: per manifest and verified artifact the scores, then times."""
    bundle = read_bundle(path)
    artifacts = [a for a in bundle.manifest.artifacts if a.status == "verified"]
    return {
        "bundle": path.name,
        "startup_s": round(startup_s(path), 3),
        "quality": {m.stem: quality(bundle, m) for m in manifests},
        "bench": [bench.measure(bench.Request(str(path), a.path)).result for a in artifacts],
    }


def quality(bundle: Bundle, manifest: Path) -> dict[str, Any]:
    """Scores of every verified artifact on a manifest's utterances within the bundle's words."""
    utterances = in_vocabulary(bundle, manifest)
    result: dict[str, Any] = {}
    for artifact in bundle.manifest.artifacts:
        if artifact.status != "verified":
            continue
        recognizer = Recognizer.from_artifact(bundle, artifact)
        scores, decoded = evaluate(recognizer, utterances, quiet=True)
        whole = [d.hypothesis for d in decoded]
        result[f"{artifact.backend} {artifact.precision}"] = {
            "wer": round(scores.wer, 2),
            "utterances": scores.utterances,
            "words": scores.words,
            "same_text": {f"{ms} ms": same_text(recognizer, utterances, whole, ms) for ms in PIECES_MS},
        }
    return result


def in_vocabulary(bundle: Bundle, manifest: Path) -> list[Utterance]:
    """The utterances whose words all are tokens of the bundle."""
    words = {token.removeprefix("▁") for token in bundle.tokens}
    return [u for u in read_manifest(manifest) if words.issuperset(u.text.split())]


def same_text(recognizer: Recognizer, utterances: list[Utterance], whole: list[str], piece_ms: int) -> int:
    """How many utterances fed in pieces give the text of the whole file."""
    return sum(in_pieces(recognizer, u, piece_ms) == text for u, text in zip(utterances, whole, strict=True))


def in_pieces(recognizer: Recognizer, utterance: Utterance, piece_ms: int) -> str:
    samples, sample_rate = utterance.read()
    stream, size = recognizer.create_stream(), piece_ms * sample_rate // 1000
    for start in range(0, len(samples), size):
        stream.accept_waveform(samples[start : start + size], sample_rate)
    stream.input_finished()
    return stream.result.text


def startup_s(bundle: Path, runs: int = 7) -> float:
    """Seconds from the first line of a fresh interpreter to a loaded bundle; the median after one warm-up."""
    command = [sys.executable, "-c", STARTUP.format(bundle=str(bundle))]
    times = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(runs + 1)]
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
