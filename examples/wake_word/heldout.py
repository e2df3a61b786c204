#!/usr/bin/env python3
"""Write the part of a manifest that a recipe held out with `except_fold`, or any other fold.

    python examples/wake_word/heldout.py picovoice_wakeword/train.jsonl -o keywords.jsonl --fold 0/5

The manifest that is written points at the same recordings.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from edge_speech.training.recipe import Source


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, help="JSON lines, one utterance each")
    parser.add_argument("-o", "--output", type=Path, required=True, help="manifest to write")
    parser.add_argument("--fold", default="0/5", help="as in a recipe's source (default: 0/5)")
    args = parser.parse_args()
    print(write_fold(args.manifest, args.output, args.fold), args.output)


def write_fold(manifest: Path, output: Path, fold: str) -> int:
    """The lines of the fold, their paths relative to `output`; how many they are."""
    source, kept = Source(str(manifest), fold=fold), []
    lines = [line for line in manifest.read_text(encoding="utf-8").splitlines() if line.strip()]
    for place, line in enumerate(lines):
        if source.keeps(place):
            utterance = json.loads(line)
            audio = manifest.parent / utterance["audio_filepath"]
            utterance["audio_filepath"] = os.path.relpath(audio, output.parent)
            kept.append(json.dumps(utterance, ensure_ascii=False) + "\n")
    output.write_text("".join(kept), encoding="utf-8")
    return len(kept)


if __name__ == "__main__":
    main()
