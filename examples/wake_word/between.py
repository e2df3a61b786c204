#!/usr/bin/env python3
"""Put each recording of a manifest between other speech of its level: 3 s of it before, 2 s after.

    python examples/wake_word/between.py keywords.jsonl --speech speech.jsonl … -o between

Writes between/ with WAV files, and between.jsonl.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile

from edge_speech.encoder import FloatArray
from edge_speech.manifest import Utterance, read_manifest
from edge_speech.training.augment import rms
from edge_speech.training.data import read_waveform

RATE = 16000
BEFORE_S, AFTER_S = 3.0, 2.0
TRIES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, help="JSON lines, one keyword recording each")
    parser.add_argument("--speech", type=Path, nargs="+", required=True, help="manifests of other speech")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    speech = [u for path in args.speech for u in read_manifest(path, need_text=False)]
    print(write_between(read_manifest(args.manifest), speech, args.output, args.seed), args.output)


def write_between(keywords: list[Utterance], speech: list[Utterance], output: Path, seed: int) -> int:
    """WAV files in `output` and a manifest beside it; how many recordings there are."""
    rng, lines = np.random.default_rng(seed), []
    output.mkdir(parents=True, exist_ok=True)
    for i, (utterance, samples) in enumerate((u, read_waveform(u, RATE)) for u in keywords):
        around = [stretch(rng, speech, seconds) for seconds in (BEFORE_S, AFTER_S)]
        before, after = (part * np.float32(rms(samples) / max(rms(part), 1e-9)) for part in around)
        soundfile.write(output / f"{i}.wav", np.concatenate([before, samples, after]).clip(-1, 1), RATE)
        lines.append(json.dumps({"audio_filepath": f"{output.name}/{i}.wav", "text": utterance.text}) + "\n")
    output.with_suffix(".jsonl").write_text("".join(lines), encoding="utf-8")
    return len(lines)


def stretch(rng: np.random.Generator, speech: list[Utterance], seconds: float) -> FloatArray:
    """A part of so many seconds of a recording that is longer."""
    count = round(seconds * RATE)
    for _ in range(TRIES):
        samples = read_waveform(speech[rng.integers(len(speech))], RATE)
        if len(samples) > count:
            start = rng.integers(len(samples) - count)
            return samples[start : start + count]
    raise SystemExit(f"--speech: of {TRIES} recordings drawn none is longer than {seconds} s")


if __name__ == "__main__":
    main()
