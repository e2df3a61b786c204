#!/usr/bin/env python3
"""Compose strings of spoken digits from single-digit recordings, and write them with their manifest.

    python examples/digits/compose.py fsdd/test.jsonl -o strings --count 200 --digits 5

Each string joins clips of one speaker with gaps of 0 to 0.3 s and up to 0.2 s of silence at the ends; nothing
else is changed. The same seed gives the same strings. No clip is used again before all of its speaker are.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from edge_speech.manifest import Utterance, read_manifest
from edge_speech.training.compose import compose
from edge_speech.training.recipe import Compose

HOW = Compose(gap_s=0.3, gapless=0.0, edge_s=0.2, gain_db=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, help="single-digit recordings with a speaker on every line")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder; OUTPUT.jsonl is its manifest"
    )
    parser.add_argument("--count", type=int, default=200, help="number of strings (default: 200)")
    parser.add_argument("--digits", type=int, default=5, help="digits a string (default: 5)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    write_strings(read_manifest(args.manifest), args.output, args.count, args.digits, args.seed)


def write_strings(utterances: list[Utterance], folder: Path, count: int, digits: int, seed: int) -> Path:
    """Write `count` strings, speakers in turn, as FLAC into `folder`; return the manifest's path."""
    rng = np.random.default_rng(seed)
    of_speaker = defaultdict(list)
    for utterance in utterances:
        of_speaker[utterance.extra["speaker"]].append(utterance)
    decks: dict[str, list[Utterance]] = {speaker: [] for speaker in sorted(of_speaker)}
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in tqdm(range(count), unit="string"):
        speaker = list(decks)[i % len(decks)]
        chosen = [_deal(rng, decks[speaker], of_speaker[speaker]) for _ in range(digits)]
        lines.append(_write_string(rng, chosen, folder / f"{i:04d}_{speaker}.flac", speaker))
    manifest = folder.with_suffix(".jsonl")
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return manifest


def _deal(rng: np.random.Generator, deck: list[Utterance], recordings: list[Utterance]) -> Utterance:
    if not deck:
        deck.extend(recordings[i] for i in rng.permutation(len(recordings)))
    return deck.pop()


def _write_string(
    rng: np.random.Generator, chosen: list[Utterance], path: Path, speaker: str
) -> dict[str, object]:
    clips = [u.read() for u in chosen]
    sample_rate = clips[0][1]
    waveform = compose(rng, [samples for samples, _ in clips], sample_rate, HOW)
    soundfile.write(path, waveform, sample_rate, subtype="PCM_16")
    return {
        "audio_filepath": f"{path.parent.name}/{path.name}",
        "duration": round(len(waveform) / sample_rate, 4),
        "sample_rate": sample_rate,
        "text": " ".join(u.text for u in chosen),
        "speaker": speaker,
    }


if __name__ == "__main__":
    main()
